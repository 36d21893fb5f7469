//! A service's process: finding its program, waiting for conditions, signals, and the end of it.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::error::{Doing, ServiceError};

/// Between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How much of a service's output an error shows, in bytes.
const OUTPUT_BYTES_MAX: usize = 4096;

/// The program's place among the directories of `path`, which is in the form of the environment variable PATH.
pub(crate) fn find_program(program: &str, install: &str, path: Option<&OsStr>) -> Result<PathBuf, ServiceError> {
    path.into_iter()
        .flat_map(env::split_paths)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| ServiceError::Missing { program: program.to_owned(), install: install.to_owned() })
}

/// A port that was free a moment ago: another process may take it first, so the caller tries again.
pub(crate) fn free_port() -> Result<u16, ServiceError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing(|| "looking for a free port".to_owned())?;
    Ok(listener.local_addr().doing(|| "looking for a free port".to_owned())?.port())
}

/// Looks at a condition until it gives a value, or returns `None` at the deadline.
pub(crate) fn wait_until<T>(
    within: Duration,
    mut look: impl FnMut() -> Result<Option<T>, ServiceError>,
) -> Result<Option<T>, ServiceError> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = look()? {
            return Ok(Some(value));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// A child process that does not outlive this value, nor this process, however it ends.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// The thread that started the child waits until this is dropped.
    _parent: mpsc::SyncSender<()>,
}

impl Process {
    /// Starts a program whose whole output goes to the file `output`: a pipe that nobody reads would stop it one day. Of the command
    /// only the program and its arguments are looked at.
    pub(crate) fn start(command: Command, output: &Path) -> Result<Self, ServiceError> {
        let file = fs::File::create(output).doing(|| format!("creating {}", output.display()))?;
        let copy = file.try_clone().doing(|| format!("creating {}", output.display()))?;
        let mut command = with_parent(command);
        command.stdin(std::process::Stdio::null()).stdout(file).stderr(copy);
        let doing = format!("starting {}", command.get_program().display());
        let (started, child) = mpsc::sync_channel(1);
        let (parent, dropped) = mpsc::sync_channel::<()>(1);
        thread::Builder::new()
            .name("parent of a service".to_owned())
            .spawn(move || {
                let spawned = command.spawn();
                // The receiver is there until the child is: it waits below.
                let _ = started.send(spawned);
                let _ = dropped.recv();
            })
            .doing(|| doing.clone())?;
        let child = child.recv().map_err(io::Error::other).and_then(|spawned| spawned).doing(|| doing)?;
        Ok(Self { child, _parent: parent })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, once it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, ServiceError> {
        self.child.try_wait().doing(|| "waiting for a process".to_owned())
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) -> Result<(), ServiceError> {
        let id = self.id().to_string();
        let doing = || format!("sending SIG{name} to process {id}");
        let status = Command::new("kill").args(["-s", name, &id]).status().doing(doing)?;
        if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())).doing(doing) }
    }

    /// Whether the kernel has stopped it, as after SIGSTOP.
    pub(crate) fn is_stopped(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        // The state follows the program's name, which is in brackets and may itself hold blanks.
        status.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    }

    /// Ends it at once (SIGKILL, which ends a stopped process too) and waits until it is gone.
    pub(crate) fn kill(&mut self) -> Result<(), ServiceError> {
        self.child.kill().doing(|| "killing a process".to_owned())?;
        self.child.wait().doing(|| "waiting for a process".to_owned()).map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; there is nobody left to tell.
        let _ = self.kill();
    }
}

/// The same command, killed by the kernel when the thread ends that started it: with a process end all its threads. Where there is
/// no `setpriv` (it is Linux's own), a process that is itself killed leaves its services behind.
fn with_parent(command: Command) -> Command {
    let Ok(setpriv) = find_program("setpriv", "", env::var_os("PATH").as_deref()) else { return command };
    let mut with_parent = Command::new(setpriv);
    with_parent.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    with_parent
}

/// The last lines of a service's output.
pub(crate) fn tail(output: &Path) -> String {
    let text = fs::read(output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let from = text.ceil_char_boundary(text.len().saturating_sub(OUTPUT_BYTES_MAX));
    text[from..].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_the_way_to_install_it() {
        let empty = tempfile::tempdir().expect("directory");
        let error =
            find_program("redis-server", "apt-get install redis-server", Some(empty.path().as_os_str())).expect_err("not there");
        assert_eq!(error.to_string(), "'redis-server' is not on PATH: install it, e.g. `apt-get install redis-server`");
        assert!(find_program("redis-server", "…", None).is_err());

        fs::write(empty.path().join("redis-server"), "").expect("file");
        let found = find_program("redis-server", "…", Some(empty.path().as_os_str())).expect("there");
        assert_eq!(found, empty.path().join("redis-server"));
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let directory = tempfile::tempdir().expect("directory");
        let mut command = Command::new("sleep");
        command.arg("600");
        let process = Process::start(command, &directory.path().join("output")).expect("started");
        let place = PathBuf::from(format!("/proc/{}", process.id()));
        assert!(place.exists());
        drop(process);
        assert!(!place.exists());
    }

    #[test]
    fn a_process_lives_on_when_the_thread_that_asked_for_it_ends_and_not_without_its_parent() {
        let directory = tempfile::tempdir().expect("directory");
        let output = directory.path().join("output");
        let started = thread::spawn(move || {
            let mut command = Command::new("sleep");
            command.arg("600");
            Process::start(command, &output).expect("started")
        });
        let mut process = started.join().expect("ends");
        assert!(process.ended().expect("known").is_none());
        let name = PathBuf::from(format!("/proc/{}/comm", process.id()));
        let runs = || Ok(fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n").then_some(()));
        wait_until(Duration::from_secs(20), runs).expect("known").expect("setpriv has become what it was to run");
        // As when this process is killed: its threads are gone, and nobody has killed the child.
        process._parent = mpsc::sync_channel(1).0;
        let ended = wait_until(Duration::from_secs(20), || process.ended()).expect("known");
        assert!(ended.is_some_and(|status| !status.success()));
    }
}

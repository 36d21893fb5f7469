//! A Redis server for one test.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    error::{Doing, ServiceError},
    process::{Process, find_program, free_port, tail, wait_until},
    resp,
};

const PROGRAM: &str = "redis-server";
const INSTALL: &str = "apt-get install redis-server";
/// For starting and for stopping.
const DEADLINE: Duration = Duration::from_secs(20);
/// For one command over a connection of its own.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);
/// For one command of the start-up's polling.
const PING_DEADLINE: Duration = Duration::from_millis(500);
/// Ports that are tried when others take them first.
const PORTS_MAX: usize = 10;
const SNAPSHOT: &str = "dump.rdb";

/// How a server is set up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisOptions {
    /// Whether it saves RDB snapshots: after each second in which something changed, and when it is stopped. A snapshot that is in
    /// its directory is read at a start in any case.
    pub snapshots: bool,
    /// The memory it may take, in bytes; writes are refused above it (`noeviction`). `None`: no limit.
    pub memory_bytes_max: Option<u64>,
}

/// A Redis server on a free loopback port, with a directory of its own, that is killed when this value is dropped and when the
/// process ends.
#[derive(Debug)]
pub struct RedisServer {
    program: PathBuf,
    options: RedisOptions,
    directory: TempDir,
    port: u16,
    process: Option<Process>,
}

/// What became of one attempt to start on a port.
enum Attempt {
    Answers(Process),
    PortTaken(ServiceError),
}

impl RedisServer {
    /// Starts a server that keeps nothing on disk, and waits until it answers.
    ///
    /// # Errors
    /// [`ServiceError::Missing`] where `redis-server` is not installed; otherwise what kept it from answering.
    pub fn start() -> Result<Self, ServiceError> {
        Self::start_with(RedisOptions::default())
    }

    /// Starts a server with these options, and waits until it answers.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(options: RedisOptions) -> Result<Self, ServiceError> {
        let program = find_program(PROGRAM, INSTALL, env::var_os("PATH").as_deref())?;
        let directory = TempDir::with_prefix("riomar-redis-").doing(|| "creating a directory".to_owned())?;
        let mut server = Self { program, options, directory, port: 0, process: None };
        let mut attempts = 0;
        loop {
            server.port = free_port()?;
            attempts += 1;
            match server.attempt()? {
                Attempt::Answers(process) => {
                    server.process = Some(process);
                    return Ok(server);
                }
                Attempt::PortTaken(error) if attempts == PORTS_MAX => return Err(error),
                Attempt::PortTaken(_) => {}
            }
        }
    }

    /// The address for clients: `redis://127.0.0.1:{port}`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port that it listens on, also while it is stopped.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps its snapshot and its output.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Sends one command over a connection of its own; the lines of the answer are the elements of a list, empty for nil.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] with the server's error, or [`ServiceError::Io`] when it does not answer.
    pub fn command(&self, arguments: &[&str]) -> Result<String, ServiceError> {
        let reply = resp::command(self.port, arguments, COMMAND_DEADLINE).doing(|| format!("asking Redis {arguments:?}"))?;
        reply.map_err(ServiceError::Refused)
    }

    /// Stops it in an orderly way (SIGTERM): it saves a snapshot first when its options say so.
    ///
    /// # Errors
    /// [`ServiceError::NotRunning`], or [`ServiceError::Deadline`] when it does not end.
    pub fn stop(&mut self) -> Result<(), ServiceError> {
        let mut process = self.process.take().ok_or_else(not_running)?;
        process.signal("TERM")?;
        match wait_until(DEADLINE, || process.ended())? {
            Some(_) => Ok(()),
            None => Err(self.late("end")),
        }
    }

    /// Kills it (SIGKILL): what it has not saved is lost.
    ///
    /// # Errors
    /// [`ServiceError::NotRunning`], or what the operating system says.
    pub fn kill(&mut self) -> Result<(), ServiceError> {
        self.process.take().ok_or_else(not_running)?.kill()
    }

    /// Freezes it (SIGSTOP): connections stay open and nothing is answered.
    ///
    /// # Errors
    /// [`ServiceError::NotRunning`], or what the operating system says.
    pub fn pause(&mut self) -> Result<(), ServiceError> {
        let process = self.process.as_ref().ok_or_else(not_running)?;
        process.signal("STOP")?;
        wait_until(DEADLINE, || Ok(process.is_stopped().then_some(())))?.ok_or_else(|| self.late("stop"))
    }

    /// Lets it go on after [`Self::pause`] (SIGCONT).
    ///
    /// # Errors
    /// [`ServiceError::NotRunning`], or what the operating system says.
    pub fn resume(&mut self) -> Result<(), ServiceError> {
        self.process.as_ref().ok_or_else(not_running)?.signal("CONT")
    }

    /// Starts it again on the same port and directory, killing it first where it still runs.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<(), ServiceError> {
        self.process = None;
        let mut attempts = 0;
        // The port cannot change here; whoever took it in the meantime (a client's connection, mostly) may let go of it.
        let process = wait_until(DEADLINE, || {
            attempts += 1;
            match self.attempt()? {
                Attempt::Answers(process) => Ok(Some(process)),
                Attempt::PortTaken(error) if attempts == PORTS_MAX => Err(error),
                Attempt::PortTaken(_) => Ok(None),
            }
        })?;
        self.process = Some(process.ok_or_else(|| self.late("start again"))?);
        Ok(())
    }

    /// Saves a snapshot now and copies it to the file `to`.
    ///
    /// # Errors
    /// What Redis or the file system says.
    pub fn save_snapshot(&self, to: &Path) -> Result<(), ServiceError> {
        self.command(&["SAVE"])?;
        fs::copy(self.directory().join(SNAPSHOT), to).doing(|| format!("copying a snapshot to {}", to.display())).map(drop)
    }

    /// Kills it and starts it again with the snapshot in the file `from`, as after a restore or a fail-over to a stale replica.
    ///
    /// # Errors
    /// What Redis or the file system says.
    pub fn restore_snapshot(&mut self, from: &Path) -> Result<(), ServiceError> {
        self.process = None;
        fs::copy(from, self.directory().join(SNAPSHOT)).doing(|| format!("copying a snapshot from {}", from.display()))?;
        self.restart()
    }

    fn attempt(&self) -> Result<Attempt, ServiceError> {
        let mut process = Process::start(self.command_line(), &self.output())?;
        let answer = wait_until(DEADLINE, || match process.ended()? {
            Some(_) => Ok(Some(false)),
            None => Ok(self.answers(process.id()).then_some(true)),
        })?;
        match answer {
            Some(true) => Ok(Attempt::Answers(process)),
            Some(false) => {
                let output = tail(&self.output());
                let taken = output.contains("in use");
                let error = ServiceError::Ended { program: PROGRAM.to_owned(), output };
                if taken { Ok(Attempt::PortTaken(error)) } else { Err(error) }
            }
            None => Err(self.late("answer PING")),
        }
    }

    fn command_line(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--dbfilename", SNAPSHOT, "--appendonly", "no"]);
        command.arg("--dir").arg(self.directory());
        command.args(["--save", if self.options.snapshots { "1 1" } else { "" }]);
        if let Some(bytes) = self.options.memory_bytes_max {
            command.args(["--maxmemory", &bytes.to_string(), "--maxmemory-policy", "noeviction"]);
        }
        command
    }

    /// Whether the process with this id, and no other server that was faster to take the port, answers.
    fn answers(&self, id: u32) -> bool {
        let ask = |arguments: &[&str]| resp::command(self.port, arguments, PING_DEADLINE).ok().and_then(Result::ok);
        ask(&["PING"]).is_some_and(|reply| reply == "PONG")
            && ask(&["INFO", "server"]).is_some_and(|reply| reply.lines().any(|line| line == format!("process_id:{id}")))
    }

    fn output(&self) -> PathBuf {
        self.directory().join("output")
    }

    fn late(&self, what: &str) -> ServiceError {
        let output = tail(&self.output());
        ServiceError::Deadline { program: PROGRAM.to_owned(), what: what.to_owned(), waited: DEADLINE, output }
    }
}

fn not_running() -> ServiceError {
    ServiceError::NotRunning { program: PROGRAM.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn start(options: RedisOptions) -> RedisServer {
        RedisServer::start_with(options).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn two_servers_answer_each_on_its_own_port_and_end_when_dropped() {
        let (first, second) = (start(RedisOptions::default()), start(RedisOptions::default()));
        first.command(&["SET", "who", "first"]).expect("answer");
        assert_eq!(second.command(&["GET", "who"]).expect("answer"), "");
        assert_eq!(first.command(&["GET", "who"]).expect("answer"), "first");
        assert!(matches!(first.command(&["NONSENSE"]), Err(ServiceError::Refused(_))));
        let port = first.port();
        drop(first);
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok(), "the port is free again");
    }

    #[test]
    fn keeps_nothing_unless_asked_to() {
        for snapshots in [false, true] {
            let mut server = start(RedisOptions { snapshots, ..RedisOptions::default() });
            let url = server.url();
            server.command(&["SET", "key", "value"]).expect("answer");
            server.stop().expect("stopped");
            assert!(server.command(&["PING"]).is_err());
            assert!(matches!(server.stop(), Err(ServiceError::NotRunning { .. })));
            server.restart().expect("started");
            assert_eq!(server.url(), url);
            assert_eq!(server.command(&["GET", "key"]).expect("answer"), if snapshots { "value" } else { "" });
        }
    }

    #[test]
    fn an_older_snapshot_can_be_restored() {
        let mut server = start(RedisOptions::default());
        let elsewhere = tempfile::tempdir().expect("directory");
        let snapshot = elsewhere.path().join("old.rdb");
        server.command(&["SET", "key", "old"]).expect("answer");
        server.save_snapshot(&snapshot).expect("saved");
        server.command(&["SET", "key", "new"]).expect("answer");
        server.restore_snapshot(&snapshot).expect("restored");
        assert_eq!(server.command(&["GET", "key"]).expect("answer"), "old");
        server.kill().expect("killed");
        assert!(server.command(&["PING"]).is_err());
    }

    #[test]
    fn a_paused_server_answers_again_when_resumed() {
        let mut server = start(RedisOptions::default());
        server.pause().expect("paused");
        let silent = resp::command(server.port(), &["PING"], Duration::from_millis(100));
        assert!(silent.is_err(), "{silent:?}");
        server.resume().expect("resumed");
        assert_eq!(server.command(&["PING"]).expect("answer"), "PONG");
        server.pause().expect("paused");
        server.restart().expect("a paused server can be killed and started");
        assert_eq!(server.command(&["PING"]).expect("answer"), "PONG");
    }

    #[test]
    fn refuses_writes_above_its_memory_limit() {
        let server = start(RedisOptions { memory_bytes_max: Some(1), ..RedisOptions::default() });
        let error = server.command(&["SET", "key", "value"]).expect_err("no memory");
        assert!(error.to_string().contains("OOM"), "{error}");
    }

    #[test]
    fn says_why_it_does_not_start() {
        let server = start(RedisOptions::default());
        let mut other = start(RedisOptions::default());
        other.port = server.port();
        let error = other.restart().expect_err("the port is taken");
        assert!(matches!(&error, ServiceError::Ended { output, .. } if output.contains("in use")), "{error}");
    }
}

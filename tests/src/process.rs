//! The real binary as a child process: found beside the test, started on a free port, killed when dropped.

use std::{
    ffi::OsStr,
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a process may take to become ready, or to do what is waited for.
pub const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The `riomar` binary of this build.
///
/// # Panics
/// When it was not built, saying how it is.
#[must_use]
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    // target/<profile>/deps/platform-… stands beside target/<profile>/riomar.
    let profile = test.ancestors().nth(2).expect("a test runs from target/<profile>/deps");
    let binary = profile.join(format!("riomar{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.is_file(), "{} is missing: run `cargo test --workspace`, or `cargo build -p riomar` before", binary.display());
    binary
}

/// A command that is told nothing by this process's own variables: what a test is told, and the keys of somebody's bucket, are not
/// meant for what it starts.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os() {
        if ["RIOMAR_", "AWS_"].iter().any(|prefix| variable.to_string_lossy().starts_with(prefix)) {
            command.env_remove(variable);
        }
    }
    command
}

/// A port that nothing listened on a moment ago.
///
/// # Panics
/// When the system has none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// `riomar up` with its data in one directory.
#[derive(Debug)]
pub struct Up {
    child: Child,
    url: String,
    output: PathBuf,
}

impl Up {
    /// Starts a process with these roles and variables over the data, the definitions, the port and the configuration given. It may
    /// be long before it is ready.
    ///
    /// # Panics
    /// When the binary cannot be started.
    #[must_use]
    pub fn spawn(
        data: &Path,
        schemas: &Path,
        port: u16,
        configuration: &Path,
        roles: &str,
        variables: &[(String, String)],
    ) -> Self {
        let output = data.with_extension("output");
        let file = File::options().create(true).append(true).open(&output).expect("a writable directory");
        let child = command(binary())
            .arg("up")
            .args(["--role", roles, "--http", &format!("127.0.0.1:{port}"), "--data"])
            .arg(data)
            .arg("--schemas")
            .arg(schemas)
            .arg("--config")
            .arg(configuration)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file handle"))
            .stderr(file)
            .spawn()
            .expect("the binary starts");
        Self { child, url: format!("http://127.0.0.1:{port}"), output }
    }

    /// Starts the platform over the data, the definitions, the port and the configuration given, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready in time.
    pub async fn start(data: &Path, schemas: &Path, port: u16, configuration: &Path) -> Self {
        let mut up = Self::spawn(data, schemas, port, configuration, "all", &[]);
        let ready = format!("{}/readyz", up.url);
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Ok(response) = reqwest::get(&ready).await
                && response.status().is_success()
            {
                return up;
            }
            if let Ok(Some(status)) = up.child.try_wait() {
                panic!("`riomar up` ended with {status}:\n{}", up.output());
            }
            assert!(Instant::now() < deadline, "`riomar up` is not ready:\n{}", up.output());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Where it serves, without a path.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The memory that it holds, in bytes.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(&self.child.id().to_string())
    }

    /// Ends it as a power failure would: SIGKILL.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn kill(mut self) {
        assert!(self.child.try_wait().expect("a child").is_none(), "`riomar up` ended by itself:\n{}", self.output());
        self.child.kill().expect("a child that runs");
        self.child.wait().expect("a killed child ends");
    }

    /// Stops it in its tracks until [`Self::resume`]: SIGSTOP.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on: SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Asks it to stop, waits until it has, and gives its exit code.
    ///
    /// # Panics
    /// When it does not stop in time.
    pub async fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        eventually("the process to stop", async || self.child.try_wait().expect("a child")).await.code()
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{signal} was not sent");
    }

    /// What it wrote so far.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The memory that a process holds, in bytes; `self` is this one.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn resident_bytes(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux, and a process that runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") * 1024
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none in time; the message names what was waited for.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(POLL).await;
    }
}

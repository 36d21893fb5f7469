//! A Redis server for one test: with users, TLS, as a replica, and as a node of a [cluster].

pub mod cluster;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    certificates::Certificates,
    error::{Doing, ServiceError},
    process::{find_program, free_port},
    resp,
    service::{Attempt, Service},
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
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Whether it saves RDB snapshots: after each second in which something changed, and when it is stopped. A snapshot that is in
    /// its directory is read at a start in any case.
    pub snapshots: bool,
    /// The memory it may take, in bytes; writes are refused above it (`noeviction`). `None`: no limit.
    pub memory_bytes_max: Option<u64>,
    /// The password of the user `default`. `None`: everyone may do everything.
    pub password: Option<String>,
    /// More users, each with its rules as in `ACL SETUSER`: `reader on >password ~* +@read`.
    pub users: Vec<String>,
    /// Clients of [`RedisServer::url`] use TLS. The test's own commands do not.
    pub tls: Option<Arc<Certificates>>,
    /// Whether clients with TLS must show a certificate of the CA.
    pub client_certificates: bool,
    /// The port of the server that it copies.
    pub replica_of: Option<u16>,
}

/// A Redis server on a free loopback port, with a directory of its own, that is killed when this value is dropped and when the
/// process ends.
#[derive(Debug)]
pub struct RedisServer {
    program: PathBuf,
    options: RedisOptions,
    directory: TempDir,
    ports: Ports,
    service: Service,
}

/// The ports that a server listens on.
#[derive(Debug, Clone, Copy, Default)]
struct Ports {
    /// Without TLS.
    plain: u16,
    /// With TLS, when its options say so.
    tls: u16,
    /// For the other nodes of its cluster, when it is a node.
    bus: Option<u16>,
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
        Self::start_as(options, false)
    }

    fn start_as(options: RedisOptions, node: bool) -> Result<Self, ServiceError> {
        let program = find_program(PROGRAM, INSTALL, env::var_os("PATH").as_deref())?;
        let directory = TempDir::with_prefix("riomar-redis-").doing(|| "creating a directory".to_owned())?;
        let service = Service::new(PROGRAM, directory.path().join("output"), DEADLINE);
        let mut server = Self { program, options, directory, ports: Ports::default(), service };
        let process = Attempt::repeat(PORTS_MAX, || {
            let bus = if node { Some(free_port()?) } else { None };
            server.ports = Ports { plain: free_port()?, tls: free_port()?, bus };
            server.attempt()
        })?;
        server.service.runs_as(process);
        Ok(server)
    }

    /// The address for clients: `redis://127.0.0.1:{port}`, or `rediss://` with TLS; with the password, if it has one.
    #[must_use]
    pub fn url(&self) -> String {
        let login = self.options.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        self.url_with(&login)
    }

    /// The address for clients that are another user than `default`.
    #[must_use]
    pub fn url_of(&self, user: &str, password: &str) -> String {
        self.url_with(&format!("{user}:{password}@"))
    }

    fn url_with(&self, login: &str) -> String {
        let scheme = if self.options.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{login}127.0.0.1:{}", self.client_port())
    }

    /// The port that it listens on without TLS, also while it is stopped.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.plain
    }

    /// The port of [`Self::url`].
    fn client_port(&self) -> u16 {
        if self.options.tls.is_some() { self.ports.tls } else { self.ports.plain }
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
        let reply = self.ask(arguments, COMMAND_DEADLINE).doing(|| format!("asking Redis {arguments:?}"))?;
        reply.map_err(ServiceError::Refused)
    }

    fn ask(&self, arguments: &[&str], within: Duration) -> std::io::Result<resp::Reply> {
        resp::command(self.ports.plain, self.options.password.as_deref(), arguments, within)
    }

    /// Stops it in an orderly way (SIGTERM): it saves a snapshot first when its options say so.
    ///
    /// # Errors
    /// [`ServiceError::NotRunning`], or [`ServiceError::Deadline`] when it does not end.
    pub fn stop(&mut self) -> Result<(), ServiceError> {
        self.service.stop()
    }

    /// Kills it (SIGKILL): what it has not saved is lost.
    ///
    /// # Errors
    /// [`ServiceError::NotRunning`], or what the operating system says.
    pub fn kill(&mut self) -> Result<(), ServiceError> {
        self.service.kill()
    }

    /// Freezes it (SIGSTOP): connections stay open and nothing is answered.
    ///
    /// # Errors
    /// [`ServiceError::NotRunning`], or what the operating system says.
    pub fn pause(&mut self) -> Result<(), ServiceError> {
        self.service.pause()
    }

    /// Lets it go on after [`Self::pause`] (SIGCONT).
    ///
    /// # Errors
    /// [`ServiceError::NotRunning`], or what the operating system says.
    pub fn resume(&mut self) -> Result<(), ServiceError> {
        self.service.resume()
    }

    /// Starts it again on the same port and directory, killing it first where it still runs.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<(), ServiceError> {
        self.service.make_way();
        let process = Attempt::repeat(PORTS_MAX, || self.attempt())?;
        self.service.runs_as(process);
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
        self.service.make_way();
        fs::copy(from, self.directory().join(SNAPSHOT)).doing(|| format!("copying a snapshot from {}", from.display()))?;
        self.restart()
    }

    fn attempt(&self) -> Result<Attempt, ServiceError> {
        self.service.attempt(self.command_line(), |id| self.answers(id))
    }

    fn command_line(&self) -> Command {
        let mut command = Command::new(&self.program);
        let port = self.ports.plain.to_string();
        command.args(["--port", &port, "--bind", "127.0.0.1", "--dbfilename", SNAPSHOT, "--appendonly", "no"]);
        command.arg("--dir").arg(self.directory());
        command.args(["--save", if self.options.snapshots { "1 1" } else { "" }]);
        // A replica that begins anew gets its copy at once.
        command.args(["--repl-diskless-sync-delay", "0"]);
        if let Some(bytes) = self.options.memory_bytes_max {
            command.args(["--maxmemory", &bytes.to_string(), "--maxmemory-policy", "noeviction"]);
        }
        if let Some(password) = &self.options.password {
            command.args(["--requirepass", password, "--masterauth", password]);
        }
        for user in &self.options.users {
            command.arg("--user").args(user.split_whitespace());
        }
        if let Some(certificates) = &self.options.tls {
            command.args(["--tls-port", &self.ports.tls.to_string()]);
            command.arg("--tls-ca-cert-file").arg(certificates.ca());
            command.arg("--tls-cert-file").arg(certificates.server()).arg("--tls-key-file").arg(certificates.server_key());
            command.args(["--tls-auth-clients", if self.options.client_certificates { "yes" } else { "no" }]);
        }
        if let Some(port) = self.options.replica_of {
            command.args(["--replicaof", "127.0.0.1", &port.to_string()]);
        }
        if let Some(bus) = self.ports.bus {
            cluster::add_arguments(&mut command, bus, self.options.tls.is_some());
        }
        command
    }

    /// Whether the process with this id, and no other server that was faster to take the port, answers.
    fn answers(&self, id: u32) -> bool {
        let ask = |arguments: &[&str]| self.ask(arguments, PING_DEADLINE).ok().and_then(Result::ok);
        ask(&["PING"]).is_some_and(|reply| reply == "PONG")
            && ask(&["INFO", "server"]).is_some_and(|reply| reply.lines().any(|line| line == format!("process_id:{id}")))
    }
}

#[cfg(test)]
mod tests;

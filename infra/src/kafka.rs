//! A Kafka broker for tests: Apache Kafka itself, one node that is broker and controller (KRaft), with TLS and a user if wanted, and as
//! a node of a [cluster].

pub mod cluster;
mod home;
mod properties;

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    certificates::Certificates,
    error::{Doing, ServiceError},
    process::free_port,
    service::{Attempt, Service},
};
use home::Home;
use properties::Node;

const PROGRAM: &str = "kafka";
/// For starting and for stopping: a JVM on a busy machine.
const DEADLINE: Duration = Duration::from_secs(90);
/// Ports that are tried when others take them first.
const PORTS_MAX: usize = 4;
/// What the names of brokers' directories begin with.
const PREFIX: &str = "riomar-kafka-";
/// The file in a broker's directory with the id of the process that it is of.
const OWNER: &str = "owner";
/// What the broker writes when it takes requests.
const READY: &str = "Kafka Server started";
/// Memory for a broker's objects, in MiB; its threads and its code take as much again.
const HEAP_MIB: u32 = 384;

/// The user of a broker that asks for one.
pub const USER: &str = "riomar";
/// The password of [`USER`].
pub const PASSWORD: &str = "hunter2";

/// How a broker is set up, as far as clients see it.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// Clients use TLS.
    pub tls: Option<Arc<Certificates>>,
    /// Whether clients with TLS must show a certificate of the CA.
    pub client_certificates: bool,
    /// Whether clients must log in, as [`USER`] with [`PASSWORD`]: by SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN.
    pub login: bool,
}

/// A Kafka broker on a free loopback port, with a directory of its own, that is killed when this value is dropped and when the
/// process ends. It starts within a few seconds and takes about 300 MB, so the tests of one binary share one where they can.
///
/// A client that produces to a topic that is not there creates it, as with any broker as it comes.
#[derive(Debug)]
pub struct KafkaBroker {
    home: Home,
    options: KafkaOptions,
    directory: TempDir,
    number: usize,
    ports: Ports,
    /// The controllers' ports of all nodes, in their order.
    controllers: Vec<u16>,
    service: Service,
}

/// The ports that a broker listens on.
#[derive(Debug, Clone, Copy, Default)]
struct Ports {
    /// For clients.
    clients: u16,
    /// For other brokers.
    inside: u16,
    /// For controllers.
    controller: u16,
}

impl Ports {
    fn free() -> Result<Self, ServiceError> {
        Ok(Self { clients: free_port()?, inside: free_port()?, controller: free_port()? })
    }
}

impl KafkaBroker {
    /// Starts an empty broker, and waits until it answers. The first start on a machine fetches Kafka with Maven.
    ///
    /// # Errors
    /// [`ServiceError::Missing`] where Java or Maven is not installed; otherwise what kept it from answering.
    pub fn start() -> Result<Self, ServiceError> {
        Self::start_with(KafkaOptions::default())
    }

    /// Starts an empty broker with these options, and waits until it answers.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(options: KafkaOptions) -> Result<Self, ServiceError> {
        let mut broker = Self::prepare(options, 1)?;
        let process = Attempt::repeat(PORTS_MAX, || {
            broker.ports = Ports::free()?;
            broker.controllers = vec![broker.ports.controller];
            broker.attempt()
        })?;
        broker.service.runs_as(process);
        Ok(broker)
    }

    /// A broker that has a directory and no ports yet; its number in its cluster, from 1.
    fn prepare(options: KafkaOptions, number: usize) -> Result<Self, ServiceError> {
        let home = Home::open()?;
        remove_abandoned(&env::temp_dir());
        let directory = TempDir::with_prefix(PREFIX).doing(|| "creating a directory".to_owned())?;
        let owner = directory.path().join(OWNER);
        fs::write(&owner, std::process::id().to_string()).doing(|| format!("writing {}", owner.display()))?;
        home.copy_storage(&directory.path().join("data"), number, options.login)?;
        let service = Service::new(PROGRAM, directory.path().join("output"), DEADLINE);
        Ok(Self { home, options, directory, number, ports: Ports::default(), controllers: Vec::new(), service })
    }

    /// The address for clients: `127.0.0.1:{port}`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.clients)
    }

    /// The port that it listens on for clients, also while it is stopped.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.clients
    }

    /// Where it keeps its data and its output.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Stops it in an orderly way (SIGTERM).
    ///
    /// # Errors
    /// [`ServiceError::NotRunning`], or [`ServiceError::Deadline`] when it does not end.
    pub fn stop(&mut self) -> Result<(), ServiceError> {
        self.service.stop()
    }

    /// Kills it (SIGKILL). What it acknowledged is in the page cache, so only the machine's end would lose it.
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

    /// Starts it again on the same ports and data, killing it first where it still runs.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<(), ServiceError> {
        self.service.make_way();
        let process = Attempt::repeat(PORTS_MAX, || self.attempt())?;
        self.service.runs_as(process);
        Ok(())
    }

    /// Starts it, and waits until it takes requests or has ended.
    fn attempt(&self) -> Result<Attempt, ServiceError> {
        let settings = self.directory().join("server.properties");
        fs::write(&settings, self.node().properties()?).doing(|| format!("writing {}", settings.display()))?;
        let heap_mib = if self.controllers.len() > 1 { cluster::HEAP_MIB } else { HEAP_MIB };
        let mut command = self.home.command("kafka.Kafka", heap_mib);
        command.arg(&settings);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.clients));
        self.service.attempt(command, |_| {
            let ready = fs::read_to_string(self.service.output()).is_ok_and(|text| text.contains(READY));
            ready && TcpStream::connect(address).is_ok()
        })
    }

    fn node(&self) -> Node<'_> {
        let Self { options, directory, number, ports, controllers, .. } = self;
        Node { options, directory: directory.path(), number: *number, ports: *ports, controllers }
    }
}

/// Removes the directories of processes that are gone: a broker that a whole test binary shares is never dropped.
fn remove_abandoned(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let owner = fs::read_to_string(entry.path().join(OWNER)).unwrap_or_default();
        let is_a_brokers = entry.file_name().to_string_lossy().starts_with(PREFIX) && !owner.is_empty();
        if is_a_brokers && Path::new("/proc/self").exists() && !Path::new("/proc").join(owner).exists() {
            // Whoever else does the same may be faster.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_that_is_gone_left_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = |name: &str, owner: Option<&str>| {
            let place = directory.path().join(name);
            fs::create_dir(&place).expect("creates");
            owner.inspect(|owner| fs::write(place.join(OWNER), owner).expect("writes"));
            place
        };
        let mine = std::process::id().to_string();
        let kept =
            [place("riomar-kafka-1", Some(&mine)), place("riomar-kafka-2", None), place("riomar-redis-1", Some("4194305"))];
        let gone = place("riomar-kafka-3", Some("4194305"));
        remove_abandoned(directory.path());
        assert!(kept.iter().all(|place| place.exists()) && !gone.exists());
    }

    #[test]
    fn stops_is_killed_and_starts_again_on_its_port() {
        let mut broker = KafkaBroker::start().unwrap_or_else(|error| panic!("{error}"));
        let (port, address) = (broker.port(), broker.bootstrap());
        let connects = || TcpStream::connect(&address).is_ok();
        assert!(connects());
        broker.pause().expect("paused");
        broker.resume().expect("resumed");
        broker.stop().expect("stopped");
        assert!(!connects());
        assert!(matches!(broker.stop(), Err(ServiceError::NotRunning { .. })));
        assert!(matches!(broker.kill(), Err(ServiceError::NotRunning { .. })));
        broker.restart().expect("started");
        broker.kill().expect("killed");
        assert!(!connects());
        broker.restart().expect("started");
        assert_eq!((broker.port(), connects()), (port, true));
        let mut other = KafkaBroker::start().expect("started");
        other.ports.clients = port;
        let error = other.restart().expect_err("the port is taken");
        assert!(matches!(&error, ServiceError::Ended { output, .. } if output.contains("in use")), "{error}");
        drop(broker);
        assert!(!connects());
    }
}

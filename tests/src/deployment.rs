//! A deployment on the real services: Kafka, Redis, an S3 server, and a process of the binary for each role.

mod outside;

use std::{collections::BTreeMap, ops::Deref, path::PathBuf};

use riomar_infra::{KafkaBroker, RedisServer, S3Server, proxy::TcpProxy};
use tempfile::TempDir;

use crate::process::{Up, free_port};
pub use outside::{LogCopy, Outside};

/// Often enough that a test sees many hand-overs; the log is read from its beginning by the oracle, so nothing of it goes.
const CONFIGURATION: &str = "[batch]\nevery = \"2s\"\nlanding_age_max = \"1s\"\n[speed]\ngrace = \"5s\"\n";

/// The processes: a name, and the role.
pub const PROCESSES: [(&str, &str); 6] = [
    ("ingest", "ingest"),
    ("speed-1", "speed"),
    ("speed-2", "speed"),
    ("batch-1", "batch"),
    ("batch-2", "batch"),
    ("serve", "serve"),
];

/// The services, and the processes that run on them. What can be done from outside is done through it as well.
#[derive(Debug)]
pub struct Deployment {
    /// The log's broker.
    pub kafka: KafkaBroker,
    /// The realtime store.
    pub redis: RedisServer,
    /// The network between the processes and Redis.
    pub redis_network: TcpProxy,
    /// The object store.
    pub s3: S3Server,
    directory: TempDir,
    processes: BTreeMap<&'static str, (u16, Option<Up>)>,
    outside: Outside,
}

impl Deref for Deployment {
    type Target = Outside;

    fn deref(&self) -> &Outside {
        &self.outside
    }
}

impl Deployment {
    /// Starts the services and all processes.
    ///
    /// # Panics
    /// When a service is missing or does not start.
    pub async fn start(sql: &str) -> Self {
        let kafka = KafkaBroker::start().unwrap_or_else(|error| panic!("{error}"));
        let redis = RedisServer::start().unwrap_or_else(|error| panic!("{error}"));
        let redis_network = TcpProxy::start(([127, 0, 0, 1], redis.port()).into()).expect("a free port");
        let s3 = S3Server::start().unwrap_or_else(|error| panic!("{error}"));
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("schemas")).expect("a writable directory");
        std::fs::write(directory.path().join("schemas/streams.sql"), sql).expect("a writable directory");
        std::fs::write(directory.path().join("riomar.toml"), CONFIGURATION).expect("a writable directory");
        let processes: BTreeMap<_, _> = PROCESSES.iter().map(|(name, _)| (*name, (free_port(), None))).collect();
        let urls = processes.iter().map(|(name, (port, _))| (*name, format!("http://127.0.0.1:{port}"))).collect();
        let outside = Outside::new(kafka.bootstrap(), urls);
        let mut deployment = Self { kafka, redis, redis_network, s3, directory, processes, outside };
        for (name, _) in PROCESSES {
            deployment.spawn(name);
        }
        deployment
    }

    fn variables(&self) -> Vec<(String, String)> {
        let own = [
            ("RIOMAR_LOG_KIND", "kafka".to_owned()),
            ("RIOMAR_LOG_BROKERS", self.kafka.bootstrap()),
            ("RIOMAR_REALTIME_KIND", "redis".to_owned()),
            ("RIOMAR_REALTIME_URL", format!("redis://{}/0", self.redis_network.address())),
            ("RIOMAR_MASTER_URL", format!("s3://{}/deployment", self.s3.bucket())),
            ("RIOMAR_MASTER_S3_ENDPOINT", self.s3.endpoint()),
        ];
        own.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(self.s3.environment()).collect()
    }

    /// Starts a process that does not run.
    ///
    /// # Panics
    /// When there is no such process, or it cannot be started.
    pub fn spawn(&mut self, name: &'static str) {
        let (_, roles) = PROCESSES.iter().find(|(known, _)| *known == name).expect("a process");
        let variables = self.variables();
        let place = |name: &str| -> PathBuf { self.directory.path().join(name) };
        let (data, schemas, configuration) = (place(name), place("schemas"), place("riomar.toml"));
        let (port, up) = self.processes.get_mut(name).expect("a process");
        *up = Some(Up::spawn(&data, &schemas, *port, &configuration, roles, &variables));
    }

    /// Kills a process with SIGKILL.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self, name: &str) {
        let (_, up) = self.processes.get_mut(name).expect("a process");
        up.take().expect("it runs").kill();
    }

    /// A process that runs.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn process(&self, name: &str) -> &Up {
        self.processes[name].1.as_ref().expect("it runs")
    }

    /// Asks a process to stop; its exit code.
    ///
    /// # Panics
    /// When it does not run, or does not stop in time.
    pub async fn stop(&mut self, name: &str) -> Option<i32> {
        self.processes.get_mut(name).expect("a process").1.take().expect("it runs").stop().await
    }

    /// What every process wrote, for whoever looks for the cause of a failure.
    #[must_use]
    pub fn output(&self) -> String {
        let tail = |text: String| {
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(25)..].join("\n")
        };
        let of = |(name, (_, up)): (&&str, &(u16, Option<Up>))| {
            format!("== {name}\n{}\n", up.as_ref().map(|up| tail(up.output())).unwrap_or_default())
        };
        self.processes.iter().map(of).collect()
    }
}

//! A deployment on the real services: Kafka, Redis, an S3 server, and a process of the binary for each role.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use riomar_event_log::{KafkaLog, KafkaSettings, Log, ReadLimit, SystemClock};
use riomar_infra::{KafkaBroker, RedisServer, S3Server, proxy::TcpProxy};
use riomar_schemas::{Name, Offset, PartitionId};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    answer::Answer,
    oracle::LogPartition,
    process::{DEADLINE, Up, free_port},
};

/// Often enough that a test sees many hand-overs; the log is read from its beginning by the oracle, so nothing of it goes.
const CONFIGURATION: &str = "[batch]\nevery = \"2s\"\nlanding_age_max = \"1s\"\n[speed]\ngrace = \"5s\"\n";
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The processes: a name, and the role.
pub const PROCESSES: [(&str, &str); 6] = [
    ("ingest", "ingest"),
    ("speed-1", "speed"),
    ("speed-2", "speed"),
    ("batch-1", "batch"),
    ("batch-2", "batch"),
    ("serve", "serve"),
];

/// The services, and the processes that run on them.
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
    http: reqwest::Client,
    log: Arc<KafkaLog>,
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
        let settings = KafkaSettings::new(kafka.bootstrap());
        let log = Arc::new(KafkaLog::connect(settings, Arc::new(SystemClock)).expect("a client of Kafka"));
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build().expect("a client");
        let processes = PROCESSES.iter().map(|(name, _)| (*name, (free_port(), None))).collect();
        let mut deployment = Self { kafka, redis, redis_network, s3, directory, processes, http, log };
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

    /// The URL of a process, whether it runs or not.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}", self.processes[name].0)
    }

    /// Sends NDJSON to a stream; whether all of it was acknowledged.
    pub async fn send(&self, stream: &str, body: String) -> bool {
        let url = format!("{}/v1/streams/{stream}/events", self.url("ingest"));
        let request = self.http.post(url).header("content-type", "application/x-ndjson").body(body);
        request.send().await.is_ok_and(|response| response.status().is_success())
    }

    /// Asks for all of a view.
    ///
    /// # Errors
    /// No answer.
    pub async fn ask(&self, view: &str) -> Result<Answer, String> {
        let request =
            self.http.post(format!("{}/v1/sql", self.url("serve"))).json(&json!({"sql": format!("SELECT * FROM {view}")}));
        let response = request.send().await.map_err(|error| error.to_string())?;
        let (status, text) = (response.status(), response.text().await.map_err(|error| error.to_string())?);
        if !status.is_success() {
            return Err(format!("{status}: {text}"));
        }
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// The account of a stream.
    pub async fn account(&self, stream: &str) -> Option<serde_json::Value> {
        let response = self.http.get(format!("{}/v1/streams/{stream}", self.url("serve"))).send().await.ok()?;
        Some(serde_json::from_str::<serde_json::Value>(&response.text().await.ok()?).ok()?["account"].take())
    }

    /// Whether a process is ready.
    pub async fn is_ready(&self, name: &str) -> bool {
        let asked = self.http.get(format!("{}/readyz", self.url(name))).send().await;
        asked.is_ok_and(|response| response.status().is_success())
    }

    /// All that the log holds of a stream. Its partitions were there before the first cut.
    ///
    /// # Errors
    /// A log that cannot be read now.
    pub async fn read_log(&self, stream: &str) -> Result<Vec<LogPartition>, String> {
        let name = Name::new(stream).map_err(|error| error.to_string())?;
        let failed = |error: riomar_event_log::LogError| error.to_string();
        let mut partitions = Vec::new();
        for partition in (0..self.log.partitions(&name).await.map_err(failed)?).map(PartitionId) {
            let end = self.log.bounds(&name, partition).await.map_err(failed)?.end;
            let (mut next, mut records) = (Offset(0), Vec::new());
            while next < end {
                let limit = ReadLimit { records: 10_000, bytes: 64 << 20, wait: DEADLINE };
                let read = self.log.read(&name, partition, next, limit).await.map_err(failed)?;
                next = read.next;
                records.extend(read);
            }
            partitions.push(LogPartition { first_epoch: 0, records });
        }
        Ok(partitions)
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

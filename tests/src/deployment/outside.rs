//! Whoever is outside of a deployment: sends events, asks, reads the log and what the processes tell of themselves. Whatever happens
//! to the deployment, those outside go on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use riomar_event_log::{KafkaLog, KafkaSettings, Log, LogError, ReadLimit, SystemClock};
use riomar_schemas::{Name, Offset, PartitionId};
use serde_json::json;

use super::PROCESSES;
use crate::{answer::Answer, oracle::LogPartition, process::DEADLINE};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// The gauge of a batch process: 1 while it leads.
const LEADS: &str = "riomar_batch_leader";

/// Clients of a deployment's processes and of its log. Clones are as good as the first.
#[derive(Debug, Clone)]
pub struct Outside {
    http: reqwest::Client,
    log: Arc<KafkaLog>,
    urls: BTreeMap<&'static str, String>,
}

/// What has been read so far of a stream's log. Its partitions were there before the first cut.
#[derive(Debug, Default)]
pub struct LogCopy {
    partitions: Vec<LogPartition>,
    next: Vec<Offset>,
}

impl LogCopy {
    /// The partitions, in order.
    #[must_use]
    pub fn partitions(&self) -> &[LogPartition] {
        &self.partitions
    }

    /// For each partition the offset that the next record gets.
    #[must_use]
    pub fn ends(&self) -> Vec<u64> {
        self.next.iter().map(|offset| offset.0).collect()
    }
}

impl Outside {
    /// Clients of these processes, by name, and of the log at these brokers.
    ///
    /// # Panics
    /// Never: nothing is asked of anybody here.
    pub(super) fn new(brokers: String, urls: BTreeMap<&'static str, String>) -> Self {
        let log = KafkaLog::connect(KafkaSettings::new(brokers), Arc::new(SystemClock)).expect("a client of Kafka");
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build().expect("a client");
        Self { http, log: Arc::new(log), urls }
    }

    /// The URL of a process, whether it runs or not.
    #[must_use]
    pub fn url(&self, name: &str) -> &str {
        &self.urls[name]
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
        let text = self.found("serve", &format!("/v1/streams/{stream}")).await?;
        Some(serde_json::from_str::<serde_json::Value>(&text).ok()?["account"].take())
    }

    /// Whether a process is ready.
    pub async fn is_ready(&self, name: &str) -> bool {
        self.found(name, "/readyz").await.is_some()
    }

    /// The batch process that leads, as far as they say so themselves.
    pub async fn leader(&self) -> Option<&'static str> {
        for (name, _) in PROCESSES.iter().filter(|(_, role)| *role == "batch") {
            let metrics = self.found(name, "/metrics").await.unwrap_or_default();
            if metrics.lines().any(|line| line == format!("{LEADS} 1")) {
                return Some(name);
            }
        }
        None
    }

    /// Asks a process for a resource: the status and the body.
    pub async fn get(&self, name: &str, path: &str) -> Option<(u16, String)> {
        let response = self.http.get(format!("{}{path}", self.url(name))).send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    /// What a process answers with success.
    async fn found(&self, name: &str, path: &str) -> Option<String> {
        self.get(name, path).await.filter(|(status, _)| *status == 200).map(|(_, text)| text)
    }

    /// The log, for whoever does to it what its operator might.
    #[must_use]
    pub fn log(&self) -> &KafkaLog {
        &self.log
    }

    /// All that the log holds of a stream. Its partitions were there before the first cut.
    ///
    /// # Errors
    /// A log that cannot be read now.
    pub async fn read_log(&self, stream: &str) -> Result<Vec<LogPartition>, String> {
        let mut copy = LogCopy::default();
        self.read_on(stream, &mut copy).await?;
        Ok(copy.partitions)
    }

    /// Adds to a copy what has been appended since.
    ///
    /// # Errors
    /// A log that cannot be read now; the copy is good, and may be read on later.
    pub async fn read_on(&self, stream: &str, copy: &mut LogCopy) -> Result<(), String> {
        let name = Name::new(stream).map_err(|error| error.to_string())?;
        let failed = |error: LogError| error.to_string();
        let partitions = self.log.partitions(&name).await.map_err(failed)?;
        copy.partitions.resize_with(partitions as usize, LogPartition::default);
        copy.next.resize(partitions as usize, Offset(0));
        for (partition, (held, next)) in (0..).map(PartitionId).zip(copy.partitions.iter_mut().zip(&mut copy.next)) {
            let end = self.log.bounds(&name, partition).await.map_err(failed)?.end;
            while *next < end {
                let limit = ReadLimit { records: 10_000, bytes: 64 << 20, wait: DEADLINE };
                let read = self.log.read(&name, partition, *next, limit).await.map_err(failed)?;
                *next = read.next;
                held.records.extend(read);
            }
        }
        Ok(())
    }
}

//! The log in a real broker. The tests share one, each with topics of its own; those that stop a broker have their own.

mod cluster;
mod ends;
mod faults;
mod members;
mod outside;
mod partitions;
mod security;
mod setup;

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use riomar_infra::{KafkaBroker, KafkaCluster};
use riomar_schemas::record::Record;

use super::*;
use crate::{SystemClock, conformance};

const P0: PartitionId = PartitionId(0);
const ALL: ReadLimit = ReadLimit { records: 1 << 20, bytes: 1 << 30, wait: Duration::ZERO };
/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(60);

/// The broker that the tests share; it ends with their process.
fn broker() -> &'static KafkaBroker {
    static BROKER: OnceLock<KafkaBroker> = OnceLock::new();
    BROKER.get_or_init(|| KafkaBroker::start().unwrap_or_else(|error| panic!("{error}")))
}

/// Settings with topics that no other test has, in the shared broker.
fn settings() -> KafkaSettings {
    settings_in(broker().bootstrap())
}

/// Settings with topics that no other test has, in these brokers.
fn settings_in(brokers: String) -> KafkaSettings {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let topic_prefix = format!("t{}.", NEXT.fetch_add(1, Ordering::Relaxed));
    KafkaSettings { topic_prefix, ..KafkaSettings::new(brokers) }
}

fn connect(settings: &KafkaSettings) -> KafkaLog {
    KafkaLog::connect(settings.clone(), Arc::new(SystemClock)).expect("connects")
}

fn stream() -> Name {
    Name::new("page_views").expect("valid")
}

fn event(text: &str) -> (PartitionId, RecordBody) {
    (P0, RecordBody::Event(Bytes::copy_from_slice(text.as_bytes())))
}

async fn append(log: &KafkaLog, texts: &[&str]) -> Result<Vec<Offset>, LogError> {
    log.append(&stream(), texts.iter().map(|text| event(text)).collect()).await
}

async fn read(log: &KafkaLog, from: u64) -> ReadRecords {
    log.read(&stream(), P0, Offset(from), ALL).await.unwrap_or_else(|error| panic!("{error}"))
}

fn texts(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| match &record.body {
        RecordBody::Event(text) => String::from_utf8_lossy(text).into_owned(),
        RecordBody::Cut(cut) => format!("cut {cut}"),
    };
    records.iter().map(text).collect()
}

/// Tries again until it succeeds, within the deadline of a test.
async fn eventually<T, Tried: Future<Output = Result<T, LogError>>>(mut attempt: impl FnMut() -> Tried) -> T {
    let began = Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(LogError::Unavailable(text)) => assert!(began.elapsed() < DEADLINE, "it does not succeed: {text}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    conformance::all(|| async { Arc::new(connect(&settings())) as Arc<dyn Log> }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_where_two_have_it_open() {
    conformance::all_shared(|| async {
        let settings = settings();
        [Arc::new(connect(&settings)) as Arc<dyn Log>, Arc::new(connect(&settings))]
    })
    .await;
}

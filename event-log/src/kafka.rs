//! A log in a Kafka cluster: a topic for each stream, so other tools read and write it as any topic.
//!
//! Appending goes through one idempotent producer that waits for all in-sync replicas ([`producer`]). Reading is by offset alone,
//! with no consumer group ([`readers`], [`reader`]): positions are saved with what was made of the records, never in Kafka. What a
//! record looks like is in [`codec`], how a topic must be set up in [`topics`], how processes share partitions in [`members`], how
//! connections are protected in [`security`].
//!
//! Offsets at which there is no record (the marks of other producers' transactions, and what those took back) are passed over.

mod cluster;
mod codec;
mod ends;
mod incidents;
mod members;
mod producer;
mod reader;
mod readers;
mod security;
mod settings;
mod taken;
mod topics;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use rdkafka::{admin::AdminClient, error::KafkaError, types::RDKafkaErrorCode};
use riomar_schemas::{Name, Offset, PartitionId, record::RecordBody};

use crate::{
    clock::Clock,
    error::LogError,
    log::{self, Log, PartitionBounds, ReadLimit, ReadRecords},
    membership::Membership,
};
use cluster::{Cluster, Place};
use incidents::{Incidents, Quiet};
use producer::{Failure, Producer};
use readers::Readers;
pub use readers::{IDLE_PARTITION_READERS_MAX, IDLE_READER_MS, IDLE_READERS_MAX};
pub use security::{KafkaClientCertificate, KafkaLogin, KafkaSecurity, KafkaTls, SaslMechanism};
pub use settings::KafkaSettings;
use settings::{Client, client_config};

/// Bytes of one record's text. An entry of a quarantine may be several times as long as the event that it holds.
pub const RECORD_BYTES_MAX: usize = 8 << 20;
/// What a batch with one record may take beside its text.
const BATCH_OVERHEAD_BYTES: usize = 64 << 10;
/// The largest batch that a topic takes which is created here.
const TOPIC_BYTES_MAX: usize = RECORD_BYTES_MAX + BATCH_OVERHEAD_BYTES;

/// A log in a Kafka cluster. Dropping it waits some tenths of a second for its clients to end.
pub struct KafkaLog {
    settings: Arc<KafkaSettings>,
    incidents: Arc<Incidents>,
    producer: Arc<Producer>,
    cluster: Arc<Cluster>,
    readers: Readers,
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// A log in this cluster. Nothing is asked of the cluster here: while it is down, calls fail with [`LogError::Unavailable`], and
    /// as soon as it is up they succeed.
    ///
    /// # Errors
    /// [`LogError::Misconfigured`] where a certificate cannot be used, or librdkafka refuses the settings.
    pub fn connect(settings: KafkaSettings, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        let refused = |error: KafkaError| LogError::Misconfigured(format!("the settings for Kafka are refused: {error}"));
        let settings = Arc::new(settings);
        let incidents = Arc::new(Incidents::new(settings.brokers.clone(), clock.clone()));
        let producer = Producer::new(client_config(&settings, Client::Producer)?, incidents.clone()).map_err(refused)?;
        let producer = Arc::new(producer);
        let admin: AdminClient<Quiet> = client_config(&settings, Client::Admin)?.create_with_context(Quiet).map_err(refused)?;
        let cluster = Arc::new(Cluster::new(settings.clone(), incidents.clone(), producer.clone(), admin));
        let readers = Readers::new(client_config(&settings, Client::Reader)?, cluster.clone(), incidents.clone(), clock);
        Ok(Self { settings, incidents, producer, cluster, readers })
    }

    /// The topic of a stream.
    #[must_use]
    pub fn topic(&self, stream: &Name) -> String {
        format!("{}{stream}", self.settings.topic_prefix)
    }

    /// The error for an append that failed.
    async fn append_error(&self, place: Place<'_>, failure: Failure) -> LogError {
        use RDKafkaErrorCode as Code;
        let topic = place.topic;
        let doing = format!("appending to topic {topic}");
        let within = Duration::from_millis(self.settings.delivery_timeout_ms.into());
        let late = || self.incidents.unavailable(&doing, format_args!("not durable within {within:?}"));
        let Failure::Kafka(error) = failure else { return late() };
        let refused = |what: &str| LogError::Misconfigured(format!("topic {topic} refuses a record ({error}): {what}"));
        match error.rdkafka_error_code() {
            Some(Code::MessageTimedOut) => late(),
            Some(Code::MessageSizeTooLarge) => refused("raise its max.message.bytes"),
            Some(Code::InvalidRecord) => refused("its cleanup.policy must be delete"),
            _ => self.cluster.failed(place, &doing, error).await,
        }
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn create(&self, stream: &Name, partitions: u32) -> Result<(), LogError> {
        log::check_partitions(partitions)?;
        self.cluster.create(&self.topic(stream), partitions).await
    }

    async fn append(&self, stream: &Name, records: Vec<(PartitionId, RecordBody)>) -> Result<Vec<Offset>, LogError> {
        log::check_append(&records)?;
        for (_, body) in &records {
            log::check("RECORD_BYTES_MAX", log::body_bytes(body) as u64, RECORD_BYTES_MAX as u64)?;
        }
        let topic = self.topic(stream);
        let partitions: BTreeSet<_> = records.iter().map(|(partition, _)| *partition).collect();
        let Some(first) = partitions.first() else { return Ok(Vec::new()) };
        let place = Place { stream, topic: &topic, partition: *first };
        for partition in &partitions {
            self.cluster.expect(Place { partition: *partition, ..place }).await?;
        }
        let within = Duration::from_millis(self.settings.delivery_timeout_ms.into());
        match self.producer.append(&topic, &records, within).await {
            Ok(offsets) => {
                self.incidents.answered();
                Ok(offsets)
            }
            Err(failure) => Err(self.append_error(place, failure).await),
        }
    }

    async fn read(&self, stream: &Name, partition: PartitionId, from: Offset, limit: ReadLimit) -> Result<ReadRecords, LogError> {
        let topic = self.topic(stream);
        self.readers.read(Place { stream, topic: &topic, partition }, from, limit).await
    }

    async fn bounds(&self, stream: &Name, partition: PartitionId) -> Result<PartitionBounds, LogError> {
        let topic = self.topic(stream);
        self.cluster.bounds(Place { stream, topic: &topic, partition }).await
    }

    async fn partitions(&self, stream: &Name) -> Result<u32, LogError> {
        self.cluster.partitions(&self.topic(stream)).await
    }

    async fn trim(&self, stream: &Name, partition: PartitionId, below: Offset) -> Result<(), LogError> {
        let topic = self.topic(stream);
        let place = Place { stream, topic: &topic, partition };
        let bounds = self.cluster.bounds(place).await?;
        if below > bounds.end {
            return Err(place.out_of_range(below, bounds));
        }
        if below <= bounds.start {
            return Ok(());
        }
        self.cluster.trim(place, below).await
    }

    async fn join(&self, group: &str, streams: &[Name]) -> Result<Membership, LogError> {
        let config = client_config(&self.settings, Client::Member(group))?;
        let topics = streams.iter().map(|stream| (self.topic(stream), stream.clone())).collect();
        let joining = format!("joining group {}{group}", self.settings.topic_prefix);
        let kept = Duration::from_millis(self.settings.session_timeout_ms.into()) * members::KEPT_SESSIONS;
        members::join(&config, group, topics, kept).map_err(|error| self.incidents.unavailable(joining, error))
    }
}

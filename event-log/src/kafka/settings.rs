//! How to reach a cluster, and what its clients are told.

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use super::{KafkaSecurity, RECORD_BYTES_MAX, TOPIC_BYTES_MAX};
use crate::{error::LogError, log::QUEUE_BYTES_MAX};

/// Bytes of records that a reader holds ready; it fetches no more above it, though always whole batches.
const READER_QUEUE_BYTES: usize = 1 << 20;
/// Records that may wait to become durable, beside [`QUEUE_BYTES_MAX`].
const QUEUE_RECORDS_MAX: usize = 1 << 20;
/// How often a member looks for topics and partitions that were added.
const MEMBER_REFRESH_MS: u32 = 2_000;

/// How often a member tells that it is there: with the answer it hears that the partitions are divided anew.
const HEARTBEAT_MS_MAX: u32 = 3_000;

/// How to reach a Kafka cluster, and how to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// The brokers to ask first, as `host:port`, with commas between them.
    pub brokers: String,
    /// What the names of topics and consumer groups begin with; the rest is the stream's or the group's own. Default: nothing.
    pub topic_prefix: String,
    /// Copies of each partition of a topic that is created; it takes `replication - 1` (at least one) for a record to become durable.
    /// Default: 1, for a cluster of one broker.
    pub replication: u16,
    /// How long a topic of events that is created keeps records, landed or not, in milliseconds; `None`: for ever, so that they go when
    /// they are trimmed. A quarantine keeps its entries for ever in any case. Default: `None`.
    pub retention_ms: Option<u64>,
    /// How long a member of a group may be out of touch before its share goes to the others, in milliseconds. Default: 10 s. The member
    /// itself lets go of it when it is given another share, or three times as long later.
    pub session_timeout_ms: u32,
    /// How long a call may take that appends nothing, in milliseconds. Default: 10 s.
    pub request_timeout_ms: u32,
    /// How long an append may take, in milliseconds. Default: 30 s.
    pub delivery_timeout_ms: u32,
    /// How connections to brokers are protected. Default: not at all.
    pub security: KafkaSecurity,
}

impl KafkaSettings {
    /// The defaults, with these brokers.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            topic_prefix: String::new(),
            replication: 1,
            retention_ms: None,
            session_timeout_ms: 10_000,
            request_timeout_ms: 10_000,
            delivery_timeout_ms: 30_000,
            security: KafkaSecurity::default(),
        }
    }

    /// The copies of a record that make it durable.
    pub(super) fn in_sync_min(&self) -> u16 {
        self.replication.saturating_sub(1).max(1)
    }
}

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client<'a> {
    /// Appends, and asks for partitions and bounds.
    Producer,
    /// Creates topics and trims them.
    Admin,
    /// Reads one partition.
    Reader,
    /// Is a member of this group, and reads nothing.
    Member(&'a str),
}

/// The configuration of a client.
///
/// # Errors
/// [`LogError::Misconfigured`] where a certificate cannot be used.
pub(super) fn client_config(settings: &KafkaSettings, client: Client<'_>) -> Result<ClientConfig, LogError> {
    let mut properties = common(settings, client);
    properties.extend(settings.security.properties()?);
    properties.extend(match client {
        Client::Producer => producer(settings),
        Client::Admin => Vec::new(),
        Client::Reader => reader(settings),
        Client::Member(group) => member(settings, group),
    });
    let mut config = ClientConfig::new();
    for (name, value) in properties {
        config.set(name, value);
    }
    config.set_log_level(match client {
        // It is told there, and nowhere else, why a broker may have closed a connection.
        Client::Producer => RDKafkaLogLevel::Info,
        // Nobody serves the queue of its lines, so they are not made.
        Client::Admin => RDKafkaLogLevel::Emerg,
        Client::Reader | Client::Member(_) => RDKafkaLogLevel::Warning,
    });
    Ok(config)
}

fn common(settings: &KafkaSettings, client: Client<'_>) -> Vec<(&'static str, String)> {
    vec![
        ("bootstrap.servers", settings.brokers.clone()),
        ("client.id", "riomar".to_owned()),
        ("allow.auto.create.topics", "false".to_owned()),
        // Some tenths of a second after a broker is back it is used again.
        ("reconnect.backoff.max.ms", "500".to_owned()),
        ("socket.keepalive.enable", "true".to_owned()),
        ("socket.timeout.ms", settings.request_timeout_ms.to_string()),
        // A broker closes connections that nobody uses; that is no incident. Only the producer's client looks for others.
        ("log.connection.close", (client == Client::Producer).to_string()),
    ]
}

fn producer(settings: &KafkaSettings) -> Vec<(&'static str, String)> {
    vec![
        ("enable.idempotence", "true".to_owned()),
        ("acks", "all".to_owned()),
        ("message.timeout.ms", settings.delivery_timeout_ms.to_string()),
        // Records of one append, and of appends that come while others are under way, share a batch without waiting for each other.
        ("linger.ms", "1".to_owned()),
        ("compression.type", "lz4".to_owned()),
        ("message.max.bytes", TOPIC_BYTES_MAX.to_string()),
        ("queue.buffering.max.kbytes", (QUEUE_BYTES_MAX / 1024).to_string()),
        ("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string()),
    ]
}

fn reader(settings: &KafkaSettings) -> Vec<(&'static str, String)> {
    vec![
        // Only a name: a reader is given its partition and its offset, joins nothing and commits nothing.
        ("group.id", format!("{}riomar-readers", settings.topic_prefix)),
        ("enable.auto.commit", "false".to_owned()),
        ("enable.auto.offset.store", "false".to_owned()),
        ("auto.offset.reset", "error".to_owned()),
        ("isolation.level", "read_committed".to_owned()),
        ("enable.partition.eof", "true".to_owned()),
        ("check.crcs", "true".to_owned()),
        ("queued.max.messages.kbytes", (READER_QUEUE_BYTES / 1024).to_string()),
        ("fetch.queue.backoff.ms", "10".to_owned()),
        ("fetch.error.backoff.ms", "100".to_owned()),
        ("fetch.max.bytes", (4 * RECORD_BYTES_MAX).to_string()),
    ]
}

fn member(settings: &KafkaSettings, group: &str) -> Vec<(&'static str, String)> {
    vec![
        ("group.id", format!("{}{group}", settings.topic_prefix)),
        ("partition.assignment.strategy", "cooperative-sticky".to_owned()),
        ("session.timeout.ms", settings.session_timeout_ms.to_string()),
        ("heartbeat.interval.ms", (settings.session_timeout_ms / 4).clamp(1, HEARTBEAT_MS_MAX).to_string()),
        ("max.poll.interval.ms", settings.session_timeout_ms.max(300_000).to_string()),
        ("topic.metadata.refresh.interval.ms", MEMBER_REFRESH_MS.to_string()),
        ("enable.auto.commit", "false".to_owned()),
        ("enable.auto.offset.store", "false".to_owned()),
        ("auto.offset.reset", "error".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use rdkafka::producer::BaseProducer;

    use super::*;
    use crate::kafka::{KafkaLogin, KafkaTls, SaslMechanism};

    #[test]
    fn every_client_is_one_that_librdkafka_takes() {
        for mechanism in [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512] {
            let login = KafkaLogin { mechanism, user: "me".into(), password: "hunter2".into() };
            let security = KafkaSecurity { tls: Some(KafkaTls::default()), login: Some(login) };
            let settings = KafkaSettings { security, ..KafkaSettings::new("a:1,b:2") };
            for client in [Client::Producer, Client::Admin, Client::Reader, Client::Member("speed")] {
                let config = client_config(&settings, client).expect("valid");
                assert_eq!((config.get("sasl.password"), config.get("bootstrap.servers")), (Some("hunter2"), Some("a:1,b:2")));
                config.create::<BaseProducer>().unwrap_or_else(|error| panic!("{client:?}: {error}"));
            }
            assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
        }
    }

    #[test]
    fn one_copy_may_be_missing() {
        let in_sync = [0, 1, 2, 3, 5].map(|replication| KafkaSettings { replication, ..KafkaSettings::new("") }.in_sync_min());
        assert_eq!(in_sync, [1, 1, 1, 2, 4]);
    }
}

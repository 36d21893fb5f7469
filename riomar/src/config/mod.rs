//! The configuration: plain, typed data. Raw texts become types once, here; behind this module no string means a duration, a size or
//! a URL.
//!
//! Flags win over the environment (`RIOMAR_BATCH_EVERY`), the environment over the file, the file over the defaults.

mod bounds;
mod choices;
mod environment;
mod file;
mod kafka;
mod keys;
mod resolve;
mod s3;
mod secret;
mod setting;
mod units;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use riomar_batch_layer::schedule::Schedule;

pub use choices::{LogKind, MasterUrl, RealtimeKind, RedisUrl};
pub use kafka::{SaslMechanism, Security, TopicRetain};
pub use keys::{KEYS, Key};
pub use resolve::{ConfigError, Fault, Origin, Resolved, Sources, resolve};
pub use s3::{S3Endpoint, S3Region};
pub use secret::Secret;
pub use setting::{Notation, OptionalPath, Setting};
pub use units::{ByteSize, Interval, UnitError};

/// Everything that can be configured. `riomar.toml` explains each key; a test keeps it equal to [`Config::new`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// The directory with the users' `*.sql` files.
    pub schemas: PathBuf,
    /// The log.
    pub log: Log,
    /// The master dataset and the generations.
    pub master: Master,
    /// The realtime store.
    pub realtime: Realtime,
    /// The batch layer.
    pub batch: Batch,
    /// The speed layer.
    pub speed: Speed,
    /// Queries over HTTP.
    pub serving: Serving,
    /// Events over HTTP.
    pub ingestion: Ingestion,
}

/// Section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Which log.
    pub kind: LogKind,
    /// How long a record that has landed stays in the log.
    pub retain: Interval,
    /// The brokers to begin with, for [`LogKind::Kafka`].
    pub brokers: String,
    /// What the names of topics begin with.
    pub topic_prefix: String,
    /// On how many brokers each record is stored.
    pub replication: u64,
    /// How long Kafka itself keeps a record, landed or not.
    pub topic_retain: TopicRetain,
    /// How connections to brokers are protected.
    pub security: Security,
    /// Who signed the brokers' certificates, with TLS.
    pub ca_file: OptionalPath,
    /// The certificate that this process shows them, with TLS.
    pub client_certificate: OptionalPath,
    /// The key of that certificate.
    pub client_key: OptionalPath,
    /// How the password is shown, with SASL.
    pub sasl_mechanism: SaslMechanism,
    /// Who this process says it is, with SASL.
    pub user: String,
    /// The user's password, with SASL.
    pub password: Secret,
}

/// Section `[master]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// Where objects live.
    pub url: MasterUrl,
    /// The address of S3, for [`MasterUrl::S3`].
    pub s3_endpoint: S3Endpoint,
    /// The region of the bucket, for [`MasterUrl::S3`].
    pub s3_region: S3Region,
}

/// Section `[realtime]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realtime {
    /// Which store.
    pub kind: RealtimeKind,
    /// The server, for [`RealtimeKind::Redis`].
    pub url: RedisUrl,
    /// Who signed its certificate, with TLS.
    pub ca_file: OptionalPath,
    /// The certificate that this process shows it, with TLS.
    pub client_certificate: OptionalPath,
    /// The key of that certificate.
    pub client_key: OptionalPath,
}

/// Section `[batch]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// When the log is cut, views are recomputed and generations are published.
    pub every: Schedule,
    /// Rows that landing buffers of a stream.
    pub landing_rows_max: u64,
    /// Memory that landing buffers of a stream.
    pub landing_bytes_max: ByteSize,
    /// How long landing buffers.
    pub landing_age_max: Interval,
    /// Generations of a view that are kept.
    pub generations_kept: u64,
    /// Groups that a view may have.
    pub groups_per_view_max: u64,
    /// Memory that recomputes and audits may use together.
    pub memory_max: ByteSize,
}

/// Section `[speed]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speed {
    /// Events of one micro-batch.
    pub batch_events_max: usize,
    /// Pause after a micro-batch that was not full.
    pub batch_pause: Interval,
    /// Groups of one view, partition and epoch.
    pub groups_per_epoch_max: u64,
    /// How long the realtime states that a new generation covers are still kept.
    pub grace: Interval,
}

/// Section `[serving]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// The address that the platform listens on.
    pub http: SocketAddr,
    /// Connections that are open at the same time.
    pub connections_max: usize,
    /// How long a query may run.
    pub query_time_max: Interval,
    /// Memory that queries may use together.
    pub memory_max: ByteSize,
    /// Rows of one answer.
    pub result_rows_max: usize,
    /// Bytes of one answer.
    pub result_bytes_max: ByteSize,
}

/// Section `[ingestion]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingestion {
    /// Bytes of one request as it is sent.
    pub body_bytes_max: ByteSize,
    /// Bytes of one request when it is decompressed.
    pub decompressed_bytes_max: ByteSize,
    /// Bytes of one event.
    pub event_bytes_max: ByteSize,
    /// Events of one request.
    pub events_max: usize,
    /// How long a request may take to arrive.
    pub body_time_max: Interval,
    /// Requests that are worked on at the same time.
    pub requests_max: usize,
    /// Bytes of all requests that are worked on at the same time.
    pub requests_bytes_max: ByteSize,
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            data: "riomar-data".into(),
            schemas: "schemas".into(),
            log: Log {
                kind: LogKind::Embedded,
                retain: Interval::from_secs(24 * 3_600),
                brokers: "127.0.0.1:9092".to_owned(),
                topic_prefix: String::new(),
                replication: 1,
                topic_retain: TopicRetain::Forever,
                security: Security::Plaintext,
                ca_file: OptionalPath::default(),
                client_certificate: OptionalPath::default(),
                client_key: OptionalPath::default(),
                sasl_mechanism: SaslMechanism::ScramSha512,
                user: String::new(),
                password: Secret::default(),
            },
            master: Master { url: MasterUrl::DataDirectory, s3_endpoint: S3Endpoint::default(), s3_region: S3Region::default() },
            realtime: Realtime {
                kind: RealtimeKind::Memory,
                url: RedisUrl::local(),
                ca_file: OptionalPath::default(),
                client_certificate: OptionalPath::default(),
                client_key: OptionalPath::default(),
            },
            batch: Batch {
                every: every("1m"),
                landing_rows_max: 1_000_000,
                landing_bytes_max: ByteSize::mebibytes(128),
                landing_age_max: Interval::from_secs(5),
                generations_kept: 3,
                groups_per_view_max: 10_000_000,
                memory_max: ByteSize::mebibytes(2_048),
            },
            speed: Speed {
                batch_events_max: 8_192,
                batch_pause: Interval::from_millis(50),
                groups_per_epoch_max: 1_000_000,
                grace: Interval::from_secs(60),
            },
            serving: Serving {
                http: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
                connections_max: 1_024,
                query_time_max: Interval::from_secs(30),
                memory_max: ByteSize::mebibytes(1_024),
                result_rows_max: 100_000,
                result_bytes_max: ByteSize::mebibytes(128),
            },
            ingestion: Ingestion {
                body_bytes_max: ByteSize::mebibytes(16),
                decompressed_bytes_max: ByteSize::mebibytes(64),
                event_bytes_max: ByteSize::mebibytes(1),
                events_max: 100_000,
                body_time_max: Interval::from_secs(60),
                requests_max: 1_024,
                requests_bytes_max: ByteSize::mebibytes(256),
            },
        }
    }

    /// The defaults of `riomar demo`: a directory of its own, and cuts often enough to watch them.
    #[must_use]
    pub fn demo() -> Self {
        let mut config = Self::new();
        config.data = "riomar-data/demo".into();
        config.batch.every = every("5s");
        config
    }
}

/// A schedule that is known to be one.
#[expect(clippy::expect_used, reason = "constants; a test reads them")]
fn every(text: &str) -> Schedule {
    text.parse().expect("a constant schedule")
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;

//! The log seam: append to and read from the partitioned, ordered record of a stream.
//!
//! [`Log`] is the seam; [`embedded`] keeps it in one directory, [`kafka`] in a Kafka cluster. [`reader`] is the deduplicating, epoch-counting reader that
//! landing and the speed layer share. [`conformance`] is what every implementation must pass.

pub mod clock;
pub mod conformance;
pub mod disk;
pub mod embedded;
mod error;
pub mod history;
pub mod kafka;
mod log;
mod membership;
pub mod quarantine;
pub mod reader;

pub use clock::{Clock, ManualClock, SystemClock};
pub use embedded::EmbeddedLog;
pub use error::LogError;
pub use history::{History, Loss};
pub use kafka::{KafkaClientCertificate, KafkaLog, KafkaLogin, KafkaSecurity, KafkaSettings, KafkaTls, SaslMechanism};
pub use log::{APPEND_BYTES_MAX, APPEND_RECORDS_MAX, Log, PartitionBounds, QUEUE_BYTES_MAX, ReadLimit, ReadRecords};
pub use membership::{Membership, Share};
pub use reader::{EpochReader, ReadStep};

//! Real services for tests: found on this machine, started on a free loopback port, stopped when dropped.
//!
//! A service is a child process of the test with a directory of its own; S3 is served by the test's process itself. Nothing here is
//! part of the platform: the binary never starts a service.

pub mod certificates;
mod error;
pub mod kafka;
mod process;
pub mod proxy;
pub mod redis;
mod resp;
pub mod s3;
mod service;

pub use certificates::Certificates;
pub use error::ServiceError;
pub use kafka::{KafkaBroker, KafkaOptions, cluster::KafkaCluster};
pub use redis::{
    RedisOptions, RedisServer,
    cluster::{RedisCluster, RedisClusterOptions, SlotMove},
};
pub use s3::{S3Fault, S3Faults, S3Request, S3Requests, S3Rule, S3Server};

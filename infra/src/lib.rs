//! Real services for tests: found on this machine, started on a free loopback port, stopped when dropped.
//!
//! A service is a child process of the test with a directory of its own. Nothing here is part of the platform: the binary never
//! starts a service.

mod error;
pub mod kafka;
mod process;
pub mod redis;
mod resp;

pub use error::ServiceError;
pub use kafka::KafkaBroker;
pub use redis::{RedisOptions, RedisServer};

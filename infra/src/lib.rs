//! Real services for tests: found on this machine, started on a free loopback port, stopped when dropped.
//!
//! A service is a child process of the test with a directory of its own. Nothing here is part of the platform: the binary never
//! starts a service.

pub mod certificates;
mod error;
mod process;
pub mod redis;
mod resp;

pub use certificates::Certificates;
pub use error::ServiceError;
pub use redis::{
    RedisOptions, RedisServer,
    cluster::{RedisCluster, RedisClusterOptions, SlotMove},
};

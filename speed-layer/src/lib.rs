//! The speed layer: folds micro-batches of the log into realtime views, in memory or in Redis.

mod activity;
pub mod conformance;
pub mod memory;
pub mod redis_store;
pub mod store;
pub mod worker;

pub use activity::{Activity, Behind};
pub use memory::MemoryStore;
pub use redis_store::{
    InvalidRedisAddress, RedisAddress, RedisClientCertificate, RedisLimits, RedisStore, RedisTls, RedisTlsError,
};
pub use store::{Entry, RealtimePart, RealtimeStore, StoreError, WriteOutcome};
pub use worker::{SpeedError, SpeedLimits, SpeedParts, SpeedWorker, WorkerStep};

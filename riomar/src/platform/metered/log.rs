//! The log seam, with its errors counted.

use std::sync::Arc;

use async_trait::async_trait;
use riomar_event_log::{Log, LogError, Membership, PartitionBounds, ReadLimit, ReadRecords};
use riomar_schemas::{Name, Offset, PartitionId, record::RecordBody};

use super::Errors;

pub(super) const ERRORS: Errors = Errors {
    name: "riomar_log_errors_total",
    operations: &["create", "append", "read", "bounds", "partitions", "trim", "join"],
    kinds: &[
        "unavailable",
        "disk_full",
        "damaged",
        "misconfigured",
        "limit_exceeded",
        "unknown_partition",
        "locked",
        "history",
        "too_many_ids",
    ],
};

/// A log whose errors are counted.
#[derive(Debug)]
pub(in crate::platform) struct MeteredLog {
    inner: Arc<dyn Log>,
}

impl MeteredLog {
    /// Stands before `inner`.
    pub(in crate::platform) fn new(inner: Arc<dyn Log>) -> Self {
        ERRORS.begin();
        Self { inner }
    }
}

fn kind(error: &LogError) -> Option<&'static str> {
    match error {
        LogError::OutOfRange { .. } => None,
        LogError::UnknownPartition { .. } => Some("unknown_partition"),
        LogError::Locked { .. } => Some("locked"),
        LogError::LimitExceeded { .. } => Some("limit_exceeded"),
        LogError::Unavailable(_) => Some("unavailable"),
        LogError::DiskFull { .. } => Some("disk_full"),
        LogError::TooManyIds { .. } => Some("too_many_ids"),
        LogError::Misconfigured(_) => Some("misconfigured"),
        LogError::Damaged(_) => Some("damaged"),
        LogError::History(_) => Some("history"),
    }
}

fn counted<T>(operation: &'static str, outcome: Result<T, LogError>) -> Result<T, LogError> {
    outcome.inspect_err(|error| ERRORS.count(operation, kind(error)))
}

#[async_trait]
impl Log for MeteredLog {
    async fn create(&self, stream: &Name, partitions: u32) -> Result<(), LogError> {
        counted("create", self.inner.create(stream, partitions).await)
    }

    async fn append(&self, stream: &Name, records: Vec<(PartitionId, RecordBody)>) -> Result<Vec<Offset>, LogError> {
        counted("append", self.inner.append(stream, records).await)
    }

    async fn read(&self, stream: &Name, partition: PartitionId, from: Offset, limit: ReadLimit) -> Result<ReadRecords, LogError> {
        counted("read", self.inner.read(stream, partition, from, limit).await)
    }

    async fn bounds(&self, stream: &Name, partition: PartitionId) -> Result<PartitionBounds, LogError> {
        counted("bounds", self.inner.bounds(stream, partition).await)
    }

    async fn partitions(&self, stream: &Name) -> Result<u32, LogError> {
        counted("partitions", self.inner.partitions(stream).await)
    }

    async fn trim(&self, stream: &Name, partition: PartitionId, below: Offset) -> Result<(), LogError> {
        counted("trim", self.inner.trim(stream, partition, below).await)
    }

    async fn join(&self, group: &str, streams: &[Name]) -> Result<Membership, LogError> {
        counted("join", self.inner.join(group, streams).await)
    }
}

//! The log seam with faults.

use std::sync::Arc;

use async_trait::async_trait;
use riomar_event_log::{Log, LogError, Membership, PartitionBounds, ReadLimit, ReadRecords};
use riomar_schemas::{Name, Offset, PartitionId, record::RecordBody};

use super::{CrashPoints, Dead};

/// A log whose process can be killed.
#[derive(Debug)]
pub struct FaultLog {
    inner: Arc<dyn Log>,
    points: CrashPoints,
}

impl FaultLog {
    /// Stands before `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Log>, points: CrashPoints) -> Self {
        Self { inner, points }
    }
}

fn dead(dead: Dead) -> LogError {
    LogError::Unavailable(dead.to_string())
}

#[async_trait]
impl Log for FaultLog {
    async fn create(&self, stream: &Name, partitions: u32) -> Result<(), LogError> {
        self.points.durable(format!("log create {stream}"), dead, self.inner.create(stream, partitions)).await
    }

    async fn append(&self, stream: &Name, records: Vec<(PartitionId, RecordBody)>) -> Result<Vec<Offset>, LogError> {
        let kind = if records.iter().any(|(_, body)| matches!(body, RecordBody::Cut(_))) { "cut" } else { "events" };
        self.points.durable(format!("log append {kind} to {stream}"), dead, self.inner.append(stream, records)).await
    }

    async fn read(&self, stream: &Name, partition: PartitionId, from: Offset, limit: ReadLimit) -> Result<ReadRecords, LogError> {
        self.points.alive().map_err(dead)?;
        self.inner.read(stream, partition, from, limit).await
    }

    async fn bounds(&self, stream: &Name, partition: PartitionId) -> Result<PartitionBounds, LogError> {
        self.points.alive().map_err(dead)?;
        self.inner.bounds(stream, partition).await
    }

    async fn partitions(&self, stream: &Name) -> Result<u32, LogError> {
        self.points.alive().map_err(dead)?;
        self.inner.partitions(stream).await
    }

    async fn trim(&self, stream: &Name, partition: PartitionId, below: Offset) -> Result<(), LogError> {
        self.points.durable(format!("log trim {stream}"), dead, self.inner.trim(stream, partition, below)).await
    }

    async fn join(&self, group: &str, streams: &[Name]) -> Result<Membership, LogError> {
        self.points.alive().map_err(dead)?;
        self.inner.join(group, streams).await
    }
}

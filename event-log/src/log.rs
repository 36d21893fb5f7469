//! The log seam.

use std::time::Duration;

use async_trait::async_trait;
use riomar_schemas::{
    Name, Offset, PartitionId,
    record::{Record, RecordBody},
};

use crate::error::LogError;

/// The offsets a partition holds: `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionBounds {
    /// The lowest offset still held.
    pub start: Offset,
    /// The offset that the next record gets.
    pub end: Offset,
}

/// How much one read may return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Records at the most.
    pub records: usize,
    /// Bytes of event text at the most, though never fewer than one record.
    pub bytes: usize,
    /// How long to wait for the first record; zero returns at once.
    pub wait: Duration,
}

/// A partitioned, ordered, append-only, durable record of streams.
#[async_trait]
pub trait Log: Send + Sync + std::fmt::Debug {
    /// Creates the partitions of a stream; does nothing for those that exist. A log never loses partitions.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn create(&self, stream: &Name, partitions: u32) -> Result<(), LogError>;

    /// Appends records in order; returns once all are durable, with the offset of each.
    ///
    /// # Errors
    /// On any error nothing was promised: some records may be in the log, and the caller sends all of them again.
    async fn append(&self, stream: &Name, records: Vec<(PartitionId, RecordBody)>) -> Result<Vec<Offset>, LogError>;

    /// Reads records from an offset on; an empty result means that the wait ended at the log's end.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] where `from` is below the lowest offset held or above the end.
    async fn read(&self, stream: &Name, partition: PartitionId, from: Offset, limit: ReadLimit) -> Result<Vec<Record>, LogError>;

    /// The offsets that a partition holds.
    ///
    /// # Errors
    /// [`LogError::UnknownPartition`], [`LogError::Unavailable`].
    async fn bounds(&self, stream: &Name, partition: PartitionId) -> Result<PartitionBounds, LogError>;

    /// The number of partitions of a stream; 0 for one that was never created.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    async fn partitions(&self, stream: &Name) -> Result<u32, LogError>;

    /// Lets go of the records below an offset (retention). The offset may not be above the end.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`], [`LogError::Unavailable`].
    async fn trim(&self, stream: &Name, partition: PartitionId, below: Offset) -> Result<(), LogError>;
}

//! The log seam.

use std::{ops::Deref, time::Duration};

use async_trait::async_trait;
use riomar_schemas::{
    Name, Offset, PartitionId,
    limits::STREAM_PARTITIONS_MAX,
    record::{Record, RecordBody},
};

use crate::{error::LogError, membership::Membership};

/// Bytes of event text that one append may bring.
pub const APPEND_BYTES_MAX: usize = 32 << 20;
/// Records that one append may bring.
pub const APPEND_RECORDS_MAX: usize = 1 << 18;
/// Bytes of event text that may wait to become durable; more appends wait until there is room.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

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

/// What a read gave: records in the order of their offsets, and where to go on.
///
/// The records are those of `[from, next)`, and there are no others: a log may have offsets at which there is no record, such as a
/// broker's own marks. A reader that has them all goes on at `next`, which lies behind the last record or further on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecords {
    /// The records.
    pub records: Vec<Record>,
    /// The offset to read from next.
    pub next: Offset,
}

impl ReadRecords {
    /// Nothing: the next read is at `from` again.
    #[must_use]
    pub fn none(from: Offset) -> Self {
        Self { records: Vec::new(), next: from }
    }
}

impl Deref for ReadRecords {
    type Target = [Record];

    fn deref(&self) -> &[Record] {
        &self.records
    }
}

impl IntoIterator for ReadRecords {
    type Item = Record;
    type IntoIter = std::vec::IntoIter<Record>;

    fn into_iter(self) -> Self::IntoIter {
        self.records.into_iter()
    }
}

/// A partitioned, ordered, append-only, durable record of streams.
#[async_trait]
pub trait Log: Send + Sync + std::fmt::Debug {
    /// Creates the partitions of a stream; does nothing for those that exist. A log never loses partitions.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]; [`LogError::Misconfigured`] where what is there already would break a promise.
    async fn create(&self, stream: &Name, partitions: u32) -> Result<(), LogError>;

    /// Appends records in order; returns once all are durable, with the offset of each.
    ///
    /// # Errors
    /// On any error nothing was promised: some records may be in the log, and the caller sends all of them again.
    async fn append(&self, stream: &Name, records: Vec<(PartitionId, RecordBody)>) -> Result<Vec<Offset>, LogError>;

    /// Reads records from an offset on, as many as the limit allows and the partition held when the read began. No records at all
    /// mean that there were none, and that the wait ended without one.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] where `from` is below the lowest offset held or above the end.
    async fn read(&self, stream: &Name, partition: PartitionId, from: Offset, limit: ReadLimit) -> Result<ReadRecords, LogError>;

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

    /// Takes part in the work on these streams with all members of the group that have joined through this log: each partition is
    /// one member's at a time. Returns at once; what this member is to work on comes through the [`Membership`].
    ///
    /// The share is for dividing the work, not for keeping others out: a member that was cut off learns late that its share went to
    /// another, so what it writes has to be guarded where it writes it.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] where it cannot even be asked for. A log that is out of reach gives an empty share.
    async fn join(&self, group: &str, streams: &[Name]) -> Result<Membership, LogError>;
}

/// Refuses more partitions than a stream may declare.
pub(crate) fn check_partitions(partitions: u32) -> Result<(), LogError> {
    check("STREAM_PARTITIONS_MAX", u64::from(partitions), u64::from(STREAM_PARTITIONS_MAX))
}

/// Refuses an append that is larger than any may be; otherwise tells its bytes of event text.
pub(crate) fn check_append(records: &[(PartitionId, RecordBody)]) -> Result<usize, LogError> {
    check("APPEND_RECORDS_MAX", records.len() as u64, APPEND_RECORDS_MAX as u64)?;
    let bytes = records.iter().map(|(_, body)| body_bytes(body)).sum();
    check("APPEND_BYTES_MAX", bytes as u64, APPEND_BYTES_MAX as u64)?;
    Ok(bytes)
}

/// Refuses what is above a limit.
pub(crate) fn check(limit: &'static str, found: u64, max: u64) -> Result<(), LogError> {
    if found > max { Err(LogError::LimitExceeded { limit, found, max }) } else { Ok(()) }
}

/// Bytes that a record counts against limits.
pub(crate) fn body_bytes(body: &RecordBody) -> usize {
    match body {
        RecordBody::Event(text) => text.len(),
        RecordBody::Cut(_) => 8,
    }
}

//! What keeps a worker from going on. All of it is worth another try: nothing is lost meanwhile, the views only grow older.

use datafusion::error::DataFusionError;
use riomar_event_log::LogError;
use riomar_schemas::{Name, PartitionId};

use super::SpeedParts;
use crate::store::StoreError;

/// An error of a speed worker.
#[derive(Debug, thiserror::Error)]
pub enum SpeedError {
    /// The log or the history behind it.
    #[error("{stream}/{partition}: {source}")]
    Log {
        /// The stream.
        stream: Name,
        /// The partition.
        partition: PartitionId,
        /// What happened.
        source: LogError,
    },
    /// The batch layer's hand-over cannot be read again; the view goes on with the last one.
    #[error("{view}/{partition}: the hand-over cannot be read, going on with the last one: {reason}")]
    HandOver {
        /// The view.
        view: Name,
        /// The partition.
        partition: PartitionId,
        /// What happened.
        reason: String,
    },
    /// The realtime store.
    #[error("{view}/{partition}: {source}")]
    Store {
        /// The view.
        view: Name,
        /// The partition.
        partition: PartitionId,
        /// What happened.
        source: StoreError,
    },
    /// Folding needs more memory than there is now.
    #[error("{view}/{partition}: folding needs more memory than there is: {source}")]
    Memory {
        /// The view.
        view: Name,
        /// The partition.
        partition: PartitionId,
        /// What happened.
        source: Box<DataFusionError>,
    },
    /// A worker's task ended of itself: a defect. Its partition is not folded until the process starts again.
    #[error("a speed worker ended: {0}")]
    Ended(String),
}

pub(super) fn log(parts: &SpeedParts, source: LogError) -> SpeedError {
    SpeedError::Log { stream: parts.stream.name.clone(), partition: parts.partition, source }
}

pub(super) fn store(parts: &SpeedParts, view: &Name, source: StoreError) -> SpeedError {
    SpeedError::Store { view: view.clone(), partition: parts.partition, source }
}

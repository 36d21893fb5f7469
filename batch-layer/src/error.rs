//! What can go wrong in the batch layer; each kind names what the caller can do next.

use datafusion::error::DataFusionError;
use riomar_event_log::LogError;
use riomar_schemas::{Epoch, Name, Offset, PartitionId};
use uuid::Uuid;

/// An error of the batch layer.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The object store did not answer, or refused. The same call may succeed later.
    #[error("the object store failed at {path}: {source}")]
    Store {
        /// The object or folder.
        path: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Planning or running a query failed, for want of memory among others.
    #[error("the query failed: {0}")]
    Query(#[from] DataFusionError),
    /// Writing or reading a Parquet file failed.
    #[error("the Parquet file {path} failed: {detail}")]
    Parquet {
        /// The file.
        path: String,
        /// What went wrong.
        detail: String,
    },
    /// What is stored cannot be read. It is never skipped over.
    #[error("{path} is damaged: {detail}")]
    Damaged {
        /// The object.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Another process changed what this change was built on: build it again from what is stored now.
    #[error("the master dataset of {stream} was changed by someone else: {detail}")]
    Conflict {
        /// The stream.
        stream: Name,
        /// What differs.
        detail: String,
    },
    /// The stream's definition no longer fits its master dataset.
    #[error(
        "column '{column}' of {stream} {detail}: keep the columns that have landed; new ones may be added as long as they may be null"
    )]
    SchemaChanged {
        /// The stream.
        stream: Name,
        /// The column.
        column: String,
        /// What changed.
        detail: String,
    },
    /// No such stream.
    #[error("there is no stream '{0}'")]
    UnknownStream(String),
    /// No such view.
    #[error("there is no view '{0}'")]
    UnknownView(String),
    /// No such run, or it is so old that it is no longer remembered.
    #[error("there is no run {0}")]
    UnknownRun(Uuid),
    /// A recompute of the stream is under way; wait for it.
    #[error("run {run} of stream {stream} is still in progress")]
    RunInProgress {
        /// The stream.
        stream: Name,
        /// The run.
        run: Uuid,
    },
    /// Landing did not pass the cut in time.
    #[error("after {waited_ms} ms landing of {stream} has not passed cut {cut} in partitions {missing:?}: is landing running?")]
    LandingBehind {
        /// The stream.
        stream: Name,
        /// The cut.
        cut: Epoch,
        /// How long it was waited for, in milliseconds.
        waited_ms: i64,
        /// The partitions that have not passed it.
        missing: Vec<PartitionId>,
    },
    /// A later cut came before this one in a partition, so this one closes nothing there: take a new cut.
    #[error("cut {cut} of {stream} was overtaken in partition {partition}, which is at cut {by}: another run's cut came first")]
    CutOvertaken {
        /// The stream.
        stream: Name,
        /// The cut.
        cut: Epoch,
        /// A partition that skipped it.
        partition: PartitionId,
        /// The cut that came first, or one after that.
        by: Epoch,
    },
    /// The log no longer holds records that have not landed, and nobody has accepted their loss.
    #[error(
        "the log of {stream} lost offsets {from} to {to} of partition {partition} before they landed: get them back, or accept \
         the loss with `riomar accept-loss {stream}`"
    )]
    RecordsLost {
        /// The stream.
        stream: Name,
        /// The first partition that lacks records.
        partition: PartitionId,
        /// Where landing stands.
        from: Offset,
        /// Where the log begins.
        to: Offset,
    },
    /// A loss that cannot be accepted, because it is none or another one: look again.
    #[error("offsets {from} to {to} of {stream}/{partition} are not what landing waits for: {detail}")]
    NotLost {
        /// The stream.
        stream: Name,
        /// The partition.
        partition: PartitionId,
        /// The first offset.
        from: Offset,
        /// The first offset behind.
        to: Offset,
        /// What is the case.
        detail: String,
    },
    /// A view has more groups than are allowed; the previous generation keeps serving.
    #[error("view {view} has more than {limit} groups: group by fewer or coarser columns, or raise batch.groups_per_view_max")]
    TooManyGroups {
        /// The view.
        view: Name,
        /// The limit.
        limit: u64,
    },
    /// Another process leads the batch layer: a scheduled run is left to it.
    #[error("another process leads the batch layer; this one publishes nothing of its own accord")]
    NotLeader,
    /// A schedule that is neither an interval nor a cron expression.
    #[error("'{text}' is no schedule: write an interval such as \"1m\", or a cron expression such as \"*/5 * * * *\" ({detail})")]
    InvalidSchedule {
        /// What was written.
        text: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A run ended without a result because its process or task ended.
    #[error("the run was interrupted")]
    Interrupted,
}

impl BatchError {
    /// Wraps an object store's error with the path it happened at.
    pub(crate) fn store(path: &object_store::path::Path) -> impl FnOnce(object_store::Error) -> Self + '_ {
        move |source| Self::Store { path: path.to_string(), source }
    }

    /// What is stored at `path` cannot be read.
    pub(crate) fn damaged(path: impl std::fmt::Display, detail: impl std::fmt::Display) -> Self {
        Self::Damaged { path: path.to_string(), detail: detail.to_string() }
    }

    /// A Parquet file could not be written or read.
    pub(crate) fn parquet(path: impl std::fmt::Display, detail: impl std::fmt::Display) -> Self {
        Self::Parquet { path: path.to_string(), detail: detail.to_string() }
    }
}

impl From<BatchError> for LogError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Log(error) => error,
            other => Self::History(other.to_string()),
        }
    }
}

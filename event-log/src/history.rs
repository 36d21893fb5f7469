//! What the readers of the log need to know of the master dataset. The batch layer implements it.

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;
use riomar_schemas::{Epoch, HandOver, Offset, PartitionId, ReaderPosition, Stream, View, decode::IdDigest};

use crate::error::LogError;

/// The past of a stream: what has landed and what has been handed over to batch views.
#[async_trait]
pub trait History: Send + Sync + std::fmt::Debug {
    /// How far landing has come in a partition. For a partition that nothing has landed of: offset 0 and its first epoch, which
    /// this call registers (create-if-absent, with the stream's current cut) when the partition is new.
    async fn landed(&self, stream: &Stream, partition: PartitionId) -> Result<ReaderPosition, LogError>;

    /// The ids of the landed rows of a partition below offset `before`, whose epoch is `from_epoch` or later.
    async fn kept_ids(
        &self,
        stream: &Stream,
        partition: PartitionId,
        from_epoch: Epoch,
        before: Offset,
    ) -> Result<Vec<(IdDigest, Epoch)>, LogError>;

    /// The landed rows of a partition in `[from, to)`, in order of their offsets, as batches of [`Stream::row_schema`].
    async fn rows(
        &self,
        stream: &Stream,
        partition: PartitionId,
        from: Offset,
        to: Offset,
    ) -> Result<BoxStream<'static, Result<RecordBatch, LogError>>, LogError>;

    /// Where the current generation of a view ends.
    async fn hand_over(&self, view: &View) -> Result<HandOver, LogError>;

    /// The first epoch of a partition, registering it like [`History::landed`] does.
    async fn first_epoch(&self, stream: &Stream, partition: PartitionId) -> Result<Epoch, LogError>;
}

//! What the readers of the log need to know of the master dataset. The batch layer implements it.

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;
use riomar_schemas::{Epoch, HandOver, Offset, PartitionId, ReaderPosition, Stream, View, decode::IdDigest};

use crate::error::LogError;

/// Records that the log lost before they landed, and whose loss was accepted: landing goes on behind them.
///
/// A partition's epochs are counted anew from there: none of the cuts that were lost opened the epoch that begins at [`Self::to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// The first offset lost.
    pub from: Offset,
    /// The first offset behind those lost.
    pub to: Offset,
    /// The epoch that landing was in before them.
    pub epoch_before: Epoch,
    /// The epoch that begins behind them. Its number was never a cut in the log, so nobody else has counted it.
    pub epoch: Epoch,
    /// When the loss was accepted, in milliseconds since 1970-01-01 UTC.
    pub accepted_at_ms: i64,
}

impl Loss {
    /// The offsets lost. Some may have been cuts, or nothing at all.
    #[must_use]
    pub fn offsets(&self) -> u64 {
        self.to.0.saturating_sub(self.from.0)
    }

    /// Whether a cut lies in what was lost, for all that is known, or opened nothing because of it. The number that the loss itself
    /// took counts as such: nobody appends it.
    #[must_use]
    pub fn passed(&self, cut: Epoch) -> bool {
        self.epoch_before < cut && cut <= self.epoch
    }

    /// How many of the offsets before a position were lost, of all that a partition has lost. What was folded up to there without
    /// the lost records, and in the epochs that landing counts, has counted as many.
    #[must_use]
    pub fn before(losses: &[Self], position: Offset) -> u64 {
        losses.iter().filter(|loss| loss.from < position).map(Self::offsets).sum()
    }
}

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

    /// What a partition has lost, in order of offsets. Knows of every loss that [`Self::landed`] has passed in this process, and of
    /// others within seconds.
    async fn losses(&self, stream: &Stream, partition: PartitionId) -> Result<Vec<Loss>, LogError>;

    /// Where the current generation of a view ends.
    async fn hand_over(&self, view: &View) -> Result<HandOver, LogError>;

    /// The first epoch of a partition, registering it like [`History::landed`] does.
    async fn first_epoch(&self, stream: &Stream, partition: PartitionId) -> Result<Epoch, LogError>;
}

//! The steps of a run, one by one: cut, wait for landing, compute.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use riomar_schemas::{Epoch, GenerationManifest, Name, Offset, PartitionId, View};

use super::RunParts;
use crate::{
    context::is_over,
    error::BatchError,
    losses,
    master::{Master, MasterSnapshot},
    recompute::{Assignment, Progress},
};

/// How often it is looked whether landing has passed a cut.
const LANDING_POLL: Duration = Duration::from_millis(50);
/// After how long a cut is appended again to partitions that have not passed it.
const SEND_AGAIN_AFTER_MS: i64 = 5_000;
/// How often a run that waits for landing looks whether the log still has what is to land.
const LOOK_FOR_LOSSES_MS: i64 = 2_000;
/// How long landing may take to pass a cut.
pub const LANDING_DEADLINE_MS: i64 = 120_000;

/// A cut that landing has passed.
#[derive(Debug, Clone)]
pub struct LandedCut {
    /// Its number.
    pub cut: Epoch,
    /// Where it lies.
    pub positions: BTreeMap<PartitionId, Offset>,
    /// A version of the master dataset that holds every epoch before it.
    pub master: Arc<MasterSnapshot>,
}

impl RunParts {
    fn master(&self, stream: &Name) -> Result<&Arc<Master>, BatchError> {
        self.masters.get(stream).ok_or_else(|| BatchError::UnknownStream(stream.to_string()))
    }

    /// Takes the number of a new cut and appends it to every partition.
    ///
    /// # Errors
    /// [`BatchError::Store`], [`BatchError::Log`]. Partitions that the log could not append to get the cut while landing is waited
    /// for.
    pub async fn cut(&self, stream: &Name) -> Result<Epoch, BatchError> {
        // Registers partitions that nobody has seen yet: their first epoch is then below the cut, or the cut itself.
        let definition = self.master(stream)?.stream();
        self.cuts.find_registered(definition).await?;
        let partitions = self.cuts.partitions(definition).await?;
        for partition in &partitions {
            self.cuts.first_epoch(stream, *partition).await?;
        }
        let cut = self.cuts.issue(stream).await?;
        if let Err(error) = self.cuts.send(stream, cut, &partitions).await {
            tracing::warn!(%stream, %cut, %error, "the cut could not be appended everywhere; it is sent again");
        }
        Ok(cut)
    }

    /// The cut, if landing has passed it in every partition.
    ///
    /// # Errors
    /// [`BatchError::CutOvertaken`], [`BatchError::Store`], [`BatchError::Log`], [`BatchError::Damaged`].
    pub async fn landed_cut(&self, stream: &Name, cut: Epoch) -> Result<Result<LandedCut, Vec<PartitionId>>, BatchError> {
        let master = self.master(stream)?.snapshot().await?;
        let progress = self.cuts.progress(&master, cut).await?;
        if progress.missing.is_empty() {
            return Ok(Ok(LandedCut { cut, positions: progress.positions, master }));
        }
        Ok(Err(progress.missing))
    }

    /// Refuses to wait for records that the log has lost.
    ///
    /// # Errors
    /// [`BatchError::RecordsLost`], [`BatchError::Store`], [`BatchError::Log`].
    pub async fn refuse_lost(&self, stream: &Name) -> Result<(), BatchError> {
        let losses = losses::find(&self.cuts, self.log.as_ref(), self.master(stream)?).await?;
        match losses.waiting.first() {
            None => Ok(()),
            Some(lost) => {
                let (stream, partition) = (stream.clone(), lost.partition);
                Err(BatchError::RecordsLost { stream, partition, from: lost.from, to: lost.to })
            }
        }
    }

    /// Waits until landing, which runs elsewhere, has passed the cut.
    ///
    /// # Errors
    /// [`BatchError::RecordsLost`] where it cannot; [`BatchError::LandingBehind`] after the deadline, and what [`Self::landed_cut`] reports.
    pub async fn wait_for_landing(&self, stream: &Name, cut: Epoch, deadline_ms: i64) -> Result<LandedCut, BatchError> {
        let clock = &self.context.clock;
        let started_ms = clock.now_ms();
        let mut sent_ms = started_ms;
        let mut looked_ms = None;
        loop {
            let missing = match self.landed_cut(stream, cut).await? {
                Ok(landed) => return Ok(landed),
                Err(missing) => missing,
            };
            let now_ms = clock.now_ms();
            if is_over(started_ms, deadline_ms, now_ms) {
                let waited_ms = (now_ms - started_ms).max(0);
                return Err(BatchError::LandingBehind { stream: stream.clone(), cut, waited_ms, missing });
            }
            if looked_ms.is_none_or(|looked_ms| is_over(looked_ms, LOOK_FOR_LOSSES_MS, now_ms)) {
                self.refuse_lost(stream).await?;
                looked_ms = Some(now_ms);
            }
            if is_over(sent_ms, SEND_AGAIN_AFTER_MS, now_ms) {
                if let Err(error) = self.cuts.send(stream, cut, &missing).await {
                    tracing::warn!(%stream, %cut, %error, "the cut could not be appended; it is sent again");
                }
                sent_ms = now_ms;
            }
            clock.sleep(LANDING_POLL).await;
        }
    }

    /// Computes and writes the next generation of a view, all but its manifest.
    ///
    /// # Errors
    /// As [`Recompute::prepare`](crate::recompute::Recompute::prepare).
    pub async fn prepare(
        &self,
        view: &View,
        landed: &LandedCut,
        full: bool,
        progress: &Progress,
    ) -> Result<Option<GenerationManifest>, BatchError> {
        let assignment = Assignment { view, master: &landed.master, cut: landed.cut, positions: &landed.positions, full };
        self.recompute.prepare(&assignment, progress).await
    }
}

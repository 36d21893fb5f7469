//! Records that the log lost before they landed: finding them, and going on without them once a person has accepted that.
//!
//! The log may let go of records of its own accord: a topic's retention knows nothing of landing. What is gone can never land, and
//! landing skips nothing, so the partition halts. Accepting the loss is one commit of the master dataset, like landing's own: it
//! takes the partition from where it stands to where the log begins, keeps the range for good, and opens an epoch there whose number
//! is a cut that nobody appends. Every cut that may lie in the range has a lower number, so it is a cut that was overtaken: no
//! generation is made of it, and a copy that was sent again behind the range opens nothing. So a run, a reader and a query need no
//! rule of their own for what was lost.

use std::{collections::BTreeMap, sync::Arc};

use riomar_event_log::{Log, Loss};
use riomar_schemas::{Name, Offset, PartitionId, ReaderPosition};
use serde::{Deserialize, Serialize};

use crate::{
    context::Context,
    cuts::Cuts,
    error::BatchError,
    master::{Advance, Change, LandedPartition, Master, MasterSnapshot},
};

#[cfg(test)]
mod tests;

/// How old the losses may be that a query or a speed worker counts, in milliseconds. An answer counts all of them or none.
pub const LOSSES_SEEN_MAX_MS: i64 = 1_000;

/// Offsets of a partition that the log no longer holds and that have not landed: `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostRange {
    /// The partition.
    pub partition: PartitionId,
    /// Where landing stands.
    pub from: Offset,
    /// Where the log begins.
    pub to: Offset,
}

impl LostRange {
    /// The number of offsets. There are at most as many events: some may be cuts, or nothing at all.
    #[must_use]
    pub fn offsets(&self) -> u64 {
        self.to.0.saturating_sub(self.from.0)
    }
}

/// What a stream has lost: what waits for somebody to accept it, and what was accepted.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    /// What waits, by partition.
    pub waiting: Vec<LostRange>,
    /// What was accepted, in order of offsets.
    pub accepted: Arc<BTreeMap<PartitionId, Vec<Loss>>>,
}

/// Looks for records that are gone and have not landed.
///
/// # Errors
/// [`BatchError::Log`], [`BatchError::Store`].
pub async fn find(cuts: &Cuts, log: &dyn Log, master: &Master) -> Result<Losses, BatchError> {
    let stream = master.stream();
    let mut starts = Vec::new();
    for partition in cuts.partitions(stream).await? {
        starts.push((partition, log.bounds(&stream.name, partition).await?.start));
    }
    // After the log: whatever landed and was then trimmed is known by now.
    let snapshot = master.snapshot().await?;
    Ok(Losses { waiting: lost(&starts, &snapshot), accepted: snapshot.losses.clone() })
}

/// What is below the log's starts and has not landed. The starts must have been read before the snapshot.
pub(crate) fn lost(starts: &[(PartitionId, Offset)], snapshot: &MasterSnapshot) -> Vec<LostRange> {
    let range = |(partition, start): &(PartitionId, Offset)| {
        let range = LostRange { partition: *partition, from: snapshot.position(*partition).offset, to: *start };
        (range.from < range.to).then_some(range)
    };
    starts.iter().filter_map(range).collect()
}

/// What accepting works with.
#[derive(Debug)]
pub(crate) struct Acceptance<'a> {
    pub context: &'a Context,
    pub log: &'a dyn Log,
    pub cuts: &'a Cuts,
    pub master: &'a Master,
}

impl Acceptance<'_> {
    /// Accepts the loss of ranges: all of them in one commit, or none. What was accepted before stays as it is, so the same call may
    /// be made again.
    ///
    /// # Errors
    /// [`BatchError::NotLost`] where a range is not what landing waits for; [`BatchError::Conflict`] where somebody changes the same
    /// partition; [`BatchError::Store`] where the outcome is unknown.
    pub(crate) async fn accept(&self, ranges: &[LostRange]) -> Result<Losses, BatchError> {
        let found = find(self.cuts, self.log, self.master).await?;
        let mut new = Vec::new();
        for range in ranges {
            let accepted = found.accepted.get(&range.partition).into_iter().flatten();
            if accepted.into_iter().any(|loss| (loss.from, loss.to) == (range.from, range.to)) || new.contains(range) {
                continue;
            }
            self.check(range, &found)?;
            new.push(*range);
        }
        if !new.is_empty() {
            self.commit(&new).await?;
        }
        find(self.cuts, self.log, self.master).await
    }

    /// A range begins where landing stands and ends where the log begins, or before: the log may have lost more since.
    fn check(&self, range: &LostRange, found: &Losses) -> Result<(), BatchError> {
        let refused = |detail: String| {
            let (stream, partition) = (self.stream().clone(), range.partition);
            Err(BatchError::NotLost { stream, partition, from: range.from, to: range.to, detail })
        };
        match found.waiting.iter().find(|waiting| waiting.partition == range.partition) {
            None => refused("everything that the log let go of has landed".to_owned()),
            Some(waiting) if range.from == waiting.from && range.from < range.to && range.to <= waiting.to => Ok(()),
            Some(waiting) => refused(format!("what is lost is {} to {}", waiting.from, waiting.to)),
        }
    }

    fn stream(&self) -> &Name {
        &self.master.stream().name
    }

    async fn commit(&self, ranges: &[LostRange]) -> Result<(), BatchError> {
        // Before the number is taken: what is gone by now was appended before, and so were the cuts among it.
        let mut before = Vec::new();
        for range in ranges {
            before.push((range, self.cuts.first_epoch(self.stream(), range.partition).await?));
        }
        let epoch = self.cuts.issue(self.stream()).await?;
        let snapshot = self.master.snapshot().await?;
        let mut change = Change::default();
        for (range, first_epoch) in before {
            let landed = snapshot
                .partitions
                .get(&range.partition)
                .copied()
                .unwrap_or_else(|| LandedPartition::starting_at(ReaderPosition { offset: Offset(0), epoch: first_epoch }));
            let position = ReaderPosition { offset: range.to, epoch };
            let to = LandedPartition { position, lost: landed.lost + range.offsets(), ..landed };
            let (from, accepted_at_ms) = (range.from, self.context.clock.now_ms());
            let loss = Loss { from, to: range.to, epoch_before: landed.position.epoch, epoch, accepted_at_ms };
            change.advances.insert(range.partition, Advance { from, to });
            change.losses.insert(range.partition, loss);
        }
        self.master.commit(&change).await?;
        for LostRange { partition, from, to } in ranges {
            tracing::warn!(stream = %self.stream(), %partition, %from, %to, "the loss of records that never landed was accepted");
        }
        Ok(())
    }
}

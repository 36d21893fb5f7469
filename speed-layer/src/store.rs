//! The realtime store seam: states of each view and partition, with the position they reach, written together or not at all.

use std::collections::BTreeMap;

use async_trait::async_trait;
use riomar_schemas::{Epoch, Offset, PartitionId, ReaderPosition, View, state_codec::EncodedState};

/// What a realtime store keeps of one view and partition beside the states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The states contain every kept event of epochs ≥ `start` before this position.
    pub position: ReaderPosition,
    /// The epoch that the states begin at: a rebuild's cut, or the partition's first epoch.
    pub start: Epoch,
    /// The lowest epoch that is still kept.
    pub floor: Epoch,
    /// The highest event time folded in, in microseconds since 1970-01-01 UTC.
    pub event_time_max_us: Option<i64>,
    /// The end that the log had when the states were begun anew: below it the view is being rebuilt.
    pub rebuilding_to: Option<Offset>,
    /// Why folding stopped at this position, when it did: a limit that more events would break.
    pub halted: Option<String>,
    /// How many offsets before the position were lost by the log and passed over, for their loss was accepted. States of fewer hold
    /// events that are no longer the stream's. A write brings its writer's number, so states that a writer folded without knowing
    /// of a loss are told from others for ever.
    pub lost: u64,
}

impl Entry {
    /// An entry of a view's partition that nothing has been folded into: its states begin at `position`.
    #[must_use]
    pub fn fresh(position: ReaderPosition) -> Self {
        Self {
            position,
            start: position.epoch,
            floor: position.epoch,
            event_time_max_us: None,
            rebuilding_to: None,
            halted: None,
            lost: 0,
        }
    }

    /// Whether a write that expects `self` is let through where `stored` is stored.
    #[must_use]
    pub fn guards(&self, stored: &Self) -> bool {
        self.position == stored.position && self.start == stored.start
    }
}

/// The states of a view's partition, with the entry they belong to, read at one moment.
#[derive(Debug, Clone)]
pub struct RealtimePart {
    /// The entry.
    pub entry: Entry,
    /// The states of the epochs asked for.
    pub states: Vec<EncodedState>,
}

/// What became of a guarded write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The states and the entry are written.
    Applied,
    /// Nothing is written: the store holds another entry, or none.
    Fenced(Option<Entry>),
}

/// An error of a realtime store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or did not answer in time. A write may or may not have been applied: read the entry.
    #[error("the realtime store is not available: {0}")]
    Unavailable(String),
    /// The store holds what Riomar did not write, or a later version did.
    #[error("the realtime store holds what cannot be read: {0}")]
    Damaged(String),
}

/// Where realtime views live. A cache: everything in it can be rebuilt from the log and the master dataset.
///
/// A guard matches when the stored entry's `position` and `start` equal the expected ones.
#[async_trait]
pub trait RealtimeStore: Send + Sync + std::fmt::Debug {
    /// The entry of a view's partition; `None` when the store has none.
    async fn entry(&self, view: &View, partition: PartitionId) -> Result<Option<Entry>, StoreError>;

    /// The entry and, for each `(epoch, group key)`, the state if there is one; read at one moment.
    async fn states(
        &self,
        view: &View,
        partition: PartitionId,
        keys: &[(Epoch, &str)],
    ) -> Result<(Option<Entry>, Vec<Option<Vec<u8>>>), StoreError>;

    /// Replaces the given states and the entry in one atomic step, if the stored entry is the expected one. States of epochs
    /// below the stored `floor` are left out, and the higher of the stored and the new floor is kept.
    async fn write(
        &self,
        view: &View,
        partition: PartitionId,
        expected: &Entry,
        next: &Entry,
        states: &[EncodedState],
    ) -> Result<WriteOutcome, StoreError>;

    /// Removes all states and starts afresh with `next`, if the stored entry is the expected one (`None`: if there is none).
    async fn reset(
        &self,
        view: &View,
        partition: PartitionId,
        expected: Option<&Entry>,
        next: &Entry,
    ) -> Result<WriteOutcome, StoreError>;

    /// Removes the epochs below `floor` and records it, if it is higher than the stored one. Does nothing without an entry.
    async fn remove_below(&self, view: &View, partition: PartitionId, floor: Epoch) -> Result<(), StoreError>;

    /// The entry and all states of epochs ≥ `from`, read at one moment; `None` when the store has no entry.
    async fn read(&self, view: &View, partition: PartitionId, from: Epoch) -> Result<Option<RealtimePart>, StoreError>;

    /// The entry and the number of groups in each epoch that has any, read at one moment; `None` when the store has no entry.
    async fn groups(&self, view: &View, partition: PartitionId) -> Result<Option<(Entry, BTreeMap<Epoch, u64>)>, StoreError> {
        let part = self.read(view, partition, Epoch::default()).await?;
        Ok(part.map(|part| {
            let mut groups = BTreeMap::new();
            for state in &part.states {
                *groups.entry(state.epoch).or_default() += 1;
            }
            (part.entry, groups)
        }))
    }
}

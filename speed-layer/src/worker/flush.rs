//! One micro-batch into one view: fold, read the touched groups, combine, write.

use std::collections::BTreeMap;

use arrow::{
    array::{AsArray, RecordBatch},
    compute,
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use datafusion::{error::DataFusionError, logical_expr::LogicalPlan};
use riomar_event_log::{Loss, ReadStep};
use riomar_schemas::{
    Epoch, Offset, Stream,
    session::{collect, scan_batches},
    state_codec::{self, EncodedState},
    stream::OFFSET,
    view::Grain,
};

use super::{
    SpeedError, SpeedParts, error,
    lane::{Known, Lane},
};
use crate::store::{Entry, StoreError, WriteOutcome};

/// What became of a micro-batch in one view.
#[derive(Debug)]
pub(super) enum Flushed {
    /// Its events are in the view.
    Applied { events: u64 },
    /// The view stopped before it.
    Halted(String),
    /// The store holds another entry than expected: it is read again before the next micro-batch.
    Fenced,
}

/// Why a micro-batch cannot be folded.
enum Obstacle {
    /// The view cannot take these events, now or later.
    Halt(String),
    /// Another try may succeed.
    Retry(SpeedError),
}

impl Lane {
    /// Folds the rows that the view does not have yet, and moves its position to the end of what was read. After a failure the view
    /// pauses; damaged states are remembered, so that they are rebuilt.
    pub(super) async fn flush(&mut self, parts: &SpeedParts, read: &ReadStep) -> Result<Flushed, SpeedError> {
        let Some(known) = self.known.take() else { return Ok(Flushed::Fenced) };
        let entry = known.entry.clone();
        let flushed = self.fold_and_write(parts, known, read).await;
        match &flushed {
            Ok(Flushed::Applied { .. } | Flushed::Halted(_)) => self.went_well(),
            Ok(Flushed::Fenced) => {}
            Err(error) => {
                if matches!(error, SpeedError::Store { source: StoreError::Damaged(_), .. }) {
                    self.found_damaged(entry);
                }
                self.pause(parts);
            }
        }
        flushed
    }

    async fn fold_and_write(&mut self, parts: &SpeedParts, known: Known, read: &ReadStep) -> Result<Flushed, SpeedError> {
        let rows = rows_from(&read.rows, known.entry.position.offset);
        let event_time_max_us = known.entry.event_time_max_us.max(event_time_max_us(&parts.stream, &rows));
        // A view that is further on than where the loss begins holds events of it, and passing over the rest does not change that.
        let from = known.entry.position.offset;
        let lost = read.losses.iter().filter(|loss| from <= loss.from).map(Loss::offsets).sum::<u64>() + known.entry.lost;
        let rebuilding_to = known.entry.rebuilding_to.filter(|end| *end > read.to.offset);
        let next = Entry { position: read.to, event_time_max_us, rebuilding_to, lost, ..known.entry.clone() };
        let events = rows.num_rows() as u64;
        let flush = if events == 0 { Ok(Some((Vec::new(), BTreeMap::new()))) } else { self.fold(parts, &known, rows).await };
        match flush {
            Ok(Some((states, new_groups))) => self.write(parts, known, next, &states, new_groups, events).await,
            Ok(None) => Ok(Flushed::Fenced),
            Err(Obstacle::Halt(reason)) => self.halt(parts, known, reason).await,
            Err(Obstacle::Retry(error)) => Err(error),
        }
    }

    /// The new states of all touched groups, and how many of them are new in each epoch; `None` when the store's entry is not the
    /// expected one.
    async fn fold(
        &self,
        parts: &SpeedParts,
        known: &Known,
        rows: RecordBatch,
    ) -> Result<Option<(Vec<EncodedState>, BTreeMap<Epoch, u64>)>, Obstacle> {
        let view = &*self.view;
        let plan = scan_batches(parts.stream.row_schema(), vec![rows]).and_then(|rows| view.fold(rows, Grain::Epoch));
        let mut batches = self.collect(parts, plan).await?;
        let mut states = self.encode(&batches, known.entry.floor)?;
        let keys: Vec<_> = states.iter().map(|state| (state.epoch, state.key.as_str())).collect();
        let (stored, before) = (parts.store.states(view, parts.partition, &keys).await).map_err(|e| self.retry(parts, e))?;
        let as_expected = |stored: &Entry| known.entry.guards(stored) && stored.halted == known.entry.halted;
        if !stored.as_ref().is_some_and(as_expected) {
            return Ok(None);
        }

        let mut new_groups = BTreeMap::new();
        let mut old = Vec::new();
        for ((epoch, key), state) in keys.into_iter().zip(&before) {
            match state {
                Some(state) => old.push((epoch, key, state.as_slice())),
                None => *new_groups.entry(epoch).or_default() += 1,
            }
        }
        self.check_groups(parts, known, &new_groups)?;
        if !old.is_empty() {
            // Bytes that are not this view's are the store's damage, not the events'.
            let old = state_codec::decode(view, old).map_err(|e| self.retry(parts, StoreError::Damaged(e.to_string())))?;
            batches.push(old);
            let plan = scan_batches(view.epoch_state_schema(), batches).and_then(|states| view.combine(states, Grain::Epoch));
            batches = self.collect(parts, plan).await?;
            states = self.encode(&batches, known.entry.floor)?;
        }
        Ok(Some((states, new_groups)))
    }

    async fn collect(
        &self,
        parts: &SpeedParts,
        plan: datafusion::error::Result<LogicalPlan>,
    ) -> Result<Vec<RecordBatch>, Obstacle> {
        let result = match plan {
            Ok(plan) => collect(&parts.session_state, plan).await,
            Err(error) => Err(error),
        };
        result.map_err(|source| match source.find_root() {
            DataFusionError::ResourcesExhausted(_) => {
                let (view, partition) = (self.view.name().clone(), parts.partition);
                Obstacle::Retry(SpeedError::Memory { view, partition, source: Box::new(source) })
            }
            _ => cannot_fold(&source),
        })
    }

    /// The states of epochs that are still kept.
    fn encode(&self, batches: &[RecordBatch], floor: Epoch) -> Result<Vec<EncodedState>, Obstacle> {
        let mut states = Vec::new();
        for batch in batches {
            states.extend(state_codec::encode(&self.view, batch).map_err(|e| cannot_fold(&e))?);
        }
        states.retain(|state| state.epoch >= floor);
        Ok(states)
    }

    fn check_groups(&self, parts: &SpeedParts, known: &Known, new_groups: &BTreeMap<Epoch, u64>) -> Result<(), Obstacle> {
        let max = parts.limits.groups_max;
        for (epoch, new) in new_groups {
            let groups = known.groups.get(epoch).copied().unwrap_or_default() + new;
            if groups > max {
                let reason =
                    format!("epoch {epoch} would have {groups} groups, above the limit of {max} for a view and partition");
                return Err(Obstacle::Halt(reason));
            }
        }
        Ok(())
    }

    async fn write(
        &mut self,
        parts: &SpeedParts,
        known: Known,
        next: Entry,
        states: &[EncodedState],
        new_groups: BTreeMap<Epoch, u64>,
        events: u64,
    ) -> Result<Flushed, SpeedError> {
        let outcome = parts.store.write(&self.view, parts.partition, &known.entry, &next, states).await;
        self.wrote(Some(&known.entry), &outcome);
        match outcome.map_err(|e| error::store(parts, self.view.name(), e))? {
            WriteOutcome::Applied => {
                let mut groups = known.groups;
                for (epoch, new) in new_groups {
                    *groups.entry(epoch).or_default() += new;
                }
                self.known = Some(Known { entry: next, groups });
                Ok(Flushed::Applied { events })
            }
            WriteOutcome::Fenced(_) => Ok(Flushed::Fenced),
        }
    }

    /// Stops the view where it is: its answers stay exact up to this position, and say so, until a later cut lets it begin anew.
    async fn halt(&mut self, parts: &SpeedParts, known: Known, reason: String) -> Result<Flushed, SpeedError> {
        let halted = Entry { halted: Some(reason.clone()), ..known.entry.clone() };
        match self.write(parts, known, halted, &[], BTreeMap::new(), 0).await? {
            Flushed::Applied { .. } => Ok(Flushed::Halted(reason)),
            fenced => Ok(fenced),
        }
    }

    fn retry(&self, parts: &SpeedParts, source: StoreError) -> Obstacle {
        Obstacle::Retry(error::store(parts, self.view.name(), source))
    }
}

fn cannot_fold(error: &DataFusionError) -> Obstacle {
    Obstacle::Halt(format!("its SQL fails on these events: {}", error.find_root()))
}

/// The rows from an offset on; rows come in order of their offsets.
fn rows_from(rows: &RecordBatch, from: Offset) -> RecordBatch {
    let before = rows.column_by_name(OFFSET).and_then(|column| column.as_primitive_opt::<Int64Type>()).map_or(0, |offsets| {
        let from = i64::try_from(from.0).unwrap_or(i64::MAX);
        offsets.values().partition_point(|offset| *offset < from)
    });
    rows.slice(before, rows.num_rows() - before)
}

fn event_time_max_us(stream: &Stream, rows: &RecordBatch) -> Option<i64> {
    let event_times = rows.column(stream.event_time).as_primitive_opt::<TimestampMicrosecondType>()?;
    compute::max(event_times)
}

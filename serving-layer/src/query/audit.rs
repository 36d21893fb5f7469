//! Audits of what is served: answers, and hand-overs from the realtime view to the batch view.
//!
//! Both compare with a recompute from the master dataset over exactly the same events, so any difference is a defect and not a
//! matter of timing.

use std::{ops::Range, sync::Arc, time::Duration};

use riomar_batch_layer::{
    audit::{AuditKind, AuditReport, Served},
    master::{MasterSnapshot, RowSelection},
};
use riomar_event_log::{Clock, Loss};
use riomar_schemas::{
    Epoch, HandOver, Offset, PartitionId, View,
    receipt::{Degradation, ViewReceipt},
};
use riomar_speed_layer::Entry;

use super::{
    engine::{QueryEngine, realtime_states, scan_states},
    error::QueryError,
    merge::merge,
    states::decode,
};

/// How long an audit waits until everything in the answer has landed.
const LANDING_WAIT_MAX_MS: i64 = 30_000;
/// How often it looks.
const LANDING_POLL: Duration = Duration::from_millis(100);

/// What became of the audit of a hand-over.
#[derive(Debug)]
pub enum HandOverAudit {
    /// There is nothing to compare yet: no generation, or its cut has not been reached by the realtime view.
    NotYet,
    /// This generation can never be compared: the realtime view begins behind the epochs that it took over, or has removed them.
    NoMore {
        /// The generation.
        generation: u64,
    },
    /// Both sides were compared.
    Done(Arc<AuditReport>),
}

/// What a partition's entry holds of the epochs that a generation took over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holding {
    /// All their states.
    All,
    /// Not all, and more to come; or some that were lost, and are about to be rebuilt without.
    NotYet,
    /// Not all, for good: an entry never comes to begin earlier.
    NoMore,
}

fn holding(entry: &Entry, hand_over: &HandOver, partition: PartitionId, first_epoch: Epoch, losses: &[Loss]) -> Holding {
    let from = taken_over(hand_over).start.max(first_epoch);
    let offset = entry.position.offset;
    if entry.floor > from || entry.start > from {
        Holding::NoMore
    } else if offset < hand_over.position(partition) || entry.lost != Loss::before(losses, offset) {
        Holding::NotYet
    } else {
        Holding::All
    }
}

/// The epochs that a generation covers and the one before it did not.
fn taken_over(hand_over: &HandOver) -> Range<Epoch> {
    hand_over.previous_cut..hand_over.cut
}

impl QueryEngine {
    /// Takes a whole answer of a view and compares it with a recompute over the events that its receipt names. Tells as well what
    /// the answer lacked: an answer without its realtime view is compared as it is.
    ///
    /// # Errors
    /// [`QueryError`]; differences are no error but a result.
    pub async fn audit(&self, view: &Arc<View>, clock: &dyn Clock) -> Result<(Arc<AuditReport>, Vec<Degradation>), QueryError> {
        let snapshot = self.snapshots.take(view).await?;
        let states = merge(view, self.batch_states(&snapshot)?, realtime_states(&snapshot)?)?;
        let receipt = &snapshot.receipt;
        let master = self.landed(view, receipt, clock).await?;
        if !snapshot.lost_nothing_since(&master) {
            let detail = "the loss of events of the answer was accepted while they were waited for: try again";
            return Err(QueryError::Unavailable(detail.to_owned()));
        }
        let events = receipt.through.iter().map(|(partition, through)| RowSelection {
            partition: Some(*partition),
            offsets: Some(Offset(0)..*through),
            ..RowSelection::default()
        });
        let served = Served {
            kind: AuditKind::Answer,
            generation: receipt.generation,
            cut: receipt.cut,
            events: events.collect(),
            states,
        };
        Ok((self.batch.audits().run(view, &master, served).await?, snapshot.degraded))
    }

    /// Compares what the realtime view held of the epochs that the current generation took over with a recompute of them. Reads states
    /// only where the entries say that they can be compared: it is asked again and again until they can.
    ///
    /// # Errors
    /// [`QueryError`]; differences are no error but a result.
    pub async fn audit_hand_over(&self, view: &Arc<View>) -> Result<HandOverAudit, QueryError> {
        let Some(manifest) = self.batch.generations().current(view).await? else { return Ok(HandOverAudit::NotYet) };
        let hand_over = HandOver::from(manifest.as_ref());
        let master = self.batch.master(&view.stream().name)?.snapshot().await?;
        let holdings = self.holdings(view, &hand_over, &master).await?;
        if holdings.contains(&Holding::NoMore) {
            return Ok(HandOverAudit::NoMore { generation: manifest.generation });
        }
        if holdings.contains(&Holding::NotYet) {
            return Ok(HandOverAudit::NotYet);
        }
        let taken_over = taken_over(&hand_over);
        let mut events = Vec::new();
        let mut states = Vec::new();
        for partition in hand_over.positions.keys() {
            let first_epoch = self.batch.history().first_epoch(view.stream(), *partition).await?;
            let read = self.realtime.read(view, *partition, taken_over.start).await;
            let Ok(Some(mut part)) = read else { return Ok(HandOverAudit::NotYet) };
            // One that was begun anew since is told of by the next look.
            if holding(&part.entry, &hand_over, *partition, first_epoch, master.losses_of(*partition)) != Holding::All {
                return Ok(HandOverAudit::NotYet);
            }
            part.states.retain(|state| state.epoch < taken_over.end);
            states.push(decode(view, part, &self.batch.context().runtime.memory_pool).await?);
            events.push(RowSelection { partition: Some(*partition), ..RowSelection::epochs(taken_over.clone()) });
        }
        let plan = merge(view, None, scan_states(view, &states)?)?;
        let served =
            Served { kind: AuditKind::HandOver, generation: manifest.generation, cut: manifest.cut, events, states: plan };
        Ok(HandOverAudit::Done(self.batch.audits().run(view, &master, served).await?))
    }

    /// What the realtime view's entries hold of what a generation took over, for each of its partitions.
    async fn holdings(&self, view: &View, hand_over: &HandOver, master: &MasterSnapshot) -> Result<Vec<Holding>, QueryError> {
        let mut holdings = Vec::new();
        for partition in hand_over.positions.keys() {
            let first_epoch = self.batch.history().first_epoch(view.stream(), *partition).await?;
            holdings.push(match self.realtime.entry(view, *partition).await {
                Ok(Some(entry)) => holding(&entry, hand_over, *partition, first_epoch, master.losses_of(*partition)),
                // Those who need it tell of a store that does not answer.
                Ok(None) | Err(_) => Holding::NotYet,
            });
        }
        Ok(holdings)
    }

    /// The master dataset once it holds everything that the receipt names.
    async fn landed(&self, view: &View, receipt: &ViewReceipt, clock: &dyn Clock) -> Result<Arc<MasterSnapshot>, QueryError> {
        let deadline_ms = clock.now_ms().saturating_add(LANDING_WAIT_MAX_MS);
        loop {
            let master = self.batch.master(&view.stream().name)?.snapshot().await?;
            let behind = |(partition, through): (&PartitionId, &Offset)| master.position(*partition).offset < *through;
            if !receipt.through.iter().any(behind) {
                return Ok(master);
            }
            if clock.now_ms() >= deadline_ms {
                return Err(QueryError::Unavailable("the events of the answer have not landed yet: try again later".to_owned()));
            }
            clock.sleep(LANDING_POLL).await;
        }
    }
}

#[cfg(test)]
mod tests;

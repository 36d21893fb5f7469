//! Audits of what is served: answers, and hand-overs from the realtime view to the batch view.
//!
//! Both compare with a recompute from the master dataset over exactly the same events, so any difference is a defect and not a
//! matter of timing.

use std::sync::Arc;

use riomar_batch_layer::{
    audit::{AuditKind, AuditReport, Served},
    master::{MasterSnapshot, RowSelection},
};
use riomar_event_log::{Clock, Loss};
use riomar_schemas::{
    HandOver, Offset, PartitionId, View,
    receipt::{Degradation, ViewReceipt},
};
use std::time::Duration;

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

    /// Compares what the realtime view held of the epochs that the current generation took over with a recompute of them. `None`
    /// while the realtime view has not reached the cut, or when it no longer holds those epochs.
    ///
    /// # Errors
    /// [`QueryError`]; differences are no error but a result.
    pub async fn audit_hand_over(&self, view: &Arc<View>) -> Result<Option<Arc<AuditReport>>, QueryError> {
        let Some(manifest) = self.batch.generations().current(view).await? else { return Ok(None) };
        let master = self.batch.master(&view.stream().name)?.snapshot().await?;
        let hand_over = HandOver::from(manifest.as_ref());
        let taken_over = hand_over.previous_cut..hand_over.cut;
        let mut events = Vec::new();
        let mut states = Vec::new();
        for partition in hand_over.positions.keys() {
            let first_epoch = self.batch.history().first_epoch(view.stream(), *partition).await?;
            let read = self.realtime.read(view, *partition, taken_over.start).await;
            let Ok(Some(mut part)) = read else { return Ok(None) };
            let holds = |lowest| lowest <= taken_over.start || lowest <= first_epoch;
            let entry = &part.entry;
            let lost = Loss::before(master.losses_of(*partition), entry.position.offset);
            let behind = entry.position.offset < hand_over.position(*partition);
            if !holds(entry.floor) || !holds(entry.start) || behind || entry.lost != lost {
                return Ok(None);
            }
            part.states.retain(|state| state.epoch < taken_over.end);
            states.push(decode(view, part, &self.batch.context().runtime.memory_pool).await?);
            events.push(RowSelection { partition: Some(*partition), ..RowSelection::epochs(taken_over.clone()) });
        }
        let plan = merge(view, None, scan_states(view, &states)?)?;
        let served =
            Served { kind: AuditKind::HandOver, generation: manifest.generation, cut: manifest.cut, events, states: plan };
        Ok(Some(self.batch.audits().run(view, &master, served).await?))
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

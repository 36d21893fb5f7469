//! One view of a worker: its entry, its hand-over, its pause after a failure, and the removal of what nobody reads any more.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use riomar_event_log::{LogError, Loss};
use riomar_schemas::{Epoch, HandOver, Offset, ReaderPosition, View};

use super::{
    RebuildReason, SpeedError, SpeedParts,
    decision::{Decision, Observed, decide, rebuilt},
    error,
};
use crate::store::{Entry, StoreError, WriteOutcome};

/// How often a reset that found another entry than it expected is decided anew in one step.
const SETTLE_ATTEMPTS_MAX: usize = 4;
/// Removals that wait for their grace period; above it, the newest waits in the last one's place.
const REMOVALS_MAX: usize = 64;

/// One view of a worker.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) view: Arc<View>,
    /// `None`: the store has to be asked. Taken out during every write, so a write whose outcome nobody saw leaves it so.
    pub(super) known: Option<Known>,
    /// Whether the store was seen to hold an entry.
    seen: bool,
    hand_over: Option<HandOver>,
    hand_over_seen_ms: i64,
    /// Why it could not be read again, until it can.
    hand_over_failure: Option<String>,
    removals: VecDeque<Removal>,
    /// The entry whose states were found damaged. Whoever finds another one in its place has nothing to rebuild.
    damaged: Option<Entry>,
    /// The last write, where the store refused it and it was not found applied since: the entry that it expected, and why.
    write_failure: Option<(Option<Entry>, String)>,
    /// The last pause, which the next failure doubles; zero after a success.
    pause: Duration,
    paused_until_ms: i64,
}

/// What the store held when it was last asked or written.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) entry: Entry,
    /// Number of groups in each epoch.
    pub(super) groups: BTreeMap<Epoch, u64>,
}

/// Epochs below `floor` are removed at `due_ms`.
#[derive(Debug, Clone, Copy)]
struct Removal {
    floor: Epoch,
    due_ms: i64,
}

/// What settling a view took.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) rebuilds: Vec<RebuildReason>,
    pub(super) fenced: u64,
    /// The hand-over could not be read; the view goes on with the last one.
    pub(super) hand_over_error: Option<SpeedError>,
}

impl Lane {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self {
            view,
            known: None,
            seen: false,
            hand_over: None,
            hand_over_seen_ms: 0,
            hand_over_failure: None,
            removals: VecDeque::new(),
            damaged: None,
            write_failure: None,
            pause: Duration::ZERO,
            paused_until_ms: i64::MIN,
        }
    }

    pub(super) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// Where folding goes on; `None` for a view that is paused or halted, or whose entry is not known.
    pub(super) fn position(&self, now_ms: i64) -> Option<ReaderPosition> {
        let known = self.known.as_ref().filter(|known| known.entry.halted.is_none() && !self.is_paused(now_ms));
        known.map(|known| known.entry.position)
    }

    /// Whether it waits before it is tried again.
    pub(super) fn is_paused(&self, now_ms: i64) -> bool {
        now_ms < self.paused_until_ms
    }

    /// Notes a failure: the view is left alone for a while, longer with each failure in a row.
    pub(super) fn pause(&mut self, parts: &SpeedParts) {
        let limits = &parts.limits;
        self.pause = (self.pause * 2).clamp(limits.retry_pause_min, limits.retry_pause_max.max(limits.retry_pause_min));
        let pause_ms = i64::try_from(self.pause.as_millis()).unwrap_or(i64::MAX);
        self.paused_until_ms = parts.clock.now_ms().saturating_add(pause_ms);
    }

    /// Notes that the view was folded further.
    pub(super) fn went_well(&mut self) {
        self.pause = Duration::ZERO;
    }

    /// Notes how a write ended that expected this entry. One that found another entry says nothing of whether the store takes writes.
    pub(super) fn wrote(&mut self, expected: Option<&Entry>, outcome: &Result<WriteOutcome, StoreError>) {
        match outcome {
            Ok(WriteOutcome::Applied) => self.write_failure = None,
            Err(error @ StoreError::Unavailable(_)) => self.write_failure = Some((expected.cloned(), error.to_string())),
            Ok(WriteOutcome::Fenced(_)) | Err(StoreError::Damaged(_)) => {}
        }
    }

    /// Why the last write failed, if none succeeded since.
    pub(super) fn write_failure(&self) -> Option<&str> {
        self.write_failure.as_ref().map(|(_, reason)| reason.as_str())
    }

    /// Notes that the store has damaged states under this entry: it is rebuilt when it is settled next, if it is still there.
    pub(super) fn found_damaged(&mut self, entry: Entry) {
        self.damaged = Some(entry);
    }

    /// Whether the states that are known count these losses, or have not come to them. If not, the view is settled anew.
    pub(super) fn knows_of(&mut self, losses: &[Loss]) -> bool {
        let knows = |known: &Known| known.entry.lost == Loss::before(losses, known.entry.position.offset);
        let is_so = self.known.as_ref().is_none_or(knows);
        if !is_so {
            self.known = None;
        }
        is_so
    }

    /// Reads the entry where it is not known and the hand-over where it is due, and rebuilds where they do not go together.
    pub(super) async fn settle(
        &mut self,
        parts: &SpeedParts,
        first_epoch: Epoch,
        settled: &mut Settled,
    ) -> Result<(), SpeedError> {
        for _ in 0..SETTLE_ATTEMPTS_MAX {
            let now_ms = parts.clock.now_ms();
            let before = self.known.take();
            if before.is_some() && !self.hand_over_is_due(parts, now_ms) {
                self.known = before;
                break;
            }
            // The store is looked at in any case: one that was emptied is noticed without a new event.
            let known = self.load(parts).await?;
            let log_end = if before.is_some() { None } else { Some(self.log_end(parts).await?) };
            let (hand_over, losses) = match (self.history(parts).await, self.hand_over.take()) {
                (Ok((hand_over, losses)), last) => (self.saw(parts, now_ms, hand_over, last), losses),
                // The entry was in line with the last one, and folding further does not change that. One that came back from a copy, or
                // that somebody began anew, cannot be decided about now.
                (Err(e), Some(last)) if went_on(before.as_ref(), known.as_ref()) => {
                    self.hand_over_seen_ms = now_ms;
                    self.hand_over_failure = Some(e.to_string());
                    (self.hand_over, self.known) = (Some(last), known);
                    break;
                }
                (Err(e), last) => {
                    self.hand_over = last;
                    return Err(error::log(parts, e));
                }
            };
            let entry = known.as_ref().map(|known| &known.entry);
            let damaged = entry.zip(self.damaged.as_ref()).is_some_and(|(entry, damaged)| damaged.guards(entry));
            let (partition, seen) = (parts.partition, self.seen);
            let (hand_over_seen, losses) = (&hand_over, losses.as_slice());
            let observed = Observed { partition, first_epoch, entry, seen, damaged, hand_over: hand_over_seen, log_end, losses };
            let outcome = match decide(&observed) {
                Decision::Continue => None,
                Decision::Rebuild(reason) => {
                    let log_end = match log_end {
                        Some(end) => end,
                        None => self.log_end(parts).await?,
                    };
                    Some((reason, rebuilt(&observed, log_end)))
                }
            };
            self.hand_over = Some(hand_over);
            let Some((reason, fresh)) = outcome else {
                (self.known, self.seen, self.damaged) = (known, true, None);
                break;
            };
            match self.reset(parts, known.as_ref().map(|known| &known.entry), &fresh).await? {
                WriteOutcome::Applied => {
                    settled.rebuilds.push(reason);
                    self.damaged = None;
                    self.known = Some(Known { entry: fresh, groups: BTreeMap::new() });
                    self.seen = true;
                    break;
                }
                WriteOutcome::Fenced(_) => settled.fenced += 1,
            }
        }
        // Told with every step until it is over, so that it is one incident and not one for each look.
        settled.hand_over_error = self.hand_over_failure.clone().map(|reason| {
            let (view, partition) = (self.view.name().clone(), parts.partition);
            SpeedError::HandOver { view, partition, reason }
        });
        self.remove(parts).await
    }

    async fn log_end(&self, parts: &SpeedParts) -> Result<Offset, SpeedError> {
        let bounds = parts.log.bounds(&parts.stream.name, parts.partition).await;
        bounds.map(|bounds| bounds.end).map_err(|e| error::log(parts, e))
    }

    /// Where the current generation ends, and what was lost.
    async fn history(&self, parts: &SpeedParts) -> Result<(HandOver, Vec<Loss>), LogError> {
        let hand_over = parts.history.hand_over(&self.view).await?;
        Ok((hand_over, parts.history.losses(&parts.stream, parts.partition).await?))
    }

    async fn load(&mut self, parts: &SpeedParts) -> Result<Option<Known>, SpeedError> {
        let found =
            parts.store.groups(&self.view, parts.partition).await.map_err(|e| error::store(parts, self.view.name(), e))?;
        // A write whose reply was lost: there may be nothing more to write for a while.
        let entry = found.as_ref().map(|(entry, _)| entry);
        self.write_failure.take_if(|(expected, _)| expected.as_ref() != entry);
        Ok(found.map(|(entry, groups)| Known { entry, groups }))
    }

    async fn reset(&mut self, parts: &SpeedParts, expected: Option<&Entry>, fresh: &Entry) -> Result<WriteOutcome, SpeedError> {
        let reset = parts.store.reset(&self.view, parts.partition, expected, fresh).await;
        self.wrote(expected, &reset);
        reset.map_err(|e| error::store(parts, self.view.name(), e))
    }

    fn hand_over_is_due(&self, parts: &SpeedParts, now_ms: i64) -> bool {
        let interval_ms = i64::try_from(parts.limits.hand_over_interval.as_millis()).unwrap_or(i64::MAX);
        self.hand_over.is_none() || now_ms.saturating_sub(self.hand_over_seen_ms) >= interval_ms
    }

    /// Notes a hand-over that was just read, and plans the removal that a new one allows.
    fn saw(&mut self, parts: &SpeedParts, now_ms: i64, hand_over: HandOver, last: Option<HandOver>) -> HandOver {
        self.hand_over_seen_ms = now_ms;
        self.hand_over_failure = None;
        if last.is_none_or(|last| last.generation != hand_over.generation) && hand_over.previous_cut > Epoch::default() {
            let grace_ms = i64::try_from(parts.limits.removal_grace.as_millis()).unwrap_or(i64::MAX);
            if self.removals.len() == REMOVALS_MAX {
                self.removals.pop_back();
            }
            self.removals.push_back(Removal { floor: hand_over.previous_cut, due_ms: now_ms.saturating_add(grace_ms) });
        }
        hand_over
    }

    /// Carries out the removals whose grace period is over, each once.
    async fn remove(&mut self, parts: &SpeedParts) -> Result<(), SpeedError> {
        while let Some(&Removal { floor, due_ms }) = self.removals.front() {
            if parts.clock.now_ms() < due_ms {
                break;
            }
            let removal = parts.store.remove_below(&self.view, parts.partition, floor).await;
            removal.map_err(|e| error::store(parts, self.view.name(), e))?;
            self.removals.pop_front();
            if let Some(known) = &mut self.known {
                known.entry.floor = known.entry.floor.max(floor);
                known.groups = known.groups.split_off(&floor);
            }
        }
        Ok(())
    }
}

/// Whether what the store holds is what was known, or that folded further.
fn went_on(before: Option<&Known>, now: Option<&Known>) -> bool {
    let (Some(Known { entry: before, .. }), Some(Known { entry: now, .. })) = (before, now) else { return false };
    now.start == before.start && now.position.offset >= before.position.offset && now.lost >= before.lost
}

//! What a view holds at one moment: the seam between its batch view and its realtime view.
//!
//! First the hand-over is read (generation *g* ends at cut *n*), then the realtime entry of each partition. [`decide`] says what an
//! entry is good for. Event time and clocks play no part: the cut is a position in the log.
//!
//! Losses that were accepted are read behind the hand-over as well. An answer counts those that it knows of in every partition, and an
//! entry whose states hold what was lost is good for nothing. So an answer is one of before an acceptance or one of after it; one of
//! before is given for a second at the most, and never with a generation of after.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, SecondsFormat};
use datafusion::execution::memory_pool::MemoryPool;
use futures::future::{try_join, try_join_all};
use riomar_batch_layer::{BatchLayer, losses::LOSSES_SEEN_MAX_MS, master::MasterSnapshot};
use riomar_event_log::Loss;
use riomar_schemas::{
    Epoch, GenerationManifest, HandOver, Offset, PartitionId, View,
    receipt::{Degradation, ViewReceipt},
};
use riomar_speed_layer::{Entry, RealtimeStore};

use super::{
    error::QueryError,
    partitions::Partitions,
    states::{self, States},
};

/// How often the hand-over is read again when a newer one overtook it.
const ATTEMPTS_MAX: u32 = 8;

/// What an answer may lack of a view: the codes of its receipt.
pub(crate) const DEGRADATION_CODES: [&str; 4] =
    ["realtime_unavailable", "realtime_rebuilding", "realtime_behind", "realtime_halted"];

/// A view at one moment.
#[derive(Debug)]
pub(super) struct ViewSnapshot {
    pub(super) view: Arc<View>,
    /// The current generation; `None` before the first one.
    pub(super) generation: Option<Arc<GenerationManifest>>,
    /// Realtime states from the cut on. Their memory is reserved as long as the snapshot lives, so it is to outlive the query.
    pub(super) realtime: Vec<States>,
    pub(super) receipt: ViewReceipt,
    pub(super) degraded: Vec<Degradation>,
    /// The master dataset whose losses the answer counts.
    pub(super) counted: Arc<MasterSnapshot>,
}

impl ViewSnapshot {
    /// Whether `master` knows of nothing lost among the events that the receipt names beside what was known here.
    pub(super) fn lost_nothing_since(&self, master: &MasterSnapshot) -> bool {
        self.receipt.through.iter().all(|(partition, through)| {
            let lost = |master: &MasterSnapshot| Loss::before(master.losses_of(*partition), *through);
            lost(master) == lost(&self.counted)
        })
    }
}

/// What was seen of one partition.
#[derive(Debug, Clone, Copy)]
struct Observed<'a> {
    cut: Epoch,
    /// The first position behind the cut.
    cut_position: Offset,
    first_epoch: Epoch,
    /// The entry, or why there is none to be had.
    entry: Result<Option<&'a Entry>, &'a Lack>,
    /// What the partition has lost.
    losses: &'a [Loss],
    /// Whether the hand-over was read again since the entry was found to be ahead of it.
    read_again: bool,
}

/// Why a partition's realtime view cannot be read.
#[derive(Debug, Clone)]
struct Lack {
    code: &'static str,
    detail: String,
}

/// A partition's entry, and its states from the cut on.
type Part = Result<Option<(Entry, States)>, Lack>;

/// What a partition's realtime entry is good for.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Take its states; the answer reaches `through`. While they are rebuilt that is less than they held before.
    Take { through: Offset, rebuilding: bool },
    /// Take the batch view alone; the answer reaches the cut.
    BatchOnly { code: &'static str, detail: String },
    /// A newer generation was published meanwhile, or the entry knows of other losses: read the hand-over again.
    ReadAgain,
}

fn decide(observed: &Observed<'_>) -> Decision {
    let batch_only = |code, detail: &str| Decision::BatchOnly { code, detail: detail.to_owned() };
    let entry = match observed.entry {
        Err(lack) => return batch_only(lack.code, &lack.detail),
        Ok(None) => {
            return batch_only(
                "realtime_rebuilding",
                "the realtime view has no states here yet; they are being rebuilt from the log",
            );
        }
        Ok(Some(entry)) => entry,
    };
    let lacks = |lowest: Epoch| lowest > observed.cut && lowest > observed.first_epoch;
    if lacks(entry.floor) || lacks(entry.start) {
        if observed.read_again {
            return batch_only(
                "realtime_rebuilding",
                "the realtime view begins behind the batch view's cut; it is being rebuilt",
            );
        }
        return Decision::ReadAgain;
    }
    if entry.lost != Loss::before(observed.losses, entry.position.offset) {
        if observed.read_again {
            return batch_only(
                "realtime_rebuilding",
                "the realtime view holds events whose loss was accepted; it is being rebuilt without them",
            );
        }
        return Decision::ReadAgain;
    }
    let through = entry.position.offset.max(observed.cut_position);
    let rebuilding = entry.halted.is_none() && entry.rebuilding_to.is_some_and(|end| through < end);
    Decision::Take { through, rebuilding }
}

/// What was seen of a view beside its realtime entries.
struct Seen {
    generation: Option<Arc<GenerationManifest>>,
    hand_over: HandOver,
    counted: Arc<MasterSnapshot>,
}

/// Takes snapshots of views.
#[derive(Debug, Clone)]
pub(super) struct Snapshots {
    batch: Arc<BatchLayer>,
    partitions: Partitions,
    realtime: Arc<dyn RealtimeStore>,
    /// What queries share.
    pub(super) memory: Arc<dyn MemoryPool>,
    /// The highest offset that an answer has reached, to tell when the realtime view has lost ground.
    reached: Arc<Mutex<HashMap<(String, PartitionId), Offset>>>,
}

impl Snapshots {
    pub(super) fn new(
        batch: Arc<BatchLayer>,
        partitions: Partitions,
        realtime: Arc<dyn RealtimeStore>,
        memory: Arc<dyn MemoryPool>,
    ) -> Self {
        Self { batch, partitions, realtime, memory, reached: Arc::default() }
    }

    /// Reads hand-over and realtime entries until they fit together.
    pub(super) async fn take(&self, view: &Arc<View>) -> Result<ViewSnapshot, QueryError> {
        let stream = view.stream();
        let count = self.partitions.count(&stream.name).await;
        let history = self.batch.history();
        let mut seen_ahead: Option<u64> = None;
        for _ in 0..ATTEMPTS_MAX {
            let generation = self.batch.generations().current(view).await?;
            let hand_over = generation.as_deref().map(HandOver::from).unwrap_or_default();
            let partitions = all_partitions(count, &hand_over);
            let first_epochs = try_join_all(partitions.iter().map(|partition| history.first_epoch(stream, *partition))).await?;
            let counted = self.losses(view, generation.as_deref(), seen_ahead.is_some());
            let (counted, parts) = try_join(counted, self.read(view, &partitions, hand_over.cut)).await?;
            let read_again = seen_ahead == Some(hand_over.generation);
            let decisions = partitions.iter().zip(&first_epochs).zip(&parts).map(|((partition, first_epoch), part)| {
                decide(&Observed {
                    losses: counted.losses_of(*partition),
                    cut: hand_over.cut,
                    cut_position: hand_over.position(*partition),
                    first_epoch: *first_epoch,
                    entry: part.as_ref().map(|part| part.as_ref().map(|(entry, _)| entry)),
                    read_again,
                })
            });
            let decisions: Vec<_> = decisions.collect();
            if decisions.contains(&Decision::ReadAgain) {
                seen_ahead = Some(hand_over.generation);
                continue;
            }
            let seen = Seen { generation, hand_over, counted };
            return Ok(self.assemble(view, seen, &partitions, decisions, parts));
        }
        Err(QueryError::Unavailable("generations are published faster than they can be read".to_owned()))
    }

    /// The master dataset, for what its stream has lost: as it was a moment ago at the most, or as it is now, and never older than
    /// the generation.
    async fn losses(
        &self,
        view: &View,
        generation: Option<&GenerationManifest>,
        now: bool,
    ) -> Result<Arc<MasterSnapshot>, QueryError> {
        let master = self.batch.master(&view.stream().name)?;
        let seen = if now { master.snapshot().await? } else { master.recent(LOSSES_SEEN_MAX_MS).await? };
        match generation {
            Some(generation) if seen.version < generation.master_version => Ok(master.snapshot().await?),
            _ => Ok(seen),
        }
    }

    async fn read(&self, view: &Arc<View>, partitions: &[PartitionId], cut: Epoch) -> Result<Vec<Part>, QueryError> {
        try_join_all(partitions.iter().map(|partition| self.read_partition(view, *partition, cut))).await
    }

    /// # Errors
    /// [`QueryError::OutOfMemory`]. Everything else is a lack of this partition.
    async fn read_partition(&self, view: &Arc<View>, partition: PartitionId, cut: Epoch) -> Result<Part, QueryError> {
        let part = match self.realtime.read(view, partition, cut).await {
            Ok(Some(part)) => part,
            Ok(None) => return Ok(Ok(None)),
            Err(error) => return Ok(Err(Lack { code: "realtime_unavailable", detail: error.to_string() })),
        };
        let entry = part.entry.clone();
        match states::decode(view, part, &self.memory).await {
            Ok(states) => Ok(Ok(Some((entry, states)))),
            Err(error @ QueryError::OutOfMemory(_)) => Err(error),
            // States that cannot be read are as good as lost: the speed layer rebuilds them.
            Err(error) => Ok(Err(Lack { code: "realtime_rebuilding", detail: error.to_string() })),
        }
    }

    fn assemble(
        &self,
        view: &Arc<View>,
        seen: Seen,
        partitions: &[PartitionId],
        decisions: Vec<Decision>,
        parts: Vec<Part>,
    ) -> ViewSnapshot {
        let Seen { generation, hand_over, counted } = seen;
        let mut through = BTreeMap::new();
        let mut degraded: Vec<Degradation> = Vec::new();
        let mut lacking =
            |code: &str, detail: &str, partition: PartitionId| add_lack(&mut degraded, view, code, detail, partition);
        let mut event_times = generation.as_deref().map(|manifest| manifest.event_time_max_us.clone()).unwrap_or_default();
        let mut realtime = Vec::new();
        for ((partition, decision), part) in partitions.iter().zip(decisions).zip(parts) {
            let mut rebuilding = false;
            let reached = match decision {
                Decision::Take { through, rebuilding: unfinished } => {
                    let Ok(Some((entry, states))) = part else { continue };
                    rebuilding = unfinished;
                    if let Some(reason) = &entry.halted {
                        lacking("realtime_halted", reason, *partition);
                    }
                    if let Some(time) = entry.event_time_max_us {
                        event_times.entry(*partition).and_modify(|known| *known = time.max(*known)).or_insert(time);
                    }
                    realtime.push(states);
                    through
                }
                Decision::BatchOnly { code, detail } => {
                    lacking(code, &detail, *partition);
                    hand_over.position(*partition)
                }
                Decision::ReadAgain => continue,
            };
            let has_lost_ground = self.has_lost_ground(view, *partition, reached);
            if rebuilding {
                lacking(
                    "realtime_rebuilding",
                    "the realtime view is being rebuilt from the log, and has not reached its newest events yet",
                    *partition,
                );
            } else if has_lost_ground {
                lacking("realtime_behind", "an earlier answer reached further; the realtime view is catching up", *partition);
            }
            through.insert(*partition, reached);
        }
        let watermark = event_times.values().min().and_then(|time| DateTime::from_timestamp_micros(*time));
        let receipt = ViewReceipt {
            stream: view.stream().name.clone(),
            generation: hand_over.generation,
            cut: hand_over.cut,
            through,
            watermark: watermark.map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        };
        ViewSnapshot { view: Arc::clone(view), generation, realtime, receipt, degraded, counted }
    }

    /// Remembers how far an answer reaches, and says whether an earlier one reached further.
    fn has_lost_ground(&self, view: &View, partition: PartitionId, through: Offset) -> bool {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = reached.entry((view.fingerprint().to_owned(), partition)).or_default();
        *highest = through.max(*highest);
        through < *highest
    }
}

/// So many partitions, and those that the generation covers beside them: whatever an answer holds events of is in its receipt.
fn all_partitions(count: u32, hand_over: &HandOver) -> Vec<PartitionId> {
    let covered = hand_over.positions.keys().copied();
    (0..count).map(PartitionId).chain(covered.filter(|partition| partition.0 >= count)).collect()
}

/// Notes what one partition lacks. Partitions that lack the same are told together.
fn add_lack(degraded: &mut Vec<Degradation>, view: &View, code: &str, detail: &str, partition: PartitionId) {
    match degraded.iter_mut().find(|entry| entry.code == code && entry.detail == detail) {
        Some(entry) => entry.partitions.push(partition),
        None => degraded.push(Degradation {
            code: code.to_owned(),
            view: view.name().clone(),
            partitions: vec![partition],
            detail: detail.to_owned(),
        }),
    }
}

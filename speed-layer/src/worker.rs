//! The speed worker of one partition: reads the log, folds, and writes every view of the stream.
//!
//! A worker keeps no states. Each step reads a micro-batch, folds it, reads the states of the touched groups from the store,
//! combines, and writes the result together with the position it reaches, guarded by the position it started from. So a crash, a
//! reply that was lost, or a second worker of the same partition cannot count anything twice: whoever is fenced reads the entry
//! again and goes on from there.
//!
//! Each view has a lane of its own: a view that is halted, damaged or rebuilt does not hold back the others. A view that fails is
//! left alone for a pause, which doubles with each failure in a row, while the others go on; then it reads on from its own position,
//! and the others skip the rows that they have. [`decision`] says from facts alone when a view is rebuilt; [`run`] is the loop around
//! [`SpeedWorker::step`].

pub mod decision;
mod error;
mod flush;
mod incidents;
mod lane;
mod metrics;
mod run;

use std::{fmt, sync::Arc, time::Duration};

use datafusion::execution::SessionState;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use riomar_event_log::{Clock, EpochReader, History, Log, ReadLimit, ReadStep};
use riomar_schemas::{Epoch, Name, PartitionId, ReaderPosition, Stream, View};

use crate::{activity::Activity, store::RealtimeStore};
use flush::Flushed;
use lane::{Lane, Settled};
use metrics::Lag;

pub use decision::RebuildReason;
pub use error::SpeedError;
pub use metrics::describe;
pub use run::run;

/// How many readers a worker keeps: the one that is used, and that of the views further on while it is used for one that came back.
const READERS_MAX: usize = 2;
/// How many views of a partition are worked on at once: while one waits for the store, the next one folds.
const LANES_AT_ONCE: usize = 8;

/// The limits and paces of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeedLimits {
    /// Records of one micro-batch.
    pub batch_records_max: usize,
    /// Bytes of event text of one micro-batch.
    pub batch_bytes_max: usize,
    /// Pause after a micro-batch that was not full: what arrives meanwhile shares the next one's cost.
    pub batch_pause: Duration,
    /// How long one step waits for records.
    pub wait: Duration,
    /// Groups of one view in one partition and epoch. A view is halted instead of exceeding it.
    pub groups_max: u64,
    /// How often hand-overs are looked for.
    pub hand_over_interval: Duration,
    /// For how long after a hand-over the epochs that only older generations need are kept: a query may still be reading them.
    pub removal_grace: Duration,
    /// Pause of a view that failed, and of a worker whose whole step failed; it doubles with each failure in a row.
    pub retry_pause_min: Duration,
    /// The longest such pause. A store that is back lets a single call through first and refuses those that come at the same time
    /// ([`crate::RedisLimits::breaker_period`]): a pause that were much longer would leave whoever was refused behind.
    pub retry_pause_max: Duration,
}

impl Default for SpeedLimits {
    fn default() -> Self {
        Self {
            batch_records_max: 8192,
            batch_bytes_max: 8 << 20,
            batch_pause: Duration::from_millis(50),
            wait: Duration::from_millis(250),
            groups_max: 1_000_000,
            hand_over_interval: Duration::from_secs(1),
            removal_grace: Duration::from_secs(60),
            retry_pause_min: Duration::from_millis(100),
            retry_pause_max: Duration::from_secs(1),
        }
    }
}

/// What a worker is made of.
#[derive(Clone)]
pub struct SpeedParts {
    /// The log that it reads.
    pub log: Arc<dyn Log>,
    /// What has landed and what has been handed over.
    pub history: Arc<dyn History>,
    /// Where the realtime views live.
    pub store: Arc<dyn RealtimeStore>,
    /// Paces hand-overs, removals and retries.
    pub clock: Arc<dyn Clock>,
    /// Runs the views' plans.
    pub session_state: SessionState,
    /// The stream.
    pub stream: Arc<Stream>,
    /// All its views.
    pub views: Vec<Arc<View>>,
    /// The partition.
    pub partition: PartitionId,
    /// Limits and paces.
    pub limits: SpeedLimits,
    /// Where the worker tells how far it is.
    pub activity: Activity,
}

impl fmt::Debug for SpeedParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the session state, which prints every function it knows.
        let views: Vec<_> = self.views.iter().map(|view| view.name()).collect();
        f.debug_struct("SpeedParts")
            .field("stream", &self.stream.name)
            .field("partition", &self.partition)
            .field("views", &views)
            .field("store", &self.store)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Folds one partition into every view of its stream.
#[derive(Debug)]
pub struct SpeedWorker {
    parts: SpeedParts,
    lanes: Vec<Lane>,
    first_epoch: Option<Epoch>,
    /// The one used last comes last.
    readers: Vec<EpochReader>,
    lag: Lag,
}

/// What a step did.
#[derive(Debug, Default)]
pub struct WorkerStep {
    /// Number of records read: events and cuts.
    pub records: u64,
    /// Where the next read begins; `None` while no view can be folded.
    pub position: Option<ReaderPosition>,
    /// Kept events, counted once for each view that they were folded into.
    pub events_folded: u64,
    /// Writes that found another entry than expected. Nothing is lost by them.
    pub fenced: u64,
    /// Views that were emptied and begin at the hand-over again.
    pub rebuilds: Vec<(Name, RebuildReason)>,
    /// Views that stopped in this step, and why.
    pub halted: Vec<(Name, String)>,
    /// Views that could not be worked on. They try again after a pause; the others went on.
    pub failed: Vec<(Name, SpeedError)>,
    /// Views that were left alone because they failed a short while ago.
    pub paused: Vec<Name>,
}

impl SpeedWorker {
    /// A worker that has done nothing yet. Its first step reads the store's entries; store, log and history may be down until then.
    #[must_use]
    pub fn open(parts: SpeedParts) -> Self {
        let lanes = parts.views.iter().cloned().map(Lane::new).collect();
        let lag = Lag::new(parts.stream.name.clone(), parts.partition);
        Self { parts, lanes, first_epoch: None, readers: Vec::new(), lag }
    }

    /// Its partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.parts.partition
    }

    /// Its stream's name.
    #[must_use]
    pub fn stream(&self) -> &Name {
        &self.parts.stream.name
    }

    /// One micro-batch: brings every view's entry in line with its hand-over, reads on for at most `wait`, folds and writes.
    ///
    /// A future that is dropped halfway loses nothing: what the worker then does not know, the next step reads again.
    ///
    /// # Errors
    /// The log's error, or the first view's when every view failed. Calling again retries.
    pub async fn step(&mut self, wait: Duration) -> Result<WorkerStep, SpeedError> {
        let step = self.read_fold_write(wait).await;
        // After a step that failed too: that is when a view falls behind.
        self.lag.report(&self.parts, &self.lanes).await;
        let failure = self.lanes.iter().find_map(Lane::write_failure);
        self.parts.activity.report_writes(&self.parts.stream.name, self.parts.partition, failure);
        step
    }

    async fn read_fold_write(&mut self, wait: Duration) -> Result<WorkerStep, SpeedError> {
        let mut step = WorkerStep::default();
        self.settle(&mut step).await?;
        // One moment for the whole step: a view whose pause ends during it has not been read for.
        let now_ms = self.parts.clock.now_ms();
        let Some(from) = self.positions(now_ms).min_by_key(|position| position.offset) else {
            self.fail_if_nothing_went_well(&mut step)?;
            self.parts.clock.sleep(wait).await;
            return Ok(step);
        };
        let Some(read) = self.read(from, now_ms, wait).await? else { return Ok(step) };
        step.records = read.to.offset.0 - read.from.offset.0;
        step.position = Some(read.to);
        if step.records > 0 {
            self.flush(&read, now_ms, &mut step).await;
        }
        self.lag.read(&read);
        self.fail_if_nothing_went_well(&mut step)?;
        Ok(step)
    }

    /// Where the views go on that can.
    fn positions(&self, now_ms: i64) -> impl Iterator<Item = ReaderPosition> {
        self.lanes.iter().filter_map(move |lane| lane.position(now_ms))
    }

    /// Brings every view's entry in line with its hand-over, save those that are paused.
    async fn settle(&mut self, step: &mut WorkerStep) -> Result<(), SpeedError> {
        let first_epoch = match self.first_epoch {
            Some(epoch) => epoch,
            None => {
                let parts = &self.parts;
                let epoch = parts.history.first_epoch(&parts.stream, parts.partition).await.map_err(|e| error::log(parts, e))?;
                *self.first_epoch.insert(epoch)
            }
        };
        let parts = &self.parts;
        let now_ms = parts.clock.now_ms();
        let (paused, trying): (Vec<_>, Vec<_>) = self.lanes.iter_mut().partition(|lane| lane.is_paused(now_ms));
        step.paused = paused.into_iter().map(|lane| lane.view.name().clone()).collect();
        let settling = trying.into_iter().map(|lane| {
            let settle = async move {
                let mut settled = Settled::default();
                let result = lane.settle(parts, first_epoch, &mut settled).await;
                // A view whose removals fail can still be folded.
                if result.is_err() && !lane.is_known() {
                    lane.pause(parts);
                }
                (lane.view.name().clone(), settled, result)
            };
            settle.boxed()
        });
        for (view, settled, result) in some_at_once(settling.collect()).await {
            step.fenced += settled.fenced;
            metrics::count_fenced(parts, &view, settled.fenced);
            step.rebuilds.extend(settled.rebuilds.into_iter().map(|reason| (view.clone(), reason)));
            step.failed.extend(settled.hand_over_error.map(|error| (view.clone(), error)));
            step.failed.extend(result.err().map(|error| (view, error)));
        }
        metrics::count_settled(parts, step);
        Ok(())
    }

    /// Reads on from `from`, with a new reader where none stands there. `None` where a view has to be settled before that.
    async fn read(&mut self, from: ReaderPosition, now_ms: i64, wait: Duration) -> Result<Option<ReadStep>, SpeedError> {
        // Taken out: a reader whose future was dropped halfway is not used again.
        let mut reader = match self.take_reader(from, now_ms) {
            Some(reader) => reader,
            None => match self.open_reader(from).await? {
                Some(reader) => reader,
                None => return Ok(None),
            },
        };
        let parts = &self.parts;
        let limit = ReadLimit { records: parts.limits.batch_records_max, bytes: parts.limits.batch_bytes_max, wait };
        let read = reader.next(limit).await.map_err(|e| error::log(parts, e));
        self.readers.push(reader);
        read.map(Some)
    }

    /// Opens a reader. It knows the duplicates of the past as that is now: without what was lost, once that is accepted. States that
    /// hold lost events must not be folded on with it, so views that have such states are to be settled first: `None` then.
    async fn open_reader(&mut self, from: ReaderPosition) -> Result<Option<EpochReader>, SpeedError> {
        let parts = &self.parts;
        let failed = |e| error::log(parts, e);
        let (log, history, stream) = (parts.log.clone(), parts.history.clone(), parts.stream.clone());
        let reader = EpochReader::open(log, history, stream, parts.partition, from).await.map_err(failed)?;
        // Asked for behind the reader's own questions, so these are the losses that it knows of, or more.
        let losses = parts.history.losses(&parts.stream, parts.partition).await.map_err(failed)?;
        let mut all_know = true;
        for lane in &mut self.lanes {
            all_know &= lane.knows_of(&losses);
        }
        Ok(all_know.then_some(reader))
    }

    /// Takes out the reader that stands at `from`, and lets go of those that stand where no view goes on.
    fn take_reader(&mut self, from: ReaderPosition, now_ms: i64) -> Option<EpochReader> {
        let wanted: Vec<_> = self.positions(now_ms).map(|position| position.offset).collect();
        self.readers.retain(|reader| wanted.contains(&reader.position().offset));
        let place = self.readers.iter().rposition(|reader| reader.position().offset == from.offset);
        let reader = place.map(|place| self.readers.remove(place));
        // Room for the one that is about to be used.
        let surplus = self.readers.len().saturating_sub(READERS_MAX - 1);
        self.readers.drain(..surplus);
        reader
    }

    /// Folds what was read into every view that has not gone further already.
    async fn flush(&mut self, read: &ReadStep, now_ms: i64, step: &mut WorkerStep) {
        let parts = &self.parts;
        let read_for = read.from.offset..read.to.offset;
        let behind = self.lanes.iter_mut().filter(|lane| lane.position(now_ms).is_some_and(|at| read_for.contains(&at.offset)));
        let flushing = behind.map(|lane| {
            let flush = async move {
                let result = lane.flush(parts, read).await;
                (lane.view.name().clone(), result)
            };
            flush.boxed()
        });
        for (view, result) in some_at_once(flushing.collect()).await {
            match result {
                Ok(Flushed::Applied { events }) => {
                    step.events_folded += events;
                    metrics::count_folded(parts, &view, events);
                }
                Ok(Flushed::Fenced) => {
                    step.fenced += 1;
                    metrics::count_fenced(parts, &view, 1);
                }
                Ok(Flushed::Halted(reason)) => step.halted.push((view, reason)),
                Err(error) => step.failed.push((view, error)),
            }
        }
    }

    /// A step in which every view failed is an error, so that its caller waits before the next.
    fn fail_if_nothing_went_well(&self, step: &mut WorkerStep) -> Result<(), SpeedError> {
        let all_unknown = self.lanes.iter().all(|lane| !lane.is_known());
        if all_unknown && !step.failed.is_empty() { Err(step.failed.swap_remove(0).1) } else { Ok(()) }
    }
}

async fn some_at_once<T>(lanes: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    stream::iter(lanes).buffer_unordered(LANES_AT_ONCE).collect().await
}

#[cfg(test)]
mod tests;

//! The batch layer of a catalog: its parts, put together.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use datafusion::execution::runtime_env::RuntimeEnv;
use futures::future::{Either, select};
use object_store::ObjectStore;
use riomar_event_log::{Clock, History, Log};
use riomar_schemas::{Catalog, Name, PartitionId, Stream};
use serde::Serialize;

use crate::{
    audit::Audits,
    compaction::{self, Compacted, CompactionLimits},
    context::{Context, FreshIds},
    cuts::Cuts,
    error::BatchError,
    generations::{Generations, Retention},
    history::BatchHistory,
    landing::{Landing, LandingLimits, LandingParts},
    leadership::Leadership,
    losses::{self, Acceptance, Losses, LostRange},
    master::{LandedPartition, Master},
    recompute::{GROUPS_PER_VIEW_MAX, Recompute},
    retention,
    runs::{RunParts, RunRequest, Runs},
    scan,
    schedule::Schedule,
    telemetry,
};

/// How long the log holds a record that has landed: a day, in which a new Redis or a new view is filled from the log alone.
pub const LOG_RETAIN_MS: i64 = 86_400_000;

/// How the batch layer works. Plain data; the defaults serve a single machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchConfig {
    /// When landing commits.
    pub landing: LandingLimits,
    /// Which files are merged.
    pub compaction: CompactionLimits,
    /// How long generations stay.
    pub retention: Retention,
    /// How long the log holds a record that has landed, in milliseconds.
    pub log_retain_ms: i64,
    /// Groups that one view may have.
    pub groups_per_view_max: u64,
    /// How many threads a query is spread over.
    pub target_partitions: usize,
    /// Whether other processes may run the same batch layer: then a lease decides which one lands and starts the scheduled runs.
    pub shared: bool,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            landing: LandingLimits::default(),
            compaction: CompactionLimits::default(),
            retention: Retention::default(),
            log_retain_ms: LOG_RETAIN_MS,
            groups_per_view_max: GROUPS_PER_VIEW_MAX,
            target_partitions: std::thread::available_parallelism().map_or(2, usize::from),
            shared: false,
        }
    }
}

/// What the batch layer stands on.
#[derive(Debug, Clone)]
pub struct BatchComponents {
    /// Streams and views.
    pub catalog: Arc<Catalog>,
    /// The log of the streams.
    pub log: Arc<dyn Log>,
    /// Where everything is stored; paths are relative to its root.
    pub store: Arc<dyn ObjectStore>,
    /// Paces waiting and stamps what is written.
    pub clock: Arc<dyn Clock>,
    /// Memory and disk that queries may use. The store is registered in it.
    pub runtime: Arc<RuntimeEnv>,
    /// Names of new files and runs.
    pub fresh_ids: FreshIds,
}

/// What has landed of a stream: its part of the account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LandedAccount {
    /// The version of the master dataset.
    pub version: u64,
    /// Files of the master dataset.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Kept events: rows of the master dataset.
    pub landed: u64,
    /// Records left out as duplicates.
    pub duplicates: u64,
    /// Records that did not decode; they are in quarantine.
    pub undecodable: u64,
    /// Offsets that the log lost before they landed, whose loss was accepted.
    pub lost: u64,
    /// Kept events that were late.
    pub late: u64,
    /// How far the latest of them was behind, in milliseconds.
    pub lateness_max_ms: u64,
    /// What has landed of each partition.
    pub partitions: BTreeMap<PartitionId, LandedPartition>,
}

/// The batch layer of a catalog.
#[derive(Debug)]
pub struct BatchLayer {
    catalog: Arc<Catalog>,
    log: Arc<dyn Log>,
    context: Context,
    config: BatchConfig,
    masters: Arc<BTreeMap<Name, Arc<Master>>>,
    cuts: Arc<Cuts>,
    generations: Arc<Generations>,
    history: Arc<BatchHistory>,
    runs: Runs,
    audits: Audits,
    leadership: Arc<Leadership>,
}

impl BatchLayer {
    /// Puts the parts together; nothing is read or written yet.
    #[must_use]
    pub fn new(components: BatchComponents, config: BatchConfig) -> Self {
        let BatchComponents { catalog, log, store, clock, runtime, fresh_ids } = components;
        scan::register(&runtime, store.clone());
        let context = Context { store, clock, runtime, fresh_ids, target_partitions: config.target_partitions };
        let masters: BTreeMap<_, _> = catalog
            .streams()
            .map(|stream| (stream.name.clone(), Arc::new(Master::new(context.clone(), stream.clone()))))
            .collect();
        let masters = Arc::new(masters);
        let cuts = Arc::new(Cuts::new(context.clone(), log.clone()));
        let generations = Arc::new(Generations::new(context.clone(), config.retention));
        let history = Arc::new(BatchHistory::new(context.clone(), masters.clone(), cuts.clone(), generations.clone()));
        let recompute = Recompute::new(context.clone(), generations.clone(), config.groups_per_view_max);
        let parts = RunParts {
            context: context.clone(),
            catalog: catalog.clone(),
            log: log.clone(),
            masters: masters.clone(),
            cuts: cuts.clone(),
            generations: generations.clone(),
            recompute,
        };
        let runs = Runs::new(parts, config.shared);
        let audits = Audits::new(context.clone());
        let leadership = if config.shared { Leadership::shared(context.clone()) } else { Leadership::alone(context.clone()) };
        let leadership = Arc::new(leadership);
        Self { catalog, log, context, config, masters, cuts, generations, history, runs, audits, leadership }
    }

    /// Object store, clock and query engine.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What the readers of the log need to know of the past.
    #[must_use]
    pub fn history(&self) -> Arc<dyn History> {
        self.history.clone()
    }

    /// The cuts of all streams.
    #[must_use]
    pub fn cuts(&self) -> &Arc<Cuts> {
        &self.cuts
    }

    /// The generations of all views.
    #[must_use]
    pub fn generations(&self) -> &Arc<Generations> {
        &self.generations
    }

    /// The runs of this process, and what the others tell of theirs.
    #[must_use]
    pub fn runs(&self) -> &Runs {
        &self.runs
    }

    /// The audits of this process.
    #[must_use]
    pub fn audits(&self) -> &Audits {
        &self.audits
    }

    /// Whether this process lands and starts the scheduled runs.
    #[must_use]
    pub fn leadership(&self) -> &Arc<Leadership> {
        &self.leadership
    }

    /// The master dataset of a stream.
    ///
    /// # Errors
    /// [`BatchError::UnknownStream`].
    pub fn master(&self, stream: &Name) -> Result<&Arc<Master>, BatchError> {
        self.masters.get(stream).ok_or_else(|| BatchError::UnknownStream(stream.to_string()))
    }

    /// Landing of a stream, for the caller to step or run.
    ///
    /// # Errors
    /// [`BatchError::UnknownStream`].
    pub fn landing(&self, stream: &Stream) -> Result<Landing, BatchError> {
        let parts = LandingParts {
            context: self.context.clone(),
            log: self.log.clone(),
            history: self.history(),
            cuts: self.cuts.clone(),
        };
        Ok(Landing::new(parts, self.master(&stream.name)?.clone(), self.config.landing))
    }

    /// What has landed of a stream.
    ///
    /// # Errors
    /// [`BatchError::UnknownStream`], [`BatchError::Store`].
    pub async fn account(&self, stream: &Name) -> Result<LandedAccount, BatchError> {
        let snapshot = self.master(stream)?.snapshot().await?;
        let mut account = LandedAccount {
            version: snapshot.version,
            files: snapshot.files.len() as u64,
            bytes: snapshot.files.values().map(|file| file.bytes).sum(),
            partitions: snapshot.partitions.clone(),
            ..LandedAccount::default()
        };
        for landed in snapshot.partitions.values() {
            account.landed += landed.landed;
            account.duplicates += landed.duplicates;
            account.undecodable += landed.undecodable;
            account.lost += landed.lost;
            account.late += landed.late;
            account.lateness_max_ms = account.lateness_max_ms.max(landed.lateness_max_ms);
        }
        Ok(account)
    }

    /// What the log of a stream lost before it landed: what waits for somebody to accept it, and what was accepted.
    ///
    /// # Errors
    /// [`BatchError::UnknownStream`], [`BatchError::Store`], [`BatchError::Log`].
    pub async fn losses(&self, stream: &Name) -> Result<Losses, BatchError> {
        losses::find(&self.cuts, self.log.as_ref(), self.master(stream)?).await
    }

    /// Accepts that these ranges are lost: landing goes on behind them. Those that were accepted before stay as they are, so the same
    /// call may be made again.
    ///
    /// # Errors
    /// [`BatchError::NotLost`] where a range is not what landing waits for, and nothing was accepted; [`BatchError::Conflict`],
    /// [`BatchError::Store`] and [`BatchError::Log`], after which the call is to be made again.
    pub async fn accept_loss(&self, stream: &Name, ranges: &[LostRange]) -> Result<Losses, BatchError> {
        let (context, log) = (&self.context, self.log.as_ref());
        Acceptance { context, log, cuts: &self.cuts, master: self.master(stream)? }.accept(ranges).await
    }

    /// Merges small files of a stream's master dataset, and removes what neither it nor its views need any more: from the log what
    /// has landed long ago, old commits, merged files and old generations.
    ///
    /// # Errors
    /// Any; nothing is lost, and the next call goes on.
    pub async fn maintain(&self, stream: &Name) -> Result<Compacted, BatchError> {
        let master = self.master(stream)?;
        retention::trim(&self.context, self.log.as_ref(), master, self.config.log_retain_ms).await?;
        let compacted = compaction::compact(&self.context, master, &self.config.compaction).await?;
        master.remove_old_commits().await?;
        for view in self.catalog.views_of(stream) {
            self.generations.remove_old(view).await?;
        }
        Ok(compacted)
    }

    /// Starts a run of every stream's views whenever the schedule says so, and maintains the stream after it. A start that comes
    /// while the run before is in progress is left out.
    pub async fn run_schedule(&self, schedule: &Schedule, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = Box::pin(shutdown);
        while let Some(next_ms) = schedule.next_after(self.context.clock.now_ms()) {
            let wait_ms = u64::try_from(next_ms - self.context.clock.now_ms()).unwrap_or_default();
            let started = async {
                self.context.clock.sleep(Duration::from_millis(wait_ms)).await;
                self.run_all().await;
            };
            if matches!(select(&mut shutdown, Box::pin(started)).await, Either::Left(_)) {
                break;
            }
        }
    }

    /// One run of each stream that has views, one after the other.
    async fn run_all(&self) {
        for stream in self.catalog.streams() {
            let views: Vec<_> = self.catalog.views_of(&stream.name).map(|view| view.name().clone()).collect();
            if !views.is_empty() {
                match self.runs.accept_guarded(&RunRequest { views, full: false }, self.leadership.clone()) {
                    Ok(run) => drop(run.execute().await),
                    Err(BatchError::RunInProgress { .. }) => telemetry::start_skipped(&stream.name),
                    Err(error) => tracing::error!(stream = %stream.name, %error, "the scheduled run did not start"),
                }
            }
            if let Err(error) = self.maintain(&stream.name).await {
                tracing::warn!(stream = %stream.name, %error, "maintenance failed; it goes on after the next run");
            }
        }
    }
}

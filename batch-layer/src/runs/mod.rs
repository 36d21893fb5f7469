//! Runs: cut, wait for landing, recompute and publish, for the views of one or more streams.
//!
//! A run that is killed or fails leaves the generations before it serving: nothing of it counts until a manifest is created.

mod registry;
mod run;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use riomar_event_log::Log;
use riomar_schemas::{Catalog, Epoch, Name, Offset, PartitionId, View};
use uuid::Uuid;

use self::registry::{ActiveRun, Registry};
pub use self::run::{Run, RunRequest, RunState, ViewOutcome, ViewResult};
use crate::{
    context::Context,
    cuts::Cuts,
    error::BatchError,
    generations::{Generations, Publication},
    leadership::{Guard, Leadership},
    losses,
    master::{Master, MasterSnapshot},
    recompute::{Assignment, Recompute},
    telemetry,
};

/// How often it is looked whether landing has passed a cut.
const LANDING_POLL: Duration = Duration::from_millis(50);
/// After how long a cut is appended again to partitions that have not passed it.
const SEND_AGAIN_AFTER_MS: i64 = 5_000;
/// How often a run that waits for landing looks whether the log still has what is to land.
const LOOK_FOR_LOSSES_MS: i64 = 2_000;
/// How many cuts a run takes when those of other processes overtake its own.
const CUTS_PER_RUN_MAX: u32 = 5;
/// How long landing may take to pass a cut.
pub const LANDING_DEADLINE_MS: i64 = 120_000;

/// What runs work with.
#[derive(Debug)]
pub struct RunParts {
    /// Object store, clock and query engine.
    pub context: Context,
    /// The streams and views.
    pub catalog: Arc<Catalog>,
    /// The log of the streams.
    pub log: Arc<dyn Log>,
    /// The master dataset of each stream.
    pub masters: Arc<BTreeMap<Name, Arc<Master>>>,
    /// Where cuts come from.
    pub cuts: Arc<Cuts>,
    /// Where generations are published.
    pub generations: Arc<Generations>,
    /// Computes generations.
    pub recompute: Recompute,
}

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

/// Starts runs, at most one a stream at a time, and remembers the last hundred.
#[derive(Debug, Clone)]
pub struct Runs {
    parts: Arc<RunParts>,
    registry: Arc<Registry>,
}

impl Runs {
    /// No runs yet.
    #[must_use]
    pub fn new(parts: RunParts) -> Self {
        Self { parts: Arc::new(parts), registry: Arc::default() }
    }

    /// Accepts a run, which begins with [`PendingRun::execute`].
    ///
    /// # Errors
    /// [`BatchError::UnknownView`], [`BatchError::RunInProgress`].
    pub fn accept(&self, request: &RunRequest) -> Result<PendingRun, BatchError> {
        let views = self.views(request)?;
        let streams: BTreeSet<_> = views.iter().map(|view| view.stream().name.clone()).collect();
        let run = Run {
            id: self.parts.context.fresh_ids.next(),
            streams: streams.into_iter().collect(),
            views: views.iter().map(|view| view.name().clone()).collect(),
            full: request.full,
            state: RunState::Queued,
            view: None,
            rows_total: 0,
            rows_read: 0,
            results: Vec::new(),
            error: None,
            started_at_ms: self.parts.context.clock.now_ms(),
            finished_at_ms: None,
        };
        let active = self.registry.add(run, self.parts.context.clock.clone())?;
        Ok(PendingRun { parts: self.parts.clone(), views, active, guard: None })
    }

    /// Accepts a run that publishes only while this process leads.
    pub(crate) fn accept_guarded(&self, request: &RunRequest, leadership: Arc<Leadership>) -> Result<PendingRun, BatchError> {
        Ok(PendingRun { guard: Some(leadership), ..self.accept(request)? })
    }

    /// Starts a run in a task of its own and gives it as it begins.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub fn start(&self, request: &RunRequest) -> Result<Run, BatchError> {
        let pending = self.accept(request)?;
        let run = pending.active.run();
        tokio::spawn(pending.execute());
        Ok(run)
    }

    /// The steps of a run, for a caller that takes them one by one.
    #[must_use]
    pub fn parts(&self) -> &Arc<RunParts> {
        &self.parts
    }

    /// All remembered runs, newest first.
    #[must_use]
    pub fn all(&self) -> Vec<Run> {
        self.registry.all()
    }

    /// One run.
    ///
    /// # Errors
    /// [`BatchError::UnknownRun`].
    pub fn get(&self, id: Uuid) -> Result<Run, BatchError> {
        self.registry.get(id).ok_or(BatchError::UnknownRun(id))
    }

    /// Waits until a run is through.
    ///
    /// # Errors
    /// [`BatchError::UnknownRun`].
    pub async fn wait(&self, id: Uuid) -> Result<Run, BatchError> {
        let mut watched = self.registry.watch(id).ok_or(BatchError::UnknownRun(id))?;
        let run = watched.wait_for(|run| run.state.is_final()).await.map_err(|_| BatchError::UnknownRun(id))?;
        Ok(run.clone())
    }

    fn views(&self, request: &RunRequest) -> Result<Vec<Arc<View>>, BatchError> {
        if request.views.is_empty() {
            return Ok(self.parts.catalog.views().cloned().collect());
        }
        let find = |name: &Name| {
            self.parts.catalog.view(name.as_str()).cloned().ok_or_else(|| BatchError::UnknownView(name.to_string()))
        };
        let names: BTreeSet<_> = request.views.iter().collect();
        names.into_iter().map(find).collect()
    }
}

/// A run that was accepted. Dropping it ends the run.
#[derive(Debug)]
pub struct PendingRun {
    parts: Arc<RunParts>,
    views: Vec<Arc<View>>,
    active: ActiveRun,
    guard: Guard,
}

impl PendingRun {
    /// The run's identifier.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.active.run().id
    }

    /// Carries the run out. What fails is told by the run that is given back.
    pub async fn execute(self) -> Run {
        let mut errors = Vec::new();
        for stream in self.active.run().streams {
            let views: Vec<_> = self.views.iter().filter(|view| view.stream().name == stream).collect();
            match self.landed_cut(&stream).await {
                Ok(landed) => {
                    for view in views {
                        errors.extend(self.recompute(view, &landed).await);
                    }
                }
                Err(error) => {
                    match error {
                        // Landing tells of it, once and not with every run.
                        BatchError::RecordsLost { .. } => tracing::debug!(%stream, %error, "the run failed before its views"),
                        _ => tracing::error!(%stream, %error, "the run failed before its views"),
                    }
                    errors.push(error.to_string());
                }
            }
        }
        self.active.finish((!errors.is_empty()).then(|| errors.join("; ")));
        self.active.run()
    }

    async fn landed_cut(&self, stream: &Name) -> Result<LandedCut, BatchError> {
        let mut cuts = 0;
        loop {
            self.active.update(|run| run.state = RunState::Cutting);
            let cut = self.parts.cut(stream).await?;
            self.active.update(|run| run.state = RunState::Landing);
            cuts += 1;
            match self.parts.wait_for_landing(stream, cut, LANDING_DEADLINE_MS).await {
                Err(overtaken @ BatchError::CutOvertaken { .. }) if cuts < CUTS_PER_RUN_MAX => {
                    tracing::info!(reason = %overtaken, "the run takes a new cut");
                }
                landed => return landed,
            }
        }
    }

    /// Recomputes one view; gives the error, if there was one.
    async fn recompute(&self, view: &Arc<View>, landed: &LandedCut) -> Option<String> {
        let started_ms = self.parts.context.clock.now_ms();
        let full = self.active.run().full;
        let progress = self.active.begin_view(view.name());
        let prepared = self.parts.prepare(view, landed, full, &progress).await;
        let published = match prepared {
            Ok(None) => Ok(ViewOutcome::UpToDate),
            Ok(Some(_)) if self.guard.as_ref().is_some_and(|leadership| !leadership.held()) => Err(BatchError::NotLeader),
            Ok(Some(manifest)) => {
                self.active.update(|run| run.state = RunState::Publishing);
                match self.parts.generations.publish(view, manifest).await {
                    Ok(Publication::LostRace) => Ok(ViewOutcome::LostRace),
                    Ok(Publication::Published(manifest)) => {
                        let rows = progress.rows_total();
                        telemetry::published(view.name(), self.parts.context.clock.now_ms() - started_ms, rows);
                        let (generation, groups, full) = (manifest.generation, manifest.groups, manifest.full);
                        Ok(ViewOutcome::Published { generation, groups, full, rows })
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        let outcome = published.unwrap_or_else(|error| {
            telemetry::recompute_failed(view.name());
            tracing::error!(view = %view.name(), %error, "the recompute failed; the generation before keeps serving");
            ViewOutcome::Failed { error: error.to_string() }
        });
        let error = match &outcome {
            ViewOutcome::Failed { error } => Some(format!("{}: {error}", view.name())),
            _ => None,
        };
        let took_ms = self.parts.context.clock.now_ms() - started_ms;
        let result = ViewResult { view: view.name().clone(), outcome, cut: landed.cut, took_ms };
        self.active.update(|run| run.results.push(result));
        error
    }
}

impl RunParts {
    fn master(&self, stream: &Name) -> Result<&Arc<Master>, BatchError> {
        self.masters.get(stream).ok_or_else(|| BatchError::UnknownStream(stream.to_string()))
    }

    /// Takes the number of a new cut and appends it to every partition.
    ///
    /// # Errors
    /// [`BatchError::Store`]. Partitions that the log could not append to get the cut while landing is waited for.
    pub async fn cut(&self, stream: &Name) -> Result<Epoch, BatchError> {
        // Registers partitions that nobody has seen yet: their first epoch is then below the cut, or the cut itself.
        let partitions = self.cuts.partitions(stream).await?;
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
            if now_ms - started_ms >= deadline_ms {
                return Err(BatchError::LandingBehind { stream: stream.clone(), cut, waited_ms: now_ms - started_ms, missing });
            }
            if looked_ms.is_none_or(|looked_ms| now_ms - looked_ms >= LOOK_FOR_LOSSES_MS) {
                self.refuse_lost(stream).await?;
                looked_ms = Some(now_ms);
            }
            if now_ms - sent_ms >= SEND_AGAIN_AFTER_MS {
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
    /// As [`Recompute::prepare`].
    pub async fn prepare(
        &self,
        view: &View,
        landed: &LandedCut,
        full: bool,
        progress: &crate::recompute::Progress,
    ) -> Result<Option<riomar_schemas::GenerationManifest>, BatchError> {
        let assignment = Assignment { view, master: &landed.master, cut: landed.cut, positions: &landed.positions, full };
        self.recompute.prepare(&assignment, progress).await
    }
}

//! Runs: cut, wait for landing, recompute and publish, for the views of one or more streams.
//!
//! A run that is killed or fails leaves the generations before it serving: nothing of it counts until a manifest is created.

mod registry;
mod run;
mod steps;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
};

use riomar_event_log::Log;
use riomar_schemas::{Catalog, Name, View};
use uuid::Uuid;

use self::{
    registry::{ActiveRun, Registry},
    told::{Teller, ToldRuns},
};
pub use self::{
    run::{Run, RunRequest, RunState, ViewOutcome, ViewResult},
    steps::{LANDING_DEADLINE_MS, LandedCut},
};
use crate::{
    context::Context,
    cuts::Cuts,
    error::BatchError,
    generations::{Generations, Publication},
    leadership::{Guard, Leadership},
    master::Master,
    notices::Notices,
    recompute::Recompute,
    telemetry,
};

/// How many cuts a run takes when those of other processes overtake its own.
const CUTS_PER_RUN_MAX: u32 = 5;

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

/// Starts runs and remembers the last hundred. Where other processes share the batch layer, each tells the others of its runs.
#[derive(Debug, Clone)]
pub struct Runs {
    parts: Arc<RunParts>,
    registry: Arc<Registry>,
    /// Where the processes tell of their runs; `None` where there is no other.
    told: Option<Arc<ToldRuns>>,
}

impl Runs {
    /// No runs yet; `shared` says whether other processes may run the same batch layer.
    #[must_use]
    pub fn new(parts: RunParts, shared: bool) -> Self {
        let told = shared.then(|| Arc::new(ToldRuns::new(parts.context.clone())));
        Self { parts: Arc::new(parts), registry: Arc::default(), told }
    }

    /// Accepts a run, which begins with [`PendingRun::execute`].
    ///
    /// At most one run a stream is in progress *in this process*. Another one may carry out a run of the same stream at the same time:
    /// each then takes a cut of its own, the first to create the manifest of the next generation publishes it, and the other says so
    /// ([`ViewOutcome::LostRace`]).
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

    /// Starts a run in a task of its own and gives it as it begins. From then on every process finds it ([`Self::find`]).
    ///
    /// # Errors
    /// As [`Self::accept`]; [`BatchError::Store`] where the others cannot be told of it, and then it does not begin.
    pub async fn start(&self, request: &RunRequest) -> Result<Run, BatchError> {
        let pending = self.accept(request)?;
        let run = pending.active.run();
        if let Some(told) = &self.told
            && let Err(error) = told.announce(&run).await
        {
            pending.active.finish(Some(error.to_string()));
            return Err(error);
        }
        let place = pending.active.task();
        let task = tokio::spawn(pending.execute());
        place.get_or_init(|| task.abort_handle());
        Ok(run)
    }

    /// Tells the other processes of this one's runs until `shutdown` is over; then ends the runs, which end with the process, and
    /// tells of that. Does nothing where there are no others.
    pub async fn tell(&self, shutdown: impl Future<Output = ()> + Send) {
        if let Some(told) = &self.told {
            Teller::new(told, &self.registry).run(shutdown).await;
        }
    }

    /// A run of any process. `notices` are where this process tells of itself; without them it knows its own runs only.
    ///
    /// # Errors
    /// [`BatchError::UnknownRun`]; [`BatchError::Store`] and [`BatchError::Damaged`] where the others' runs cannot be read.
    pub async fn find(&self, id: Uuid, notices: Option<&Notices>) -> Result<Run, BatchError> {
        match (self.registry.get(id), &self.told, notices) {
            (Some(own), ..) => Ok(own),
            (None, Some(told), Some(notices)) => told.find(id, notices).await?.ok_or(BatchError::UnknownRun(id)),
            (None, ..) => Err(BatchError::UnknownRun(id)),
        }
    }

    /// The remembered runs of all processes, newest first; `notices` as in [`Self::find`].
    ///
    /// # Errors
    /// [`BatchError::Store`] and [`BatchError::Damaged`] where the others' runs cannot be read.
    pub async fn everyones(&self, notices: Option<&Notices>) -> Result<Vec<Run>, BatchError> {
        let mut runs = self.registry.all();
        if let (Some(told), Some(notices)) = (&self.told, notices) {
            let own: BTreeSet<_> = runs.iter().map(|run| run.id).collect();
            runs.extend(told.all(notices).await?.into_iter().filter(|run| !own.contains(&run.id)));
            runs.sort_by_key(|run| std::cmp::Reverse(run.started_at_ms));
            runs.truncate(registry::RUNS_REMEMBERED);
        }
        Ok(runs)
    }

    /// The steps of a run, for a caller that takes them one by one.
    #[must_use]
    pub fn parts(&self) -> &Arc<RunParts> {
        &self.parts
    }

    /// All remembered runs of this process, newest first.
    #[must_use]
    pub fn all(&self) -> Vec<Run> {
        self.registry.all()
    }

    /// One run of this process.
    ///
    /// # Errors
    /// [`BatchError::UnknownRun`].
    pub fn get(&self, id: Uuid) -> Result<Run, BatchError> {
        self.registry.get(id).ok_or(BatchError::UnknownRun(id))
    }

    /// Waits until a run of this process is through.
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

//! Runs as the processes of a deployment tell each other of them: an object for each, which the process that carries it out writes.
//!
//! It is created before the run is accepted, written again while the run is under way, and a last time when it is over, so any process
//! can answer for it. A run is told again also where nothing is new: one that is not, for as long as a process may be silent
//! ([`SILENT_AFTER_MS`]), is shown as [`RunState::Unknown`]. Nothing is decided by what is told here; what counts of a run is the
//! manifest that it creates. The newest hundred are kept.

use std::{collections::BTreeMap, future::Future, pin::pin, time::Duration};

use futures::{
    StreamExt, TryStreamExt,
    future::{Either, select},
    stream,
};
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};
use riomar_schemas::paths;
use uuid::Uuid;

use super::{
    Run, RunState,
    registry::{RUNS_REMEMBERED, Registry},
};
use crate::{
    context::Context,
    error::BatchError,
    notices::{Moment, Notices, SILENT_AFTER_MS},
    objects,
};

/// How often it is looked whether there is news of a run.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After how long a run is told again that is under way and has no news, in milliseconds.
const TELL_AGAIN_AFTER_MS: i64 = 10_000;
/// How long telling of one run may take.
const TELL_TIME_MAX: Duration = Duration::from_secs(5);
/// How long it may take to end the runs when the process stops, and to tell of that.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);
/// Runs that are read at once.
const READS_AT_ONCE: usize = 16;
/// What is said of a run that nobody has heard of for too long.
const SILENT: &str = "nothing is heard of the process that carries it out: it is gone, frozen, or cannot write to the object store; \
                      what it has published stays, and otherwise the generations before keep serving";

/// What the processes tell of their runs.
#[derive(Debug)]
pub(super) struct ToldRuns {
    context: Context,
}

impl ToldRuns {
    pub(super) fn new(context: Context) -> Self {
        Self { context }
    }

    /// Tells of a run before it begins. Writes over nothing: a request that arrives late does not undo what was told since.
    pub(super) async fn announce(&self, run: &Run) -> Result<(), BatchError> {
        match self.put(run, PutMode::Create).await {
            Err(BatchError::Store { source: Error::AlreadyExists { .. }, .. }) => Ok(()),
            outcome => outcome,
        }
    }

    /// One attempt: the next time is never far.
    async fn put(&self, run: &Run, mode: PutMode) -> Result<(), BatchError> {
        let path = path(run.id);
        let text = serde_json::to_vec(run).map_err(|error| BatchError::damaged(&path, error))?;
        let options = PutOptions { mode, ..PutOptions::default() };
        let told = pin!(self.context.store.put_opts(&path, PutPayload::from(text), options));
        match select(told, self.context.clock.sleep(TELL_TIME_MAX)).await {
            Either::Left((told, _)) => told.map(drop).map_err(BatchError::store(&path)),
            Either::Right(_) => Err(BatchError::store(&path)(Error::Generic {
                store: "object store",
                source: "it did not answer in time".into(),
            })),
        }
    }

    /// A run that was told of, as it is to be shown now.
    pub(super) async fn find(&self, id: Uuid, notices: &Notices) -> Result<Option<Run>, BatchError> {
        let Some((run, stored_ms)) = self.read(&path(id)).await? else { return Ok(None) };
        // How old it is makes no difference to a run that is over.
        let moment = if run.state.is_final() { None } else { notices.moment().await? };
        Ok(Some(self.shown(run, stored_ms, moment)))
    }

    /// All runs that were told of, in no order.
    pub(super) async fn all(&self, notices: &Notices) -> Result<Vec<Run>, BatchError> {
        let moment = notices.moment().await?;
        let found = objects::list(&self.context, &paths::runs()).await?;
        let reading = stream::iter(found).map(async |meta| self.read(&meta.location).await);
        // One that is gone by now was among the oldest.
        let read: Vec<_> = reading.buffer_unordered(READS_AT_ONCE).try_collect().await?;
        Ok(read.into_iter().flatten().map(|(run, stored_ms)| self.shown(run, stored_ms, moment)).collect())
    }

    /// A run with when it was told, by the store's clock.
    async fn read(&self, path: &Path) -> Result<Option<(Run, i64)>, BatchError> {
        let found = match self.context.store.get(path).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(BatchError::store(path)(error)),
        };
        let stored_ms = found.meta.last_modified.timestamp_millis();
        let text = found.bytes().await.map_err(BatchError::store(path))?;
        let run = serde_json::from_slice(&text).map_err(|error| BatchError::damaged(path, error))?;
        Ok(Some((run, stored_ms)))
    }

    /// A process that has not told of itself yet cannot say how old anything is, and shows what was told.
    fn shown(&self, run: Run, stored_ms: i64, moment: Option<Moment>) -> Run {
        let age_ms = moment.map_or(0, |moment| moment.age_ms(stored_ms, self.context.clock.now_ms()));
        match run.state.is_final() || age_ms < SILENT_AFTER_MS {
            true => run,
            false => Run { state: RunState::Unknown, error: Some(SILENT.to_owned()), ..run },
        }
    }

    /// Removes the runs beyond those that are remembered.
    async fn remove_oldest(&self) -> Result<(), BatchError> {
        let mut found = objects::list(&self.context, &paths::runs()).await?;
        found.sort_by_key(|meta| meta.last_modified);
        for meta in &found[..found.len().saturating_sub(RUNS_REMEMBERED)] {
            objects::delete(&self.context, &meta.location).await?;
        }
        Ok(())
    }
}

fn path(id: Uuid) -> Path {
    paths::run(&id.to_string())
}

/// Tells of the runs of one process.
pub(super) struct Teller<'a> {
    runs: &'a ToldRuns,
    registry: &'a Registry,
    /// What was told last of each run that is remembered, and when, in milliseconds since 1970-01-01 UTC.
    told: BTreeMap<Uuid, (Run, i64)>,
    failing: bool,
}

impl<'a> Teller<'a> {
    pub(super) fn new(runs: &'a ToldRuns, registry: &'a Registry) -> Self {
        Self { runs, registry, told: BTreeMap::new(), failing: false }
    }

    /// Tells the news again and again until `shutdown` is over; then ends the runs and tells of that.
    pub(super) async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        let clock = self.runs.context.clock.clone();
        let mut shutdown = pin!(shutdown);
        loop {
            let round = pin!(async {
                self.round().await;
                clock.sleep(LOOK_EVERY).await;
            });
            if matches!(select(&mut shutdown, round).await, Either::Left(_)) {
                break;
            }
        }
        let end = pin!(async {
            self.registry.interrupt().await;
            self.round().await;
        });
        // Whoever is not told sees the runs fall silent.
        let _ = select(end, clock.sleep(STOP_TIME_MAX)).await;
    }

    /// Tells what is new, and writes one line where failures begin and where they end.
    async fn round(&mut self) {
        let outcome = self.tell_news().await;
        match (&outcome, self.failing) {
            (Err(error), false) => {
                tracing::warn!(%error, "the other processes cannot be told of this one's runs; the runs go on, and it is tried again");
            }
            (Ok(()), true) => tracing::info!("the other processes are told of this one's runs again"),
            _ => {}
        }
        self.failing = outcome.is_err();
    }

    async fn tell_news(&mut self) -> Result<(), BatchError> {
        let mut runs = self.registry.all();
        self.told.retain(|id, _| runs.iter().any(|run| run.id == *id));
        // The oldest first: what is over longest is the first to be removed.
        runs.reverse();
        for run in runs {
            let now_ms = self.runs.context.clock.now_ms();
            let is_news = self.told.get(&run.id).is_none_or(|(told, told_at_ms)| {
                *told != run || (!run.state.is_final() && now_ms - told_at_ms >= TELL_AGAIN_AFTER_MS)
            });
            if is_news {
                self.runs.put(&run, PutMode::Overwrite).await?;
                if self.told.insert(run.id, (run, now_ms)).is_none() {
                    self.runs.remove_oldest().await?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

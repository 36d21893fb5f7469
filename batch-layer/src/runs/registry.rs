//! Which runs there are: at most one a stream, the last hundred remembered.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use riomar_event_log::Clock;
use riomar_schemas::Name;
use tokio::{sync::watch, task::AbortHandle};
use uuid::Uuid;

use super::run::{Run, RunState, ViewOutcome};
use crate::{error::BatchError, recompute::Progress};

/// How many runs are remembered: by a process of its own, and in the object store of those of all.
pub(super) const RUNS_REMEMBERED: usize = 100;

/// A run and who watches it.
#[derive(Debug, Clone)]
struct Entry {
    state: watch::Sender<Run>,
    progress: Arc<Mutex<Arc<Progress>>>,
    /// The task that carries it out, where it has one of its own.
    task: Arc<OnceLock<AbortHandle>>,
}

impl Entry {
    /// The run as it is now.
    fn run(&self) -> Run {
        let mut run = self.state.borrow().clone();
        if run.state == RunState::Folding {
            let progress = lock(&self.progress).clone();
            run.rows_total = progress.rows_total();
            // States that are combined with are read too, and are no rows of the stream.
            run.rows_read = progress.rows_read().min(run.rows_total);
        } else if run.state.is_final() {
            let rows = run.results.iter().map(|result| match result.outcome {
                ViewOutcome::Published { rows, .. } => rows,
                _ => 0,
            });
            run.rows_total = rows.sum();
            run.rows_read = run.rows_total;
        }
        run
    }
}

/// All runs of this process.
#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: Mutex<VecDeque<Entry>>,
}

impl Registry {
    /// Adds a run, unless one of its streams has a run in progress.
    pub(super) fn add(self: &Arc<Self>, run: Run, clock: Arc<dyn Clock>) -> Result<ActiveRun, BatchError> {
        let mut entries = lock(&self.entries);
        for entry in entries.iter() {
            let other = entry.state.borrow();
            if let Some(stream) = other.streams.iter().find(|stream| !other.state.is_final() && run.streams.contains(stream)) {
                return Err(BatchError::RunInProgress { stream: Name::clone(stream), run: other.id });
            }
        }
        while entries.len() >= RUNS_REMEMBERED
            && let Some(oldest) = entries.iter().position(|entry| entry.state.borrow().state.is_final())
        {
            entries.remove(oldest);
        }
        let entry = Entry { state: watch::Sender::new(run), progress: Arc::default(), task: Arc::default() };
        entries.push_back(entry.clone());
        Ok(ActiveRun { entry, clock })
    }

    /// All remembered runs, newest first.
    pub(super) fn all(&self) -> Vec<Run> {
        lock(&self.entries).iter().rev().map(Entry::run).collect()
    }

    /// One run.
    pub(super) fn get(&self, id: Uuid) -> Option<Run> {
        lock(&self.entries).iter().find(|entry| entry.state.borrow().id == id).map(Entry::run)
    }

    /// Follows one run.
    pub(super) fn watch(&self, id: Uuid) -> Option<watch::Receiver<Run>> {
        lock(&self.entries).iter().find(|entry| entry.state.borrow().id == id).map(|entry| entry.state.subscribe())
    }

    /// Ends the runs that have tasks of their own, and waits until all are over: the process stops.
    pub(super) async fn interrupt(&self) {
        let entries: Vec<_> = lock(&self.entries).iter().cloned().collect();
        for task in entries.iter().filter_map(|entry| entry.task.get()) {
            task.abort();
        }
        for entry in entries {
            // The entry holds the sender: it is there as long as it is waited for.
            let _ = entry.state.subscribe().wait_for(|run| run.state.is_final()).await;
        }
    }
}

/// The right to carry out a run. Dropping it ends the run.
#[derive(Debug)]
pub(super) struct ActiveRun {
    entry: Entry,
    clock: Arc<dyn Clock>,
}

impl ActiveRun {
    pub(super) fn run(&self) -> Run {
        self.entry.run()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Run)) {
        self.entry.state.send_modify(change);
    }

    /// The place for the task that carries the run out.
    pub(super) fn task(&self) -> Arc<OnceLock<AbortHandle>> {
        self.entry.task.clone()
    }

    /// Begins with a view; gives what counts the rows.
    pub(super) fn begin_view(&self, view: &Name) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        *lock(&self.entry.progress) = progress.clone();
        self.update(|run| {
            run.state = RunState::Folding;
            run.view = Some(view.clone());
        });
        progress
    }

    /// Ends the run.
    pub(super) fn finish(&self, error: Option<String>) {
        let now_ms = self.clock.now_ms();
        self.update(|run| {
            run.state = if error.is_some() { RunState::Failed } else { RunState::Done };
            run.error = error;
            run.view = None;
            run.finished_at_ms = Some(now_ms);
        });
    }
}

impl Drop for ActiveRun {
    fn drop(&mut self) {
        if !self.entry.state.borrow().state.is_final() {
            self.finish(Some(BatchError::Interrupted.to_string()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use riomar_event_log::SystemClock;

    use super::*;

    fn run(id: u128, stream: &str) -> Run {
        Run {
            id: Uuid::from_u128(id),
            streams: vec![Name::new(stream).expect("a name")],
            views: Vec::new(),
            full: false,
            state: RunState::Queued,
            view: None,
            rows_total: 0,
            rows_read: 0,
            results: Vec::new(),
            error: None,
            started_at_ms: 0,
            finished_at_ms: None,
        }
    }

    #[test]
    fn one_run_a_stream() {
        let registry = Arc::new(Registry::default());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let first = registry.add(run(1, "a"), clock.clone()).expect("free");
        let refused = registry.add(run(2, "a"), clock.clone()).expect_err("in progress");
        assert!(matches!(refused, BatchError::RunInProgress { run, .. } if run == Uuid::from_u128(1)), "{refused}");
        let other = registry.add(run(3, "b"), clock.clone()).expect("another stream");
        first.finish(None);
        registry.add(run(4, "a"), clock.clone()).expect("free again").finish(None);
        drop(other);
        let interrupted = registry.get(Uuid::from_u128(3)).expect("remembered");
        assert_eq!(interrupted.state, RunState::Failed);
        for id in 10..200 {
            registry.add(run(id, "a"), clock.clone()).expect("free").finish(None);
        }
        assert_eq!(registry.all().len(), RUNS_REMEMBERED);
        assert_eq!(registry.all()[0].id, Uuid::from_u128(199), "newest first");
    }
}

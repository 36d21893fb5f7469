//! The loop around [`SpeedWorker::step`].

use std::{future::Future, time::Duration};

use futures::{FutureExt, future::Shared};
use tokio::task::JoinSet;

use super::{
    RebuildReason, SpeedError, SpeedWorker, WorkerStep,
    incidents::{Incidents, Told},
};

/// Steps every worker in a task of its own until `shutdown` is over. A step in progress is dropped then, which loses nothing.
///
/// Failures are retried for ever, with growing pauses, and logged once when they begin and once when they end.
///
/// # Errors
/// [`SpeedError::Ended`] when a worker's task ended of itself; the others are stopped.
pub async fn run(workers: Vec<SpeedWorker>, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), SpeedError> {
    let shutdown = shutdown.boxed().shared();
    let mut tasks = JoinSet::new();
    for worker in workers {
        tasks.spawn(run_one(worker, shutdown.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        // Dropping the set stops the other tasks.
        ended.map_err(|error| SpeedError::Ended(error.to_string()))?;
    }
    Ok(())
}

async fn run_one(mut worker: SpeedWorker, shutdown: Shared<impl Future<Output = ()>>) {
    let clock = worker.parts.clock.clone();
    let mut incidents = Incidents::default();
    let mut retry_pause = worker.parts.limits.retry_pause_min;
    loop {
        let limits = worker.parts.limits;
        let stepped = tokio::select! {
            biased;
            () = shutdown.clone() => return,
            stepped = worker.step(limits.wait) => stepped,
        };
        let pause = match stepped {
            // Nothing was tried, so nothing is known to be better or worse.
            Ok(step) if step.paused.len() == worker.lanes.len() => limits.batch_pause,
            Ok(step) => {
                tell_step(&worker, &step);
                let failed = step.failed.iter().map(|(view, error)| (Some(view.clone()), error.to_string()));
                tell(&worker, incidents.observe(clock.now_ms(), failed, &step.paused));
                retry_pause = limits.retry_pause_min;
                let full = step.records as usize >= limits.batch_records_max;
                if full { Duration::ZERO } else { limits.batch_pause }
            }
            Err(error) => {
                tell(&worker, incidents.observe(clock.now_ms(), [(None, error.to_string())], &[]));
                let pause = retry_pause;
                retry_pause = (retry_pause * 2).min(limits.retry_pause_max);
                pause
            }
        };
        if !pause.is_zero() {
            tokio::select! {
                biased;
                () = shutdown.clone() => return,
                () = clock.sleep(pause) => {}
            }
        }
    }
}

fn tell_step(worker: &SpeedWorker, step: &WorkerStep) {
    let (stream, partition) = (worker.stream(), worker.partition());
    for (view, reason) in &step.rebuilds {
        match reason {
            RebuildReason::NothingYet => tracing::debug!(%stream, %partition, %view, %reason, "a realtime view begins"),
            _ => tracing::info!(%stream, %partition, %view, %reason, "rebuilding a realtime view from its hand-over"),
        }
    }
    for (view, reason) in &step.halted {
        tracing::warn!(%stream, %partition, %view, %reason, "a realtime view is halted until the next cut");
    }
    if step.fenced > 0 {
        tracing::debug!(%stream, %partition, fenced = step.fenced, "another writer was faster");
    }
}

fn tell(worker: &SpeedWorker, told: Vec<Told>) {
    let (stream, partition) = (worker.stream(), worker.partition());
    for event in told {
        match event {
            Told::Began { view, error } => {
                let view = view.map(|view| view.to_string());
                tracing::warn!(%stream, %partition, view, %error, "the speed layer cannot go on; retrying");
            }
            Told::Ended { view, after_ms, failures } => {
                let view = view.map(|view| view.to_string());
                tracing::info!(%stream, %partition, view, after_ms, failures, "the speed layer goes on");
            }
        }
    }
}

//! The loop around [`SpeedWorker::step`].

use std::{collections::BTreeMap, future::Future, time::Duration};

use futures::{FutureExt, future::Shared};
use riomar_event_log::Membership;
use riomar_schemas::{Name, PartitionId};
use tokio::task::{AbortHandle, JoinSet};

use super::{
    RebuildReason, SpeedError, SpeedWorker, WorkerStep,
    incidents::{Failure, Incidents, Outages, Told},
    metrics,
};

/// Steps a worker for each partition of this member's share in a task of its own, until `shutdown` is over. `open` makes the worker of a partition;
/// one that no view needs has none. A worker whose partition is taken away is dropped, in the middle of a step too, which loses
/// nothing: whoever works on the partition now begins at its stored position, and fences this one.
///
/// Failures are retried for ever, with growing pauses, and logged once when they begin and once when they end; a service that is away
/// is so for all workers.
///
/// # Errors
/// [`SpeedError::Ended`] when a worker's task ended of itself; the others are stopped.
pub async fn run(
    mut membership: Membership,
    open: impl Fn(&Name, PartitionId) -> Option<SpeedWorker>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), SpeedError> {
    let shutdown = shutdown.boxed().shared();
    let mut tasks = JoinSet::new();
    let outages = Outages::default();
    let mut running: BTreeMap<(Name, PartitionId), Option<AbortHandle>> = BTreeMap::new();
    loop {
        let wanted = membership.share();
        running.retain(|partition, task| {
            let keep = wanted.contains(partition);
            if let (false, Some(task)) = (keep, task) {
                task.abort();
            }
            keep
        });
        for partition in wanted {
            running.entry(partition).or_insert_with_key(|(stream, partition)| {
                open(stream, *partition)
                    .map(|worker| tasks.spawn(run_one(worker, Incidents::new(outages.clone()), shutdown.clone())))
            });
        }
        tokio::select! {
            biased;
            () = shutdown.clone() => {
                tasks.shutdown().await;
                membership.leave().await;
                return Ok(());
            }
            Some(ended) = tasks.join_next() => match ended {
                Err(error) if !error.is_cancelled() => return Err(SpeedError::Ended(error.to_string())),
                _ => {}
            },
            changed = membership.changed() => if let Err(error) = changed {
                return Err(SpeedError::Ended(error.to_string()));
            },
        }
    }
}

async fn run_one(mut worker: SpeedWorker, mut incidents: Incidents, shutdown: Shared<impl Future<Output = ()>>) {
    let clock = worker.parts.clock.clone();
    metrics::begin(&worker.parts);
    let _working = worker.parts.activity.begin(worker.stream(), worker.partition());
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
                let failed = step.failed.iter().map(|(view, error)| Failure::new(Some(view.clone()), error));
                tell(&worker, incidents.observe(clock.now_ms(), failed, &step.paused));
                retry_pause = limits.retry_pause_min;
                let full = step.records as usize >= limits.batch_records_max;
                if full { Duration::ZERO } else { limits.batch_pause }
            }
            Err(error) => {
                tell(&worker, incidents.observe(clock.now_ms(), [Failure::new(None, &error)], &[]));
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

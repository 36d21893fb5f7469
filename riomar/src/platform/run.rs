//! The platform's tasks: all of them start, keep going, and stop in order.

use std::{io, sync::Arc, time::Duration};

use riomar_serving_layer as serving;
use riomar_speed_layer::worker;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::{
    Layers, Platform, PlatformError,
    supervise::{Stop, keep_running, stopped},
};

/// How often the metrics forget what is old.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// How long the layers may take to stop. What is cut off then is as safe as after a crash.
const LAYERS_STOP_MAX: Duration = Duration::from_secs(4);

impl Platform {
    /// Runs everything until `shutdown` is over, then stops in order: no more requests, those under way are answered, landing commits
    /// what it holds, the log is closed. That takes less than ten seconds. Dropping the future stops at once, as a crash does.
    ///
    /// # Errors
    /// A listener that fails for good. Whatever else fails is logged and tried again.
    pub async fn run(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<(), PlatformError> {
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        self.layers.start(&mut tasks, &stopping);
        tasks.spawn(serving::hand_over::run(Arc::clone(&self.services), stopped(stopping.clone())));
        tasks.spawn(upkeep(Arc::clone(&self.services), stopping));
        let (server, clock) = (self.layers.settings.server, Arc::clone(&self.layers.clock));
        let served: io::Result<()> = serving::server::run(listener, self.app(), server, clock, shutdown).await;
        // The tasks are there to hear it.
        let _ = stop.send(true);
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LAYERS_STOP_MAX, ended).await.is_err() {
            tracing::warn!("some tasks did not stop in time and are cut off; what they held lands after the next start");
            tasks.shutdown().await;
        }
        if let Some(log) = &self.own_log {
            log.close().await?;
        }
        served.map_err(PlatformError::Server)
    }
}

impl Layers {
    /// Starts landing of each stream, the speed layer and the schedule.
    fn start(&self, tasks: &mut JoinSet<()>, stop: &Stop) {
        for stream in self.catalog.streams() {
            let (layers, stream, stopping) = (self.clone(), Arc::clone(stream), stop.clone());
            tasks.spawn(keep_running("landing", Arc::clone(&self.clock), stop.clone(), move || {
                let (layers, stream, stopping) = (layers.clone(), Arc::clone(&stream), stopping.clone());
                async move {
                    layers.batch.landing(&stream)?.run(stopped(stopping)).await;
                    Ok::<_, riomar_batch_layer::BatchError>(())
                }
            }));
        }
        let (layers, stopping) = (self.clone(), stop.clone());
        tasks.spawn(keep_running("speed layer", Arc::clone(&self.clock), stop.clone(), move || {
            let (layers, stopping) = (layers.clone(), stopping.clone());
            async move {
                let workers = layers.workers().await.map_err(|error| error.to_string())?;
                worker::run(workers, stopped(stopping)).await.map_err(|error| error.to_string())
            }
        }));
        let (layers, stopping) = (self.clone(), stop.clone());
        tasks.spawn(keep_running("schedule", Arc::clone(&self.clock), stop.clone(), move || {
            let (layers, stopping) = (layers.clone(), stopping.clone());
            async move {
                layers.batch.run_schedule(&layers.settings.schedule, stopped(stopping)).await;
                Ok::<_, std::convert::Infallible>(())
            }
        }));
    }
}

/// Lets the metrics forget what is old. By the machine's clock: it paces nothing that matters.
async fn upkeep(services: serving::AppState, stop: Stop) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    loop {
        tokio::select! {
            _ = every.tick() => services.metrics.run_upkeep(),
            () = stopped(stop.clone()) => return,
        }
    }
}

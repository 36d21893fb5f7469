//! The platform's tasks: all of them start, keep going, and stop in order.

use std::{convert::Infallible, sync::Arc, time::Duration};

use riomar_schemas::Name;
use riomar_serving_layer::{self as serving, roles::Role};
use riomar_speed_layer::worker;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::{
    Front, Layers, Platform, PlatformError,
    deployment::Deployment,
    supervise::{Stop, keep_running, stopped},
    vitals::watch_free_space,
};

/// The group whose members share the partitions for the speed layer.
const SPEED_GROUP: &str = "speed";
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
        let front = Front::open(listener, self.layers.settings.server, Arc::clone(&self.layers.clock))?;
        self.run_behind(front, shutdown).await
    }

    /// As [`Self::run`], where a listener is served already.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_behind(&self, mut front: Front, shutdown: impl Future<Output = ()>) -> Result<(), PlatformError> {
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        serving::metrics::begin(&self.services);
        self.layers.start(&mut tasks, &stopping, self.own.as_ref().map(|own| &own.deployment));
        if self.layers.settings.roles.has(Role::Serve) {
            tasks.spawn(serving::hand_over::run(Arc::clone(&self.services), stopped(stopping.clone())));
            tasks.spawn(serving::account_metrics::run(Arc::clone(&self.services), stopped(stopping.clone())));
        }
        if let Some(own) = &self.own {
            tasks.spawn(watch_free_space(own.data.clone(), Arc::clone(&self.layers.clock), stopping.clone()));
            let (deployment, stopping) = (Arc::clone(&own.deployment), stopping.clone());
            tasks.spawn(async move { deployment.find(stopping).await });
        }
        self.services.process.address.get_or_init(|| front.address());
        tasks.spawn(serving::processes::tell(Arc::clone(&self.services), stopped(stopping.clone())));
        tasks.spawn(upkeep(Arc::clone(&self.services), stopping));
        front.answer_with(self.app());
        let early = tokio::select! {
            () = shutdown => None,
            served = front.ended() => Some(served.map_err(PlatformError::Server)),
        };
        let served = match early {
            Some(served) => served,
            None => front.close().await,
        };
        // The tasks are there to hear it.
        let _ = stop.send(true);
        if tokio::time::timeout(LAYERS_STOP_MAX, ended(&mut tasks)).await.is_err() {
            tracing::warn!("some tasks did not stop in time and are cut off; what they held lands after the next start");
            tasks.shutdown().await;
        }
        if let Some(log) = self.own.as_ref().and_then(|own| own.log.as_ref()) {
            log.close().await?;
        }
        served
    }
}

impl Layers {
    /// Starts what the roles of this process ask for.
    fn start(&self, tasks: &mut JoinSet<()>, stop: &Stop, deployment: Option<&Arc<Deployment>>) {
        if self.settings.roles.has(Role::Batch) {
            self.batch.begin_metrics();
            let (leads, leading) = watch::channel(false);
            let (batch, stopping) = (Arc::clone(&self.batch), stop.clone());
            tasks.spawn(async move { batch.leadership().run(&leads, stopped(stopping)).await });
            let (batch, stopping) = (Arc::clone(&self.batch), stop.clone());
            tasks.spawn(async move { batch.runs().tell(stopped(stopping)).await });
            let (layers, stopping) = (self.clone(), stop.clone());
            tasks.spawn(keep_running("batch layer", Arc::clone(&self.clock), stop.clone(), move || {
                layers.clone().lead(leading.clone(), stopping.clone())
            }));
        }
        if self.settings.roles.has(Role::Speed) {
            let (layers, stopping, deployment) = (self.clone(), stop.clone(), deployment.cloned());
            tasks.spawn(keep_running("speed layer", Arc::clone(&self.clock), stop.clone(), move || {
                let (layers, stopping, deployment) = (layers.clone(), stopping.clone(), deployment.clone());
                async move {
                    if let Some(deployment) = deployment {
                        // Whoever cannot write realtime views yet leaves the partitions to those who can.
                        tokio::select! {
                            () = deployment.known() => {}
                            () = stopped(stopping.clone()) => return Ok(()),
                        }
                    }
                    let streams: Vec<_> = layers.catalog.streams().map(|stream| stream.name.clone()).collect();
                    let membership = layers.log.join(SPEED_GROUP, &streams).await.map_err(|error| error.to_string())?;
                    let open = |stream: &Name, partition| layers.worker(stream, partition);
                    worker::run(membership, open, stopped(stopping)).await.map_err(|error| error.to_string())
                }
            }));
        }
    }

    /// Lands every stream and runs the schedule whenever this process leads, until it is asked to stop.
    async fn lead(self, mut leading: Stop, stop: Stop) -> Result<(), Infallible> {
        loop {
            tokio::select! {
                // Its sender lives as long as the process leads or may come to lead.
                led = leading.wait_for(|leads| *leads) => if led.is_err() { return Ok(()) },
                () = stopped(stop.clone()) => return Ok(()),
            }
            let mut tasks = JoinSet::new();
            self.start_batch(&mut tasks, &stop);
            tokio::select! {
                biased;
                // They hear the request to stop themselves, and land what they hold.
                () = ended(&mut tasks) => return Ok(()),
                () = overtaken(&mut leading, &stop) => {}
            }
            // Whoever leads now does the same work. What is cut off here is as safe as after a crash.
            tasks.shutdown().await;
        }
    }

    /// Landing of each stream, and the schedule.
    fn start_batch(&self, tasks: &mut JoinSet<()>, stop: &Stop) {
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
        let (batch, stopping) = (Arc::clone(&self.batch), stop.clone());
        tasks.spawn(async move { batch.tell_generations(stopped(stopping)).await });
        let (layers, stopping) = (self.clone(), stop.clone());
        tasks.spawn(keep_running("schedule", Arc::clone(&self.clock), stop.clone(), move || {
            let (layers, stopping) = (layers.clone(), stopping.clone());
            async move {
                layers.batch.run_schedule(&layers.settings.schedule, stopped(stopping)).await;
                Ok::<_, Infallible>(())
            }
        }));
    }
}

async fn ended(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// Waits until another process leads. A lease that is given back because this process stops is no such case.
async fn overtaken(leading: &mut Stop, stop: &Stop) {
    let _ = leading.wait_for(|leads| !*leads).await;
    if *stop.borrow() {
        std::future::pending().await
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

//! The platform: the layers of one process, wired together.
//!
//! [`Platform::open`] wires; [`Platform::run`] runs. In between, tests take the same layers step by step: nothing here happens by
//! itself, and time comes from the clock that was handed in.

pub(crate) mod deployment;
mod error;
mod front;
mod later_realtime;
mod metered;
mod run;
pub(crate) mod seams;
mod settings;
mod steps;
mod supervise;
mod vitals;
mod wiring;

use std::{fmt, sync::Arc, time::Duration};

use axum::Router;
use object_store::ObjectStore;
use riomar_batch_layer::{BatchComponents, BatchError, BatchLayer, landing::Landing};
use riomar_event_log::{Clock, Log, quarantine::Quarantine};
use riomar_schemas::{Catalog, Name, PartitionId, session::session_state};
use riomar_serving_layer::{self as serving, AppState, probes::WriteHealth};
use riomar_speed_layer::{Activity, RealtimeStore, SpeedParts, SpeedWorker};
use tokio::sync::Mutex;

use self::metered::{MeteredLog, MeteredObjects, MeteredRealtime};
pub use error::PlatformError;
pub use front::Front;
pub use settings::Settings;
pub use supervise::{Stop, stopped};

/// How long it may take to see whether the declarations fit what has landed: ingestion does not wait for the object store.
const FIT_TIME_MAX: Duration = Duration::from_secs(5);

/// What a platform is made of. Every seam may be filled with another implementation, or with a decorator of one.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Streams and views.
    pub catalog: Arc<Catalog>,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Where the master dataset and the generations live.
    pub objects: Arc<dyn ObjectStore>,
    /// Where realtime views live.
    pub realtime: Arc<dyn RealtimeStore>,
    /// Paces everything.
    pub clock: Arc<dyn Clock>,
    /// Limits, paces and identifiers.
    pub settings: Settings,
}

/// The layers of one process.
pub struct Platform {
    layers: Layers,
    services: AppState,
    /// Landing and speed workers as the step functions use them; [`Platform::run`] has its own.
    landings: Mutex<Vec<Landing>>,
    workers: Mutex<Vec<SpeedWorker>>,
    /// What ends with this platform; nothing where its seams were handed in.
    own: Option<seams::Own>,
}

/// What the platform's tasks share.
#[derive(Clone)]
struct Layers {
    catalog: Arc<Catalog>,
    log: Arc<dyn Log>,
    realtime: Arc<dyn RealtimeStore>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    batch: Arc<BatchLayer>,
    activity: Activity,
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform").field("log", self.log()).field("realtime", &self.layers.realtime).finish_non_exhaustive()
    }
}

impl Platform {
    /// Wires the layers and creates what the catalog's streams need in the log. Nothing runs yet.
    ///
    /// # Errors
    /// A log that does not take the streams, or an engine that cannot be set up.
    pub async fn open(parts: Parts) -> Result<Self, PlatformError> {
        let Parts { catalog, log, objects, realtime, clock, settings } = parts;
        // First of all: what is recorded before goes nowhere.
        let recorder = wiring::recorder(&*clock)?;
        let log: Arc<dyn Log> = Arc::new(MeteredLog::new(log));
        let object_writes = WriteHealth::default();
        let objects: Arc<dyn ObjectStore> = Arc::new(MeteredObjects::new(objects, object_writes.clone()));
        let realtime: Arc<dyn RealtimeStore> = Arc::new(MeteredRealtime::new(realtime));
        let quarantine = Quarantine::new(Arc::clone(&log));
        for stream in catalog.streams() {
            let present = log.partitions(&stream.name).await?;
            if present > stream.partitions {
                return Err(PlatformError::FewerPartitions { stream: stream.name.clone(), present, declared: stream.partitions });
            }
            log.create(&stream.name, stream.partitions).await?;
            quarantine.create(&stream.name).await?;
        }
        let components = BatchComponents {
            catalog: Arc::clone(&catalog),
            log: Arc::clone(&log),
            store: objects,
            clock: Arc::clone(&clock),
            runtime: settings.runtime()?,
            fresh_ids: settings.fresh_ids.clone(),
        };
        let batch = Arc::new(BatchLayer::new(components, settings.batch));
        tokio::select! {
            fit = fit(&catalog, &batch) => fit?,
            () = clock.sleep(FIT_TIME_MAX) => tracing::warn!("the object store does not say in time what has landed; nobody waits for it"),
        }
        let layers = Layers { catalog, log, realtime, clock, settings, batch, activity: Activity::default() };
        Ok(Self {
            services: wiring::services(&layers, quarantine, object_writes, recorder),
            landings: Mutex::new(layers.landings()),
            workers: Mutex::new(layers.workers().await?),
            layers,
            own: None,
        })
    }
}

/// Refuses declarations that no longer fit what has landed.
async fn fit(catalog: &Catalog, batch: &BatchLayer) -> Result<(), PlatformError> {
    let fits = catalog.streams().map(async |stream| {
        let master = batch.master(&stream.name).map_err(PlatformError::Schema)?;
        match master.snapshot().await {
            Err(error @ BatchError::SchemaChanged { .. }) => Err(PlatformError::Schema(error)),
            // An object store that does not answer is waited for by those who need it; a declaration that does not fit stays so.
            _ => Ok(()),
        }
    });
    futures::future::try_join_all(fits).await.map(drop)
}

impl Platform {
    /// The HTTP application.
    pub fn app(&self) -> Router {
        serving::app(Arc::clone(&self.services))
    }

    /// What the HTTP application stands on.
    #[must_use]
    pub fn services(&self) -> &AppState {
        &self.services
    }

    /// The batch layer.
    #[must_use]
    pub fn batch(&self) -> &Arc<BatchLayer> {
        &self.layers.batch
    }

    /// Streams and views.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.layers.catalog
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.layers.log
    }
}

impl Layers {
    /// Landing of every stream, with nothing read yet.
    fn landings(&self) -> Vec<Landing> {
        // The batch layer knows every stream of the catalog that it was made of.
        self.catalog.streams().filter_map(|stream| self.batch.landing(stream).ok()).collect()
    }

    /// One worker for each partition that the log has now.
    async fn workers(&self) -> Result<Vec<SpeedWorker>, PlatformError> {
        let mut workers = Vec::new();
        for stream in self.catalog.streams() {
            let partitions = (0..self.log.partitions(&stream.name).await?).map(PartitionId);
            workers.extend(partitions.filter_map(|partition| self.worker(&stream.name, partition)));
        }
        Ok(workers)
    }

    /// The worker of one partition; none where the stream has no view.
    fn worker(&self, stream: &Name, partition: PartitionId) -> Option<SpeedWorker> {
        let stream = self.catalog.stream(stream.as_str())?;
        let views: Vec<_> = self.catalog.views_of(&stream.name).cloned().collect();
        let parts = || SpeedParts {
            log: Arc::clone(&self.log),
            history: self.batch.history(),
            store: Arc::clone(&self.realtime),
            clock: Arc::clone(&self.clock),
            // A micro-batch is small: spreading it over threads costs more than it saves.
            session_state: session_state(Arc::clone(&self.batch.context().runtime), 1),
            stream: Arc::clone(stream),
            views: views.clone(),
            partition,
            limits: self.settings.speed,
            activity: self.activity.clone(),
        };
        (!views.is_empty()).then(|| SpeedWorker::open(parts()))
    }
}

#[cfg(test)]
mod tests;

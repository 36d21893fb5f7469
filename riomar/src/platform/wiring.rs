//! What the HTTP application is handed.

use std::sync::{Arc, OnceLock};

use datafusion::execution::memory_pool::GreedyMemoryPool;
use metrics_exporter_prometheus::PrometheusHandle;
use riomar_batch_layer::{self as batch, notices::Notices};
use riomar_event_log::{Clock, quarantine::Quarantine};
use riomar_serving_layer::{
    AppState, Services,
    account::Counters,
    audit::AuditRoom,
    ingestion::Budget,
    metrics::{describe, prometheus},
    probes::{AppendHealth, Incidents, WriteHealth},
    processes::ThisProcess,
    query::{QueryEngine, QueryParts},
    requests::RequestIds,
};
use riomar_speed_layer::worker;

use super::{Layers, PlatformError, vitals};

/// What the HTTP application stands on.
pub fn services(layers: &Layers, quarantine: Quarantine, object_writes: WriteHealth, metrics: PrometheusHandle) -> AppState {
    let Layers { catalog, log, realtime, clock, settings, batch, activity } = layers.clone();
    let id = settings.fresh_ids.next();
    let process = ThisProcess {
        id,
        host: settings.host,
        began_at_ms: clock.now_ms(),
        address: OnceLock::new(),
        speed: activity,
        notices: settings.batch.shared.then(|| Notices::new(batch.context().clone(), id)),
    };
    let parts = QueryParts {
        catalog: Arc::clone(&catalog),
        log: Arc::clone(&log),
        batch: Arc::clone(&batch),
        realtime: Arc::clone(&realtime),
        memory: Arc::new(GreedyMemoryPool::new(settings.query_memory_bytes)),
    };
    Arc::new(Services {
        roles: settings.roles,
        catalog,
        log,
        quarantine,
        batch,
        realtime,
        query: QueryEngine::new(parts),
        query_limits: settings.query,
        clock,
        metrics,
        ingestion_limits: settings.ingestion,
        ingestion_budget: Budget::new(&settings.ingestion),
        request_ids: RequestIds::new(settings.process_id),
        counters: Counters::default(),
        audit_room: AuditRoom::default(),
        append_health: AppendHealth::default(),
        object_writes,
        incidents: Incidents::default(),
        process,
    })
}

/// The recorder of the process's metrics. There is one for a process, however many platforms it holds: that is how metrics are
/// addressed.
pub fn recorder(clock: &dyn Clock) -> Result<PrometheusHandle, PlatformError> {
    static RECORDER: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let install = || {
        let handle = prometheus().and_then(|builder| builder.install_recorder()).map_err(|error| error.to_string())?;
        describe();
        worker::describe();
        batch::describe();
        vitals::describe();
        vitals::started(clock);
        Ok(handle)
    };
    RECORDER.get_or_init(install).clone().map_err(PlatformError::Engine)
}

//! The application: what its routes stand on, and all of them together.

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::IntoResponse,
};
use metrics_exporter_prometheus::PrometheusHandle;
use riomar_batch_layer::BatchLayer;
use riomar_event_log::{Clock, Log, quarantine::Quarantine};
use riomar_schemas::{Catalog, Stream, View};
use riomar_speed_layer::RealtimeStore;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    account::Counters,
    audit::{self, AuditRoom},
    ingestion::{self, Budget, IngestionLimits},
    losses, metrics, openapi,
    probes::{self, AppendHealth, Incidents, WriteHealth},
    problem::ApiError,
    problem_types,
    processes::{self, ThisProcess},
    quarantine,
    query::{QueryEngine, QueryLimits},
    requests::{self, RequestIds},
    roles::{Role, Roles},
    runs, sql, streams, views,
};

/// What all routes share.
pub type AppState = Arc<Services>;

/// Everything that the routes stand on.
#[derive(Debug)]
pub struct Services {
    /// The roles of this process: they decide what it answers.
    pub roles: Roles,
    /// The streams and views.
    pub catalog: Arc<Catalog>,
    /// The log that ingestion appends to.
    pub log: Arc<dyn Log>,
    /// Where events go that break their schema.
    pub quarantine: Quarantine,
    /// Master datasets, generations, runs and audits.
    pub batch: Arc<BatchLayer>,
    /// Where realtime views live.
    pub realtime: Arc<dyn RealtimeStore>,
    /// Answers queries.
    pub query: QueryEngine,
    /// Limits of one query.
    pub query_limits: QueryLimits,
    /// Stamps what is received.
    pub clock: Arc<dyn Clock>,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// Limits of one ingestion request.
    pub ingestion_limits: IngestionLimits,
    /// The room that all ingestion requests share.
    pub ingestion_budget: Budget,
    /// Names the requests.
    pub request_ids: RequestIds,
    /// Counts what is in the log and has not landed.
    pub counters: Counters,
    /// The room for audits.
    pub audit_room: AuditRoom,
    /// Whether the last append succeeded.
    pub append_health: AppendHealth,
    /// Whether the object store takes what this process writes.
    pub object_writes: WriteHealth,
    /// What probes found away.
    pub incidents: Incidents,
    /// What the others of the deployment hear of this process.
    pub process: ThisProcess,
}

impl Services {
    /// The stream of that name.
    ///
    /// # Errors
    /// [`ApiError::Unknown`].
    pub fn stream(&self, name: &str) -> Result<Arc<Stream>, ApiError> {
        self.catalog.stream(name).cloned().ok_or_else(|| unknown("stream", name))
    }

    /// The view of that name.
    ///
    /// # Errors
    /// [`ApiError::Unknown`].
    pub fn view(&self, name: &str) -> Result<Arc<View>, ApiError> {
        self.catalog.view(name).cloned().ok_or_else(|| unknown("view", name))
    }
}

fn unknown(kind: &'static str, name: &str) -> ApiError {
    ApiError::Unknown { kind, name: name.chars().take(riomar_schemas::name::NAME_BYTES_MAX).collect() }
}

/// All routes. Those of a role that this process does not have answer with an error that names it.
pub fn app(state: AppState) -> Router {
    let of = |role: Role, routes: Router<AppState>| match state.roles.has(role) {
        true => routes,
        false => routes.route_layer(middleware::from_fn(move |_: Request, _: Next| async move { ApiError::OtherRole(role) })),
    };
    let queries = Router::new()
        .merge(processes::router())
        .merge(quarantine::router())
        .merge(streams::router())
        .merge(views::router())
        .merge(sql::router())
        .merge(audit::router());
    let routes = Router::new()
        .merge(of(Role::Ingest, ingestion::router()))
        .merge(of(Role::Serve, queries))
        .merge(of(Role::Batch, runs::router().merge(losses::router())))
        .merge(metrics::router())
        .merge(probes::router())
        .merge(openapi::router())
        .merge(problem_types::router());
    surrounded(routes, &state).with_state(state)
}

/// Routes with what surrounds every request.
fn surrounded(routes: Router<AppState>, state: &AppState) -> Router<AppState> {
    routes
        .fallback(async || ApiError::NoRoute)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        // From the inside out: a panic becomes a response before the request is counted and its problem written.
        .layer(CatchPanicLayer::custom(|payload: Box<dyn Any + Send>| ApiError::panicked(&*payload).into_response()))
        .layer(middleware::from_fn_with_state(Arc::clone(state), requests::track))
}

#[cfg(test)]
mod tests;

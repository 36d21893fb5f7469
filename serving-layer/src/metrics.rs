//! `/metrics`: Prometheus, and what its recorder must know beforehand.

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

use crate::app::AppState;

/// Upper bounds of the buckets that durations fall into, in seconds.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A recorder for the metrics of all layers; whoever starts the process installs it, and runs its upkeep every few seconds.
///
/// # Errors
/// Never, as long as the buckets above are not empty.
pub fn prometheus() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
}

/// Says what the metrics of this layer mean; call it once the recorder is installed.
pub fn describe() {
    describe_counter!("riomar_ingestion_events_total", "Events received, by stream and outcome: accepted, quarantined, rejected");
    describe_counter!("riomar_http_requests_total", "HTTP requests answered, by method, route and status");
    describe_histogram!("riomar_http_request_seconds", "Time from a request's head to its response's head");
    describe_gauge!("riomar_http_requests_in_flight", "HTTP requests that are being answered");
    describe_gauge!("riomar_http_connections", "Open HTTP connections");
    describe_counter!("riomar_http_connections_refused_total", "HTTP connections refused because too many were open");
}

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/metrics", get(get_metrics))
}

async fn get_metrics(State(state): State<AppState>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render())
}

//! Ingestion: `POST /v1/streams/{stream}/events`.
//!
//! Each event of the body is checked with the decoder that landing and the speed layer use. What is valid goes to the log, what
//! is not goes to quarantine, and the response comes after both are durable. A request that is refused as a whole stores no
//! event; it counts as one rejected event, so that the stream's account still adds up to what was received.

mod body;
mod budget;
mod cloudevents;
mod format;
mod limits;
mod sort;
mod split;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::HeaderMap,
    routing::post,
};
use riomar_event_log::quarantine::{EntryKind, QuarantineEntry};
use riomar_schemas::{Stream, Violation};
use serde::Serialize;

pub use self::{budget::Budget, limits::IngestionLimits};
use self::{format::Format, sort::Sorted};
use crate::{
    app::{AppState, Services},
    metrics,
    problem::ApiError,
};

/// What became of one request's events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct IngestionSummary {
    /// Events in the body.
    pub received: u64,
    /// Events now in the log.
    pub accepted: u64,
    /// Events that broke a limit and were not kept.
    pub rejected: u64,
    /// Events now in quarantine.
    pub quarantined: u64,
    /// What was wrong with the first of those that were not accepted.
    pub errors: Vec<EventError>,
    /// How many more were not accepted than `errors` lists.
    #[serde(skip_serializing_if = "is_zero")]
    pub errors_omitted: u64,
}

/// Why one event was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventError {
    /// Its line in the body, or its place in the array; counted from 1.
    pub line: u64,
    /// What was wrong.
    #[serde(flatten)]
    pub reason: Violation,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The routes of ingestion.
pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/v1/streams/{stream}/events", post(post_events))
}

async fn post_events(
    State(state): State<AppState>,
    Path(stream): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<IngestionSummary>, ApiError> {
    let stream = state.stream(&stream)?;
    match ingest(&state, &stream, &headers, body).await {
        Ok(summary) => {
            count(&stream, &summary);
            match summary.received > 0 && summary.rejected == summary.received {
                true => Err(ApiError::EventsRejected(Box::new(summary))),
                false => Ok(Json(summary)),
            }
        }
        Err(refusal) => {
            if is_final(&refusal) {
                record_refusal(&state, &stream, &refusal).await?;
                count(&stream, &IngestionSummary { received: 1, rejected: 1, ..IngestionSummary::default() });
            }
            Err(refusal)
        }
    }
}

async fn ingest(
    services: &Services,
    stream: &Arc<Stream>,
    headers: &HeaderMap,
    body: Body,
) -> Result<IngestionSummary, ApiError> {
    let format = Format::of(headers)?;
    let limits = &services.ingestion_limits;
    let _request = services.ingestion_budget.request()?;
    let received_at_ms = services.clock.now_ms();
    // Held until the events are durable: they point into the body.
    let (body, _bytes) = body::read(body, headers, limits, &services.ingestion_budget, &*services.clock).await?;
    let sorted = sort_events(stream, body, format, *limits).await?;
    store::store(services, stream, &sorted, received_at_ms).await?;
    Ok(sorted.summary)
}

/// Bodies up to this size are checked on the spot; larger ones would hold up other requests.
const CHECKED_ON_THE_SPOT_BYTES_MAX: usize = 64 << 10;

async fn sort_events(
    stream: &Arc<Stream>,
    body: bytes::Bytes,
    format: Format,
    limits: IngestionLimits,
) -> Result<Sorted, ApiError> {
    if body.len() <= CHECKED_ON_THE_SPOT_BYTES_MAX {
        return sort::sort(stream, &body, &format, &limits);
    }
    let stream = Arc::clone(stream);
    match tokio::task::spawn_blocking(move || sort::sort(&stream, &body, &format, &limits)).await {
        Ok(sorted) => sorted,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => Err(ApiError::panicked(&*panic)),
            Err(error) => Err(ApiError::Internal(error.to_string())),
        },
    }
}

/// Whether a refusal ends the matter: the client cannot have the same request accepted by sending it again.
fn is_final(refusal: &ApiError) -> bool {
    let kind = refusal.kind();
    kind.status.is_client_error() && !kind.retryable
}

/// Records a request that was refused as a whole as one rejected event.
async fn record_refusal(services: &Services, stream: &Stream, refusal: &ApiError) -> Result<(), ApiError> {
    let entry = QuarantineEntry {
        kind: EntryKind::Rejected,
        events: 1,
        reason: Violation { code: refusal.kind().code.to_owned(), pointer: String::new(), detail: refusal.to_string() },
        received_at_ms: services.clock.now_ms(),
        raw: None,
        raw_base64: None,
        position: None,
    };
    Ok(services.quarantine.append(&stream.name, &[entry]).await?)
}

fn count(stream: &Stream, summary: &IngestionSummary) {
    let outcomes = [("accepted", summary.accepted), ("quarantined", summary.quarantined), ("rejected", summary.rejected)];
    for (outcome, events) in outcomes {
        metrics::received(&stream.name, outcome, events);
    }
}

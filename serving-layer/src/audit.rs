//! `POST /v1/views/{view}/audit`.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::post,
};
use riomar_batch_layer::audit::{AuditKind, AuditReport};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::{
    app::AppState,
    metrics::{self, AuditOutcome},
    problem::ApiError,
    time::with_times,
};

/// Audits at once: each recomputes a whole view.
pub const AUDITS_MAX: usize = 1;

/// The room for audits.
#[derive(Debug)]
pub struct AuditRoom(Semaphore);

impl Default for AuditRoom {
    fn default() -> Self {
        Self(Semaphore::new(AUDITS_MAX))
    }
}

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/v1/views/{view}/audit", post(post_audit))
}

/// An audit as it is sent.
pub(crate) fn shown(report: &AuditReport) -> Value {
    let mut value = with_times(serde_json::to_value(report).unwrap_or_default());
    value["equal"] = report.comparison.is_equal().into();
    value
}

async fn post_audit(State(state): State<AppState>, Path(view): Path<String>) -> Result<Json<Value>, ApiError> {
    let view = state.view(&view)?;
    let _room = state.audit_room.0.try_acquire().map_err(|_| ApiError::Overloaded("another audit is under way"))?;
    let audited = state.query.audit(&view, state.clock.as_ref()).await;
    let outcome = audited.as_ref().map_or(AuditOutcome::Failed, |(report, _)| AuditOutcome::of(report.comparison.is_equal()));
    metrics::audited(view.name(), AuditKind::Answer, outcome);
    let (report, degraded) = audited?;
    let mut value = shown(&report);
    value["degraded"] = serde_json::to_value(degraded).unwrap_or_default();
    Ok(Json(value))
}

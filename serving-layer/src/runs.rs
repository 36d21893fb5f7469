//! `POST /v1/batch/runs`, `GET /v1/batch/runs`, `GET /v1/batch/runs/{id}`: any batch process answers for the runs of all.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use riomar_batch_layer::runs::{Run, RunRequest};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{app::AppState, extract::JsonBodyOrNone, problem::ApiError, time::with_times};

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/v1/batch/runs", get(list).post(start)).route("/v1/batch/runs/{id}", get(get_run))
}

/// A run as it is sent.
fn shown(run: &Run) -> Value {
    with_times(serde_json::to_value(run).unwrap_or_default())
}

/// Without a body: all views, incremental.
async fn start(State(state): State<AppState>, JsonBodyOrNone(request): JsonBodyOrNone<RunRequest>) -> Result<Response, ApiError> {
    let run = state.batch.runs().start(&request).await?;
    let location = format!("/v1/batch/runs/{}", run.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(shown(&run))).into_response())
}

async fn list(State(state): State<AppState>) -> Result<Json<Value>, ApiError> {
    let runs = state.batch.runs().everyones(state.process.notices.as_ref()).await?;
    let runs: Vec<_> = runs.iter().map(shown).collect();
    Ok(Json(json!({"runs": runs})))
}

async fn get_run(State(state): State<AppState>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let unknown = || ApiError::Unknown { kind: "run", name: id.chars().take(36).collect() };
    let id = id.parse::<Uuid>().map_err(|_| unknown())?;
    let run = state.batch.runs().find(id, state.process.notices.as_ref()).await?;
    Ok(Json(shown(&run)))
}

#[cfg(test)]
mod tests;

//! `GET /v1/streams/{stream}/losses`, `POST /v1/streams/{stream}/losses`.
//!
//! Served by batch processes: they are there when landing is halted, and accepting a loss is landing's work.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use riomar_batch_layer::losses::{Losses, LostRange};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{app::AppState, extract::JsonBody, problem::ApiError, time::rfc3339_ms};

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/v1/streams/{stream}/losses", get(list).post(accept))
}

/// The ranges whose loss is accepted: those that a person has seen, and no others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Acceptance {
    accept: Vec<LostRange>,
}

/// Losses as they are sent.
pub(crate) fn shown(losses: &Losses) -> Value {
    let waiting =
        |range: &LostRange| json!({"partition": range.partition, "from": range.from, "to": range.to, "offsets": range.offsets()});
    let accepted = losses.accepted.iter().flat_map(|(partition, losses)| losses.iter().map(move |loss| (partition, loss)));
    let accepted = accepted.map(|(partition, loss)| {
        json!({
            "partition": partition, "from": loss.from, "to": loss.to, "offsets": loss.offsets(), "epoch": loss.epoch,
            "accepted_at": rfc3339_ms(loss.accepted_at_ms),
        })
    });
    json!({"waiting": losses.waiting.iter().map(waiting).collect::<Vec<_>>(), "accepted": accepted.collect::<Vec<_>>()})
}

async fn list(State(state): State<AppState>, Path(stream): Path<String>) -> Result<Json<Value>, ApiError> {
    let stream = state.stream(&stream)?;
    Ok(Json(shown(&state.batch.losses(&stream.name).await?)))
}

async fn accept(
    State(state): State<AppState>,
    Path(stream): Path<String>,
    JsonBody(acceptance): JsonBody<Acceptance>,
) -> Result<Json<Value>, ApiError> {
    let stream = state.stream(&stream)?;
    Ok(Json(shown(&state.batch.accept_loss(&stream.name, &acceptance.accept).await?)))
}

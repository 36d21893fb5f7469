//! `POST /v1/sql`.

use axum::{Router, extract::State, http::HeaderMap, response::Response, routing::post};
use serde::Deserialize;

use crate::{
    answer::{self, AnswerFormat},
    app::AppState,
    extract::JsonBody,
    problem::ApiError,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SqlRequest {
    sql: String,
}

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/v1/sql", post(post_sql))
}

async fn post_sql(
    State(state): State<AppState>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<SqlRequest>,
) -> Result<Response, ApiError> {
    let format = AnswerFormat::negotiate(&headers)?;
    let answer = state.query.sql(&request.sql, state.query_limits).await?;
    answer::respond(answer, format)
}

//! `/openapi.json`: what the API takes and gives, for programs. A test keeps it and the routes together.

use axum::{Router, http::header, response::IntoResponse, routing::get};

use crate::app::AppState;

/// OpenAPI 3.1.
const DOCUMENT: &str = include_str!("openapi.json");

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/openapi.json", get(get_document))
}

async fn get_document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

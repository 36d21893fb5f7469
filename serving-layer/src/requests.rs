//! What surrounds every request: its id, its metrics, its problem.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::Response,
};
use tokio::time::Instant;

use crate::{app::AppState, problem};

/// The header that brings the request's id back.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Hands out request ids: a number of the process, given from outside, then a count.
#[derive(Debug)]
pub struct RequestIds {
    process: u64,
    count: AtomicU64,
}

impl RequestIds {
    /// `process` tells the ids of this process from those of others; draw it at random.
    #[must_use]
    pub fn new(process: u64) -> Self {
        Self { process, count: AtomicU64::new(1) }
    }

    fn next(&self) -> String {
        format!("{:016x}-{:x}", self.process, self.count.fetch_add(1, Ordering::Relaxed))
    }
}

/// Counts a request as in flight for as long as it lives, however it ends.
struct InFlight;

impl InFlight {
    fn begin() -> Self {
        metrics::gauge!("riomar_http_requests_in_flight").increment(1.0);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!("riomar_http_requests_in_flight").decrement(1.0);
    }
}

/// The middleware around all routes.
pub(crate) async fn track(State(state): State<AppState>, request: Request, next: Next) -> Response {
    tracked(&state.request_ids, request, next).await
}

/// Answers a request, with all that surrounds it.
pub(crate) async fn tracked(ids: &RequestIds, request: Request, next: Next) -> Response {
    let id = ids.next();
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let method = method_label(request.method());
    let in_flight = InFlight::begin();
    // The runtime's clock, so that a test that pauses it is in charge here as well.
    let started = Instant::now();
    let response = next.run(request).await;
    drop(in_flight);
    let mut response = problem::finish(response, &id);
    let status = response.status().as_u16().to_string();
    metrics::counter!("riomar_http_requests_total", "method" => method, "route" => route.clone(), "status" => status)
        .increment(1);
    metrics::histogram!("riomar_http_request_seconds", "method" => method, "route" => route)
        .record(started.elapsed().as_secs_f64());
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A client may invent methods; a label may not grow with them.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

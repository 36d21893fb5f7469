//! What a process answers before it can begin: that it is alive, that it is not ready, and what it waits for.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    metrics,
    probes::{self, Readiness},
    problem::{ApiError, Finished},
    requests::{self, RequestIds},
};

/// One thing that a start waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What it is.
    pub name: &'static str,
    /// What is awaited of it, for whoever asks why this takes so long.
    pub meaning: &'static str,
}

/// How far a start has come. Its clones are the same start.
#[derive(Debug, Clone)]
pub struct Start(Arc<Mutex<Step>>);

impl Start {
    /// A start with its first step.
    #[must_use]
    pub fn new(first: Step) -> Self {
        Self(Arc::new(Mutex::new(first)))
    }

    /// Goes on to another step.
    pub fn waits_for(&self, step: Step) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    fn step(&self) -> Step {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes of a process that starts: probes and metrics. It answers everything else with an error that may pass.
pub fn app(start: &Start, metrics: PrometheusHandle, request_ids: RequestIds) -> Router {
    let start = start.clone();
    Router::new()
        .route("/livez", get(probes::get_livez))
        .route("/readyz", get(async move || not_ready(start.step())))
        .route("/metrics", get(async move || metrics::answer(&metrics)))
        .fallback(async || ApiError::Starting)
        .method_not_allowed_fallback(async || ApiError::Starting)
        .layer(middleware::from_fn_with_state(Arc::new(request_ids), track))
}

async fn track(State(ids): State<Arc<RequestIds>>, request: Request, next: Next) -> Response {
    requests::tracked(&ids, request, next).await
}

fn not_ready(step: Step) -> Response {
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(Readiness::starting(step))).into_response();
    // Not a problem document: a probe reads the checks.
    response.extensions_mut().insert(Finished);
    response
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{Method, Request, header},
    };
    use metrics_exporter_prometheus::PrometheusBuilder;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    async fn ask(app: &Router, method: Method, path: &str) -> (StatusCode, Option<String>, String) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        let response = app.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
        assert!(parts.headers.contains_key("x-request-id"), "{path}");
        let retry_after = parts.headers.get(header::RETRY_AFTER).map(|value| value.to_str().expect("text").to_owned());
        (parts.status, retry_after, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_process_that_starts_is_alive_and_says_what_it_waits_for() {
        let start = Start::new(Step { name: "data directory", meaning: "it is opened" });
        let recorder = PrometheusBuilder::new().build_recorder();
        let app = app(&start, recorder.handle(), RequestIds::new(7));
        let (status, _, body) = ask(&app, Method::GET, "/livez").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, r#"{"status":"alive"}"#));
        assert_eq!(ask(&app, Method::GET, "/metrics").await.0, StatusCode::OK);
        for step in [Step { name: "data directory", meaning: "it is opened" }, Step { name: "log", meaning: "it is awaited" }] {
            start.waits_for(step);
            let (status, _, body) = ask(&app, Method::GET, "/readyz").await;
            let body: Value = serde_json::from_str(&body).expect("JSON");
            let check = json!({"name": step.name, "ok": false, "required": true, "detail": step.meaning});
            assert_eq!((status, body), (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "unready", "checks": [check]})));
        }
        for (method, path) in [(Method::POST, "/v1/streams/s/events"), (Method::GET, "/v1/views"), (Method::POST, "/livez")] {
            let (status, retry_after, body) = ask(&app, method, path).await;
            let problem: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!((status, retry_after.as_deref()), (StatusCode::SERVICE_UNAVAILABLE, Some("5")), "{path}");
            assert_eq!((&problem["code"], &problem["retryable"]), (&json!("starting"), &json!(true)), "{path}");
        }
    }
}

//! A client of the application in this process: no socket, the same requests and responses.

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use bytes::Bytes;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::answer::Answer;

/// The most that one response may have, in bytes.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// A response, read to its end.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of a problem, or of the first error that an ingestion response lists.
    #[must_use]
    pub fn code(&self) -> String {
        let body = self.json();
        let code = [&body["code"], &body["errors"][0]["code"]].into_iter().find_map(Value::as_str);
        code.unwrap_or_default().to_owned()
    }

    /// The body as the answer to a query.
    ///
    /// # Errors
    /// The whole response in words, where it is no answer.
    pub fn answer(&self) -> Result<Answer, String> {
        match self.status {
            StatusCode::OK => serde_json::from_slice(&self.body).map_err(|error| format!("no answer: {error}: {}", self.text())),
            status => Err(format!("{status}: {}", self.text())),
        }
    }
}

/// Sends requests to the application.
#[derive(Debug, Clone)]
pub struct Client(pub Router);

impl Client {
    /// Sends one request.
    ///
    /// # Panics
    /// When the application breaks the rules of HTTP.
    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.0.clone().oneshot(request).await.expect("a router cannot fail");
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, RESPONSE_BYTES_MAX).await.unwrap_or_else(|error| error.to_string().into());
        Reply { status: head.status, headers: head.headers, body }
    }

    /// `GET`.
    ///
    /// # Panics
    /// When the path is none.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).expect("a path")).await
    }

    /// `POST` with these headers.
    ///
    /// # Panics
    /// When the path is none.
    pub async fn post(&self, path: &str, headers: &[(header::HeaderName, &str)], body: impl Into<Body>) -> Reply {
        let request = headers.iter().fold(Request::post(path), |request, (name, value)| request.header(name, *value));
        self.send(request.body(body.into()).expect("a path and headers")).await
    }

    /// Sends NDJSON to a stream.
    pub async fn ingest(&self, stream: &str, body: impl Into<Body>) -> Reply {
        let path = format!("/v1/streams/{stream}/events");
        self.post(&path, &[(header::CONTENT_TYPE, "application/x-ndjson")], body).await
    }

    /// Asks a query.
    pub async fn sql(&self, sql: &str) -> Reply {
        self.post("/v1/sql", &[(header::CONTENT_TYPE, "application/json")], json!({ "sql": sql }).to_string()).await
    }

    /// All rows of a view.
    pub async fn rows(&self, view: &str) -> Reply {
        self.get(&format!("/v1/views/{view}/rows?limit=100000")).await
    }

    /// The account of a stream.
    pub async fn account(&self, stream: &str) -> Value {
        self.get(&format!("/v1/streams/{stream}")).await.json()["account"].take()
    }
}

//! Errors of the API, and their one way out: RFC 9457 `application/problem+json`.
//!
//! A handler returns an [`ApiError`]. [`ApiError::kind`] is the one place that says what each error means over HTTP; [`finish`]
//! is the one place that writes problems, so a route that does not exist, a panic and a refusal by the framework look the same.
//! The cause of a server's error is logged there, once, with the request id; it is never sent.

use std::{any::Any, sync::Arc};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use riomar_batch_layer::BatchError;
use riomar_event_log::LogError;
use serde_json::{Map, Value, json};

use crate::{ingestion::IngestionSummary, query::QueryError, roles::Role};

/// How long a client waits before it tries again what failed for lack of room.
const RETRY_OVERLOADED_SECONDS: u32 = 1;
/// How long a client waits before it tries again what failed because something behind the API is not available.
const RETRY_UNAVAILABLE_SECONDS: u32 = 5;
/// How long a client waits before it tries again what failed because the disk is full: somebody has to make room first.
const RETRY_DISK_FULL_SECONDS: u32 = 30;

/// An error of the API. Its `Display` is for the client where the client is to blame, and for the server's journal otherwise.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The path names something that does not exist.
    #[error("there is no {kind} '{name}'")]
    Unknown {
        /// `stream`, `view` or `run`.
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// The route is served by processes of another role.
    #[error("this process does not have the role '{0}': send the request to one that does")]
    OtherRole(Role),
    /// No route has this path.
    #[error("nothing is served at this path: see /openapi.json")]
    NoRoute,
    /// The route exists, with other methods.
    #[error("this path does not take that method: the `allow` header lists those it takes")]
    MethodNotAllowed,
    /// A query parameter that is not known or cannot be read.
    #[error("parameter '{name}': {detail}")]
    InvalidParameter {
        /// The parameter.
        name: String,
        /// What is wrong, and what is allowed.
        detail: String,
    },
    /// A request body that is JSON but not what the route takes, or no JSON.
    #[error("{0}")]
    InvalidBody(String),
    /// A request body of events that is not the JSON it says it is. Nothing of it was stored.
    #[error("the body is no JSON array of events: {0}")]
    MalformedJson(String),
    /// A media type that the route does not read.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// A content encoding that is not read.
    #[error("content encoding '{0}' is not read: send gzip, zstd or identity")]
    UnsupportedEncoding(String),
    /// No format that the client accepts is written.
    #[error("no format in 'accept: {accept}' is written here: ask for one of {written}")]
    NotAcceptable {
        /// The header as it came.
        accept: String,
        /// The media types that are written.
        written: String,
    },
    /// The body is larger than its limit.
    #[error("the body has more than {limit_bytes} bytes{when}: send it in parts")]
    BodyTooLarge {
        /// The limit.
        limit_bytes: u64,
        /// ` when decompressed`, or nothing.
        when: &'static str,
    },
    /// The body holds more events than one request may.
    #[error("the body has more than {limit} events: send it in parts")]
    TooManyEvents {
        /// The limit.
        limit: usize,
    },
    /// Every event of the body was rejected.
    #[error("every event broke a limit; none was stored")]
    EventsRejected(Box<IngestionSummary>),
    /// The compressed body does not decompress.
    #[error("the body does not decompress: it is damaged, cut short, or not in the encoding that it claims")]
    BrokenCompression,
    /// The body did not arrive in time.
    #[error("the body took longer than {limit_seconds} s to arrive")]
    BodyTimeout {
        /// The limit.
        limit_seconds: u64,
    },
    /// The connection broke while the body arrived.
    #[error("the body ended before its announced length")]
    BodyInterrupted,
    /// More is in flight than the server takes at once.
    #[error("too much is in flight: {0}")]
    Overloaded(&'static str),
    /// The process has not begun its work yet.
    #[error("this process is starting, and waits for what it needs: /readyz names it")]
    Starting,
    /// A query that was refused or failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The batch layer failed.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A handler panicked.
    #[error("a handler panicked: {0}")]
    Panic(String),
    /// What only a defect explains.
    #[error("{0}")]
    Internal(String),
    /// An error response that did not come from a handler.
    #[error("{}", .0.canonical_reason().unwrap_or("the request was refused"))]
    Framework(StatusCode),
}

/// What an error means over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProblemKind {
    /// A stable code; the problem's type is `/problems/{code}`.
    pub code: &'static str,
    /// The problem in a few words, the same for every occurrence.
    pub title: &'static str,
    /// The HTTP status.
    pub status: StatusCode,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// How long to wait before that, in seconds.
    pub retry_after_seconds: Option<u32>,
}

/// A problem that stays as long as the request stays the same.
const fn permanent(code: &'static str, title: &'static str, status: StatusCode) -> ProblemKind {
    ProblemKind { code, title, status, retryable: false, retry_after_seconds: None }
}

/// A problem that may go away.
const fn passing(code: &'static str, title: &'static str, status: StatusCode, retry_after_seconds: u32) -> ProblemKind {
    ProblemKind { code, title, status, retryable: true, retry_after_seconds: Some(retry_after_seconds) }
}

impl ApiError {
    /// What this error means over HTTP.
    #[must_use]
    pub fn kind(&self) -> ProblemKind {
        use StatusCode as S;
        match self {
            Self::Unknown { kind: "stream", .. } => permanent("unknown_stream", "Unknown stream", S::NOT_FOUND),
            Self::Unknown { kind: "view", .. } => permanent("unknown_view", "Unknown view", S::NOT_FOUND),
            Self::Unknown { .. } => permanent("unknown_run", "Unknown run", S::NOT_FOUND),
            Self::OtherRole(_) => permanent("other_role", "Served by another role", S::MISDIRECTED_REQUEST),
            Self::NoRoute => permanent("not_found", "Not found", S::NOT_FOUND),
            Self::MethodNotAllowed => permanent("method_not_allowed", "Method not allowed", S::METHOD_NOT_ALLOWED),
            Self::InvalidParameter { .. } => permanent("invalid_parameter", "Invalid parameter", S::BAD_REQUEST),
            Self::InvalidBody(_) => permanent("invalid_body", "Invalid body", S::BAD_REQUEST),
            Self::MalformedJson(_) => permanent("malformed_json", "Malformed JSON", S::BAD_REQUEST),
            Self::UnsupportedMediaType(_) => {
                permanent("unsupported_media_type", "Unsupported media type", S::UNSUPPORTED_MEDIA_TYPE)
            }
            Self::UnsupportedEncoding(_) => {
                permanent("unsupported_encoding", "Unsupported content encoding", S::UNSUPPORTED_MEDIA_TYPE)
            }
            Self::NotAcceptable { .. } => permanent("not_acceptable", "No acceptable format", S::NOT_ACCEPTABLE),
            Self::BodyTooLarge { .. } => permanent("body_too_large", "Body too large", S::PAYLOAD_TOO_LARGE),
            Self::TooManyEvents { .. } => permanent("too_many_events", "Too many events", S::PAYLOAD_TOO_LARGE),
            Self::EventsRejected(_) => permanent("events_rejected", "Every event was rejected", S::PAYLOAD_TOO_LARGE),
            Self::BrokenCompression => permanent("broken_compression", "Broken compression", S::BAD_REQUEST),
            Self::BodyTimeout { .. } => passing("body_timeout", "Body too slow", S::REQUEST_TIMEOUT, RETRY_OVERLOADED_SECONDS),
            Self::BodyInterrupted => passing("body_interrupted", "Body interrupted", S::BAD_REQUEST, RETRY_OVERLOADED_SECONDS),
            Self::Overloaded(_) => passing("overloaded", "Overloaded", S::SERVICE_UNAVAILABLE, RETRY_OVERLOADED_SECONDS),
            Self::Starting => passing("starting", "Starting", S::SERVICE_UNAVAILABLE, RETRY_UNAVAILABLE_SECONDS),
            Self::Query(error) => query_kind(error),
            Self::Log(error) => log_kind(error),
            Self::Batch(error) => batch_kind(error),
            Self::Panic(_) | Self::Internal(_) => permanent("internal", "Internal error", S::INTERNAL_SERVER_ERROR),
            Self::Framework(status) => framework_kind(*status),
        }
    }

    /// What the client is told. What went wrong inside the server is not.
    fn detail(&self) -> String {
        match self {
            Self::Query(QueryError::Unavailable(_)) => "the query cannot be answered now".to_owned(),
            // Written for the client, whatever the status.
            Self::Query(_) | Self::Overloaded(_) | Self::Starting => self.to_string(),
            Self::Log(LogError::DiskFull { reopen, .. }) | Self::Batch(BatchError::Log(LogError::DiskFull { reopen, .. })) => {
                let then = if *reopen { "start the process again, then" } else { "then" };
                format!(
                    "the disk of the server is full, and nothing was acknowledged: make room on the disk of the data directory, \
                     {then} send all of it again"
                )
            }
            _ if self.kind().status.is_server_error() => match self.kind().retryable {
                true => "the server cannot do this now; the journal has the cause under the request id".to_owned(),
                false => "the server failed; the journal has the cause under the request id".to_owned(),
            },
            _ => self.to_string(),
        }
    }

    /// Members of the problem beside the standard ones.
    fn extensions(&self) -> Map<String, Value> {
        let value = match self {
            Self::EventsRejected(summary) => serde_json::to_value(summary).unwrap_or_default(),
            Self::InvalidParameter { name, detail } => {
                json!({"errors": [{"code": "invalid_parameter", "parameter": name, "detail": detail}]})
            }
            _ => Value::Null,
        };
        match value {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    /// The problem as it is sent.
    fn body(&self, request_id: &str) -> Value {
        let kind = self.kind();
        let mut body = self.extensions();
        body.insert("type".to_owned(), format!("/problems/{}", kind.code).into());
        body.insert("title".to_owned(), kind.title.into());
        body.insert("status".to_owned(), kind.status.as_u16().into());
        body.insert("detail".to_owned(), self.detail().into());
        body.insert("instance".to_owned(), request_id.into());
        body.insert("code".to_owned(), kind.code.into());
        body.insert("retryable".to_owned(), kind.retryable.into());
        Value::Object(body)
    }

    /// From what a handler's panic left.
    pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
        Self::Panic(text.unwrap_or("no message").to_owned())
    }
}

fn query_kind(error: &QueryError) -> ProblemKind {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let title = if status.is_server_error() { "The query failed" } else { "The query was refused" };
    match error.retryable() {
        true => passing(error.code(), title, status, RETRY_UNAVAILABLE_SECONDS),
        false => permanent(error.code(), title, status),
    }
}

fn log_kind(error: &LogError) -> ProblemKind {
    use StatusCode as S;
    match error {
        LogError::DiskFull { .. } => passing("disk_full", "The disk is full", S::INSUFFICIENT_STORAGE, RETRY_DISK_FULL_SECONDS),
        LogError::Unavailable(_) | LogError::Locked { .. } => {
            passing("log_unavailable", "The log is not available", S::SERVICE_UNAVAILABLE, RETRY_UNAVAILABLE_SECONDS)
        }
        LogError::History(_) => passing(
            "history_unavailable",
            "The master dataset is not available",
            S::SERVICE_UNAVAILABLE,
            RETRY_UNAVAILABLE_SECONDS,
        ),
        LogError::Misconfigured(_) => {
            permanent("log_misconfigured", "The log is not set up as it must be", S::INTERNAL_SERVER_ERROR)
        }
        LogError::Damaged(_) => permanent("log_damaged", "The log is damaged", S::INTERNAL_SERVER_ERROR),
        LogError::OutOfRange { .. }
        | LogError::UnknownPartition { .. }
        | LogError::LimitExceeded { .. }
        | LogError::TooManyIds { .. } => permanent("internal", "Internal error", S::INTERNAL_SERVER_ERROR),
    }
}

fn batch_kind(error: &BatchError) -> ProblemKind {
    use StatusCode as S;
    match error {
        BatchError::UnknownStream(_) => permanent("unknown_stream", "Unknown stream", S::NOT_FOUND),
        BatchError::UnknownView(_) => permanent("unknown_view", "Unknown view", S::NOT_FOUND),
        BatchError::UnknownRun(_) => permanent("unknown_run", "Unknown run", S::NOT_FOUND),
        BatchError::RunInProgress { .. } => {
            passing("run_in_progress", "A run is in progress", S::CONFLICT, RETRY_UNAVAILABLE_SECONDS)
        }
        BatchError::NotLost { .. } => permanent("not_lost", "Not what was lost", S::CONFLICT),
        BatchError::Log(error) => log_kind(error),
        BatchError::Store { .. }
        | BatchError::Conflict { .. }
        | BatchError::CutOvertaken { .. }
        | BatchError::NotLeader
        | BatchError::LandingBehind { .. }
        | BatchError::RecordsLost { .. }
        | BatchError::Interrupted => {
            passing("batch_unavailable", "The batch layer is not available", S::SERVICE_UNAVAILABLE, RETRY_UNAVAILABLE_SECONDS)
        }
        BatchError::Damaged { .. } | BatchError::Parquet { .. } => {
            permanent("store_damaged", "The object store is damaged", S::INTERNAL_SERVER_ERROR)
        }
        BatchError::Query(_)
        | BatchError::SchemaChanged { .. }
        | BatchError::TooManyGroups { .. }
        | BatchError::InvalidSchedule { .. } => permanent("batch_failed", "The batch layer failed", S::INTERNAL_SERVER_ERROR),
    }
}

fn framework_kind(status: StatusCode) -> ProblemKind {
    match status {
        StatusCode::NOT_FOUND => ApiError::NoRoute.kind(),
        StatusCode::METHOD_NOT_ALLOWED => ApiError::MethodNotAllowed.kind(),
        status if status.is_server_error() => permanent("internal", "Internal error", status),
        status => permanent("bad_request", "Bad request", status),
    }
}

impl IntoResponse for ApiError {
    /// The status alone; [`finish`] adds the problem, which names the request.
    fn into_response(self) -> Response {
        let mut response = self.kind().status.into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// Marks an error response that is no problem document and is to be left as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished;

/// Makes a problem of every error response, and logs it.
pub(crate) fn finish(mut response: Response, request_id: &str) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.extensions().get::<Finished>().is_some() {
        return response;
    }
    let error = response.extensions_mut().remove::<Arc<ApiError>>().unwrap_or_else(|| Arc::new(from_framework(status)));
    let kind = error.kind();
    // The journal tells of a start once, and not with every request that comes too early.
    if kind.status.is_server_error() && !matches!(*error, ApiError::Starting) {
        tracing::error!(request_id, code = kind.code, status = status.as_u16(), cause = %causes(&*error), "request failed");
    } else {
        tracing::debug!(request_id, code = kind.code, status = status.as_u16(), cause = %causes(&*error), "request refused");
    }
    let (mut parts, _) = response.into_parts();
    for stale in [header::CONTENT_LENGTH, header::CONTENT_ENCODING] {
        parts.headers.remove(stale);
    }
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(seconds) = kind.retry_after_seconds {
        parts.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some((name, value)) = hint(&error) {
        parts.headers.insert(name, HeaderValue::from_static(value));
    }
    Response::from_parts(parts, Body::from(error.body(request_id).to_string()))
}

/// An error response without an [`ApiError`]: the framework's own.
fn from_framework(status: StatusCode) -> ApiError {
    match status {
        StatusCode::NOT_FOUND => ApiError::NoRoute,
        StatusCode::METHOD_NOT_ALLOWED => ApiError::MethodNotAllowed,
        status => ApiError::Framework(status),
    }
}

/// The header that tells a client what it may send instead.
fn hint(error: &ApiError) -> Option<(HeaderName, &'static str)> {
    match error {
        ApiError::UnsupportedEncoding(_) => Some((header::ACCEPT_ENCODING, "gzip, zstd, identity")),
        _ => None,
    }
}

/// An error with all that caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;

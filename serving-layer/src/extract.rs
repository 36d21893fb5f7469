//! Parameters and small JSON bodies, checked before a handler sees them.

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, header, request::Parts},
};
use bytes::BytesMut;
use futures::StreamExt;
use serde::de::DeserializeOwned;

use crate::{app::AppState, problem::ApiError};

/// Bytes of the body of every route but ingestion.
pub const JSON_BODY_BYTES_MAX: usize = 1 << 20;
/// Seconds that such a body may take to arrive.
pub const JSON_BODY_SECONDS_MAX: u64 = 10;

/// A JSON body that is what the route takes.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<AppState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        parse(&read_in_time(request, state).await?).map(Self)
    }
}

/// A JSON body, or what the route does without one.
#[derive(Debug)]
pub(crate) struct JsonBodyOrNone<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<AppState> for JsonBodyOrNone<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let body = read_in_time(request, state).await?;
        if body.trim_ascii().is_empty() { Ok(Self(T::default())) } else { parse(&body).map(Self) }
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::InvalidBody(format!("the body: {error}")))
}

async fn read_in_time(request: Request, state: &AppState) -> Result<BytesMut, ApiError> {
    check_media_type(request.headers())?;
    let time_out = state.clock.sleep(std::time::Duration::from_secs(JSON_BODY_SECONDS_MAX));
    tokio::select! {
        body = read(request.into_body()) => body,
        () = time_out => Err(ApiError::BodyTimeout { limit_seconds: JSON_BODY_SECONDS_MAX }),
    }
}

/// A page of another site can have a browser send other media types without asking, but not this one.
fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
    match value.as_deref().map(|value| value.split(';').next().unwrap_or_default().trim()) {
        None | Some("application/json") => Ok(()),
        Some(_) => Err(ApiError::UnsupportedMediaType("send the body as application/json".to_owned())),
    }
}

async fn read(body: Body) -> Result<BytesMut, ApiError> {
    let mut pieces = body.into_data_stream();
    let mut all = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| ApiError::BodyInterrupted)?;
        if all.len() + piece.len() > JSON_BODY_BYTES_MAX {
            return Err(ApiError::BodyTooLarge { limit_bytes: JSON_BODY_BYTES_MAX as u64, when: "" });
        }
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// The query parameters of a request, each taken once; what nobody took is not known.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl FromRequestParts<AppState> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let Query(pairs): Query<Vec<(String, String)>> = Query::try_from_uri(&parts.uri)
            .map_err(|_| invalid("the query string", "it cannot be read: percent-encode names and values"))?;
        Ok(Self(pairs))
    }
}

/// A parameter that is refused.
pub(crate) fn invalid(name: impl Into<String>, detail: impl Into<String>) -> ApiError {
    ApiError::InvalidParameter { name: name.into(), detail: detail.into() }
}

impl Parameters {
    /// Takes the value of a parameter.
    ///
    /// # Errors
    /// A parameter that is there twice.
    pub(crate) fn take(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let mut values = self.0.extract_if(.., |(found, _)| found == name);
        let value = values.next().map(|(_, value)| value);
        match values.next() {
            Some(_) => Err(invalid(name, "it is there more than once")),
            None => Ok(value),
        }
    }

    /// Takes a whole number between 0 and `max`.
    ///
    /// # Errors
    /// A parameter that is there twice, is no number, or is too large.
    pub(crate) fn take_number(&mut self, name: &str, max: u64) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        match text.parse() {
            Ok(number) if number <= max => Ok(Some(number)),
            _ => Err(invalid(name, format!("expected a whole number from 0 to {max}"))),
        }
    }

    /// Refuses what was not taken.
    ///
    /// # Errors
    /// The first parameter that is left.
    pub(crate) fn finish(self, allowed: &[&str]) -> Result<(), ApiError> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => {
                let shown: String = name.chars().take(64).collect();
                Err(invalid(shown, format!("it is not known here; allowed are {}", allowed.join(", "))))
            }
        }
    }
}

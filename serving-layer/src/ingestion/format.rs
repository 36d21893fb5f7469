//! What a request's headers say about the form of its body.

use axum::http::{HeaderMap, header};

use super::cloudevents::Attributes;
use crate::problem::ApiError;

/// The media types of ingestion, for messages.
const READ: &str = "application/json, application/x-ndjson, application/cloudevents+json or application/cloudevents-batch+json";

/// The form of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON value: an object is one event, an array is one event an element.
    Json,
    /// One event a line.
    Lines,
    /// Not declared: an array, one object, or one event a line, as its beginning shows.
    Unknown,
    /// One CloudEvent with its envelope.
    CloudEvent,
    /// An array of CloudEvents with their envelopes.
    CloudEvents,
    /// One CloudEvent's data; its attributes came as headers.
    CloudEventData(Attributes),
}

impl Format {
    /// What the headers say.
    ///
    /// # Errors
    /// [`ApiError::UnsupportedMediaType`].
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let content_type =
            headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
        let (media_type, parameters) = match &content_type {
            Some(text) => text.split_once(';').unwrap_or((text, "")),
            None => ("", ""),
        };
        let media_type = media_type.trim();
        if let Some(charset) = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("charset="))
            && !matches!(charset.trim_matches('"'), "utf-8" | "utf8" | "us-ascii")
        {
            return Err(ApiError::UnsupportedMediaType("events are UTF-8: send no other charset".to_owned()));
        }
        if !media_type.starts_with("application/cloudevents")
            && let Some(attributes) = Attributes::of_headers(headers)
        {
            return match media_type.is_empty() || media_type == "application/json" || media_type.ends_with("+json") {
                true => Ok(Self::CloudEventData(attributes)),
                false => Err(ApiError::UnsupportedMediaType("a CloudEvent in binary mode must carry JSON".to_owned())),
            };
        }
        match media_type {
            "" | "text/plain" => Ok(Self::Unknown),
            "application/json" => Ok(Self::Json),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => Ok(Self::Lines),
            "application/cloudevents+json" => Ok(Self::CloudEvent),
            "application/cloudevents-batch+json" => Ok(Self::CloudEvents),
            other => {
                let shown: String = other.chars().take(64).collect();
                Err(ApiError::UnsupportedMediaType(format!("content type '{shown}' is not read: send {READ}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn content_types() {
        let cases = [
            (None, Some(Format::Unknown)),
            (Some("application/json"), Some(Format::Json)),
            (Some("Application/JSON; charset=UTF-8"), Some(Format::Json)),
            (Some("application/x-ndjson"), Some(Format::Lines)),
            (Some("application/jsonl"), Some(Format::Lines)),
            (Some("text/plain"), Some(Format::Unknown)),
            (Some("application/cloudevents+json; charset=\"utf-8\""), Some(Format::CloudEvent)),
            (Some("application/cloudevents-batch+json"), Some(Format::CloudEvents)),
            (Some("application/json; charset=latin1"), None),
            (Some("application/x-www-form-urlencoded"), None),
            (Some("application/cloudevents"), None),
        ];
        for (content_type, expected) in cases {
            let mut headers = HeaderMap::new();
            if let Some(content_type) = content_type {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            }
            assert_eq!(Format::of(&headers).ok(), expected, "{content_type:?}");
        }
    }
}

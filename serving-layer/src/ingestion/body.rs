//! Reading a request's body: limited as sent, decompressed as it arrives, limited again.
//!
//! Decompression stops at the limit, so a few kilobytes that stand for gigabytes cost no more memory than an honest body.

use std::{io, pin::Pin, time::Duration};

use async_compression::{
    tokio::bufread::{GzipDecoder, ZstdDecoder},
    zstd::DParameter,
};
use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use riomar_event_log::Clock;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::{
    budget::{Budget, Reservation},
    limits::{IngestionLimits, ZSTD_WINDOW_LOG_MAX},
};
use crate::problem::ApiError;

/// How much is decompressed before other requests get their turn.
const TURN_BYTES: usize = 256 << 10;

/// How much is decompressed at a time, at least.
const READ_BYTES: usize = 16 << 10;

/// The content encodings that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut named = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(value) = named.next() else { return Ok(Self::Identity) };
        let text = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
        match (text.as_str(), named.next()) {
            ("" | "identity", None) => Ok(Self::Identity),
            ("gzip" | "x-gzip", None) => Ok(Self::Gzip),
            ("zstd", None) => Ok(Self::Zstd),
            _ => Err(ApiError::UnsupportedEncoding(text.chars().take(64).collect())),
        }
    }
}

/// Why the bytes as sent ended early; travels through the decoders inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
enum BodyEnd {
    #[error("the body is longer than its limit")]
    TooLarge,
    #[error("the body broke off: {0}")]
    Interrupted(#[source] axum::Error),
}

/// Reads a body to its end; the reservation is to be kept as long as the bytes are.
///
/// # Errors
/// What makes a body unreadable: too large in either form, in another encoding, damaged, too slow, broken off; or no room for it.
pub(super) async fn read(
    body: Body,
    headers: &HeaderMap,
    limits: &IngestionLimits,
    budget: &Budget,
    clock: &dyn Clock,
) -> Result<(Bytes, Reservation), ApiError> {
    let encoding = Encoding::of(headers)?;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > limits.body_bytes_max) {
        return Err(ApiError::BodyTooLarge { limit_bytes: limits.body_bytes_max, when: "" });
    }
    let mut reservation = budget.bytes();
    let reading = async {
        match encoding {
            Encoding::Identity => read_plain(body, limits, &mut reservation).await,
            Encoding::Gzip | Encoding::Zstd => read_compressed(body, encoding, limits, &mut reservation).await,
        }
    };
    let body = tokio::select! {
        body = reading => body?,
        () = clock.sleep(Duration::from_secs(limits.body_seconds_max)) => {
            return Err(ApiError::BodyTimeout { limit_seconds: limits.body_seconds_max });
        }
    };
    Ok((body, reservation))
}

/// A body that came in one piece is not copied.
async fn read_plain(body: Body, limits: &IngestionLimits, reservation: &mut Reservation) -> Result<Bytes, ApiError> {
    let limit = limits.body_bytes_max.min(limits.decompressed_bytes_max);
    let mut pieces = body.into_data_stream();
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| of_read(&io::Error::other(BodyEnd::Interrupted(error)), limits))?;
        let length = (first.len() + all.len() + piece.len()) as u64;
        if length > limit {
            return Err(ApiError::BodyTooLarge { limit_bytes: limit, when: "" });
        }
        reservation.grow_to(length)?;
        if first.is_empty() && all.is_empty() {
            first = piece;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&piece);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

async fn read_compressed(
    body: Body,
    encoding: Encoding,
    limits: &IngestionLimits,
    reservation: &mut Reservation,
) -> Result<Bytes, ApiError> {
    let reader = StreamReader::new(Box::pin(limited(body, limits.body_bytes_max)));
    let mut decoder: Pin<Box<dyn AsyncRead + Send>> = if encoding == Encoding::Gzip {
        let mut decoder = GzipDecoder::new(reader);
        decoder.multiple_members(true);
        Box::pin(decoder)
    } else {
        let mut decoder = ZstdDecoder::with_params(reader, &[DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX)]);
        decoder.multiple_members(true);
        Box::pin(decoder)
    };
    let mut all = BytesMut::new();
    let mut turn_ends_at = TURN_BYTES;
    loop {
        // Room first, bytes after.
        all.reserve(READ_BYTES);
        reservation.grow_to(((all.len() + READ_BYTES) as u64).min(limits.decompressed_bytes_max))?;
        let read = decoder.read_buf(&mut all).await.map_err(|error| of_read(&error, limits))?;
        if read == 0 {
            return Ok(all.freeze());
        }
        if all.len() as u64 > limits.decompressed_bytes_max {
            return Err(ApiError::BodyTooLarge { limit_bytes: limits.decompressed_bytes_max, when: " when decompressed" });
        }
        if all.len() >= turn_ends_at {
            turn_ends_at = all.len() + TURN_BYTES;
            tokio::task::yield_now().await;
        }
    }
}

/// The pieces of a body up to a limit, and an error behind it.
fn limited(body: Body, limit: u64) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let mut total = 0;
    body.into_data_stream().map(move |piece| {
        let piece = piece.map_err(|error| io::Error::other(BodyEnd::Interrupted(error)))?;
        total += piece.len() as u64;
        match total > limit {
            true => Err(io::Error::other(BodyEnd::TooLarge)),
            false => Ok(piece),
        }
    })
}

/// What a failed read means: the end of the bytes as sent, or bytes that do not decompress.
fn of_read(error: &io::Error, limits: &IngestionLimits) -> ApiError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<BodyEnd>()) {
        Some(BodyEnd::TooLarge) => ApiError::BodyTooLarge { limit_bytes: limits.body_bytes_max, when: "" },
        Some(BodyEnd::Interrupted(cause)) => {
            tracing::debug!(%cause, "a request's body broke off");
            ApiError::BodyInterrupted
        }
        None => {
            tracing::debug!(cause = %error, "a request's body does not decompress");
            ApiError::BrokenCompression
        }
    }
}

//! Limits of ingestion.

use riomar_schemas::limits::EVENT_BYTES_MAX;
use serde::{Deserialize, Serialize};

/// Bytes of a request's body as it is sent.
pub const BODY_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a request's body when it is decompressed.
pub const DECOMPRESSED_BYTES_MAX: u64 = 64 << 20;
/// Events in one request.
pub const EVENTS_MAX: usize = 100_000;
/// Seconds that a request's body may take to arrive.
pub const BODY_SECONDS_MAX: u64 = 60;
/// Requests that are worked on at once.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 1024;
/// Bytes of decompressed bodies held at once, over all requests.
pub const BYTES_IN_FLIGHT_MAX: u64 = 256 << 20;
/// Errors that one response lists.
pub const ERRORS_MAX: usize = 100;
/// Events that one append to the log, or to quarantine, brings.
pub const APPEND_EVENTS_MAX: usize = 1 << 15;
/// Bytes that one append to the log brings, one event more or less.
pub const APPEND_BYTES_MAX: usize = 16 << 20;
/// Bytes of raw events that one append to quarantine brings, one event more or less. As JSON text they may be six times as long.
pub const QUARANTINE_APPEND_BYTES_MAX: usize = 2 << 20;
/// The window of a zstd frame as a power of two: 8 MiB, which RFC 9659 allows for HTTP. A frame may claim more memory than it has
/// bytes.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The limits of ingestion that an operator may set. Depth and keys of an event are limits of the format:
/// [`riomar_schemas::limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestionLimits {
    /// [`BODY_BYTES_MAX`].
    pub body_bytes_max: u64,
    /// [`DECOMPRESSED_BYTES_MAX`].
    pub decompressed_bytes_max: u64,
    /// [`EVENT_BYTES_MAX`], which it may lower, not raise.
    pub event_bytes_max: usize,
    /// [`EVENTS_MAX`].
    pub events_max: usize,
    /// [`BODY_SECONDS_MAX`].
    pub body_seconds_max: u64,
    /// [`REQUESTS_IN_FLIGHT_MAX`].
    pub requests_in_flight_max: usize,
    /// [`BYTES_IN_FLIGHT_MAX`]; at least one body of the largest size is always let in.
    pub bytes_in_flight_max: u64,
}

impl Default for IngestionLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: BODY_BYTES_MAX,
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
            event_bytes_max: EVENT_BYTES_MAX,
            events_max: EVENTS_MAX,
            body_seconds_max: BODY_SECONDS_MAX,
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
            bytes_in_flight_max: BYTES_IN_FLIGHT_MAX,
        }
    }
}

impl IngestionLimits {
    /// The largest event that is taken, in bytes.
    #[must_use]
    pub fn event_bytes(&self) -> usize {
        self.event_bytes_max.min(EVENT_BYTES_MAX)
    }
}

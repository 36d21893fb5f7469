//! Records of the log: events and cuts.

use bytes::Bytes;

use crate::position::{Epoch, Offset};

/// What a producer, or the batch layer, appends to a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordBody {
    /// One event as JSON text.
    Event(Bytes),
    /// A cut: every record behind it belongs to this epoch or a later one. A reader whose epoch is not lower ignores it.
    Cut(Epoch),
}

/// A record as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition.
    pub offset: Offset,
    /// When the log took it, in milliseconds since 1970-01-01 UTC.
    pub append_time_ms: i64,
    /// The event or the cut.
    pub body: RecordBody,
}

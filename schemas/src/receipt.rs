//! Receipts: what exactly an answer contains.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    name::Name,
    position::{Epoch, Offset, PartitionId},
};

/// The receipt of one answer: every view and stream it read, and what it lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The views that the answer read.
    #[serde(default)]
    pub views: BTreeMap<Name, ViewReceipt>,
    /// The streams whose raw events the answer read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<Name, StreamReceipt>,
    /// What made the answer older than it should be; empty when nothing did. The answer is exact for `through` all the same.
    pub degraded: Vec<Degradation>,
}

/// What an answer contains of one view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewReceipt {
    /// The stream that the view aggregates.
    pub stream: Name,
    /// The generation of the batch view; 0 before the first one is published.
    pub generation: u64,
    /// The cut that the generation ends at.
    pub cut: Epoch,
    /// For each partition the next offset that is *not* in the answer.
    pub through: BTreeMap<PartitionId, Offset>,
    /// The lowest, over the partitions that have events, of the highest event time in the answer; RFC 3339.
    pub watermark: Option<String>,
}

/// What an answer contains of one stream's raw events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReceipt {
    /// The version of the master dataset that was read.
    pub version: u64,
    /// For each partition the next offset that is *not* in the answer.
    pub through: BTreeMap<PartitionId, Offset>,
}

/// One thing that an answer had to do without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degradation {
    /// A stable code: `realtime_unavailable`, `realtime_rebuilding`, `realtime_behind`.
    pub code: String,
    /// The view concerned.
    pub view: Name,
    /// The partitions concerned; empty when all are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<PartitionId>,
    /// What is lacking, in words.
    pub detail: String,
}

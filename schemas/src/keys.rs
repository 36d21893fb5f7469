//! Every key in the realtime store. No other module writes one out.
//!
//! They begin with the deployment's id, so a data directory that was begun afresh never meets the states of the one before. The keys
//! of one view and partition share a hash tag, so a cluster keeps them in one slot and one script may touch them all:
//!
//! ```text
//! riomar:5d1c0a7e:{traffic_by_minute/3f2a9c01d4e5b677/0}:entry       HASH  offset, epoch, start, floor, …
//! riomar:5d1c0a7e:{traffic_by_minute/3f2a9c01d4e5b677/0}:epoch:41    HASH  ["2026-11-20T10:00:00Z","/index"] → state
//! ```

use crate::{
    position::{Epoch, PartitionId},
    view::View,
};

/// The part that all keys of a view's partition begin with.
#[must_use]
pub fn prefix(deployment: &str, view: &View, partition: PartitionId) -> String {
    format!("riomar:{deployment}:{{{}/{}/{partition}}}:", view.name(), view.fingerprint())
}

/// The hash that holds the position and the epochs of a view's partition.
#[must_use]
pub fn entry(deployment: &str, view: &View, partition: PartitionId) -> String {
    prefix(deployment, view, partition) + "entry"
}

/// What the keys of all epochs begin with; the epoch's number follows.
#[must_use]
pub fn epochs(deployment: &str, view: &View, partition: PartitionId) -> String {
    prefix(deployment, view, partition) + "epoch:"
}

/// The hash that holds the states of one epoch: group key to state.
#[must_use]
pub fn epoch(deployment: &str, view: &View, partition: PartitionId, epoch: Epoch) -> String {
    format!("{}{epoch}", epochs(deployment, view, partition))
}

//! The realtime store seam, with its errors counted.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use riomar_schemas::{Epoch, PartitionId, View, state_codec::EncodedState};
use riomar_speed_layer::{Entry, RealtimePart, RealtimeStore, StoreError, WriteOutcome};

use super::Errors;

pub(super) const ERRORS: Errors = Errors {
    name: "riomar_realtime_store_errors_total",
    operations: &["entry", "states", "write", "reset", "remove_below", "read", "groups"],
    kinds: &["unavailable", "damaged"],
};

/// A realtime store whose errors are counted. A write that was fenced is none.
#[derive(Debug)]
pub(in crate::platform) struct MeteredRealtime {
    inner: Arc<dyn RealtimeStore>,
}

impl MeteredRealtime {
    /// Stands before `inner`.
    pub(in crate::platform) fn new(inner: Arc<dyn RealtimeStore>) -> Self {
        ERRORS.begin();
        Self { inner }
    }
}

fn kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) => "unavailable",
        StoreError::Damaged(_) => "damaged",
    }
}

fn counted<T>(operation: &'static str, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
    outcome.inspect_err(|error| ERRORS.count(operation, Some(kind(error))))
}

#[async_trait]
impl RealtimeStore for MeteredRealtime {
    async fn entry(&self, view: &View, partition: PartitionId) -> Result<Option<Entry>, StoreError> {
        counted("entry", self.inner.entry(view, partition).await)
    }

    async fn states(
        &self,
        view: &View,
        partition: PartitionId,
        keys: &[(Epoch, &str)],
    ) -> Result<(Option<Entry>, Vec<Option<Vec<u8>>>), StoreError> {
        counted("states", self.inner.states(view, partition, keys).await)
    }

    async fn write(
        &self,
        view: &View,
        partition: PartitionId,
        expected: &Entry,
        next: &Entry,
        states: &[EncodedState],
    ) -> Result<WriteOutcome, StoreError> {
        counted("write", self.inner.write(view, partition, expected, next, states).await)
    }

    async fn reset(
        &self,
        view: &View,
        partition: PartitionId,
        expected: Option<&Entry>,
        next: &Entry,
    ) -> Result<WriteOutcome, StoreError> {
        counted("reset", self.inner.reset(view, partition, expected, next).await)
    }

    async fn remove_below(&self, view: &View, partition: PartitionId, floor: Epoch) -> Result<(), StoreError> {
        counted("remove_below", self.inner.remove_below(view, partition, floor).await)
    }

    async fn read(&self, view: &View, partition: PartitionId, from: Epoch) -> Result<Option<RealtimePart>, StoreError> {
        counted("read", self.inner.read(view, partition, from).await)
    }

    async fn groups(&self, view: &View, partition: PartitionId) -> Result<Option<(Entry, BTreeMap<Epoch, u64>)>, StoreError> {
        counted("groups", self.inner.groups(view, partition).await)
    }
}

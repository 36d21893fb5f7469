//! The realtime store seam with faults.

use std::sync::Arc;

use async_trait::async_trait;
use riomar_schemas::{Epoch, PartitionId, View, state_codec::EncodedState};
use riomar_speed_layer::{Entry, RealtimePart, RealtimeStore, StoreError, WriteOutcome};

use super::{CrashPoints, Dead};

/// A realtime store whose process can be killed.
#[derive(Debug)]
pub struct FaultRealtimeStore {
    inner: Arc<dyn RealtimeStore>,
    points: CrashPoints,
}

impl FaultRealtimeStore {
    /// Stands before `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn RealtimeStore>, points: CrashPoints) -> Self {
        Self { inner, points }
    }
}

fn dead(dead: Dead) -> StoreError {
    StoreError::Unavailable(dead.to_string())
}

#[async_trait]
impl RealtimeStore for FaultRealtimeStore {
    async fn entry(&self, view: &View, partition: PartitionId) -> Result<Option<Entry>, StoreError> {
        self.points.alive().map_err(dead)?;
        self.inner.entry(view, partition).await
    }

    async fn states(
        &self,
        view: &View,
        partition: PartitionId,
        keys: &[(Epoch, &str)],
    ) -> Result<(Option<Entry>, Vec<Option<Vec<u8>>>), StoreError> {
        self.points.alive().map_err(dead)?;
        self.inner.states(view, partition, keys).await
    }

    async fn write(
        &self,
        view: &View,
        partition: PartitionId,
        expected: &Entry,
        next: &Entry,
        states: &[EncodedState],
    ) -> Result<WriteOutcome, StoreError> {
        let name = format!("store write {}/{partition}", view.name());
        self.points.durable(name, dead, self.inner.write(view, partition, expected, next, states)).await
    }

    async fn reset(
        &self,
        view: &View,
        partition: PartitionId,
        expected: Option<&Entry>,
        next: &Entry,
    ) -> Result<WriteOutcome, StoreError> {
        let name = format!("store reset {}/{partition}", view.name());
        self.points.durable(name, dead, self.inner.reset(view, partition, expected, next)).await
    }

    async fn remove_below(&self, view: &View, partition: PartitionId, floor: Epoch) -> Result<(), StoreError> {
        let name = format!("store remove_below {}/{partition}", view.name());
        self.points.durable(name, dead, self.inner.remove_below(view, partition, floor)).await
    }

    async fn read(&self, view: &View, partition: PartitionId, from: Epoch) -> Result<Option<RealtimePart>, StoreError> {
        self.points.alive().map_err(dead)?;
        self.inner.read(view, partition, from).await
    }
}

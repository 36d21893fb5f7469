//! Realtime views in Redis, of a deployment whose id may become known only after the start.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use riomar_schemas::{Epoch, PartitionId, View, state_codec::EncodedState};
use riomar_speed_layer::{
    Entry, RealtimePart, RealtimeStore, RedisAddress, RedisLimits, RedisStore, RedisTls, RedisTlsError, StoreError, WriteOutcome,
};

use super::deployment::Deployment;

/// A store that is not available before the deployment's id is known.
#[derive(Debug)]
pub struct LaterRealtime {
    address: RedisAddress,
    tls: RedisTls,
    deployment: Arc<Deployment>,
    store: OnceLock<RedisStore>,
}

impl LaterRealtime {
    /// The store at this address. Nothing is connected yet.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub fn new(address: RedisAddress, tls: RedisTls, deployment: Arc<Deployment>) -> Result<Self, RedisTlsError> {
        // It connects with its first call, so this only looks at the certificates.
        RedisStore::connect(&address, &tls, "", RedisLimits::default())?;
        Ok(Self { address, tls, deployment, store: OnceLock::new() })
    }

    fn store(&self) -> Result<&RedisStore, StoreError> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let unavailable = |cause: String| StoreError::Unavailable(cause);
        let id = self.deployment.id().ok_or_else(|| {
            unavailable("the object store has not told the deployment's id, under which its states are kept".to_owned())
        })?;
        let store = RedisStore::connect(&self.address, &self.tls, id, RedisLimits::default());
        let store = store.map_err(|error| unavailable(error.to_string()))?;
        Ok(self.store.get_or_init(|| store))
    }
}

#[async_trait]
impl RealtimeStore for LaterRealtime {
    async fn entry(&self, view: &View, partition: PartitionId) -> Result<Option<Entry>, StoreError> {
        self.store()?.entry(view, partition).await
    }

    async fn states(
        &self,
        view: &View,
        partition: PartitionId,
        keys: &[(Epoch, &str)],
    ) -> Result<(Option<Entry>, Vec<Option<Vec<u8>>>), StoreError> {
        self.store()?.states(view, partition, keys).await
    }

    async fn write(
        &self,
        view: &View,
        partition: PartitionId,
        expected: &Entry,
        next: &Entry,
        states: &[EncodedState],
    ) -> Result<WriteOutcome, StoreError> {
        self.store()?.write(view, partition, expected, next, states).await
    }

    async fn reset(
        &self,
        view: &View,
        partition: PartitionId,
        expected: Option<&Entry>,
        next: &Entry,
    ) -> Result<WriteOutcome, StoreError> {
        self.store()?.reset(view, partition, expected, next).await
    }

    async fn remove_below(&self, view: &View, partition: PartitionId, floor: Epoch) -> Result<(), StoreError> {
        self.store()?.remove_below(view, partition, floor).await
    }

    async fn read(&self, view: &View, partition: PartitionId, from: Epoch) -> Result<Option<RealtimePart>, StoreError> {
        self.store()?.read(view, partition, from).await
    }

    async fn groups(&self, view: &View, partition: PartitionId) -> Result<Option<(Entry, BTreeMap<Epoch, u64>)>, StoreError> {
        self.store()?.groups(view, partition).await
    }
}

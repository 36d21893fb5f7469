//! Realtime views in the memory of this process.
//!
//! Each view's partition has a lock of its own, held for the time of a copy, so queries of one do not hold back writes of another.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use riomar_schemas::{Epoch, PartitionId, View, keys, state_codec::EncodedState};

use crate::store::{Entry, RealtimePart, RealtimeStore, StoreError, WriteOutcome};

/// A store in memory: it is empty after a restart, and the speed layer rebuilds it.
#[derive(Debug, Default)]
pub struct MemoryStore {
    parts: RwLock<HashMap<String, Arc<RwLock<Option<Part>>>>>,
}

/// What is kept of one view and partition.
#[derive(Debug, Clone)]
struct Part {
    entry: Entry,
    epochs: BTreeMap<Epoch, HashMap<String, Vec<u8>>>,
}

impl Part {
    fn remove_below(&mut self, floor: Epoch) {
        if floor > self.entry.floor {
            self.entry.floor = floor;
            self.epochs = self.epochs.split_off(&floor);
        }
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes everything, as a restart would.
    pub fn clear(&self) {
        self.parts.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A copy of everything, each view's partition at one moment.
    #[must_use]
    pub fn copy(&self) -> Self {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        let copies = parts.iter().map(|(key, part)| {
            let part = part.read().unwrap_or_else(PoisonError::into_inner).clone();
            (key.clone(), Arc::new(RwLock::new(part)))
        });
        Self { parts: RwLock::new(copies.collect()) }
    }

    /// Replaces everything by what `older` holds, as restoring a snapshot would.
    pub fn restore(&self, older: &Self) {
        let parts = older.copy().parts.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.parts.write().unwrap_or_else(PoisonError::into_inner) = parts;
    }

    fn part(&self, view: &View, partition: PartitionId) -> Arc<RwLock<Option<Part>>> {
        let key = keys::prefix("memory", view, partition);
        if let Some(part) = self.parts.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return part.clone();
        }
        self.parts.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
    }

    fn look<T>(&self, view: &View, partition: PartitionId, look: impl FnOnce(&Part) -> T) -> Option<T> {
        self.part(view, partition).read().unwrap_or_else(PoisonError::into_inner).as_ref().map(look)
    }

    fn change<T>(&self, view: &View, partition: PartitionId, change: impl FnOnce(&mut Option<Part>) -> T) -> T {
        change(&mut self.part(view, partition).write().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl RealtimeStore for MemoryStore {
    async fn entry(&self, view: &View, partition: PartitionId) -> Result<Option<Entry>, StoreError> {
        Ok(self.look(view, partition, |part| part.entry.clone()))
    }

    async fn states(
        &self,
        view: &View,
        partition: PartitionId,
        keys: &[(Epoch, &str)],
    ) -> Result<(Option<Entry>, Vec<Option<Vec<u8>>>), StoreError> {
        let found = self.look(view, partition, |part| {
            let states = keys.iter().map(|(epoch, key)| part.epochs.get(epoch)?.get(*key).cloned());
            (Some(part.entry.clone()), states.collect())
        });
        Ok(found.unwrap_or_else(|| (None, vec![None; keys.len()])))
    }

    async fn write(
        &self,
        view: &View,
        partition: PartitionId,
        expected: &Entry,
        next: &Entry,
        states: &[EncodedState],
    ) -> Result<WriteOutcome, StoreError> {
        Ok(self.change(view, partition, |stored| match stored {
            Some(part) if expected.guards(&part.entry) => {
                part.remove_below(next.floor);
                part.entry = Entry { floor: part.entry.floor, ..next.clone() };
                for state in states.iter().filter(|state| state.epoch >= part.entry.floor) {
                    part.epochs.entry(state.epoch).or_default().insert(state.key.clone(), state.state.clone());
                }
                WriteOutcome::Applied
            }
            stored => WriteOutcome::Fenced(stored.as_ref().map(|part| part.entry.clone())),
        }))
    }

    async fn reset(
        &self,
        view: &View,
        partition: PartitionId,
        expected: Option<&Entry>,
        next: &Entry,
    ) -> Result<WriteOutcome, StoreError> {
        Ok(self.change(view, partition, |stored| {
            let as_expected = match (expected, stored.as_ref()) {
                (None, None) => true,
                (Some(expected), Some(part)) => expected.guards(&part.entry),
                _ => false,
            };
            if !as_expected {
                return WriteOutcome::Fenced(stored.as_ref().map(|part| part.entry.clone()));
            }
            *stored = Some(Part { entry: next.clone(), epochs: BTreeMap::new() });
            WriteOutcome::Applied
        }))
    }

    async fn remove_below(&self, view: &View, partition: PartitionId, floor: Epoch) -> Result<(), StoreError> {
        self.change(view, partition, |stored| {
            if let Some(part) = stored {
                part.remove_below(floor);
            }
        });
        Ok(())
    }

    async fn read(&self, view: &View, partition: PartitionId, from: Epoch) -> Result<Option<RealtimePart>, StoreError> {
        Ok(self.look(view, partition, |part| {
            let states = part.epochs.range(from..).flat_map(|(epoch, states)| {
                states.iter().map(|(key, state)| EncodedState { epoch: *epoch, key: key.clone(), state: state.clone() })
            });
            RealtimePart { entry: part.entry.clone(), states: states.collect() }
        }))
    }

    async fn groups(&self, view: &View, partition: PartitionId) -> Result<Option<(Entry, BTreeMap<Epoch, u64>)>, StoreError> {
        Ok(self.look(view, partition, |part| {
            let groups = part.epochs.iter().map(|(epoch, states)| (*epoch, states.len() as u64));
            (part.entry.clone(), groups.collect())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn conforms() {
        conformance::check(Arc::new(MemoryStore::new())).await;
    }

    #[tokio::test]
    async fn can_be_emptied_and_restored() {
        let view = conformance::view();
        let (store, partition) = (MemoryStore::new(), PartitionId(0));
        let fresh = Entry::fresh(Default::default());
        store.reset(&view, partition, None, &fresh).await.expect("store");
        let older = store.copy();
        store.clear();
        assert_eq!(store.entry(&view, partition).await.expect("store"), None);
        store.restore(&older);
        assert_eq!(store.entry(&view, partition).await.expect("store"), Some(fresh));
    }
}

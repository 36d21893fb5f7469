//! A log that tells of fewer partitions than it has, or has trouble with some of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use riomar_event_log::{Log, LogError, Membership, PartitionBounds, ReadLimit, ReadRecords};
use riomar_schemas::{Name, Offset, PartitionId, record::RecordBody};
use tokio::sync::Notify;

/// What is wrong with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It has no leader.
    Unavailable,
    /// A record cannot be read.
    Damaged,
    /// Nobody answers, until that changes.
    Silent,
}

#[derive(Debug, Default)]
struct State {
    /// How many partitions the log tells of, where that is not the truth.
    told: Option<u32>,
    troubles: BTreeMap<PartitionId, Trouble>,
    /// How often each partition was asked for something while it was in trouble.
    asked: BTreeMap<PartitionId, u64>,
}

#[derive(Debug)]
pub(crate) struct FaultLog {
    inner: Arc<dyn Log>,
    state: Mutex<State>,
    changed: Notify,
}

impl FaultLog {
    pub(crate) fn new(inner: Arc<dyn Log>) -> Arc<Self> {
        Arc::new(Self { inner, state: Mutex::default(), changed: Notify::new() })
    }

    /// Tells of so many partitions from now on.
    pub(crate) fn tell_partitions(&self, told: Option<u32>) {
        self.state().told = told;
    }

    pub(crate) fn trouble(&self, partition: PartitionId, trouble: Option<Trouble>) {
        let mut state = self.state();
        state.troubles.remove(&partition);
        state.troubles.extend(trouble.map(|trouble| (partition, trouble)));
        drop(state);
        self.changed.notify_waiters();
    }

    /// How often a partition was asked for something while it was in trouble.
    pub(crate) fn asked(&self, partition: PartitionId) -> u64 {
        self.state().asked.get(&partition).copied().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trouble with a partition now.
    fn met(&self, partition: PartitionId) -> Option<Trouble> {
        let mut state = self.state();
        let trouble = state.troubles.get(&partition).copied()?;
        *state.asked.entry(partition).or_default() += 1;
        Some(trouble)
    }

    async fn meet(&self, partition: PartitionId) -> Result<(), LogError> {
        loop {
            let changed = self.changed.notified();
            match self.met(partition) {
                None => return Ok(()),
                Some(Trouble::Unavailable) => return Err(LogError::Unavailable(format!("partition {partition} has no leader"))),
                Some(Trouble::Damaged) => return Err(LogError::Damaged(format!("a record of partition {partition}"))),
                Some(Trouble::Silent) => changed.await,
            }
        }
    }
}

#[async_trait]
impl Log for FaultLog {
    async fn create(&self, stream: &Name, partitions: u32) -> Result<(), LogError> {
        self.inner.create(stream, partitions).await
    }

    async fn append(&self, stream: &Name, records: Vec<(PartitionId, RecordBody)>) -> Result<Vec<Offset>, LogError> {
        self.inner.append(stream, records).await
    }

    async fn read(&self, stream: &Name, partition: PartitionId, from: Offset, limit: ReadLimit) -> Result<ReadRecords, LogError> {
        self.meet(partition).await?;
        self.inner.read(stream, partition, from, limit).await
    }

    async fn bounds(&self, stream: &Name, partition: PartitionId) -> Result<PartitionBounds, LogError> {
        // What cannot be read can be counted.
        if self.state().troubles.get(&partition) != Some(&Trouble::Damaged) {
            self.meet(partition).await?;
        }
        self.inner.bounds(stream, partition).await
    }

    async fn partitions(&self, stream: &Name) -> Result<u32, LogError> {
        let told = self.state().told;
        match told {
            Some(told) => Ok(told),
            None => self.inner.partitions(stream).await,
        }
    }

    async fn trim(&self, stream: &Name, partition: PartitionId, below: Offset) -> Result<(), LogError> {
        self.inner.trim(stream, partition, below).await
    }

    async fn join(&self, group: &str, streams: &[Name]) -> Result<Membership, LogError> {
        self.inner.join(group, streams).await
    }
}

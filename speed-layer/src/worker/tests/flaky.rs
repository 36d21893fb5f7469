//! A store that fails now and then, before or after it did what it was asked.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use async_trait::async_trait;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use riomar_schemas::{Epoch, Name, PartitionId, View, state_codec::EncodedState};

use crate::store::{Entry, RealtimePart, RealtimeStore, StoreError, WriteOutcome};

/// What becomes of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFault {
    Refused,
    /// They are applied, and nobody hears of it.
    ReplyLost,
}

/// Yields around every call too, so that two workers on one thread interleave.
#[derive(Debug)]
pub struct FlakyStore {
    inner: Arc<dyn RealtimeStore>,
    random: Mutex<SmallRng>,
    failures_percent: AtomicU32,
    /// The view whose states can neither be read nor written.
    broken: Mutex<Option<Name>>,
    write_fault: Mutex<Option<WriteFault>>,
    pub calls: AtomicU64,
}

impl FlakyStore {
    pub fn new(inner: Arc<dyn RealtimeStore>, seed: u64) -> Self {
        let random = Mutex::new(SmallRng::seed_from_u64(seed));
        let (failures_percent, calls) = (AtomicU32::new(0), AtomicU64::new(0));
        Self { inner, random, failures_percent, broken: Mutex::new(None), write_fault: Mutex::new(None), calls }
    }

    pub fn fail(&self, percent: u32) {
        self.failures_percent.store(percent, Ordering::SeqCst);
    }

    /// From now on the states of this view, and of no other, can neither be read nor written.
    pub fn break_view(&self, view: Option<&Name>) {
        *self.broken.lock().expect("not poisoned") = view.cloned();
    }

    /// From now on this is what becomes of writes.
    pub fn fault_writes(&self, fault: Option<WriteFault>) {
        *self.write_fault.lock().expect("not poisoned") = fault;
    }

    fn check_view(&self, view: &View) -> Result<(), StoreError> {
        let broken = self.broken.lock().expect("not poisoned").as_ref() == Some(view.name());
        if broken { Err(StoreError::Unavailable("for this view".to_owned())) } else { Ok(()) }
    }

    async fn around<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let (fails, before, yields) = {
            let mut random = self.random.lock().expect("not poisoned");
            let fails = random.random_range(0..100) < self.failures_percent.load(Ordering::SeqCst);
            (fails, random.random::<bool>(), random.random_range(0..3))
        };
        let failure = || StoreError::Unavailable("as it was told to be".to_owned());
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        if fails && before {
            return Err(failure());
        }
        let result = call.await;
        tokio::task::yield_now().await;
        if fails { Err(failure()) } else { result }
    }
}

#[async_trait]
impl RealtimeStore for FlakyStore {
    async fn entry(&self, view: &View, partition: PartitionId) -> Result<Option<Entry>, StoreError> {
        self.around(self.inner.entry(view, partition)).await
    }

    async fn states(
        &self,
        view: &View,
        partition: PartitionId,
        keys: &[(Epoch, &str)],
    ) -> Result<(Option<Entry>, Vec<Option<Vec<u8>>>), StoreError> {
        self.check_view(view)?;
        self.around(self.inner.states(view, partition, keys)).await
    }

    async fn write(
        &self,
        view: &View,
        partition: PartitionId,
        expected: &Entry,
        next: &Entry,
        states: &[EncodedState],
    ) -> Result<WriteOutcome, StoreError> {
        self.check_view(view)?;
        let fault = *self.write_fault.lock().expect("not poisoned");
        if fault == Some(WriteFault::Refused) {
            return Err(StoreError::Unavailable("it takes no writes".to_owned()));
        }
        let written = self.around(self.inner.write(view, partition, expected, next, states)).await;
        if fault.is_some() { Err(StoreError::Unavailable("the reply is lost".to_owned())) } else { written }
    }

    async fn reset(
        &self,
        view: &View,
        partition: PartitionId,
        expected: Option<&Entry>,
        next: &Entry,
    ) -> Result<WriteOutcome, StoreError> {
        self.around(self.inner.reset(view, partition, expected, next)).await
    }

    async fn remove_below(&self, view: &View, partition: PartitionId, floor: Epoch) -> Result<(), StoreError> {
        self.around(self.inner.remove_below(view, partition, floor)).await
    }

    async fn read(&self, view: &View, partition: PartitionId, from: Epoch) -> Result<Option<RealtimePart>, StoreError> {
        self.around(self.inner.read(view, partition, from)).await
    }
}

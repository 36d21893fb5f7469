//! What every realtime store must do.
//!
//! An implementation's tests call [`check`]; a store that passes may stand in for any other. It panics at the first promise broken.

mod concurrency;
mod guards;
mod removal;
mod states;

use std::sync::Arc;

use riomar_schemas::{Catalog, Epoch, Offset, PartitionId, ReaderPosition, View, state_codec::EncodedState};

use crate::store::{Entry, RealtimePart, RealtimeStore, WriteOutcome};

const DEFINITIONS: &str = "
CREATE TABLE conformance_events (ts TIMESTAMP NOT NULL, key VARCHAR NOT NULL) WITH (event_time = 'ts');
CREATE MATERIALIZED VIEW conformance_view AS
SELECT window_start, key, count(*) AS events FROM TUMBLE(conformance_events, ts, INTERVAL '1 minute') GROUP BY window_start, key;
CREATE MATERIALIZED VIEW conformance_other_view AS
SELECT window_start, count(*) AS events FROM TUMBLE(conformance_events, ts, INTERVAL '1 minute') GROUP BY window_start;
";

/// Runs every check. They use partitions of their own views, and leave entries behind.
pub async fn check(store: Arc<dyn RealtimeStore>) {
    guards::check(&*store).await;
    states::check(&*store).await;
    removal::check(&*store).await;
    concurrency::check(store).await;
}

/// The view that the checks use.
#[must_use]
pub fn view() -> Arc<View> {
    views().0
}

/// The view that the checks use, and another one.
fn views() -> (Arc<View>, Arc<View>) {
    let catalog = Catalog::parse([("conformance.sql", DEFINITIONS)]).expect("definitions that compile");
    let view = |name| catalog.view(name).expect("a view that is defined").clone();
    (view("conformance_view"), view("conformance_other_view"))
}

/// A view's partition of a store under test.
struct Subject<'a> {
    store: &'a dyn RealtimeStore,
    view: Arc<View>,
    partition: PartitionId,
}

impl<'a> Subject<'a> {
    /// A partition that begins with this entry and without states, whatever it held before.
    async fn new(store: &'a dyn RealtimeStore, partition: u32, entry: &Entry) -> Self {
        let subject = Self { store, view: view(), partition: PartitionId(partition) };
        let stored = subject.entry().await;
        assert_eq!(subject.reset(stored.as_ref(), entry).await, WriteOutcome::Applied, "a reset of what is stored");
        subject
    }

    async fn entry(&self) -> Option<Entry> {
        self.store.entry(&self.view, self.partition).await.expect("an entry")
    }

    async fn write(&self, expected: &Entry, next: &Entry, states: &[EncodedState]) -> WriteOutcome {
        self.store.write(&self.view, self.partition, expected, next, states).await.expect("a write")
    }

    async fn reset(&self, expected: Option<&Entry>, next: &Entry) -> WriteOutcome {
        self.store.reset(&self.view, self.partition, expected, next).await.expect("a reset")
    }

    async fn remove_below(&self, floor: u64) {
        self.store.remove_below(&self.view, self.partition, Epoch(floor)).await.expect("a removal");
    }

    /// The entry and the states of epochs from `from` on, in order.
    async fn read(&self, from: u64) -> Option<RealtimePart> {
        let mut part = self.store.read(&self.view, self.partition, Epoch(from)).await.expect("a read")?;
        part.states.sort_by(|a, b| (a.epoch, &a.key).cmp(&(b.epoch, &b.key)));
        Some(part)
    }

    /// All states in order.
    async fn all(&self) -> Vec<EncodedState> {
        self.read(0).await.expect("an entry").states
    }
}

fn entry(offset: u64, epoch: u64) -> Entry {
    Entry::fresh(ReaderPosition { offset: Offset(offset), epoch: Epoch(epoch) })
}

/// `before` with another position.
fn at(before: &Entry, offset: u64, epoch: u64) -> Entry {
    Entry { position: ReaderPosition { offset: Offset(offset), epoch: Epoch(epoch) }, ..before.clone() }
}

fn state(epoch: u64, key: &str, state: impl AsRef<[u8]>) -> EncodedState {
    EncodedState { epoch: Epoch(epoch), key: key.to_owned(), state: state.as_ref().to_vec() }
}

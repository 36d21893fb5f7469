//! What the tests of this crate share: a stream with a view, events, a clock that never waits, and an object store that fails.

mod counting_store;
mod fault_log;
mod fault_store;
mod oracle;
mod s3;
mod slow_store;

use std::{
    sync::Arc,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use object_store::{ObjectStore, memory::InMemory};
use riomar_event_log::{Clock, EmbeddedLog, Log, SystemClock};
use riomar_schemas::{Catalog, Epoch, Name, PartitionId, Stream, View, record::RecordBody, session::collect, view::Grain};
use uuid::Uuid;

pub(crate) use self::{
    counting_store::CountingStore,
    fault_log::{FaultLog, Trouble},
    fault_store::{Fault, FaultStore},
    oracle::{expected_rows, landed_rows},
    s3::{S3Client, bucket},
    slow_store::SlowStore,
};
use crate::{
    BatchComponents, BatchConfig, BatchLayer, FreshIds,
    audit::{AuditKind, AuditReport, Served},
    landing::Landing,
    master::RowSelection,
};

pub(crate) const SQL: &str = "
CREATE TABLE clicks (
  event_id VARCHAR NOT NULL, ts TIMESTAMP NOT NULL, path VARCHAR NOT NULL, visitor VARCHAR, bytes BIGINT, cost DOUBLE
) WITH (event_time = 'ts', dedup_by = 'event_id', dedup_epochs = 2, partitions = 2);

CREATE MATERIALIZED VIEW clicks_by_minute AS
SELECT window_start, path, count(*) AS hits, sum(bytes) AS bytes, min(bytes) AS bytes_min, max(ts) AS last_ts,
       avg(cost) AS cost, approx_distinct(visitor) AS visitors
FROM TUMBLE(clicks, ts, INTERVAL '1 minute')
GROUP BY window_start, path;
";

/// Moves on when somebody waits, so no test does; or the machine's clock, where tasks wait for one another.
#[derive(Debug)]
pub(crate) enum TestClock {
    Hasty(AtomicI64),
    Real(SystemClock),
}

impl TestClock {
    pub(crate) fn advance(&self, duration_ms: i64) {
        match self {
            Self::Hasty(now_ms) => now_ms.fetch_add(duration_ms, Ordering::SeqCst),
            Self::Real(_) => panic!("nobody moves the machine's clock"),
        };
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        match self {
            Self::Hasty(now_ms) => now_ms.load(Ordering::SeqCst),
            Self::Real(clock) => clock.now_ms(),
        }
    }

    async fn sleep(&self, duration: Duration) {
        match self {
            Self::Hasty(_) => {
                self.advance(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
                tokio::task::yield_now().await;
            }
            Self::Real(clock) => clock.sleep(duration).await,
        }
    }
}

/// A stream and a view over a log of its own.
pub(crate) struct Fixture {
    pub catalog: Arc<Catalog>,
    pub log: Arc<EmbeddedLog>,
    pub clock: Arc<TestClock>,
    ids: Arc<AtomicU64>,
    _directory: tempfile::TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let now = chrono::DateTime::parse_from_rfc3339("2026-11-20T10:00:00Z").expect("a time");
        Self::with_clock(TestClock::Hasty(AtomicI64::new(now.timestamp_millis()))).await
    }

    /// For tests in which several tasks run at once.
    pub(crate) async fn in_real_time() -> Self {
        Self::with_clock(TestClock::Real(SystemClock)).await
    }

    async fn with_clock(clock: TestClock) -> Self {
        let catalog = Catalog::parse([("clicks.sql", SQL)]).expect("valid definitions");
        let clock = Arc::new(clock);
        let directory = tempfile::tempdir().expect("a directory");
        let log = Arc::new(EmbeddedLog::open(directory.path(), clock.clone()).expect("opens"));
        let fixture = Self { catalog: Arc::new(catalog), log, clock, ids: Arc::default(), _directory: directory };
        fixture.log.create(&fixture.stream().name, 2).await.expect("created");
        fixture
    }

    pub(crate) fn stream(&self) -> Arc<Stream> {
        self.catalog.streams().next().expect("one stream").clone()
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.catalog.views().next().expect("one view").clone()
    }

    /// A process with the batch layer, over a store.
    pub(crate) fn layer(&self, store: Arc<dyn ObjectStore>) -> BatchLayer {
        self.layer_with(store, BatchConfig { target_partitions: 2, ..BatchConfig::default() })
    }

    pub(crate) fn layer_with(&self, store: Arc<dyn ObjectStore>, config: BatchConfig) -> BatchLayer {
        self.layer_over(self.log.clone(), store, config)
    }

    /// A process that sees the log through a decorator.
    pub(crate) fn layer_over(&self, log: Arc<dyn Log>, store: Arc<dyn ObjectStore>, config: BatchConfig) -> BatchLayer {
        let ids = self.ids.clone();
        let components = BatchComponents {
            catalog: self.catalog.clone(),
            log,
            store,
            clock: self.clock.clone(),
            runtime: RuntimeEnvBuilder::new().build_arc().expect("a runtime"),
            fresh_ids: FreshIds::new(move || Uuid::from_u128(u128::from(ids.fetch_add(1, Ordering::SeqCst)) + 1)),
        };
        BatchLayer::new(components, config)
    }

    pub(crate) async fn append(&self, partition: u32, body: RecordBody) {
        self.log.append(&self.stream().name, vec![(PartitionId(partition), body)]).await.expect("appended");
    }

    pub(crate) async fn append_cut(&self, cut: u64) {
        for partition in 0..2 {
            self.append(partition, RecordBody::Cut(Epoch(cut))).await;
        }
    }

    /// Appends events of both partitions, with duplicates and late ones among them. The same numbers give the same events.
    pub(crate) async fn append_events(&self, numbers: std::ops::Range<u64>) {
        let events = numbers.map(|number| {
            let partition = PartitionId(u32::try_from(number % 2).expect("small"));
            (partition, RecordBody::Event(event(number)))
        });
        self.log.append(&self.stream().name, events.collect()).await.expect("appended");
    }
}

/// One event as JSON: every tenth repeats an id, every seventh is days late.
pub(crate) fn event(number: u64) -> Bytes {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    // The id of the event 4 before, in the same partition.
    let id = if number % 10 == 9 { number - 4 } else { number };
    let second = number + if number.is_multiple_of(7) { 0 } else { 300_000 };
    let ts = chrono::DateTime::from_timestamp(1_790_000_000 + i64::try_from(second).expect("small"), 0).expect("a time");
    let event = serde_json::json!({
        "event_id": format!("id-{id}"),
        "ts": ts.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        "path": format!("/{}", mixed % 5),
        "visitor": format!("v{}", mixed % 37),
        "bytes": mixed % 1000,
        "cost": (mixed % 977) as f64 / 7.0,
    });
    Bytes::from(event.to_string())
}

/// Steps until everything in the log has landed and is committed.
pub(crate) async fn land_all(landing: &mut Landing) {
    while landing.step().await.expect("lands").records > 0 {}
    landing.flush().await.expect("commits");
}

pub(crate) fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// The values of a view folded from all rows of epochs before a cut.
pub(crate) async fn values_from_rows(layer: &BatchLayer, view: &View, cut: Epoch) -> Vec<RecordBatch> {
    let snapshot = layer.master(&view.stream().name).expect("known").snapshot().await.expect("a snapshot");
    let rows = snapshot.scan(&RowSelection::before(cut)).expect("a plan");
    let plan = view.finish(view.fold(rows, Grain::View).expect("a plan")).expect("a plan");
    collect(&layer.context().session(), plan).await.expect("values")
}

/// The values of a view's current generation.
pub(crate) async fn values_of_generation(layer: &BatchLayer, view: &View) -> Vec<RecordBatch> {
    let manifest = layer.generations().current(view).await.expect("reads").expect("published");
    let states = layer.generations().states(view, &manifest).expect("a plan");
    collect(&layer.context().session(), view.finish(states).expect("a plan")).await.expect("values")
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// Audits the current generation of a view over the epochs before its cut.
pub(crate) async fn audit_generation(layer: &BatchLayer, view: &Arc<View>) -> Arc<AuditReport> {
    let manifest = layer.generations().current(view).await.expect("reads");
    let states = match &manifest {
        Some(manifest) => layer.generations().states(view, manifest).expect("plans"),
        None => riomar_schemas::session::scan_batches(view.state_schema(), Vec::new()).expect("plans"),
    };
    let cut = manifest.as_ref().map(|manifest| manifest.cut).unwrap_or_default();
    let served = Served {
        kind: AuditKind::Answer,
        generation: manifest.as_ref().map_or(0, |manifest| manifest.generation),
        cut,
        events: vec![RowSelection::before(cut)],
        states,
    };
    let master = layer.master(&view.stream().name).expect("known").snapshot().await.expect("reads");
    layer.audits().run(view, &master, served).await.expect("audits")
}

//! One partition with its log, its history and a store, and the plain evaluation that the store is compared with.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Int64Type, TimestampMicrosecondType},
};
use datafusion::execution::{SessionState, runtime_env::RuntimeEnv};
use riomar_event_log::{EmbeddedLog, Log, Loss, clock::ManualClock};
use riomar_schemas::{
    Catalog, Epoch, Offset, PartitionId, ReaderPosition, View,
    record::RecordBody,
    session::{collect, scan_batches, session_state},
    state_codec,
};
use tempfile::TempDir;

use super::{
    super::{SpeedLimits, SpeedParts, SpeedWorker},
    flaky::FlakyStore,
    history::FakeHistory,
};
use crate::{
    activity::Activity,
    memory::MemoryStore,
    redis_store::{RedisLimits, RedisStore, RedisTls},
    store::{Entry, RealtimeStore},
};

pub const DEFINITIONS: &str = "
CREATE TABLE hits (id VARCHAR NOT NULL, ts TIMESTAMP NOT NULL, key VARCHAR NOT NULL, amount BIGINT NOT NULL)
WITH (event_time = 'ts', dedup_by = 'id', dedup_epochs = 2, partitions = 2);
CREATE MATERIALIZED VIEW by_key AS
SELECT window_start, key, count(*) AS events, sum(amount) AS amount FROM TUMBLE(hits, ts, INTERVAL '1 minute') GROUP BY window_start, key;
CREATE MATERIALIZED VIEW by_minute AS
SELECT window_start, count(*) AS events, sum(amount) AS amount FROM TUMBLE(hits, ts, INTERVAL '1 minute') GROUP BY window_start;
";

pub const PARTITION: PartitionId = PartitionId(1);
pub const DEDUP_EPOCHS: u64 = 2;
pub const MINUTE_US: i64 = 60_000_000;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    pub id: String,
    pub minute: i64,
    pub key: String,
    pub amount: i64,
}

impl Hit {
    pub fn json(&self) -> String {
        let Self { id, minute, key, amount } = self;
        format!(r#"{{"id":"{id}","ts":{},"key":"{key}","amount":{amount}}}"#, minute * MINUTE_US / 1_000)
    }
}

#[derive(Debug, Clone)]
pub enum Written {
    Hit(Hit),
    Broken,
    Cut(u64),
}

/// Minute and, for the view by key, the key; count and sum.
pub type Sums = BTreeMap<(i64, String), (i64, i64)>;

/// A store in Redis whose calls are to succeed, however busy the machine is.
pub fn in_redis(url: &str) -> Arc<RedisStore> {
    let (call_timeout, breaker_period) = (Duration::from_secs(30), Duration::from_millis(1));
    let limits = RedisLimits { call_timeout, breaker_period, ..RedisLimits::default() };
    Arc::new(RedisStore::connect(&url.parse().expect("an address"), &RedisTls::default(), "test", limits).expect("a store"))
}

pub struct World {
    _directory: TempDir,
    pub log: Arc<EmbeddedLog>,
    pub records: Vec<Written>,
    pub history: FakeHistory,
    pub store: Arc<FlakyStore>,
    pub clock: ManualClock,
    pub views: Vec<Arc<View>>,
    session_state: SessionState,
    pub limits: SpeedLimits,
    catalog: Catalog,
    /// What the log lost, once that is accepted.
    loss: Option<Loss>,
}

impl World {
    pub async fn new(store: Arc<dyn RealtimeStore>, first_epoch: u64, seed: u64) -> Self {
        Self::with_definitions(DEFINITIONS, store, first_epoch, seed).await
    }

    pub async fn in_memory() -> Self {
        Self::new(Arc::new(MemoryStore::new()), 0, 0).await
    }

    pub async fn with_definitions(definitions: &str, store: Arc<dyn RealtimeStore>, first_epoch: u64, seed: u64) -> Self {
        let catalog = Catalog::parse([("test.sql", definitions)]).unwrap_or_else(|errors| panic!("{errors:?}"));
        let directory = tempfile::tempdir().expect("directory");
        let clock = ManualClock::new(1_000_000);
        let log = Arc::new(EmbeddedLog::open(directory.path(), Arc::new(clock.clone())).expect("log"));
        let stream = catalog.stream("hits").expect("stream");
        log.create(&stream.name, stream.partitions).await.expect("created");
        let history = FakeHistory::default();
        history.past().first_epoch = Epoch(first_epoch);
        history.past().landed.epoch = Epoch(first_epoch);
        // Without pauses: this clock stands still.
        let limits = SpeedLimits {
            hand_over_interval: Duration::ZERO,
            retry_pause_min: Duration::ZERO,
            retry_pause_max: Duration::ZERO,
            ..SpeedLimits::default()
        };
        Self {
            _directory: directory,
            log,
            records: Vec::new(),
            history,
            store: Arc::new(FlakyStore::new(store, seed)),
            clock,
            views: catalog.views().cloned().collect(),
            session_state: session_state(Arc::new(RuntimeEnv::default()), 1),
            limits,
            catalog,
            loss: None,
        }
    }

    pub fn parts(&self) -> SpeedParts {
        SpeedParts {
            log: self.log.clone(),
            history: Arc::new(self.history.clone()),
            store: self.store.clone(),
            clock: Arc::new(self.clock.clone()),
            session_state: self.session_state.clone(),
            stream: self.catalog.stream("hits").expect("stream").clone(),
            views: self.views.clone(),
            partition: PARTITION,
            limits: self.limits,
            activity: Activity::default(),
        }
    }

    pub fn worker(&self) -> SpeedWorker {
        SpeedWorker::open(self.parts())
    }

    pub async fn append(&mut self, written: impl IntoIterator<Item = Written>) {
        let written: Vec<_> = written.into_iter().collect();
        let bodies = written.iter().map(|record| {
            let body = match record {
                Written::Hit(hit) => RecordBody::Event(hit.json().into()),
                Written::Broken => RecordBody::Event("{\"id\":".into()),
                Written::Cut(cut) => RecordBody::Cut(Epoch(*cut)),
            };
            (PARTITION, body)
        });
        let stream = &self.catalog.stream("hits").expect("stream").name;
        self.log.append(stream, bodies.collect()).await.expect("appended");
        self.records.extend(written);
    }

    /// Appends `count` hits with new ids in one minute, over `keys` keys.
    pub async fn hits(&mut self, count: usize, keys: usize) {
        let from = self.records.len();
        let hit = |i: usize| Hit { id: format!("new {}", from + i), minute: 7, key: format!("k{}", i % keys), amount: i as i64 };
        self.append((0..count).map(|i| Written::Hit(hit(i)))).await;
    }

    pub async fn trim(&self, below: Offset) {
        let stream = &self.catalog.stream("hits").expect("stream").name;
        self.log.trim(stream, PARTITION, below).await.expect("trimmed");
    }

    /// The kept events before an offset with their epochs, by the rules as the documentation tells them.
    pub fn kept(&self, through: Offset) -> Vec<(Offset, Epoch, Hit)> {
        let mut epoch = self.history.past().first_epoch.0;
        let mut kept_in: HashMap<&str, u64> = HashMap::new();
        let mut kept = Vec::new();
        for (offset, record) in self.records.iter().enumerate().take(through.0 as usize) {
            if let Some(loss) = self.loss.filter(|loss| loss.from.0 <= offset as u64) {
                if (offset as u64) < loss.to.0 {
                    continue;
                }
                epoch = epoch.max(loss.epoch.0);
            }
            match record {
                Written::Cut(cut) => epoch = epoch.max(*cut),
                Written::Broken => {}
                Written::Hit(hit) => {
                    if kept_in.get(hit.id.as_str()).is_none_or(|before| before + DEDUP_EPOCHS < epoch) {
                        kept_in.insert(&hit.id, epoch);
                        kept.push((Offset(offset as u64), Epoch(epoch), hit.clone()));
                    }
                }
            }
        }
        kept
    }

    /// Landing goes on over `count` records.
    pub fn land(&self, count: usize) {
        let from = self.history.past().landed.offset;
        let to = Offset((from.0 + count as u64).min(self.records.len() as u64));
        let rows = self.kept(to);
        let mut past = self.history.past();
        for offset in from.0..to.0 {
            if let Written::Cut(cut) = self.records[offset as usize]
                && Epoch(cut) > past.landed.epoch
            {
                past.landed.epoch = Epoch(cut);
                past.cut_positions.insert(Epoch(cut), Offset(offset + 1));
            }
        }
        past.landed.offset = to;
        past.rows = rows;
    }

    /// Landing goes on where the log begins now, in an epoch of its own.
    pub fn accept_loss(&mut self, to: Offset, epoch: Epoch) {
        let mut past = self.history.past();
        let ReaderPosition { offset: from, epoch: epoch_before } = past.landed;
        let loss = Loss { from, to, epoch_before, epoch, accepted_at_ms: 0 };
        past.losses.push(loss);
        past.landed = ReaderPosition { offset: to, epoch };
        drop(past);
        self.loss = Some(loss);
    }

    pub fn land_all(&self) {
        self.land(self.records.len());
    }

    pub fn publish(&self) {
        for view in &self.views {
            self.history.publish(view.name(), PARTITION);
        }
    }

    pub fn end(&self) -> Offset {
        Offset(self.records.len() as u64)
    }

    pub async fn entry(&self, view: &View) -> Option<Entry> {
        self.store.fail(0);
        self.store.entry(view, PARTITION).await.expect("entry")
    }

    /// The sums of each epoch as the records say.
    fn oracle(&self, view: &View, through: Offset) -> BTreeMap<Epoch, Sums> {
        let mut epochs: BTreeMap<Epoch, Sums> = BTreeMap::new();
        for (_, epoch, hit) in self.kept(through) {
            let key = if view.name().as_str() == "by_key" { hit.key } else { String::new() };
            let (count, sum) = epochs.entry(epoch).or_default().entry((hit.minute, key)).or_default();
            (*count, *sum) = (*count + 1, *sum + hit.amount);
        }
        epochs
    }

    /// C3 and C6: every epoch in the store equals the plain evaluation of the records before the entry's position; together with
    /// the batch view they make up the whole, or the store says that it cannot.
    pub async fn check(&self, context: &str) {
        for view in &self.views {
            let Some(part) = self.store.read(view, PARTITION, Epoch(0)).await.expect("read") else { continue };
            let entry = &part.entry;
            let through = entry.position.offset;
            let mut expected = self.oracle(view, through);
            expected.retain(|epoch, _| *epoch >= entry.floor && *epoch >= entry.start);
            let mut epochs: BTreeMap<Epoch, Vec<_>> = BTreeMap::new();
            for state in &part.states {
                epochs.entry(state.epoch).or_default().push((state.epoch, state.key.as_str(), state.state.as_slice()));
            }
            let mut found = BTreeMap::new();
            for (epoch, states) in epochs {
                found.insert(epoch, self.sums(view, states).await);
            }
            assert_eq!(found, expected, "{context}: {} at {entry:?}", view.name());
            let event_time_max_us = self.kept(through).into_iter().filter(|(_, epoch, _)| *epoch >= entry.start);
            let event_time_max_us = event_time_max_us.map(|(.., hit)| hit.minute * MINUTE_US).max();
            assert_eq!(entry.event_time_max_us, event_time_max_us, "{context}: {}", view.name());

            let hand_over = self.history.current(view.name());
            let needed_from = hand_over.cut.max(self.history.past().first_epoch);
            if entry.start <= needed_from && entry.floor <= needed_from {
                let mut whole = self.oracle(view, hand_over.position(PARTITION));
                whole.retain(|epoch, _| *epoch < hand_over.cut);
                whole.extend(found.into_iter().filter(|(epoch, _)| *epoch >= hand_over.cut));
                let through = through.max(hand_over.position(PARTITION));
                assert_eq!(whole, self.oracle(view, through), "{context}: {} with its batch view", view.name());
            }
        }
    }

    /// The values of states of one epoch.
    async fn sums(&self, view: &View, states: Vec<(Epoch, &str, &[u8])>) -> Sums {
        let batch = state_codec::decode(view, states).expect("states");
        let columns: Vec<_> = (1..batch.num_columns()).collect();
        let batch = batch.project(&columns).expect("columns");
        let plan = scan_batches(view.state_schema(), vec![batch]).and_then(|states| view.finish(states)).expect("plan");
        let mut sums = Sums::new();
        for batch in collect(&self.session_state, plan).await.expect("values") {
            let column = |name: &str| batch.column_by_name(name).expect("a column").clone();
            let minutes = column("window_start");
            let minutes = minutes.as_primitive::<TimestampMicrosecondType>();
            let number =
                |name: &str| cast(&column(name), &DataType::Int64).expect("a number").as_primitive::<Int64Type>().clone();
            let (counts, amounts) = (number("events"), number("amount"));
            let keys = batch.column_by_name("key").map(|keys| keys.as_string::<i32>());
            for row in 0..batch.num_rows() {
                let key = keys.map(|keys| keys.value(row).to_owned()).unwrap_or_default();
                let group = (minutes.value(row) / MINUTE_US, key);
                let twice = sums.insert(group, (counts.value(row), amounts.value(row)));
                assert_eq!(twice, None, "one state a group");
            }
        }
        sums
    }

    /// Steps until every view that is not halted has read everything.
    pub async fn catch_up(&self, worker: &mut SpeedWorker) {
        self.store.fail(0);
        for _ in 0..self.records.len() + 20 {
            worker.step(Duration::ZERO).await.expect("a step");
            let mut reached = true;
            for view in &self.views {
                let entry = self.store.entry(view, PARTITION).await.expect("entry");
                reached &= entry.is_some_and(|entry| entry.halted.is_some() || entry.position.offset == self.end());
            }
            if reached {
                return;
            }
        }
        panic!("the worker does not reach the end at {}", self.end());
    }

    pub fn position(offset: u64, epoch: u64) -> ReaderPosition {
        ReaderPosition { offset: Offset(offset), epoch: Epoch(epoch) }
    }
}

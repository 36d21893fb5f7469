//! Random schedules: whatever happens to workers and store, what the store holds is right.

use std::{fmt::Write, sync::Arc, time::Duration};

use futures::future::join;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use riomar_infra::RedisServer;
use riomar_schemas::HandOver;

use super::{
    super::{SpeedError, SpeedLimits, SpeedWorker},
    world::{Hit, PARTITION, World, Written, in_redis},
};
use crate::{
    memory::MemoryStore,
    store::{RealtimeStore, StoreError},
};

/// A store that accidents can be arranged with.
trait Accidents {
    fn store(&self) -> Arc<dyn RealtimeStore>;
    fn empty(&mut self);
    fn save(&mut self);
    /// Goes back to what one of the saves held.
    fn restore(&mut self, random: &mut SmallRng);
}

#[derive(Default)]
struct InMemory {
    store: Arc<MemoryStore>,
    saves: Vec<MemoryStore>,
}

impl Accidents for InMemory {
    fn store(&self) -> Arc<dyn RealtimeStore> {
        self.store.clone()
    }

    fn empty(&mut self) {
        self.store.clear();
    }

    fn save(&mut self) {
        self.saves.push(self.store.copy());
    }

    fn restore(&mut self, random: &mut SmallRng) {
        if !self.saves.is_empty() {
            self.store.restore(&self.saves[random.random_range(0..self.saves.len())]);
        }
    }
}

struct InRedis<'a> {
    server: &'a RedisServer,
    saves: usize,
}

/// Databases 1 to 15 hold the saves.
const SAVES_MAX: usize = 15;

impl InRedis<'_> {
    fn copy(&self, from: usize, to: usize) {
        let script = "redis.call('SELECT', ARGV[2]) redis.call('FLUSHDB') redis.call('SELECT', ARGV[1]) \
             for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', key, key, 'DB', ARGV[2], 'REPLACE') end";
        self.server.command(&["EVAL", script, "0", &from.to_string(), &to.to_string()]).expect("copied");
    }
}

impl Accidents for InRedis<'_> {
    fn store(&self) -> Arc<dyn RealtimeStore> {
        in_redis(&self.server.url())
    }

    fn empty(&mut self) {
        self.server.command(&["FLUSHDB"]).expect("emptied");
    }

    fn save(&mut self) {
        if self.saves < SAVES_MAX {
            self.saves += 1;
            self.copy(0, self.saves);
        }
    }

    fn restore(&mut self, random: &mut SmallRng) {
        if self.saves > 0 {
            self.copy(random.random_range(1..=self.saves), 0);
        }
    }
}

const WORKERS_MAX: usize = 3;

struct Schedule<'a> {
    random: SmallRng,
    world: World,
    accidents: &'a mut dyn Accidents,
    workers: Vec<SpeedWorker>,
    ids: usize,
    cuts: u64,
    told: String,
    fenced: u64,
    rebuilds: usize,
}

impl<'a> Schedule<'a> {
    async fn new(seed: u64, accidents: &'a mut dyn Accidents) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        // Half of the partitions were added later: their first epoch is a later one, and the views have a generation already.
        let first_epoch = if random.random() { 3 } else { 0 };
        let mut world = World::new(accidents.store(), first_epoch, seed).await;
        if first_epoch > 0 {
            let cut = riomar_schemas::Epoch(random.random_range(1..=first_epoch));
            world.history.past().first_hand_over = HandOver { generation: 1, cut, ..HandOver::default() };
        }
        let batch_records_max = random.random_range(1..12);
        world.limits = SpeedLimits { batch_records_max, removal_grace: Duration::from_secs(60), ..world.limits };
        Self {
            random,
            world,
            accidents,
            workers: Vec::new(),
            ids: 0,
            cuts: first_epoch,
            told: String::new(),
            fenced: 0,
            rebuilds: 0,
        }
    }

    async fn act(&mut self) {
        let action = self.random.random_range(0..100);
        match action {
            0..22 => self.produce().await,
            22..30 => {
                let count = self.random.random_range(1..15);
                self.world.land(count);
            }
            30..36 => {
                // A cut, or one that was sent before, once more.
                if self.cuts == 0 || self.random.random_bool(0.7) {
                    self.cuts += 1;
                }
                let cut = self.random.random_range(self.cuts.saturating_sub(1).max(1)..=self.cuts);
                self.world.append([Written::Cut(cut)]).await;
            }
            36..40 => {
                let view = self.random.random_range(0..self.world.views.len());
                self.world.history.publish(self.world.views[view].name(), PARTITION);
            }
            40..44 => self.world.clock.advance(Duration::from_secs(self.random.random_range(0..100))),
            44..46 => self.accidents.empty(),
            46..50 => self.accidents.save(),
            50..52 => self.accidents.restore(&mut self.random),
            52..54 => {
                let landed = self.world.history.past().landed.offset;
                self.world.trim(riomar_schemas::Offset(self.random.random_range(0..=landed.0))).await;
            }
            54..60 if !self.workers.is_empty() => {
                let worker = self.random.random_range(0..self.workers.len());
                self.workers.swap_remove(worker);
            }
            _ => self.step().await,
        }
        writeln!(self.told, "{action}").expect("text");
    }

    async fn produce(&mut self) {
        let mut written = Vec::new();
        for _ in 0..self.random.random_range(1..8) {
            if self.random.random_bool(0.05) {
                written.push(Written::Broken);
                continue;
            }
            let id = if self.ids > 0 && self.random.random_bool(0.3) {
                self.random.random_range(self.ids.saturating_sub(12)..self.ids)
            } else {
                self.ids += 1;
                self.ids - 1
            };
            // Late events among them.
            let minute = self.random.random_range(-3..3);
            written.push(Written::Hit(Hit {
                id: format!("id {id}"),
                minute,
                key: format!("k{}", id % 5),
                amount: id as i64 * 7 + 1,
            }));
        }
        self.world.append(written).await;
    }

    /// Steps a worker, or two at once; their number grows to a few on the same partition.
    async fn step(&mut self) {
        if self.workers.is_empty() || (self.workers.len() < WORKERS_MAX && self.random.random_bool(0.1)) {
            self.workers.push(self.world.worker());
        }
        self.world.store.fail(if self.random.random_bool(0.3) { 20 } else { 0 });
        let first = self.random.random_range(0..self.workers.len());
        self.workers.swap(0, first);
        let steps = match self.workers.as_mut_slice() {
            [first, second, ..] if self.random.random() => {
                let (first, second) = join(first.step(Duration::ZERO), second.step(Duration::ZERO)).await;
                vec![first, second]
            }
            [first, ..] => vec![first.step(Duration::ZERO).await],
            [] => Vec::new(),
        };
        self.world.store.fail(0);
        for step in steps {
            match step {
                Ok(step) => {
                    self.fenced += step.fenced;
                    self.rebuilds += step.rebuilds.len();
                    assert!(step.halted.is_empty(), "{:?}", step.halted);
                    step.failed.iter().for_each(|(_, error)| assert_store_failed(error));
                }
                Err(error) => assert_store_failed(&error),
            }
        }
    }

    /// Whatever happened, one worker that is let alone reaches the end.
    async fn end(&mut self) {
        let mut worker = self.world.worker();
        self.world.catch_up(&mut worker).await;
        self.world.check("at the end").await;
    }
}

fn assert_store_failed(error: &SpeedError) {
    assert!(matches!(error, SpeedError::Store { source: StoreError::Unavailable(_), .. }), "{error}");
}

async fn run(seed: u64, actions: usize, accidents: &mut dyn Accidents) -> (u64, usize) {
    let mut schedule = Schedule::new(seed, accidents).await;
    for action in 0..actions {
        schedule.act().await;
        schedule.world.check(&format!("seed {seed}, action {action}")).await;
    }
    schedule.end().await;
    (schedule.fenced, schedule.rebuilds)
}

fn seeds(count: u64) -> (u64, u64) {
    let first = std::env::var("RIOMAR_SEED").ok().and_then(|text| text.parse().ok());
    let (first, count) = (first.unwrap_or(1), if first.is_some() { 1 } else { count });
    println!("seeds from {first}, {count} of them; RIOMAR_SEED runs a single one");
    (first, count)
}

#[tokio::test]
async fn c3_c6_random_schedules_in_memory() {
    let (first, count) = seeds(16);
    let (mut fenced, mut rebuilds) = (0, 0);
    for seed in first..first + count {
        println!("seed {seed}");
        let outcome = run(seed, 150, &mut InMemory::default()).await;
        (fenced, rebuilds) = (fenced + outcome.0, rebuilds + outcome.1);
    }
    assert!(fenced >= count && rebuilds as u64 >= count, "schedules without contention prove little: {fenced}, {rebuilds}");
}

#[tokio::test]
async fn c3_c6_random_schedules_in_redis() {
    let server = RedisServer::start().unwrap_or_else(|error| panic!("{error}"));
    let (first, count) = seeds(6);
    for seed in first..first + count {
        println!("seed {seed}");
        server.command(&["FLUSHALL"]).expect("emptied");
        run(seed, 150, &mut InRedis { server: &server, saves: 0 }).await;
    }
}

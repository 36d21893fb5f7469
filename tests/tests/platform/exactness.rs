//! C3, C4, C7: random schedules of everything that can happen; after each step an answer equals the oracle over the log before its
//! receipt's positions.
//!
//! `RIOMAR_SCHEDULES` sets how many, `RIOMAR_SEED` runs a single one. With the embedded log even seeds keep realtime views in memory,
//! odd ones in Redis; then all of them run on Kafka and Redis.

use std::{fmt::Write, ops::Range, sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use riomar_infra::KafkaBroker;
use riomar_schemas::{
    Name, Offset, PartitionId,
    record::{Record, RecordBody},
};
use riomar_tests::{
    catalog::{PARTITIONS, READINGS, ROLL_UPS, SQL, VIEWS},
    check::{Ask, check_roll_up, check_view},
    harness::{Harness, Who},
    logs::Logs,
    oracle::LogPartition,
    realtime::Realtime,
    workload::{Workload, ndjson},
};

const SCHEDULES: u64 = 200;
const STEPS: usize = 24;
/// Schedules are dealt to this many tests, which run at the same time.
const HANDS: u64 = 4;
/// Schedules on Kafka, where each takes longer.
const KAFKA_SCHEDULES: u64 = 10;
/// Schedules on Kafka that run at the same time.
const KAFKA_HANDS: u64 = 3;

struct Schedule {
    random: StdRng,
    workload: Workload,
    harness: Harness,
    sent: Vec<String>,
    /// What the log has let go of, by partition.
    gone: Vec<Vec<Record>>,
    trail: String,
}

impl Schedule {
    async fn start(seed: u64, logs: Logs, realtime: Realtime) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            workload: Workload::new(seed),
            harness: Harness::start_on(SQL, logs, realtime).await,
            sent: Vec::new(),
            gone: vec![Vec::new(); PARTITIONS],
            trail: String::new(),
        }
    }

    /// One thing that may happen.
    async fn act(&mut self) -> Result<(), String> {
        let who = if self.random.random_ratio(1, 2) { Who::Rival } else { Who::First };
        let action = self.random.random_range(0..100);
        let harness = &mut self.harness;
        // Mostly less than it takes a speed worker to look at the store again, so that one that was overtaken does not know it.
        let passed_ms =
            if self.random.random_ratio(1, 8) { self.random.random_range(0..3_000) } else { self.random.random_range(0..100) };
        harness.clock().advance(Duration::from_millis(passed_ms));
        let mut note = |text: &str| write!(self.trail, "{text} {who:?}; ").map_err(|error| error.to_string());
        match action {
            0..28 => {
                note("ingest")?;
                let lines = self.workload.batch(self.random.random_range(1..40));
                self.send(ndjson(&lines)).await
            }
            28..36 if !self.sent.is_empty() => {
                note("send again")?;
                let body = self.sent[self.random.random_range(0..self.sent.len())].clone();
                self.send(body).await
            }
            28..38 => {
                note("append to the log directly")?;
                self.append_directly().await
            }
            38..50 => {
                note("land")?;
                harness.land(who).await.map(drop).map_err(|error| error.to_string())
            }
            50..54 => {
                note("trim the log")?;
                self.trim().await
            }
            54..70 => {
                note("speed")?;
                harness.speed(who).await.map(drop).map_err(|error| error.to_string())
            }
            70..75 => {
                note("cut")?;
                harness.cut(who).await.map_err(|error| error.to_string())
            }
            75..77 => {
                note("recompute twice, with cuts that cross each other")?;
                let crossed: Vec<bool> = (0..PARTITIONS).map(|_| self.random.random()).collect();
                let stream = Name::new(READINGS.name).map_err(|error| error.to_string())?;
                harness.recompute_crossed(&stream, &crossed).await.map_err(|error| error.to_string())
            }
            77..85 => {
                let full = action < 79;
                note(if full { "full recompute" } else { "recompute" })?;
                harness.recompute(who, full).await.map_err(|error| error.to_string())
            }
            85..88 => {
                note("restart")?;
                harness.restart().await;
                Ok(())
            }
            88..91 => {
                note("empty the realtime store")?;
                harness.realtime().clear();
                Ok(())
            }
            91..94 => {
                note("save the realtime store")?;
                harness.realtime().save();
                Ok(())
            }
            94..97 => {
                note("restore the realtime store")?;
                harness.realtime().restore();
                Ok(())
            }
            _ => {
                note("a grace period passes")?;
                harness.clock().advance(Duration::from_secs(90));
                Ok(())
            }
        }
    }

    async fn send(&mut self, body: String) -> Result<(), String> {
        let reply = self.harness.client().ingest(READINGS.name, body.clone()).await;
        self.sent.push(body);
        if reply.status.is_success() { Ok(()) } else { Err(format!("{}: {}", reply.status, reply.text())) }
    }

    /// What a producer sends that goes round the ingestion endpoint: events on any partition, broken ones among them.
    async fn append_directly(&mut self) -> Result<(), String> {
        let lines = self.workload.batch(self.random.random_range(1..10));
        let partition = |random: &mut StdRng| PartitionId(random.random_range(0..PARTITIONS as u32));
        let records = lines.into_iter().map(|line| (partition(&mut self.random), RecordBody::Event(line.text.into()))).collect();
        let stream = Name::new(READINGS.name).map_err(|error| error.to_string())?;
        self.harness.log().append(&stream, records).await.map(drop).map_err(|error| error.to_string())
    }

    /// What retention does in time: some of what has landed goes from the log.
    async fn trim(&mut self) -> Result<(), String> {
        let stream = Name::new(READINGS.name).map_err(|error| error.to_string())?;
        let positions = self.harness.client().get(&format!("/v1/streams/{stream}")).await.json()["positions"].take();
        let held = self.harness.read_log(READINGS.name).await;
        for (number, (held, gone)) in held.into_iter().zip(&mut self.gone).enumerate() {
            let landed = positions[number]["landed"].as_u64().ok_or_else(|| format!("no position: {positions}"))?;
            let below = self.random.random_range(gone.len() as u64..=landed);
            gone.extend(held.records.into_iter().take_while(|record| record.offset.0 < below));
            let partition = PartitionId(u32::try_from(number).map_err(|error| error.to_string())?);
            self.harness.log().trim(&stream, partition, Offset(below)).await.map_err(|error| error.to_string())?;
        }
        let account = self.harness.client().account(READINGS.name).await;
        if account["adds_up"] == true { Ok(()) } else { Err(format!("C5 after a trim: {account}")) }
    }

    /// The log from its beginning: what it has let go of, and what it holds.
    async fn read_log(&self) -> Vec<LogPartition> {
        let mut log = self.harness.read_log(READINGS.name).await;
        for (partition, gone) in log.iter_mut().zip(&self.gone) {
            partition.records.splice(0..0, gone.iter().cloned());
        }
        log
    }

    /// One answer, held against the oracle.
    async fn check_one(&mut self) -> Result<(), String> {
        let (is_roll_up, how) = (self.random.random_ratio(1, 5), if self.random.random() { Ask::Sql } else { Ask::Rows });
        let (roll_up, view) = (self.random.random_range(0..ROLL_UPS.len()), self.random.random_range(0..VIEWS.len()));
        let (client, read_log) = (self.harness.client(), async || self.read_log().await);
        if is_roll_up {
            return check_roll_up(&client, &ROLL_UPS[roll_up], read_log).await;
        }
        check_view(&client, VIEWS[view], how, read_log).await.map(drop)
    }

    /// At quiescence every answer holds the whole log and lacks nothing; before and after a recompute from scratch.
    async fn check_all(&mut self) -> Result<(), String> {
        for round in ["at rest", "after a last incremental recompute", "after a recompute from scratch"] {
            let context = |error: String| format!("{round}: {error}");
            self.harness.settle().await;
            let log = self.read_log().await;
            for view in VIEWS {
                let answer = check_view(&self.harness.client(), view, Ask::Sql, async || log.clone()).await.map_err(context)?;
                let ends: Vec<_> = log.iter().map(|partition| partition.records.len() as u64).collect();
                if answer.through(view.name, PARTITIONS) != ends || !answer.receipt.degraded.is_empty() {
                    return Err(context(format!("{} does not hold {ends:?}: {:?}", view.name, answer.receipt)));
                }
            }
            for roll_up in ROLL_UPS {
                check_roll_up(&self.harness.client(), roll_up, async || log.clone()).await.map_err(context)?;
            }
            if round != "after a recompute from scratch" {
                let full = round != "at rest";
                self.harness.recompute(Who::First, full).await.map_err(|error| context(error.to_string()))?;
            }
        }
        Ok(())
    }

    async fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.act().await?;
            self.check_one().await?;
        }
        self.check_all().await
    }
}

async fn run(seed: u64, logs: Logs, realtime: Realtime) {
    let mut schedule = Schedule::start(seed, logs, realtime).await;
    if let Err(error) = schedule.run().await {
        let trail = &schedule.trail;
        panic!("{error}\n\nafter: {trail}\n\nagain: RIOMAR_SEED={seed} cargo test -p riomar-tests --test platform exactness");
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// The seeds to run, of so many where nobody says how many.
fn seeds(schedules: u64) -> Range<u64> {
    match number("RIOMAR_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RIOMAR_SCHEDULES").unwrap_or(schedules),
    }
}

async fn run_hand(hand: u64) {
    for seed in seeds(SCHEDULES).filter(|seed| seed % HANDS == hand) {
        // Schedules of one hand run one after the other, so each hand has a database.
        let realtime = if seed.is_multiple_of(2) {
            Realtime::memory()
        } else {
            Realtime::redis(u32::try_from(seed % HANDS).expect("few hands"))
        };
        run(seed, Logs::Embedded, realtime).await;
    }
}

#[tokio::test]
async fn in_memory() {
    run_hand(0).await;
}

#[tokio::test]
async fn in_redis() {
    run_hand(1).await;
}

#[tokio::test]
async fn in_memory_again() {
    run_hand(2).await;
}

#[tokio::test]
async fn in_redis_again() {
    run_hand(3).await;
}

#[tokio::test]
async fn in_kafka_and_redis() {
    let broker = Arc::new(KafkaBroker::start().unwrap_or_else(|error| panic!("{error}")));
    // They wait for the broker most of the time, so some run at once; each of them has a database, behind those of the other tests.
    let hands = (0..KAFKA_HANDS).map(async |hand| {
        for seed in seeds(KAFKA_SCHEDULES).filter(|seed| seed % KAFKA_HANDS == hand) {
            let logs = Logs::Kafka { broker: broker.clone(), topic_prefix: format!("schedule-{seed}.") };
            run(seed, logs, Realtime::redis(5 + u32::try_from(hand).expect("few hands"))).await;
            println!("exactness: schedule {seed} on Kafka and Redis is done");
        }
    });
    futures::future::join_all(hands).await;
}

/// Two workers of the same partitions take turns, neither knowing of the other, as after a rebalance or a long pause.
async fn overtaken(realtime: Realtime) {
    let mut schedule = Schedule::start(3, Logs::Embedded, realtime).await;
    for who in [Who::Rival, Who::First, Who::Rival, Who::First] {
        let body = ndjson(&schedule.workload.batch(30));
        schedule.send(body).await.expect("ingestion works");
        schedule.harness.speed(who).await.expect("the speed layer works");
        for view in VIEWS {
            let checked = check_view(&schedule.harness.client(), view, Ask::Sql, async || schedule.read_log().await).await;
            checked.unwrap_or_else(|error| panic!("{who:?}: {error}"));
        }
    }
    schedule.check_all().await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn overtaken_workers_count_nothing_twice_in_memory() {
    overtaken(Realtime::memory()).await;
}

#[tokio::test]
async fn overtaken_workers_count_nothing_twice_in_redis() {
    overtaken(Realtime::redis(4)).await;
}

//! C6: realtime state is a cache. Redis emptied, restored from an old snapshot, frozen or gone: no answer is wrong, what it lacks
//! stands in the receipt, and it is rebuilt without help.

use std::time::Instant;

use riomar_infra::{RedisOptions, RedisServer};
use riomar_tests::{
    answer::Answer,
    catalog::{PARTITIONS, READINGS, SQL, VIEWS},
    check::{Ask, check_view},
    faults::CrashPoints,
    harness::{Harness, Who},
    process::eventually,
    realtime::{Realtime, connect},
    workload::{Workload, ndjson},
};

struct Scenario {
    redis: RedisServer,
    harness: Harness,
    workload: Workload,
}

impl Scenario {
    /// A platform with some batches in a generation and some in realtime views only.
    async fn start() -> Self {
        let redis = RedisServer::start_with(RedisOptions::default()).expect("redis-server");
        let mut harness = Harness::prepare(SQL, Realtime::memory());
        harness.open_with(CrashPoints::default(), connect(&redis.url())).await.expect("the platform starts");
        let mut scenario = Self { redis, harness, workload: Workload::new(21) };
        scenario.ingest().await;
        scenario.harness.recompute(Who::First, false).await.expect("a recompute");
        scenario.ingest().await;
        scenario.harness.settle().await;
        scenario.check(true).await;
        scenario
    }

    async fn ingest(&mut self) {
        let body = ndjson(&self.workload.batch(60));
        let reply = self.harness.client().ingest(READINGS.name, body).await;
        assert!(reply.status.is_success(), "ingestion does not need Redis: {}", reply.text());
    }

    /// Every view's answer is right; it holds the whole log and lacks nothing, or says what it lacks.
    async fn check(&self, whole: bool) {
        let log = self.harness.read_log(READINGS.name).await;
        let ends: Vec<_> = log.iter().map(|partition| partition.records.len() as u64).collect();
        for view in VIEWS {
            let checked = check_view(&self.harness.client(), view, Ask::Sql, async || log.clone()).await;
            let answer = checked.unwrap_or_else(|error| panic!("{error}"));
            if whole {
                assert_eq!(answer.through(view.name, PARTITIONS), ends, "{:?}", answer.receipt);
                assert!(answer.receipt.degraded.is_empty(), "{:?}", answer.receipt);
            } else {
                assert!(answer.through(view.name, PARTITIONS) != ends, "{:?}", answer.receipt);
                assert!(says_what_it_lacks(&answer, view.name), "{:?}", answer.receipt);
            }
        }
    }

    /// Steps until the speed layer has caught up, as its loop would. The next event, or the schedule's next cut, shows it that the
    /// store is not as it left it.
    async fn rebuild(&self) {
        self.harness.cut(Who::First).await.expect("a cut does not need Redis");
        eventually("the realtime views to be rebuilt", async || {
            self.harness.clock().advance(std::time::Duration::from_secs(2));
            matches!(self.harness.speed(Who::First).await, Ok(0)).then_some(())
        })
        .await;
        self.check(true).await;
    }
}

fn says_what_it_lacks(answer: &Answer, view: &str) -> bool {
    let degraded = &answer.receipt.degraded;
    degraded.iter().any(|lack| lack.view.as_str() == view && !lack.code.is_empty() && !lack.detail.is_empty())
}

#[tokio::test]
async fn emptied() {
    let mut scenario = Scenario::start().await;
    scenario.redis.command(&["FLUSHALL"]).expect("Redis answers");
    scenario.check(false).await;
    scenario.ingest().await;
    scenario.check(false).await;
    scenario.rebuild().await;
}

#[tokio::test]
async fn restarted_with_an_old_snapshot() {
    let mut scenario = Scenario::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    let snapshot = directory.path().join("old.rdb");
    scenario.redis.save_snapshot(&snapshot).expect("a snapshot");
    for _ in 0..2 {
        scenario.ingest().await;
        scenario.harness.recompute(Who::First, false).await.expect("a recompute");
        scenario.harness.settle().await;
    }
    scenario.ingest().await;
    scenario.harness.settle().await;
    scenario.check(true).await;
    scenario.redis.restore_snapshot(&snapshot).expect("Redis starts");
    let log = scenario.harness.read_log(READINGS.name).await;
    for view in VIEWS {
        // The connection breaks once; what counts is that no answer claims more than it holds.
        eventually("an answer", async || {
            let answer = check_view(&scenario.harness.client(), view, Ask::Sql, async || log.clone()).await;
            answer
                .unwrap_or_else(|error| panic!("{error}"))
                .receipt
                .degraded
                .iter()
                .all(|lack| lack.code != "realtime_unavailable")
                .then_some(())
        })
        .await;
    }
    scenario.rebuild().await;
}

#[tokio::test]
async fn frozen_and_gone_for_a_while() {
    let mut scenario = Scenario::start().await;
    scenario.redis.pause().expect("Redis freezes");
    let asked = Instant::now();
    scenario.check(false).await;
    scenario.ingest().await;
    assert!(asked.elapsed().as_secs() < 20, "answers without Redis took {:?}", asked.elapsed());
    assert!(scenario.harness.speed(Who::First).await.is_err(), "nothing can be folded without Redis");
    scenario.redis.resume().expect("Redis goes on");
    scenario.rebuild().await;

    scenario.redis.kill().expect("Redis dies");
    scenario.check(false).await;
    scenario.ingest().await;
    scenario.harness.recompute(Who::First, false).await.expect("a recompute does not need Redis");
    scenario.ingest().await;
    scenario.check(false).await;
    scenario.redis.restart().expect("Redis starts, empty");
    scenario.rebuild().await;
}

#[tokio::test]
async fn out_of_memory() {
    let mut scenario = Scenario::start().await;
    scenario.redis.command(&["CONFIG", "SET", "maxmemory", "1"]).expect("Redis answers");
    scenario.ingest().await;
    let _ = scenario.harness.speed(Who::First).await;
    let log = scenario.harness.read_log(READINGS.name).await;
    for view in VIEWS {
        check_view(&scenario.harness.client(), view, Ask::Sql, async || log.clone())
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }
    scenario.redis.command(&["CONFIG", "SET", "maxmemory", "0"]).expect("Redis answers");
    scenario.rebuild().await;
}

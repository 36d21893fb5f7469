//! C1 to C8: one scenario, killed at each of its durable operations: before it, after it, and after it with the reply lost. Then the
//! platform starts again over what is left, the client sends again what was not acknowledged, and everything must be right.
//!
//! `RIOMAR_CRASH_POINT=12` runs operation 12 alone.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use riomar_schemas::{GenerationManifest, View, paths};
use riomar_tests::{
    catalog::{PARTITIONS, READINGS, SQL, VIEWS},
    check::{Ask, check_view},
    faults::{CrashPoints, Moment},
    harness::{Harness, Who},
    oracle::{Kept, walk},
    realtime::Realtime,
    workload::{Workload, ndjson},
};
use serde_json::Value;

const BATCHES: usize = 3;
const EVENTS: usize = 12;

/// What a client sends: the same in every run.
fn batches() -> Vec<String> {
    let mut workload = Workload::new(11);
    (0..BATCHES).map(|_| ndjson(&workload.valid_batch(EVENTS))).collect()
}

/// The scenario; errors are what a killed process looks like from outside. Gives the numbers of the acknowledged batches.
async fn scenario(harness: &mut Harness, points: CrashPoints) -> BTreeSet<usize> {
    let mut acknowledged = BTreeSet::new();
    if harness.open(points).await.is_err() {
        return acknowledged;
    }
    for (number, batch) in batches().into_iter().enumerate() {
        if harness.client().ingest(READINGS.name, batch).await.status.is_success() {
            acknowledged.insert(number);
        }
        // What a step reports does not matter here: it works, or the process is dead.
        let _ = match number {
            0 => harness.speed(Who::First).await.map(drop).map_err(|error| error.to_string()),
            1 => harness.land(Who::First).await.map(drop).map_err(|error| error.to_string()),
            _ => harness.speed(Who::First).await.map(drop).map_err(|error| error.to_string()),
        };
        let _ = harness.recompute(Who::First, number == 2).await;
        harness.clock().advance(std::time::Duration::from_secs(90));
        let _ = harness.speed(Who::First).await;
        let _ = harness.client().rows(VIEWS[number].name).await;
    }
    acknowledged
}

/// The field of each event that counts, by its position.
type Positions = BTreeMap<(u64, u64), String>;

async fn check_durable(harness: &Harness, acknowledged: &BTreeSet<usize>) {
    let mut in_log = BTreeSet::new();
    for partition in harness.read_log(READINGS.name).await {
        for (_, kept) in walk(&READINGS, &partition, u64::MAX) {
            if let Kept::Kept(_, row) = kept {
                in_log.insert(format!("{:?}", row[0]));
            }
        }
    }
    for number in acknowledged {
        for line in batches()[*number].lines() {
            let event: Value = serde_json::from_str(line).expect("JSON");
            let id = format!("{:?}", rusqlite::types::Value::Text(event["event_id"].as_str().expect("an id").to_owned()));
            assert!(in_log.contains(&id), "C1: {id} of batch {number} was acknowledged and is lost");
        }
    }
}

/// C2: the rows of the master dataset are exactly the events that count, each once.
async fn check_master(harness: &Harness) {
    let mut expected = Positions::new();
    for (partition, records) in (0..).zip(harness.read_log(READINGS.name).await) {
        for (offset, kept) in walk(&READINGS, &records, u64::MAX) {
            if let Kept::Kept(_, row) = kept {
                let rusqlite::types::Value::Text(id) = &row[0] else { panic!("no id in {row:?}") };
                expected.insert((partition, offset), id.clone());
            }
        }
    }
    let reply = harness.client().sql("SELECT _partition, _offset, event_id FROM readings").await;
    let answer = reply.answer().expect("the master dataset is read");
    let (partitions, offsets, ids) = (answer.values("_partition"), answer.values("_offset"), answer.values("event_id"));
    let mut found = Positions::new();
    for ((partition, offset), id) in partitions.into_iter().zip(offsets).zip(ids) {
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).expect("a number");
        let position = (number(partition), number(offset));
        assert_eq!(found.insert(position, id.unwrap_or_default()), None, "C2: {position:?} is in the master dataset twice");
    }
    assert_eq!(found, expected, "C2: the master dataset");
}

/// C8: manifests are numbered without a gap, each is whole, and their cuts and files fit.
async fn check_generations(harness: &Harness, view: &View) {
    let objects = harness.objects();
    let found: Vec<_> = objects.list(Some(&paths::generations(view))).try_collect().await.expect("a listing");
    let numbers: BTreeSet<_> = found.iter().filter_map(|object| paths::number(&object.location)).collect();
    let highest = numbers.last().copied().unwrap_or_default();
    let lowest = numbers.first().copied().unwrap_or(1);
    assert_eq!(numbers, (lowest..=highest).collect(), "C8: manifests of {}", view.name());
    let mut cut = 0;
    for number in numbers {
        let bytes = objects.get(&paths::generation(view, number)).await.expect("a manifest").bytes().await.expect("readable");
        let manifest: GenerationManifest = serde_json::from_slice(&bytes).expect("a manifest is whole");
        assert!(manifest.cut.0 > cut, "C8: generation {number} of {} has cut {} after {cut}", view.name(), manifest.cut);
        cut = manifest.cut.0;
        if number == highest {
            for file in manifest.files {
                let path = object_store::path::Path::from(file.path.as_str());
                assert_eq!(objects.head(&path).await.expect("a file of the generation").size, file.bytes);
            }
        }
    }
}

async fn check_answers(harness: &Harness) {
    let log = harness.read_log(READINGS.name).await;
    let ends: Vec<_> = log.iter().map(|partition| partition.records.len() as u64).collect();
    for view in VIEWS {
        let answer = check_view(&harness.client(), view, Ask::Sql, async || log.clone())
            .await
            .unwrap_or_else(|error| panic!("C3: {error}"));
        assert_eq!(answer.through(view.name, PARTITIONS), ends, "{}: {:?}", view.name, answer.receipt);
        assert!(answer.receipt.degraded.is_empty(), "{:?}", answer.receipt);
    }
}

async fn check_account(harness: &Harness) {
    let (mut kept, mut duplicates) = (0, 0);
    for partition in harness.read_log(READINGS.name).await {
        for (_, outcome) in walk(&READINGS, &partition, u64::MAX) {
            match outcome {
                Kept::Kept(..) => kept += 1,
                Kept::Duplicate => duplicates += 1,
                Kept::Undecodable => panic!("every event is valid"),
            }
        }
    }
    let account = harness.client().account(READINGS.name).await;
    let number = |name: &str| account[name].as_u64().unwrap_or_else(|| panic!("no {name} in {account}"));
    assert_eq!((number("landed"), number("duplicates"), number("in_flight")), (kept, duplicates, 0), "C5: {account}");
    assert_eq!((number("accepted"), number("received")), (kept + duplicates, kept + duplicates), "C5: {account}");
    assert_eq!(account["adds_up"], true, "C5: {account}");
}

async fn check_all(harness: &Harness, acknowledged: &BTreeSet<usize>) {
    check_durable(harness, acknowledged).await;
    check_master(harness).await;
    check_account(harness).await;
    check_answers(harness).await;
    for view in harness.catalog().views() {
        check_generations(harness, view).await;
    }
}

async fn run(number: usize, moment: Moment) {
    let mut harness = Harness::prepare(SQL, Realtime::surviving());
    let points = CrashPoints::armed(number, moment);
    let mut acknowledged = scenario(&mut harness, points.clone()).await;
    assert!(points.is_dead(), "operation {number} was not reached");
    harness.restart().await;
    // Right after the start, before anybody did anything, nothing served is wrong.
    for view in VIEWS {
        let log = harness.read_log(READINGS.name).await;
        check_view(&harness.client(), view, Ask::Sql, async || log.clone()).await.unwrap_or_else(|error| panic!("C3: {error}"));
    }
    for (number, batch) in batches().into_iter().enumerate() {
        if acknowledged.insert(number) {
            let reply = harness.client().ingest(READINGS.name, batch).await;
            assert!(reply.status.is_success(), "{}", reply.text());
        }
    }
    harness.settle().await;
    check_all(&harness, &acknowledged).await;
    harness.recompute(Who::First, false).await.expect("a recompute works again");
    harness.settle().await;
    check_all(&harness, &acknowledged).await;
}

/// The operations of the scenario, when nobody dies.
async fn operations() -> Vec<String> {
    let mut harness = Harness::prepare(SQL, Realtime::surviving());
    let points = CrashPoints::default();
    let acknowledged = scenario(&mut harness, points.clone()).await;
    assert_eq!(acknowledged.len(), BATCHES, "the scenario works when nobody dies");
    harness.settle().await;
    check_all(&harness, &acknowledged).await;
    points.operations()
}

async fn run_all(moment: Moment) {
    let only = std::env::var("RIOMAR_CRASH_POINT").ok().map(|text| text.parse::<usize>().expect("a number"));
    let operations = operations().await;
    println!("crash points: {} operations, {moment:?}", operations.len());
    assert!(operations.len() > 20, "{operations:#?}");
    for (number, name) in operations.iter().enumerate().filter(|(number, _)| only.is_none_or(|only| only == *number)) {
        println!("crash point {number} ({name}), {moment:?}: RIOMAR_CRASH_POINT={number}");
        run(number, moment).await;
    }
}

#[tokio::test]
async fn killed_before_each_operation() {
    run_all(Moment::Before).await;
}

#[tokio::test]
async fn killed_after_each_operation() {
    run_all(Moment::After).await;
}

#[tokio::test]
async fn killed_with_the_reply_to_each_operation_lost() {
    run_all(Moment::AfterLostReply).await;
}

//! C5: the account of a stream equals what its client counted, to the event.

use std::collections::BTreeMap;

use riomar_tests::{
    catalog::{READINGS, SQL},
    harness::{Harness, Who},
    oracle::{Kept, walk},
    realtime::Realtime,
    workload::{Workload, ndjson},
};
use serde_json::Value;

/// An event larger than the limit: it is refused and not kept.
fn too_large() -> String {
    format!(r#"{{"event_id":"large","ts":"2026-03-29T00:00:00Z","sensor":"s","site":"{}"}}"#, "x".repeat(1 << 20)) + "\n"
}

fn count(totals: &mut BTreeMap<&'static str, u64>, reply: &Value) {
    for name in ["received", "accepted", "quarantined", "rejected"] {
        *totals.entry(name).or_default() += reply[name].as_u64().unwrap_or_else(|| panic!("no {name} in {reply}"));
    }
}

/// Late events and how late the latest is, counted by hand: more than a minute behind the highest time seen before in the partition.
async fn lateness(harness: &Harness) -> (u64, u64) {
    let (mut late, mut latest_us) = (0, 0);
    for partition in harness.read_log(READINGS.name).await {
        let mut highest: Option<i64> = None;
        for (_, kept) in walk(&READINGS, &partition, u64::MAX) {
            let Kept::Kept(_, row) = kept else { continue };
            let rusqlite::types::Value::Integer(time_us) = row[1] else { panic!("no event time in {row:?}") };
            let behind_us = highest.unwrap_or(time_us).saturating_sub(time_us);
            late += u64::from(behind_us > 60_000_000);
            latest_us = latest_us.max(behind_us.unsigned_abs());
            highest = highest.max(Some(time_us));
        }
    }
    (late, latest_us)
}

#[tokio::test]
async fn everything_received_is_accounted_for() {
    let mut harness = Harness::start(SQL, Realtime::memory()).await;
    let mut workload = Workload::new(5);
    let mut totals = BTreeMap::new();
    let (mut valid, mut broken, mut large) = (0, 0, 0);
    for round in 0..12 {
        let lines = workload.batch(80);
        let body = ndjson(&lines) + &too_large();
        let times = if round % 3 == 0 { 2 } else { 1 };
        for _ in 0..times {
            let reply = harness.client().ingest(READINGS.name, body.clone()).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            count(&mut totals, &reply.json());
            valid += lines.iter().filter(|line| line.valid).count() as u64;
            broken += lines.iter().filter(|line| !line.valid).count() as u64;
            large += 1;
        }
        match round % 4 {
            0 => drop(harness.land(Who::First).await.expect("landing works")),
            1 => harness.recompute(Who::First, false).await.expect("a recompute"),
            2 => harness.restart().await,
            _ => {}
        }
        let account = harness.client().account(READINGS.name).await;
        for (name, total) in &totals {
            assert_eq!(account[*name], *total, "{name} in round {round}: {account}");
        }
        assert_eq!(account["adds_up"], true, "{account}");
    }
    assert_eq!((totals["accepted"], totals["quarantined"], totals["rejected"]), (valid, broken, large));
    assert_eq!(totals["received"], valid + broken + large);

    harness.settle().await;
    let account = harness.client().account(READINGS.name).await;
    let mut outcomes = BTreeMap::new();
    for partition in harness.read_log(READINGS.name).await {
        for (_, kept) in walk(&READINGS, &partition, u64::MAX) {
            *outcomes.entry(matches!(kept, Kept::Duplicate)).or_insert(0_u64) += 1;
        }
    }
    assert_eq!(
        (account["landed"].as_u64(), account["duplicates"].as_u64()),
        (outcomes.get(&false).copied(), outcomes.get(&true).copied())
    );
    assert_eq!(
        (&account["in_flight"], &account["undecodable"], &account["adds_up"]),
        (&0.into(), &0.into(), &true.into()),
        "{account}"
    );
    let (late, latest_us) = lateness(&harness).await;
    assert!(late > 0, "the workload has late events");
    assert_eq!(account["late"]["count"], late, "{account}");
    assert_eq!(account["late"]["lateness_max_seconds"], (latest_us / 1000).div_ceil(1000), "{account}");
}

#[tokio::test]
async fn every_quarantined_event_is_there_with_its_reason() {
    let harness = Harness::start(SQL, Realtime::memory()).await;
    let lines = Workload::new(6).batch(300);
    let reply = harness.client().ingest(READINGS.name, ndjson(&lines)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let page = harness.client().get("/v1/streams/readings/quarantine?limit=1000").await.json();
    let entries = page["entries"].as_array().unwrap_or_else(|| panic!("{page}"));
    let raw: Vec<_> = entries.iter().map(|entry| entry["raw"].as_str().unwrap_or_default()).collect();
    let broken: Vec<_> = lines.iter().filter(|line| !line.valid).map(|line| line.text.as_str()).collect();
    assert_eq!(raw, broken);
    for entry in entries {
        assert!(!entry["code"].as_str().unwrap_or_default().is_empty() && entry["detail"].is_string(), "{entry}");
    }
}

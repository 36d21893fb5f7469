//! C1, C2: `riomar up` is killed at random points while events are sent; nothing acknowledged is lost, nothing counts twice.

use rand::{Rng, SeedableRng, rngs::StdRng};
use riomar_tests::{
    answer::Answer,
    process::{DEADLINE, Up, eventually, free_port},
};
use serde_json::{Value, json};
use tokio::sync::watch;

const DEFINITIONS: &str = "
CREATE TABLE hits (event_id BIGINT NOT NULL, ts TIMESTAMP NOT NULL, path VARCHAR NOT NULL, bytes BIGINT)
  WITH (event_time = 'ts', dedup_by = 'event_id', partitions = 2);
CREATE MATERIALIZED VIEW hits_by_minute AS
  SELECT window_start, path, count(*) AS hits, sum(bytes) AS bytes
  FROM TUMBLE(hits, ts, INTERVAL '1 minute') GROUP BY window_start, path;
";
const CONFIGURATION: &str = "[batch]\nevery = \"1s\"\n";
const ROUNDS: u64 = 5;
const BATCHES_PER_ROUND: u64 = 40;
const EVENTS_PER_BATCH: u64 = 50;

/// The events of a batch; the same batch always has the same ones.
fn batch(number: u64) -> String {
    let event = |id: u64| {
        let ts = format!("2026-11-20T10:{:02}:{:02}Z", id / 60 % 60, id % 60);
        json!({"event_id": id, "ts": ts, "path": format!("/{}", id % 7), "bytes": id}).to_string() + "\n"
    };
    (number * EVENTS_PER_BATCH..(number + 1) * EVENTS_PER_BATCH).map(event).collect()
}

async fn send(client: &reqwest::Client, url: &str, number: u64) -> bool {
    let request =
        client.post(format!("{url}/v1/streams/hits/events")).header("content-type", "application/x-ndjson").body(batch(number));
    match request.send().await {
        Ok(response) if response.status().is_success() => {
            let summary: Value = response.json().await.unwrap_or_default();
            summary["accepted"] == EVENTS_PER_BATCH
        }
        _ => false,
    }
}

/// Sends the batches of a round one behind the other; those that were acknowledged until one was not.
async fn send_round(client: reqwest::Client, url: String, round: u64, progress: watch::Sender<u64>) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for number in round * BATCHES_PER_ROUND..(round + 1) * BATCHES_PER_ROUND {
        if !send(&client, &url, number).await {
            break;
        }
        acknowledged.push(number);
        progress.send_replace(acknowledged.len() as u64);
    }
    acknowledged
}

/// `(hits, bytes)` over everything that is served now.
async fn totals(client: &reqwest::Client, url: &str) -> Option<(u64, u64)> {
    let sql = json!({"sql": "SELECT sum(hits) AS hits, sum(bytes) AS bytes FROM hits_by_minute"});
    let response = client.post(format!("{url}/v1/sql")).json(&sql).send().await.ok()?;
    let answer: Answer = serde_json::from_str(&response.text().await.ok()?).ok()?;
    let number = |name: &str| answer.values(name)[0].as_deref().unwrap_or("0").parse().ok();
    Some((number("hits")?, number("bytes")?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_sending_loses_nothing_and_counts_nothing_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let (data, schemas) = (directory.path().join("data"), directory.path().join("schemas"));
    std::fs::create_dir_all(&schemas).expect("a writable directory");
    std::fs::write(schemas.join("hits.sql"), DEFINITIONS).expect("a writable directory");
    let configuration = directory.path().join("riomar.toml");
    std::fs::write(&configuration, CONFIGURATION).expect("a writable directory");
    let seed = std::env::var("RIOMAR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_120);
    println!("kill: RIOMAR_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let client = reqwest::Client::builder().timeout(DEADLINE).build().expect("a client");
    let port = free_port();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let up = Up::start(&data, &schemas, port, &configuration).await;
        let served = totals(&client, up.url()).await.expect("an answer");
        let events = acknowledged.len() as u64 * EVENTS_PER_BATCH;
        let at_least = eventually("everything acknowledged to be served", async || {
            totals(&client, up.url()).await.filter(|(hits, _)| *hits >= events)
        });
        println!("kill: round {round}: {} hits served at once, {} later, {events} acknowledged", served.0, at_least.await.0);
        let last = random.random_range(0..BATCHES_PER_ROUND);
        let (progress, mut reached) = watch::channel(0);
        let sender = tokio::spawn(send_round(client.clone(), up.url().to_owned(), round, progress));
        // Killed right behind an acknowledgement, with the next request on its way.
        reached.wait_for(|sent| *sent > last).await.expect("the sender is not done");
        up.kill();
        acknowledged.extend(sender.await.expect("the sender ends when the server does"));
    }
    let up = Up::start(&data, &schemas, port, &configuration).await;
    // The producer sends everything again that was not acknowledged, and for good measure some that was.
    for number in 0..ROUNDS * BATCHES_PER_ROUND {
        if !acknowledged.contains(&number) || random.random_ratio(1, 4) {
            assert!(send(&client, up.url(), number).await, "batch {number}: {}", up.output());
        }
    }
    let events = ROUNDS * BATCHES_PER_ROUND * EVENTS_PER_BATCH;
    let expected = (events, events * (events - 1) / 2);
    eventually("the totals", async || totals(&client, up.url()).await.filter(|totals| *totals == expected)).await;
    let account = eventually("everything to land", async || {
        let text = client.get(format!("{}/v1/streams/hits", up.url())).send().await.ok()?.text().await.ok()?;
        let account = serde_json::from_str::<Value>(&text).ok()?["account"].take();
        (account["in_flight"] == 0).then_some(account)
    });
    let account = account.await;
    assert_eq!(account["landed"], events, "{account}");
    assert_eq!(
        (account["adds_up"].as_bool(), account["quarantined"].as_u64(), account["rejected"].as_u64()),
        (Some(true), Some(0), Some(0))
    );
    assert_eq!(totals(&client, up.url()).await, Some(expected), "nothing came late and counted twice");
}

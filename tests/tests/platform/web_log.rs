//! Real requests to a public web site: answers equal SQLite before, after and while views are recomputed, and sending everything
//! four times changes nothing, nor does sending it out of order and by several producers at once. `RIOMAR_SAMPLE_DATA` names the directory that holds `web_log.ndjson`; without it this is skipped.

use std::{fs, path::PathBuf};

use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use riomar_tests::{
    check::{Ask, check_view},
    harness::{Harness, Who},
    oracle::{
        ColumnKind::{BigInt, Int, Text, Timestamp},
        Measure, OracleStream, OracleView, Table, evaluate, kept,
    },
    realtime::Realtime,
};

const SQL: &str = "
CREATE TABLE web_log (
  event_id VARCHAR NOT NULL, ts TIMESTAMP NOT NULL, visitor VARCHAR NOT NULL, method VARCHAR, path VARCHAR NOT NULL, status INT,
  bytes BIGINT, referrer VARCHAR, agent VARCHAR
) WITH (event_time = 'ts', dedup_by = 'event_id', partition_by = 'visitor', partitions = 4);

CREATE MATERIALIZED VIEW requests_by_hour AS
SELECT window_start, path, count(*) AS requests, sum(bytes) AS bytes, approx_distinct(visitor) AS visitors,
       approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY bytes) AS bytes_p95
FROM TUMBLE(web_log, ts, INTERVAL '1 hour')
GROUP BY window_start, path;
";
const STREAM: OracleStream = OracleStream {
    name: "web_log",
    columns: &[
        ("event_id", Text, true),
        ("ts", Timestamp, true),
        ("visitor", Text, true),
        ("method", Text, false),
        ("path", Text, true),
        ("status", Int, false),
        ("bytes", BigInt, false),
        ("referrer", Text, false),
        ("agent", Text, false),
    ],
    id: "event_id",
    event_time: "ts",
    dedup_epochs: 60,
};
const VIEW: OracleView = OracleView {
    name: "requests_by_hour",
    stream: &STREAM,
    window_us: Some(3_600_000_000),
    dimensions: &[("path", Text, "path")],
    filter: "1",
    measures: &[
        ("requests", Measure::Count, "*"),
        ("bytes", Measure::Sum(0), "bytes"),
        ("visitors", Measure::Distinct, "visitor"),
        ("bytes_p95", Measure::Percentile(0.95), "bytes"),
    ],
};
const BATCH_LINES: usize = 500;
/// Producers that send the web log together.
const PRODUCERS: usize = 7;
/// What says which lines are out of order.
const SEED: u64 = 20_261_120;

struct Scenario {
    harness: Harness,
    batches: Vec<String>,
}

impl Scenario {
    async fn send(&self, batches: std::ops::Range<usize>) {
        for batch in &self.batches[batches] {
            let reply = self.harness.client().ingest(STREAM.name, batch.clone()).await;
            assert_eq!((reply.status.as_u16(), &reply.json()["quarantined"]), (200, &0.into()), "{}", reply.text());
        }
    }

    async fn check(&self, when: &str) {
        for how in [Ask::Sql, Ask::Rows] {
            let checked = check_view(&self.harness.client(), &VIEW, how, async || self.harness.read_log(STREAM.name).await).await;
            checked.unwrap_or_else(|error| panic!("{when}: {error}"));
        }
    }

    async fn expected(&self) -> Table {
        let log = self.harness.read_log(STREAM.name).await;
        evaluate(&VIEW, &kept(&STREAM, &log, &[u64::MAX; 4])).expect("valid SQL")
    }
}

/// The lines of the web log, where it is there.
fn web_log() -> Option<Vec<String>> {
    let Some(directory) = std::env::var_os("RIOMAR_SAMPLE_DATA").map(PathBuf::from) else {
        println!("skipped: set RIOMAR_SAMPLE_DATA to the directory that holds web_log.ndjson");
        return None;
    };
    let path = directory.join("web_log.ndjson");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(text.lines().map(str::to_owned).collect())
}

fn batches<S: AsRef<str>>(lines: &[S]) -> Vec<String> {
    let joined = |lines: &[S]| lines.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("\n");
    lines.chunks(BATCH_LINES).map(joined).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_about_real_traffic_equal_sqlite() {
    let Some(lines) = web_log() else { return };
    let batches = batches(&lines);
    let (third, all) = (batches.len() / 3, batches.len());
    let scenario = Scenario { harness: Harness::start(SQL, Realtime::memory()).await, batches };
    let harness = &scenario.harness;

    scenario.send(0..third).await;
    harness.settle().await;
    scenario.check("before any recompute").await;
    harness.recompute(Who::First, false).await.expect("a recompute");
    scenario.check("after the first recompute").await;
    scenario.send(third..2 * third).await;
    harness.settle().await;
    harness.recompute(Who::First, false).await.expect("a recompute");
    scenario.check("after an incremental recompute").await;
    scenario.send(2 * third..all).await;
    harness.settle().await;
    scenario.check("with the rest in realtime views").await;
    harness.recompute(Who::First, true).await.expect("a recompute");
    scenario.check("after a recompute from scratch").await;

    let once = scenario.expected().await;
    assert_eq!(once.values().filter_map(|row| requests(&row[0])).sum::<usize>(), lines.len());
    for time in 2..=4 {
        scenario.send(0..all).await;
        harness.settle().await;
        scenario.check(&format!("sent {time} times")).await;
        let recompute = harness.recompute(Who::First, time == 3);
        let questions = async {
            for _ in 0..5 {
                scenario.check("while a recompute runs").await;
            }
        };
        let (recomputed, ()) = tokio::join!(recompute, questions);
        recomputed.expect("a recompute");
        assert_eq!(scenario.expected().await, once, "sent {time} times");
    }
    harness.settle().await;
    scenario.check("at the end").await;
    let account = harness.client().account(STREAM.name).await;
    assert_eq!(account["landed"], lines.len(), "{account}");
    assert_eq!(account["duplicates"], 3 * lines.len(), "{account}");
}

/// Half of the lines, drawn by chance, change places with each other; the others stay where they are.
fn half_out_of_order(mut lines: Vec<String>) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut places: Vec<usize> = (0..lines.len()).collect();
    places.shuffle(&mut random);
    places.truncate(lines.len() / 2);
    let mut moved: Vec<String> = places.iter().map(|place| std::mem::take(&mut lines[*place])).collect();
    moved.shuffle(&mut random);
    for (place, line) in places.into_iter().zip(moved) {
        lines[place] = line;
    }
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_out_of_order_and_from_many_producers_is_whole() {
    let Some(in_order) = web_log() else { return };
    let lines = half_out_of_order(in_order.clone());
    assert!(lines.iter().zip(&in_order).filter(|(line, before)| line != before).count() > in_order.len() / 3, "hardly shuffled");
    // Each producer has every seventh line.
    let of_producer = |number: usize| batches(&lines.iter().skip(number).step_by(PRODUCERS).collect::<Vec<_>>());
    let producers: Vec<_> = (0..PRODUCERS).map(of_producer).collect();
    let scenario = Scenario { harness: Harness::start(SQL, Realtime::memory()).await, batches: producers.concat() };
    let harness = &scenario.harness;
    let first_of = |number: usize| producers[..number].iter().map(Vec::len).sum::<usize>();
    // All at once, in two halves, with a recompute in between and one under way.
    for half in 0..2 {
        let sending = (0..PRODUCERS).map(|number| {
            let (first, count) = (first_of(number), producers[number].len());
            let (from, to) = if half == 0 { (first, first + count / 2) } else { (first + count / 2, first + count) };
            scenario.send(from..to)
        });
        futures::future::join(futures::future::join_all(sending), async {
            harness.recompute(Who::First, false).await.expect("a recompute");
        })
        .await;
        harness.settle().await;
        scenario.check(&format!("after half {half}")).await;
    }
    harness.recompute(Who::First, true).await.expect("a recompute");
    scenario.check("after a recompute from scratch").await;
    assert_eq!(scenario.expected().await.values().filter_map(|row| requests(&row[0])).sum::<usize>(), lines.len());
    let account = harness.client().account(STREAM.name).await;
    for (name, expected) in [("accepted", lines.len()), ("landed", lines.len()), ("duplicates", 0), ("in_flight", 0)] {
        assert_eq!(account[name], expected, "{name}: {account}");
    }
    assert!(account["late"]["count"].as_u64().is_some_and(|late| late > 0), "{account}");
}

fn requests(expected: &riomar_tests::oracle::Expected) -> Option<usize> {
    match expected {
        riomar_tests::oracle::Expected::Exact(text) => text.parse().ok(),
        _ => None,
    }
}

//! What a process tells at `/metrics` is what the manual says: names, types, labels, each with a help text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use riomar_tests::process::{Up, eventually, free_port, root};
use serde_json::json;

use super::deployment::recorded;

const DEFINITIONS: &str = "
CREATE TABLE hits (event_id BIGINT NOT NULL, ts TIMESTAMP NOT NULL, path VARCHAR NOT NULL)
  WITH (event_time = 'ts', dedup_by = 'event_id', partitions = 2);
CREATE MATERIALIZED VIEW hits_by_minute AS
  SELECT window_start, path, count(*) AS hits FROM TUMBLE(hits, ts, INTERVAL '1 minute') GROUP BY window_start, path;
";
const CONFIGURATION: &str = "[batch]\nevery = \"1s\"\n";

/// A metric: its type, and the names of its labels.
type Metric = (String, BTreeSet<String>);

/// The table of the manual.
fn documented() -> BTreeMap<String, Metric> {
    let manual = fs::read_to_string(root().join("docs/operations.md")).expect("the manual");
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `riomar_"));
    let metrics: BTreeMap<_, _> = rows
        .map(|row| {
            let mut cells = row.split('|').map(str::trim);
            let name = cells.next().expect("a name").trim_end_matches('`');
            let kind = cells.next().expect("a type").to_owned();
            let labels = cells.next().expect("labels").split(',').map(str::trim).filter(|label| !label.is_empty());
            (format!("riomar_{name}"), (kind, labels.map(str::to_owned).collect()))
        })
        .collect();
    assert!(metrics.len() > 40, "{metrics:?}");
    metrics
}

/// What a process tells: only metrics that have samples, and the names of those that have a help text.
fn told(text: &str) -> (BTreeMap<String, Metric>, BTreeSet<String>) {
    let (mut types, mut helped, mut metrics) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    for line in text.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(_)) => drop(helped.insert(name.to_owned())),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => drop(types.insert(name.to_owned(), kind.to_owned())),
            (Some("" | "#") | None, ..) => {}
            (Some(_), ..) => {
                let (series, _value) = line.rsplit_once(' ').expect("a value");
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                let part = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
                let name = part.filter(|name| types.contains_key(*name)).unwrap_or(name);
                // No value of a label holds these two characters side by side.
                let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| label.split_once("=\""));
                let labels = labels.map(|(label, _)| label.to_owned()).filter(|label| label != "le").collect();
                let kind = types.get(name).unwrap_or_else(|| panic!("no type of {name}")).clone();
                let metric = metrics.entry(name.to_owned()).or_insert_with(|| (kind, BTreeSet::clone(&labels)));
                assert_eq!(metric.1, labels, "{name} has series with other labels");
            }
        }
    }
    (metrics, helped)
}

#[test]
fn the_manual_knows_every_metric_that_the_code_records() {
    let documented: BTreeSet<_> = documented().into_keys().collect();
    assert_eq!(recorded(), documented);
}

async fn start(directory: &Path) -> Up {
    let schemas = directory.join("schemas");
    fs::create_dir_all(&schemas).expect("a writable directory");
    fs::write(schemas.join("hits.sql"), DEFINITIONS).expect("a writable directory");
    let configuration = directory.join("riomar.toml");
    fs::write(&configuration, CONFIGURATION).expect("a writable directory");
    Up::start(&directory.join("data"), &schemas, free_port(), &configuration).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_tells_what_the_manual_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let up = start(directory.path()).await;
    let client = reqwest::Client::new();
    let events: String = (0..20)
        .map(|id| json!({"event_id": id, "ts": format!("2026-11-20T10:{id:02}:00Z"), "path": "/"}).to_string() + "\n")
        .collect();
    let sent = client.post(format!("{}/v1/streams/hits/events", up.url())).header("content-type", "application/x-ndjson");
    assert!(sent.body(events + "{}\n").send().await.expect("an answer").status().is_success());

    let scrape = async || client.get(format!("{}/metrics", up.url())).send().await.ok()?.text().await.ok();
    let documented = documented();
    let text = eventually("every metric to be told", async || {
        let text = scrape().await?;
        let landed = text.contains(r#"riomar_account_events{stream="hits",part="landed"} 20"#);
        (landed && told(&text).0.len() >= documented.len()).then_some(text)
    });
    let text = text.await;
    let (metrics, helped) = told(&text);
    assert_eq!(metrics, documented);
    assert!(metrics.keys().all(|name| helped.contains(name)), "without help: {helped:?}");

    for sample in [
        r#"riomar_account_events{stream="hits",part="received"} 21"#,
        r#"riomar_account_events{stream="hits",part="quarantined"} 1"#,
        r#"riomar_account_adds_up{stream="hits"} 1"#,
        "riomar_batch_leader 1",
        r#"riomar_task_failures_total{task="landing"} 0"#,
        r#"riomar_recompute_errors_total{view="hits_by_minute"} 0"#,
        r#"riomar_log_errors_total{operation="append",kind="unavailable"} 0"#,
        r#"riomar_audits_total{view="hits_by_minute",kind="hand_over",outcome="differing"} 0"#,
        r#"riomar_query_degraded_total{view="hits_by_minute",code="realtime_halted"} 0"#,
        r#"riomar_hand_over_differing_groups{view="hits_by_minute"} 0"#,
    ] {
        assert!(text.lines().any(|line| line == sample), "{sample} in\n{text}");
    }
    let errors = text.lines().filter(|line| line.contains("_errors_total{") && !line.ends_with(" 0"));
    assert_eq!(errors.collect::<Vec<_>>(), Vec::<&str>::new());
}

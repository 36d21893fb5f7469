//! C9: a query of a few characters that would take hours or gigabytes is stopped, and everybody else is served meanwhile.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use reqwest::Client;
use riomar_tests::{
    catalog::SQL,
    process::{Up, free_port},
};
use serde_json::json;

/// Time that the platform gives a query here.
const CONFIGURATION: &str = "[serving]\nquery_time_max = \"5s\"\nmemory_max = \"256MiB\"\n[batch]\nmemory_max = \"256MiB\"\n";
/// After this a query was not stopped.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the liveness probe may take while a query runs.
const PROBE_TIME_MAX: Duration = Duration::from_secs(15);
const PROBE_PAUSE: Duration = Duration::from_millis(50);
/// How much more memory the platform may hold meanwhile.
const RESIDENT_GROWTH_BYTES_MAX: u64 = 768 << 20;

fn hungry_queries() -> Vec<String> {
    let ten = "(VALUES (1),(2),(3),(4),(5),(6),(7),(8),(9),(10))";
    let cross = |tables: usize| (0..tables).map(|number| format!("{ten} AS t{number}(c{number})")).collect::<Vec<_>>().join(", ");
    let fifty = "x".repeat(50);
    let growing = (0..6).fold("'x'".to_owned(), |text, _| format!("replace({text}, 'x', '{fifty}')"));
    let growing_column = (0..6).fold("chr(c0 + 64)".to_owned(), |text, _| format!("regexp_replace({text}, '.', '{fifty}', 'g')"));
    let doubled =
        (0..30).fold("(VALUES ('x')) AS d(x)".to_owned(), |from, level| format!("(SELECT x || x AS x FROM {from}) AS d{level}"));
    vec![
        "SELECT length(repeat('x', 1500000000))".to_owned(),
        "SELECT length(lpad('x', 1500000000))".to_owned(),
        "SELECT cardinality(range(1, 300000000))".to_owned(),
        "SELECT cardinality(array_repeat(1, 300000000))".to_owned(),
        format!("SELECT length({growing})"),
        format!("SELECT length({growing_column}) FROM {}", cross(1)),
        format!("SELECT * FROM {}", cross(7)),
        format!("SELECT count(DISTINCT c0 * 1000003 + c1 * 10007 + c2 * 1009 + c3 * 101 + c4 * 11 + c5 + c6) FROM {}", cross(12)),
        format!("SELECT string_agg('{fifty}{fifty}{fifty}{fifty}', '') FROM {}", cross(8)),
        format!("SELECT sum(c0) FROM {} WHERE c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9 + c10 + c11 < 0", cross(12)),
        format!("SELECT length(x) FROM {doubled}"),
    ]
}

/// What went wrong while a query was asked.
async fn ask(up: &Up, client: &Client, sql: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let before = up.resident_bytes();
    let mut growth = 0;
    let asked = Instant::now();
    let request = client.post(format!("{}/v1/sql", up.url())).json(&json!({"sql": sql})).timeout(ANSWER_TIME_MAX);
    let mut answer = tokio::spawn(request.send());
    let outcome = loop {
        let probe = client.get(format!("{}/livez", up.url())).timeout(PROBE_TIME_MAX).send().await;
        if let Err(error) = probe {
            wrong.push(format!("the probe failed: {error}"));
        }
        growth = growth.max(up.resident_bytes().saturating_sub(before));
        if let Ok(outcome) = tokio::time::timeout(PROBE_PAUSE, &mut answer).await {
            break outcome.expect("a task that does not panic");
        }
    };
    match outcome {
        Ok(response) if response.status().is_success() => wrong.push("it was answered".to_owned()),
        Ok(_) => {}
        Err(error) => wrong.push(format!("it was not stopped after {:?}: {error}", asked.elapsed())),
    }
    if growth > RESIDENT_GROWTH_BYTES_MAX {
        wrong.push(format!("it took {} MiB", growth >> 20));
    }
    wrong
}

struct Directories {
    data: PathBuf,
    schemas: PathBuf,
    configuration: PathBuf,
    port: u16,
}

impl Directories {
    async fn start(&self) -> Up {
        Up::start(&self.data, &self.schemas, self.port, &self.configuration).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hungry_queries_are_stopped_and_starve_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let directories =
        Directories { data: path("data"), schemas: path("schemas"), configuration: path("riomar.toml"), port: free_port() };
    std::fs::create_dir(&directories.schemas).expect("a writable directory");
    std::fs::write(directories.schemas.join("definitions.sql"), SQL).expect("a writable directory");
    std::fs::write(&directories.configuration, CONFIGURATION).expect("a writable directory");
    let client = Client::new();
    let mut wrong = Vec::new();
    let mut up = directories.start().await;
    for sql in hungry_queries() {
        let found = ask(&up, &client, &sql).await;
        if !found.is_empty() {
            wrong.push(format!("{:.120}: {}", sql, found.join("; ")));
            // What was not stopped would disturb the next one.
            up.kill();
            up = directories.start().await;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

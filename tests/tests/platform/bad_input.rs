//! C9, C10: bad input gets a clear error or goes to quarantine with its reason; it stops nothing and takes no memory to speak of.

use std::io::Write;

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use flate2::{Compression, write::GzEncoder};
use riomar_tests::{
    catalog::{READINGS, SQL},
    client::{Client, Reply},
    harness::Harness,
    process::resident_bytes,
    realtime::Realtime,
};
use serde_json::json;

/// How much more memory the process may hold after any of these requests, other tests of this process included.
const RESIDENT_GROWTH_BYTES_MAX: u64 = 1 << 30;

const JSON: (HeaderName, &str) = (CONTENT_TYPE, "application/json");
const NDJSON: (HeaderName, &str) = (CONTENT_TYPE, "application/x-ndjson");
const GZIP: (HeaderName, &str) = (CONTENT_ENCODING, "gzip");
const EVENTS: &str = "/v1/streams/readings/events";

fn event(fields: &str) -> String {
    format!(r#"{{"event_id":"e","ts":"2026-03-29T00:00:00Z","sensor":"s"{fields}}}"#)
}

fn nested(levels: usize) -> String {
    event(&format!(r#","detail":{}1{}"#, "[".repeat(levels), "]".repeat(levels)))
}

fn gzip(write: impl FnOnce(&mut GzEncoder<Vec<u8>>) -> std::io::Result<()>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    write(&mut encoder).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}

/// A gibibyte of spaces.
fn bomb() -> Vec<u8> {
    gzip(|encoder| {
        let piece = vec![b' '; 1 << 20];
        (0..1024).try_for_each(|_| encoder.write_all(&piece))
    })
}

/// One bad request: what it is, the request, and the status and code that it gets.
struct Case {
    name: &'static str,
    headers: Vec<(HeaderName, &'static str)>,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
}

fn case(
    name: &'static str,
    headers: &[(HeaderName, &'static str)],
    body: impl Into<Vec<u8>>,
    status: u16,
    code: &'static str,
) -> Case {
    Case { name, headers: headers.to_vec(), body: body.into(), status, code }
}

fn bad_events() -> Vec<Case> {
    let long_line = event(&format!(r#","site":"{}""#, "x".repeat(20 << 20)));
    let keys: String = (0..2000).map(|key| format!(",\"k{key}\":1")).collect();
    vec![
        case("broken JSON", &[NDJSON], r#"{"event_id":"e","#, 200, "invalid_json"),
        case("broken JSON array", &[JSON], "[{},", 400, "malformed_json"),
        case("no object", &[NDJSON], "[1]\n", 200, "not_an_object"),
        case("a string for a number", &[NDJSON], event(r#","small":"7""#), 200, "type_mismatch"),
        case("a fraction for an integer", &[NDJSON], event(r#","small":1.5"#), 200, "type_mismatch"),
        case("an integer beyond 32 bits", &[NDJSON], event(r#","small":2147483648"#), 200, "out_of_range"),
        case("an integer beyond 64 bits", &[NDJSON], event(r#","big":9223372036854775808"#), 200, "out_of_range"),
        case("a float beyond all", &[NDJSON], event(r#","level":1e400"#), 200, "out_of_range"),
        case("no such day", &[NDJSON], r#"{"event_id":"e","ts":"2026-02-30T00:00:00Z","sensor":"s"}"#, 200, "invalid_timestamp"),
        case("a missing field", &[NDJSON], r#"{"event_id":"e","sensor":"s"}"#, 200, "missing_field"),
        case("null in a required field", &[NDJSON], event(r#","x":1"#).replace(r#""s""#, "null"), 200, "missing_field"),
        case("a field twice", &[NDJSON], event(r#","sensor":"t""#), 200, "duplicate_field"),
        case("not UTF-8", &[NDJSON], [b"{\"event_id\":\"".as_slice(), &[0xff, 0xfe], b"\"}"].concat(), 200, "invalid_utf8"),
        case("100,000 levels", &[NDJSON], nested(100_000), 200, "too_deep"),
        case("100,000 levels in an array", &[JSON], format!("[{}]", nested(100_000)), 200, "too_deep"),
        case("2,000 fields", &[NDJSON], event(&keys), 200, "too_many_fields"),
        case("a line of 20 MB", &[NDJSON], long_line.clone(), 413, "body_too_large"),
        case("a line of 20 MB, compressed", &[NDJSON, GZIP], gzip(|e| e.write_all(long_line.as_bytes())), 413, "events_rejected"),
        case("a gibibyte, compressed", &[NDJSON, GZIP], bomb(), 413, "body_too_large"),
        case("not gzip", &[NDJSON, GZIP], "plain", 400, "broken_compression"),
        case(
            "gzip cut short",
            &[NDJSON, GZIP],
            gzip(|e| e.write_all(event("").as_bytes()))[..20].to_vec(),
            400,
            "broken_compression",
        ),
        case("an unknown encoding", &[NDJSON, (CONTENT_ENCODING, "lzma")], "x", 415, "unsupported_encoding"),
        case("an unknown type", &[(CONTENT_TYPE, "application/xml")], "<x/>", 415, "unsupported_media_type"),
        case("100,001 events", &[NDJSON], "{}\n".repeat(100_001), 413, "too_many_events"),
    ]
}

/// Queries that are refused, each with its code.
fn bad_queries() -> Vec<(String, &'static str)> {
    let refused: &[(&str, &str)] = &[
        ("", "invalid_sql"),
        ("SELEC 1", "invalid_sql"),
        ("SELECT 1; SELECT 2", "sql_not_allowed"),
        ("SELECT 1; DROP TABLE readings", "sql_not_allowed"),
        ("INSERT INTO readings VALUES (1)", "sql_not_allowed"),
        ("DELETE FROM readings", "sql_not_allowed"),
        ("DROP TABLE readings", "sql_not_allowed"),
        ("CREATE TABLE t AS SELECT 1", "sql_not_allowed"),
        ("CREATE VIEW v AS SELECT 1", "sql_not_allowed"),
        ("COPY (SELECT 1) TO '/tmp/riomar-canary.csv'", "sql_not_allowed"),
        ("COPY readings TO '/tmp/riomar-canary.parquet'", "sql_not_allowed"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/hosts'", "invalid_sql"),
        ("SET datafusion.execution.batch_size = 1", "sql_not_allowed"),
        ("SELECT * FROM '/etc/hosts'", "unknown_table"),
        ("SELECT * FROM \"/etc/hosts\"", "unknown_table"),
        ("SELECT * FROM read_csv('/etc/hosts')", "sql_not_allowed"),
        ("SELECT * FROM read_parquet('/etc/hosts')", "sql_not_allowed"),
        ("SELECT * FROM parquet_metadata('/etc/hosts')", "sql_not_allowed"),
        ("SELECT * FROM no_such_view", "unknown_table"),
        ("SELECT no_such_column FROM readings_by_minute", "invalid_sql"),
        ("SELECT readings_by_minute.events.x.y.z FROM readings_by_minute", "query_failed"),
    ];
    let mut queries: Vec<_> = refused.iter().map(|(sql, code)| ((*sql).to_owned(), *code)).collect();
    queries.push((format!("SELECT '{}'", "x".repeat(1 << 17)), "query_too_large"));
    queries.push((format!("SELECT {}", vec!["1"; 10_000].join("+")), "query_too_large"));
    queries.push((format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000)), "query_too_large"));
    queries.push((format!("SELECT {}1{}", "(".repeat(1_500), ")".repeat(1_500)), "invalid_sql"));
    queries.push((
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT * FROM r".to_owned(),
        "sql_not_allowed",
    ));
    queries
}

fn check_problem(name: &str, reply: &Reply) {
    let problem = reply.json();
    assert_eq!(reply.headers[CONTENT_TYPE], "application/problem+json", "{name}");
    assert_eq!(problem["status"], reply.status.as_u16(), "{name}: {problem}");
    for member in ["type", "title", "detail", "code", "instance"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {member}: {problem}");
    }
    assert!(problem["retryable"].is_boolean(), "{name}: {problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() < 2_000), "{name}: an error repeats the input");
}

/// Good events and queries still work.
async fn check_alive(client: &Client, name: &str) {
    let reply = client.ingest(READINGS.name, event("")).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["accepted"]), (200, &json!(1)), "after {name}: {}", reply.text());
    let reply = client.sql("SELECT count(*) AS n FROM readings_by_minute").await;
    assert_eq!(reply.status, 200, "after {name}: {}", reply.text());
}

#[tokio::test]
async fn bad_events_get_their_error_and_stop_nothing() {
    let harness = Harness::start(SQL, Realtime::memory()).await;
    let client = harness.client();
    check_alive(&client, "the start").await;
    let before = resident_bytes("self");
    for Case { name, headers, body, status, code } in bad_events() {
        let reply = client.post(EVENTS, &headers, body).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (status, code),
            "{name}: {}",
            &reply.text()[..reply.text().len().min(500)]
        );
        match status {
            200 => assert_eq!(reply.json()["quarantined"], 1, "{name}: {}", reply.text()),
            _ => check_problem(name, &reply),
        }
        check_alive(&client, name).await;
        let growth = resident_bytes("self").saturating_sub(before);
        assert!(growth < RESIDENT_GROWTH_BYTES_MAX, "{name}: the process holds {growth} bytes more");
    }
    for (name, path, status, code) in [
        ("an unknown stream", "/v1/streams/nothing/events", 404, "unknown_stream"),
        ("a path for a name", "/v1/streams/..%2f..%2fetc/events", 404, "unknown_stream"),
        ("no route", "/v1/nothing", 404, "not_found"),
        ("another method", "/v1/streams", 405, "method_not_allowed"),
    ] {
        let reply = client.post(path, &[NDJSON], event("")).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (status, code), "{name}: {}", reply.text());
        check_problem(name, &reply);
    }
    harness.settle().await;
    let account = client.account(READINGS.name).await;
    assert_eq!((&account["landed"], &account["adds_up"]), (&json!(1), &json!(true)), "{account}");
}

#[tokio::test]
async fn bad_queries_get_their_error_and_touch_no_file() {
    let harness = Harness::start(SQL, Realtime::memory()).await;
    let client = harness.client();
    let before = resident_bytes("self");
    let mut wrong = Vec::new();
    for (sql, code) in bad_queries() {
        let reply = client.sql(&sql).await;
        let shown = sql.chars().take(80).collect::<String>();
        if !reply.status.is_client_error() || reply.code() != code {
            wrong.push(format!("{shown}: wanted {code}, got {}: {}", reply.status, reply.text()));
            continue;
        }
        check_problem(&shown, &reply);
        assert!(!reply.text().contains("localhost"), "{shown} read a file");
        check_alive(&client, &shown).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for canary in ["/tmp/riomar-canary.csv", "/tmp/riomar-canary.parquet"] {
        assert!(!std::path::Path::new(canary).exists(), "{canary} was written");
    }
    assert!(resident_bytes("self").saturating_sub(before) < RESIDENT_GROWTH_BYTES_MAX);
}

#[tokio::test]
async fn bad_parameters_get_their_error() {
    let harness = Harness::start(SQL, Realtime::memory()).await;
    for (path, status, code) in [
        ("/v1/views/nothing/rows", 404, "unknown_view"),
        ("/v1/views/readings_by_minute/rows?limit=many", 400, "invalid_parameter"),
        ("/v1/views/readings_by_minute/rows?limit=-1", 400, "invalid_parameter"),
        ("/v1/views/readings_by_minute/rows?from=yesterday", 400, "invalid_parameter"),
        ("/v1/views/readings_by_minute/rows?columns=secret", 400, "invalid_parameter"),
        ("/v1/views/readings_by_minute/rows?nonsense=1", 400, "invalid_parameter"),
        ("/v1/views/readings_by_minute/rows?limit=1&limit=2", 400, "invalid_parameter"),
        ("/v1/streams/readings/quarantine?after=x", 400, "invalid_parameter"),
        ("/v1/streams/nothing", 404, "unknown_stream"),
    ] {
        let reply = harness.client().get(path).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (status, code), "{path}: {}", reply.text());
        check_problem(path, &reply);
    }
    let injection = harness.client().get("/v1/views/readings_by_minute/rows?sensor=%27%20OR%201%3D1%20--").await;
    assert_eq!(injection.answer().expect("an answer").rows.len(), 0);
}

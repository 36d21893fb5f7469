//! The ingestion endpoint over a real log: C1, C5, C9 and C10.

mod cloudevents;
mod compression;
mod limits;

use axum::http::StatusCode;
use riomar_event_log::quarantine::{EntryKind, QuarantineEntry};
use riomar_schemas::{Name, Offset};
use serde_json::{Value, json};

use crate::testing::{Platform, Reply};

const EVENTS: &str = "/v1/streams/page_views/events";
const JSON: (&str, &str) = ("content-type", "application/json");
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

/// An event that is valid.
fn event(id: &str) -> String {
    format!(r#"{{"event_id":"{id}","ts":"2026-11-20T10:00:00Z","path":"/","visitor":"v{id}"}}"#)
}

async fn entries(platform: &Platform, stream: &str) -> Vec<QuarantineEntry> {
    let stream = Name::new(stream).expect("a name");
    let entries = platform.services.quarantine.read(&stream, Offset(0), 1_000).await.expect("entries");
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// Received, accepted, quarantined, rejected.
fn counts(body: &Value) -> [u64; 4] {
    ["received", "accepted", "quarantined", "rejected"]
        .map(|name| body[name].as_u64().unwrap_or_else(|| panic!("{name}: {body}")))
}

/// A problem document of this status and code, complete.
fn check_problem(reply: &Reply, status: u16, code: &str) {
    let body = reply.json();
    assert_eq!((reply.status.as_u16(), body["code"].as_str()), (status, Some(code)), "{body}");
    assert_eq!(reply.headers["content-type"], "application/problem+json");
    assert_eq!(body["type"], format!("/problems/{code}"));
    assert_eq!(body["status"], status);
    assert_eq!(body["instance"].as_str(), reply.headers["x-request-id"].to_str().ok(), "the request's id");
    assert!(body["title"].is_string() && body["detail"].is_string() && body["retryable"].is_boolean(), "{body}");
}

/// Nothing reached the log, and one rejected event was counted.
async fn check_refused_whole(platform: &Platform, code: &str) {
    assert_eq!(platform.logged("page_views").await, Vec::<String>::new());
    let entries = entries(platform, "page_views").await;
    let found: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.events, entry.reason.code.as_str())).collect();
    assert_eq!(found, [(EntryKind::Rejected, 1, code)]);
}

#[tokio::test]
async fn c1_what_is_acknowledged_is_in_the_log_or_in_quarantine() {
    let platform = Platform::new().await;
    let missing = r#"{"event_id":"3","ts":"2026-11-20T10:00:00Z"}"#;
    let body = format!("{}\n\n{}\r\n{missing}\n", event("1"), event("2"));
    let reply = platform.post(EVENTS, &[NDJSON], body).await;
    assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
    let body = reply.json();
    assert_eq!(counts(&body), [3, 2, 1, 0]);
    let errors = body["errors"].as_array().expect("errors");
    assert_eq!(errors.len(), 1);
    assert_eq!(
        (&errors[0]["line"], &errors[0]["code"], &errors[0]["pointer"]),
        (&json!(4), &json!("missing_field"), &json!("/path"))
    );
    assert!(body.get("errors_omitted").is_none());

    let mut logged = platform.logged("page_views").await;
    logged.sort();
    assert_eq!(logged, [event("1"), event("2")]);
    let entries = entries(&platform, "page_views").await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].kind, entries[0].raw.as_deref()), (EntryKind::Quarantined, Some(missing)));
    assert_eq!(entries[0].received_at_ms, 1_700_000_000_000);
}

#[tokio::test]
async fn every_form_of_body() {
    let (one, two) = (event("1"), event("2"));
    let pretty = one.replace(",", ",\n  ");
    let cases: Vec<(&str, Option<&str>, String, [u64; 4])> = vec![
        ("object", Some("application/json"), one.clone(), [1, 1, 0, 0]),
        ("object over lines", Some("application/json"), pretty.clone(), [1, 1, 0, 0]),
        ("array", Some("application/json; charset=utf-8"), format!(" [{one}, {two}] "), [2, 2, 0, 0]),
        ("empty array", Some("application/json"), "[]".to_owned(), [0, 0, 0, 0]),
        ("lines", Some("application/jsonl"), format!("{one}\n{two}"), [2, 2, 0, 0]),
        ("no lines", Some("application/x-ndjson"), String::new(), [0, 0, 0, 0]),
        ("byte order mark", Some("application/x-ndjson"), format!("\u{feff}{one}"), [1, 1, 0, 0]),
        ("text", Some("text/plain"), format!("{one}\n{two}\n"), [2, 2, 0, 0]),
        ("undeclared lines", None, format!("{one}\n{two}\n"), [2, 2, 0, 0]),
        ("undeclared array", None, format!("\n[{one},{two}]"), [2, 2, 0, 0]),
        ("undeclared object over lines", None, pretty, [1, 1, 0, 0]),
        ("undeclared nothing", None, " \n".to_owned(), [0, 0, 0, 0]),
        ("two objects as one", Some("application/json"), format!("{one}\n{two}"), [1, 0, 1, 0]),
        ("a scalar", Some("application/json"), "42".to_owned(), [1, 0, 1, 0]),
        ("an element that is no object", Some("application/json"), format!("[{one}, 42, null]"), [3, 1, 2, 0]),
    ];
    for (name, content_type, body, expected) in cases {
        let platform = Platform::new().await;
        let headers: Vec<_> = content_type.map(|value| ("content-type", value)).into_iter().collect();
        let reply = platform.post(EVENTS, &headers, body).await;
        assert_eq!(reply.status, StatusCode::OK, "{name}: {:?}", reply.body);
        assert_eq!(counts(&reply.json()), expected, "{name}");
        assert_eq!(platform.logged("page_views").await.len() as u64, expected[1], "{name}");
        assert_eq!(entries(&platform, "page_views").await.len() as u64, expected[2], "{name}");
    }
}

#[tokio::test]
async fn c10_broken_events_go_to_quarantine_with_their_reason() {
    let at = r#""ts":"2026-11-20T10:00:00Z","path":"/""#;
    let deep = format!(r#"{{"event_id":"1",{at},"more":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<(Vec<u8>, &str, &str)> = vec![
        (br#"{"event_id":"1","#.to_vec(), "invalid_json", ""),
        (format!(r#"{{"event_id":"1",{at},"status":"two hundred"}}"#).into(), "type_mismatch", "/status"),
        (format!(r#"{{{at}}}"#).into(), "missing_field", "/event_id"),
        (format!(r#"{{"event_id":"1",{at},"status":9999999999}}"#).into(), "out_of_range", "/status"),
        (br#"{"event_id":"1","ts":"yesterday","path":"/"}"#.to_vec(), "invalid_timestamp", "/ts"),
        (b"[1,2]".to_vec(), "not_an_object", ""),
        ([br#"{"event_id":""#.as_slice(), b"\xff\"}"].concat(), "invalid_utf8", ""),
        (deep.into_bytes(), "too_deep", ""),
    ];
    let platform = Platform::new().await;
    let body = cases.iter().map(|(event, ..)| event.as_slice()).collect::<Vec<_>>().join(&b'\n');
    let reply = platform.post(EVENTS, &[NDJSON], body).await;
    assert_eq!(reply.status, StatusCode::OK);
    let errors = reply.json()["errors"].clone();
    let entries = entries(&platform, "page_views").await;
    assert_eq!(entries.len(), cases.len());
    for (place, (raw, code, pointer)) in cases.iter().enumerate() {
        assert_eq!(errors[place]["line"], place + 1);
        assert_eq!(errors[place]["code"], *code);
        assert!(errors[place]["pointer"].as_str().expect("a pointer").starts_with(pointer), "{}", errors[place]);
        let kept = entries[place].raw.clone().map(String::into_bytes);
        assert_eq!(kept.is_none(), *code == "invalid_utf8", "{code}");
        assert!(kept.is_none_or(|kept| kept == *raw), "{code}: the raw event");
    }
    assert!(platform.logged("page_views").await.is_empty());
}

#[tokio::test]
async fn deep_nesting_in_an_array_and_in_one_object_is_harmless() {
    let deep = format!(r#"{{"more":{}{}}}"#, "{\"a\":".repeat(100_000), "1".to_owned() + &"}".repeat(100_000));
    for (headers, body) in [(vec![JSON], format!("[{deep}]")), (vec![JSON], deep.clone()), (vec![], deep)] {
        let platform = Platform::new().await;
        let reply = platform.post(EVENTS, &headers, body).await;
        assert_eq!(counts(&reply.json()), [1, 0, 1, 0]);
        assert_eq!(reply.json()["errors"][0]["code"], "too_deep");
    }
}

#[tokio::test]
async fn requests_that_are_refused_as_a_whole() {
    let valid = event("1");
    /// Path or stream, headers, body, status and code.
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, String, u16, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("array broken off", vec![JSON], format!("[{valid},"), 400, "malformed_json"),
        ("array with a comma too many", vec![JSON], format!("[{valid},]"), 400, "malformed_json"),
        ("something behind the array", vec![JSON], format!("[{valid}] {valid}"), 400, "malformed_json"),
        ("broken element", vec![JSON], format!("[{valid}, {{\"a\":]]"), 400, "malformed_json"),
        ("no JSON at all", vec![JSON], String::new(), 400, "malformed_json"),
        ("a form", vec![("content-type", "application/x-www-form-urlencoded")], valid.clone(), 415, "unsupported_media_type"),
        ("an unknown encoding", vec![JSON, ("content-encoding", "br")], valid.clone(), 415, "unsupported_encoding"),
        ("two encodings", vec![JSON, ("content-encoding", "gzip, gzip")], valid.clone(), 415, "unsupported_encoding"),
        ("no gzip", vec![JSON, ("content-encoding", "gzip")], valid.clone(), 400, "broken_compression"),
        ("no zstd", vec![JSON, ("content-encoding", "zstd")], valid.clone(), 400, "broken_compression"),
    ];
    for (name, headers, body, status, code) in cases {
        let platform = Platform::new().await;
        let reply = platform.post(EVENTS, &headers, body).await;
        println!("{name}");
        check_problem(&reply, status, code);
        assert_eq!(reply.json()["retryable"], false, "{name}");
        check_refused_whole(&platform, code).await;
        assert_eq!(reply.headers.contains_key("accept-encoding"), code == "unsupported_encoding", "{name}");
    }
}

#[tokio::test]
async fn unknown_streams_and_methods() {
    let platform = Platform::new().await;
    for stream in ["nothing", "PAGE_VIEWS", "%00", "..%2f..", "page_views__quarantine", &"x".repeat(10_000)] {
        let reply = platform.post(&format!("/v1/streams/{stream}/events"), &[JSON], event("1")).await;
        check_problem(&reply, 404, "unknown_stream");
        assert!(reply.body.len() < 1_000, "the name is not echoed without end");
    }
    let reply = platform.get(EVENTS).await;
    check_problem(&reply, 405, "method_not_allowed");
    assert_eq!(reply.headers["allow"], "POST");
}

#[tokio::test]
async fn a_log_that_is_not_available_is_retryable() {
    let platform = Platform::new().await;
    platform.log.close().await.expect("closed");
    for body in [event("1"), "{}".to_owned()] {
        let reply = platform.post(EVENTS, &[JSON], body).await;
        check_problem(&reply, 503, "log_unavailable");
        assert_eq!(reply.json()["retryable"], true);
        assert!(reply.headers.contains_key("retry-after"));
        assert!(!String::from_utf8_lossy(&reply.body).contains("closed"), "the cause stays here");
    }
    let ready = platform.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["status"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unready")));
    let log = ready.json()["checks"][0].clone();
    assert_eq!((&log["name"], &log["ok"], &log["required"]), (&json!("log"), &json!(false), &json!(true)));
    assert!(log["detail"].as_str().expect("a reason").contains("an append failed"), "{log}");
    assert_eq!(platform.get("/livez").await.status, StatusCode::OK);
}

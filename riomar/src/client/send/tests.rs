//! Sending against a platform that refuses, stumbles and counts.

use std::sync::{
    Mutex,
    atomic::{AtomicI64, Ordering},
};

use async_trait::async_trait;
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::json;

use super::*;

/// A clock whose waits are over at once and count as time.
#[derive(Debug, Default)]
struct JumpingClock(AtomicI64);

#[async_trait]
impl Clock for JumpingClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    async fn sleep(&self, duration: Duration) {
        self.0.fetch_add(i64::try_from(duration.as_millis()).expect("short"), Ordering::SeqCst);
    }
}

/// Answers requests with these statuses, then with success; keeps the bodies it accepted.
#[derive(Debug, Default)]
struct Script {
    statuses: Mutex<Vec<u16>>,
    accepted: Mutex<Vec<String>>,
}

async fn events(State(script): State<Arc<Script>>, Path(stream): Path<String>, body: String) -> Response {
    if stream != "page_views" {
        let problem =
            json!({"title": "Unknown stream", "detail": format!("there is no stream '{stream}'"), "code": "unknown_stream"});
        return (StatusCode::NOT_FOUND, problem.to_string()).into_response();
    }
    if let Some(status) = script.statuses.lock().expect("lock").pop() {
        return StatusCode::from_u16(status).expect("status").into_response();
    }
    let received = body.lines().filter(|line| !line.is_empty()).count();
    let bad: Vec<usize> = (1..).zip(body.lines()).filter(|(_, line)| line.contains("bad")).map(|(number, _)| number).collect();
    let errors: Vec<_> =
        bad.iter().map(|line| json!({"line": line, "code": "type_mismatch", "pointer": "/ts", "detail": "no"})).collect();
    script.accepted.lock().expect("lock").push(body);
    let answer = json!({"received": received, "accepted": received - bad.len(), "quarantined": bad.len(), "rejected": 0, "errors": errors});
    answer.to_string().into_response()
}

async fn platform(statuses: &[u16]) -> (Sender, Arc<Script>) {
    let script = Arc::new(Script { statuses: Mutex::new(statuses.to_vec()), ..Script::default() });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let app = Router::new().route("/v1/streams/{stream}/events", post(events)).with_state(Arc::clone(&script));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = Client::new(&url).expect("url");
    (Sender { client, clock: Arc::new(JumpingClock::default()), retry_for: Duration::from_secs(30) }, script)
}

#[tokio::test]
async fn counts_add_up_and_errors_name_lines_of_the_input() {
    let (sender, script) = platform(&[]).await;
    let mut input = "{\"a\":1}\n".repeat(5_002);
    input.push_str("{\"a\":\"bad\"}\n");
    let (mut lines, mut bytes) = (Vec::new(), 0);
    let report = |progress: Progress<'_>| {
        lines.extend(progress.errors.iter().map(|error| error.line));
        bytes += progress.bytes;
    };
    let totals = sender.send("page_views", input.as_bytes(), report).await.expect("sent");
    assert_eq!(totals, Totals { received: 5_003, accepted: 5_002, quarantined: 1, rejected: 0 });
    assert!(!totals.all_accepted());
    assert_eq!(lines, [5_003]);
    assert_eq!(bytes, input.len() as u64);
    let mut accepted = script.accepted.lock().expect("lock").clone();
    accepted.sort_by_key(|body| std::cmp::Reverse(body.len()));
    assert_eq!(accepted.concat(), input, "every line arrives once");
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let (sender, script) = platform(&[503, 429, 503]).await;
    let totals = sender.send("page_views", "{}\n{}\n".as_bytes(), |_| {}).await.expect("sent");
    assert_eq!(totals.accepted, 2);
    assert_eq!(script.accepted.lock().expect("lock").len(), 1);
}

#[tokio::test]
async fn trying_again_ends_at_the_deadline() {
    let (sender, _) = platform(&[503; 1_000]).await;
    let error = sender.send("page_views", "{}\n".as_bytes(), |_| {}).await.expect_err("never answered");
    assert!(error.to_string().contains("503"), "{error}");
    let waited_ms = sender.clock.now_ms();
    assert!((20_000..=30_000).contains(&waited_ms), "{waited_ms}");
}

#[tokio::test]
async fn what_is_refused_for_good_is_not_tried_again() {
    let (sender, _) = platform(&[]).await;
    let error = sender.send("nothing", "{}\n".as_bytes(), |_| {}).await.expect_err("unknown");
    assert_eq!(error.to_string(), "Unknown stream: there is no stream 'nothing' (HTTP status 404)");
    assert_eq!(sender.clock.now_ms(), 0);
}

#[tokio::test]
async fn a_line_too_long_to_send_is_named_and_left_behind() {
    let (sender, script) = platform(&[]).await;
    let long = "x".repeat(crate::client::chunks::CHUNK_BYTES_MAX + 1);
    let mut errors = Vec::new();
    let report = |progress: Progress<'_>| errors.extend_from_slice(progress.errors);
    let totals = sender.send("page_views", format!("{{}}\n{long}\n{{}}\n").as_bytes(), report).await.expect("sent");
    assert_eq!(totals, Totals { received: 3, accepted: 2, quarantined: 0, rejected: 1 });
    assert_eq!(script.accepted.lock().expect("lock").as_slice(), ["{}\n\n{}\n"]);
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    assert_eq!((error.line, error.code.as_str()), (2, "line_too_long"));
    assert!(error.detail.contains("longer than the 4 MiB of one request") && error.detail.contains("not sent"), "{error:?}");
}

#[tokio::test]
async fn an_empty_input_sends_nothing() {
    let (sender, script) = platform(&[]).await;
    assert_eq!(sender.send("page_views", &b""[..], |_| {}).await.expect("sent"), Totals::default());
    assert!(script.accepted.lock().expect("lock").is_empty());
}

//! The routes beside ingestion: problems, streams, quarantine, views, runs, probes, metrics, OpenAPI.

use std::collections::BTreeSet;

use axum::{
    body::Body,
    http::{Request, StatusCode},
    routing::get,
};
use riomar_event_log::Log;
use riomar_schemas::{Epoch, Name, PartitionId, record::RecordBody};
use serde_json::{Value, json};

use super::*;
use crate::testing::{Platform, Reply};

const JSON: (&str, &str) = ("content-type", "application/json");
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

fn event(id: &str) -> String {
    format!(r#"{{"event_id":"{id}","ts":"2026-11-20T10:00:00Z","path":"/"}}"#)
}

fn check_problem(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (status, Some(code)), "{:?}", reply.body);
    assert_eq!(reply.headers["content-type"], "application/problem+json");
    assert_eq!(reply.json()["instance"].as_str(), reply.headers["x-request-id"].to_str().ok());
}

#[tokio::test]
async fn nothing_at_a_path() {
    let platform = Platform::new().await;
    for path in ["/nothing", "/v1", "/v1/streams/page_views/events/more", "/v2/sql"] {
        check_problem(&platform.get(path).await, 404, "not_found");
    }
    let reply = platform.send(Request::delete("/v1/streams").body(Body::empty()).expect("a request")).await;
    check_problem(&reply, 405, "method_not_allowed");
    assert!(reply.headers["allow"].to_str().expect("text").contains("GET"));
    let first = platform.get("/livez").await.headers["x-request-id"].clone();
    assert_ne!(first, platform.get("/livez").await.headers["x-request-id"], "ids tell requests apart");
}

#[tokio::test]
async fn a_panic_is_a_problem_and_keeps_its_message() {
    async fn panicking() -> &'static str {
        panic!("the secret reason")
    }
    let platform = Platform::new().await;
    let routes = Router::new().route("/panic", get(panicking)).route("/status", get(async || StatusCode::IM_A_TEAPOT));
    let app = surrounded(routes, &platform.services).with_state(Arc::clone(&platform.services));
    let reply = platform.call(app.clone(), Request::get("/panic").body(Body::empty()).expect("a request")).await;
    check_problem(&reply, 500, "internal");
    assert!(!String::from_utf8_lossy(&reply.body).contains("secret"));
    // An error response that no handler of ours made.
    let reply = platform.call(app, Request::get("/status").body(Body::empty()).expect("a request")).await;
    check_problem(&reply, 418, "bad_request");
}

#[tokio::test]
async fn streams_are_described() {
    let platform = Platform::new().await;
    let list = platform.get("/v1/streams").await.json();
    let names: Vec<_> = list["streams"].as_array().expect("streams").iter().map(|stream| stream["name"].clone()).collect();
    assert_eq!(names, ["page_views", "readings"]);
    assert_eq!(list["streams"][0]["views"], json!(["traffic"]));

    let stream = platform.get("/v1/streams/page_views").await.json();
    assert!(stream["sql"].as_str().expect("SQL").starts_with("CREATE TABLE page_views"), "{stream}");
    assert_eq!(stream["columns"][1], json!({"name": "ts", "type": "TIMESTAMP", "not_null": true}));
    assert_eq!((&stream["event_time"], &stream["dedup_by"]), (&json!("ts"), &json!("event_id")));
    assert_eq!(stream["json_schema"]["title"], "page_views");
    assert_eq!(stream["positions"].as_array().map(Vec::len), Some(4));
    check_problem(&platform.get("/v1/streams/nothing").await, 404, "unknown_stream");
}

#[tokio::test]
async fn c5_the_account_adds_up_to_what_was_sent() {
    let platform = Platform::new().await;
    let events = "/v1/streams/page_views/events";
    let large = format!(r#"{{"more":"{}"}}"#, "x".repeat(2 << 20));
    let body = [event("1"), event("2"), event("2"), "{}".to_owned(), large].join("\n");
    assert_eq!(platform.post(events, &[NDJSON], body).await.status, StatusCode::OK);
    // Refused as a whole: one event. To nowhere: none.
    platform.post(events, &[JSON], "[").await;
    platform.post("/v1/streams/nothing/events", &[JSON], event("1")).await;
    // A cut is no event.
    let stream = Name::new("page_views").expect("a name");
    let cuts = (0..4).map(|partition| (PartitionId(partition), RecordBody::Cut(Epoch(1)))).collect();
    platform.log.append(&stream, cuts).await.expect("appended");

    let account = platform.get("/v1/streams/page_views").await.json()["account"].clone();
    let expected = json!({
        "received": 6, "accepted": 3, "quarantined": 1, "rejected": 2,
        "landed": 0, "duplicates": 0, "undecodable": 0, "in_flight": 3, "lost": 0,
        "quarantine_lost": 0, "late": {"count": 0, "lateness_max_seconds": 0}, "adds_up": true,
    });
    assert_eq!(account, expected);

    // Landing takes the events over; the sums stay.
    let definition = platform.services.stream("page_views").expect("a stream");
    let mut landing = platform.services.batch.landing(&definition).expect("landing");
    platform.land(&mut landing).await;
    let account = platform.get("/v1/streams/page_views").await.json()["account"].clone();
    assert_eq!(
        (&account["accepted"], &account["landed"], &account["duplicates"]),
        (&json!(3), &json!(2), &json!(1)),
        "{account}"
    );
    assert_eq!(
        (&account["in_flight"], &account["received"], &account["adds_up"]),
        (&json!(0), &json!(6), &json!(true)),
        "{account}"
    );
}

#[tokio::test]
async fn quarantine_is_read_page_by_page() {
    let platform = Platform::new().await;
    let path = "/v1/streams/page_views/quarantine";
    assert_eq!(platform.get(path).await.json(), json!({"entries": [], "next": null}));
    let body: Vec<_> = (0..40).map(|number| format!(r#"{{"number":{number}}}"#)).collect();
    platform.post("/v1/streams/page_views/events", &[NDJSON], body.join("\n")).await;

    let (mut found, mut next, mut pages) = (Vec::new(), format!("{path}?limit=17"), 0);
    loop {
        let page = platform.get(&next).await.json();
        let entries = page["entries"].as_array().expect("entries").clone();
        found.extend(entries.iter().map(|entry| entry["raw"].as_str().expect("text").to_owned()));
        pages += usize::from(!entries.is_empty());
        match page["next"].as_str() {
            Some(path) => next = path.to_owned(),
            None => break,
        }
    }
    assert_eq!((found, pages), (body, 3));
    let entry = platform.get(&format!("{path}?limit=1")).await.json()["entries"][0].clone();
    assert_eq!((&entry["offset"], &entry["code"], &entry["kind"]), (&json!(0), &json!("missing_field"), &json!("quarantined")));
    assert_eq!(entry["received_at"], "2023-11-14T22:13:20.000Z");

    assert_eq!(platform.get(&format!("{path}?after=1000000")).await.json()["entries"], json!([]));
    for (query, name) in
        [("limit=x", "limit"), ("limit=1001", "limit"), ("after=-1", "after"), ("from=1", "from"), ("limit=1&limit=2", "limit")]
    {
        let reply = platform.get(&format!("{path}?{query}")).await;
        check_problem(&reply, 400, "invalid_parameter");
        assert_eq!(reply.json()["errors"][0]["parameter"], name, "{query}");
    }
}

#[tokio::test]
async fn views_are_described() {
    let platform = Platform::new().await;
    let list = platform.get("/v1/views").await.json();
    assert_eq!(list["views"][0]["name"], "traffic");
    let view = platform.get("/v1/views/traffic").await.json();
    assert_eq!(view["stream"], "page_views");
    let roles: Vec<_> = view["columns"].as_array().expect("columns").iter().map(|column| column["role"].clone()).collect();
    assert_eq!(roles, ["window_start", "dimension", "dimension", "measure", "measure"]);
    assert_eq!((&view["columns"][3]["type"], &view["columns"][4]["approximate"]), (&json!("BIGINT"), &json!(true)));
    assert_eq!((&view["generation"], &view["last_audit"]), (&Value::Null, &Value::Null));
    assert_eq!(view["freshness"]["lag_records"], json!({"0": 0, "1": 0, "2": 0, "3": 0}));
    assert_eq!(view["freshness"]["receipt"]["views"]["traffic"]["generation"], 0);
    check_problem(&platform.get("/v1/views/nothing").await, 404, "unknown_view");
}

#[tokio::test]
async fn rows_refuse_what_they_do_not_know() {
    let platform = Platform::new().await;
    let path = "/v1/views/traffic/rows";
    let cases = [
        ("paht=x", "paht"),
        ("from=yesterday", "from"),
        ("to=2026-11-20", "to"),
        ("status=ok", "status"),
        ("columns=hits,nothing", "columns"),
        ("limit=-1", "limit"),
        ("hits=1", "hits"),
        ("path=/&path=/x", "path"),
    ];
    for (query, name) in cases {
        let reply = platform.get(&format!("{path}?{query}")).await;
        check_problem(&reply, 400, "invalid_parameter");
        assert_eq!(reply.json()["errors"][0]["parameter"], name, "{query}");
    }
    let detail = platform.get(&format!("{path}?paht=x")).await.json()["detail"].clone();
    assert!(detail.as_str().expect("text").contains("from, to, columns, limit, path, status"), "{detail}");
    check_problem(&platform.get("/v1/views/nothing/rows").await, 404, "unknown_view");
}

#[tokio::test]
async fn sql_requests_are_checked() {
    let platform = Platform::new().await;
    for body in ["", "{", "{}", r#"{"sql":1}"#, r#"{"sql":"SELECT 1","limit":3}"#, "[]"] {
        check_problem(&platform.post("/v1/sql", &[JSON], body).await, 400, "invalid_body");
    }
    let text = [("content-type", "text/plain")];
    check_problem(&platform.post("/v1/sql", &text, r#"{"sql":"SELECT 1"}"#).await, 415, "unsupported_media_type");
    let image = [JSON, ("accept", "image/png")];
    check_problem(&platform.post("/v1/sql", &image, r#"{"sql":"SELECT 1"}"#).await, 406, "not_acceptable");
    let filler = |bytes: usize| format!("{{{}", " ".repeat(bytes - 1));
    check_problem(&platform.post("/v1/sql", &[JSON], filler(1 << 20)).await, 400, "invalid_body");
    check_problem(&platform.post("/v1/sql", &[JSON], filler((1 << 20) + 1)).await, 413, "body_too_large");
}

#[tokio::test]
async fn runs_are_started_and_told_of() {
    let platform = Platform::new().await;
    assert_eq!(platform.get("/v1/batch/runs").await.json(), json!({"runs": []}));
    check_problem(&platform.post("/v1/batch/runs", &[JSON], r#"{"views":["nothing"]}"#).await, 404, "unknown_view");
    check_problem(&platform.post("/v1/batch/runs", &[JSON], r#"{"view":"traffic"}"#).await, 400, "invalid_body");
    for path in ["/v1/batch/runs/x", "/v1/batch/runs/00000000-0000-0000-0000-000000000000"] {
        check_problem(&platform.get(path).await, 404, "unknown_run");
    }
    let reply = platform.post("/v1/batch/runs", &[JSON], r#"{"views":["traffic"]}"#).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{:?}", reply.body);
    let location = reply.headers["location"].to_str().expect("text").to_owned();
    let run = platform.get(&location).await.json();
    assert_eq!((&run["id"], &run["started_at"]), (&reply.json()["id"], &json!("2023-11-14T22:13:20.000Z")));
    assert_eq!(platform.get("/v1/batch/runs").await.json()["runs"][0]["id"], run["id"]);
    check_problem(&platform.post("/v1/batch/runs", &[("content-type", "text/plain")], "").await, 415, "unsupported_media_type");
    // One run a stream: landing is not running here, so the first one waits.
    check_problem(&platform.post("/v1/batch/runs", &[JSON], "{}").await, 409, "run_in_progress");
}

#[tokio::test]
async fn a_run_without_a_body_is_one_of_all_views() {
    for (headers, body) in [(&[][..], ""), (&[JSON][..], "\n"), (&[JSON][..], "{}")] {
        let platform = Platform::new().await;
        let reply = platform.post("/v1/batch/runs", headers, body).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{:?}", reply.body);
        assert_eq!((&reply.json()["views"], &reply.json()["full"]), (&json!(["traffic"]), &json!(false)));
    }
}

#[tokio::test]
async fn an_audit_of_a_view_without_a_generation() {
    let platform = Platform::new().await;
    let report = platform.post("/v1/views/traffic/audit", &[], "").await;
    assert_eq!((report.status, &report.json()["equal"], &report.json()["generation"]), (StatusCode::OK, &json!(true), &json!(0)));
    let mut told = report.json();
    assert_eq!(told["degraded"][0]["code"], "realtime_rebuilding", "nothing folds in this test, and the audit says so");
    told.as_object_mut().expect("an object").remove("degraded");
    assert_eq!(platform.get("/v1/views/traffic").await.json()["last_audit"], told);
    check_problem(&platform.post("/v1/views/nothing/audit", &[], "").await, 404, "unknown_view");
}

#[tokio::test]
async fn probes_and_metrics() {
    let platform = Platform::new().await;
    assert_eq!(platform.get("/livez").await.status, StatusCode::OK);
    let ready = platform.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["status"]), (StatusCode::OK, &json!("ready")), "{:?}", ready.body);
    assert_eq!(ready.json()["checks"][0], json!({"name": "log", "ok": true, "required": true}));
    let metrics = platform.get("/metrics").await;
    assert!(metrics.headers["content-type"].to_str().expect("text").starts_with("text/plain"));
}

#[tokio::test]
async fn answers_come_in_every_format_with_their_receipt() {
    let platform = Platform::new().await;
    let events: Vec<_> = (0..5).map(|id| event(&id.to_string())).collect();
    platform.post("/v1/streams/page_views/events", &[NDJSON], events.join("\n")).await;
    let run = platform.post("/v1/batch/runs", &[JSON], r#"{"views":["traffic"]}"#).await;
    platform.finish_run(run.headers["location"].to_str().expect("text")).await;

    let rows =
        "/v1/views/traffic/rows?from=2026-11-20T10:00:00Z&to=2026-11-20T11:00:00%2B00:00&path=/&columns=path,hits&limit=10";
    let answer = platform.get(rows).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let answer = answer.json();
    assert_eq!(answer["columns"], json!([{"name": "path", "type": "VARCHAR"}, {"name": "hits", "type": "BIGINT"}]));
    assert_eq!(answer["rows"], json!([["/", 5]]));
    assert_eq!(answer["receipt"]["views"]["traffic"]["generation"], 1);
    assert_eq!(platform.get("/v1/views/traffic/rows?path=/other").await.json()["rows"], json!([]));
    assert_eq!(platform.get("/v1/views/traffic/rows?from=2026-11-20T10:01:00Z").await.json()["rows"], json!([]));

    let sql = r#"{"sql":"SELECT path, hits FROM traffic"}"#;
    let csv = platform.post("/v1/sql", &[JSON, ("accept", "text/csv")], sql).await;
    assert_eq!(csv.body, "path,hits\r\n/,5\r\n");
    let receipt: Value = serde_json::from_slice(csv.headers["riomar-receipt"].as_bytes()).expect("JSON");
    assert_eq!(receipt["views"]["traffic"]["cut"], 1, "{receipt}");
    let refused = platform.post("/v1/sql", &[JSON], r#"{"sql":"DROP TABLE traffic"}"#).await;
    assert!(refused.status.is_client_error() && refused.json()["retryable"] == false, "{:?}", refused.body);

    let view = platform.get("/v1/views/traffic").await.json();
    assert_eq!((&view["generation"]["generation"], &view["generation"]["full"].is_boolean()), (&json!(1), &true));
    let audit = platform.post("/v1/views/traffic/audit", &[], "").await.json();
    assert_eq!((&audit["equal"], &audit["groups"], &audit["generation"]), (&json!(true), &json!(1), &json!(1)));
}

#[tokio::test]
async fn what_happens_is_measured() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // The test has one thread, so its tasks record here.
    let _recording = ::metrics::set_default_local_recorder(&recorder);
    let platform = Platform::new().await;
    platform.post("/v1/streams/page_views/events", &[NDJSON], format!("{}\n{{}}\n", event("1"))).await;
    platform.post("/v1/streams/page_views/events", &[JSON], "[").await;
    platform.get("/v1/streams/nothing").await;
    platform.get("/nothing/at/all").await;
    let text = handle.render();
    for line in [
        r#"riomar_ingestion_events_total{stream="page_views",outcome="accepted"} 1"#,
        r#"riomar_ingestion_events_total{stream="page_views",outcome="quarantined"} 1"#,
        r#"riomar_ingestion_events_total{stream="page_views",outcome="rejected"} 1"#,
        r#"riomar_http_requests_total{method="POST",route="/v1/streams/{stream}/events",status="200"} 1"#,
        r#"riomar_http_requests_total{method="GET",route="/v1/streams/{stream}",status="404"} 1"#,
        r#"riomar_http_requests_total{method="GET",route="none",status="404"} 1"#,
        "riomar_http_requests_in_flight 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

/// The routes of the document are those of the router, and the other way round.
#[tokio::test]
async fn openapi_has_every_route() {
    let platform = Platform::new().await;
    let document = platform.get("/openapi.json").await.json();
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let methods = methods.as_object().expect("methods");
        documented
            .extend(methods.keys().filter(|name| *name != "parameters").map(|method| (path.clone(), method.to_uppercase())));
    }
    let mut served = BTreeSet::new();
    for source in SOURCES {
        for route in source.split(".route(\"").skip(1) {
            let (path, rest) = route.split_once('"').expect("a path");
            let handler = rest.split(".route(").next().unwrap_or_default();
            let handler = handler.split('\n').next().unwrap_or_default();
            for (call, method) in [("get(", "GET"), ("post(", "POST")] {
                if handler.contains(&format!(" {call}")) || handler.contains(&format!(".{call}")) {
                    served.insert((path.to_owned(), method.to_owned()));
                }
            }
        }
    }
    assert_eq!(documented, served);
    // Every one of them is really there.
    for (path, method) in &documented {
        let path = path
            .replace("{stream}", "page_views")
            .replace("{view}", "traffic")
            .replace("{id}", "x")
            .replace("{code}", "overloaded");
        let request = Request::builder().method(method.as_str()).uri(&path).body(Body::empty()).expect("a request");
        let reply = platform.send(request).await;
        assert!(reply.status != StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        assert!(reply.status != StatusCode::NOT_FOUND || reply.json()["code"] != "not_found", "{method} {path}");
    }
    // References lead somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap_or_default();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

/// Where routes are declared.
const SOURCES: [&str; 13] = [
    include_str!("../audit.rs"),
    include_str!("../ingestion.rs"),
    include_str!("../losses.rs"),
    include_str!("../metrics.rs"),
    include_str!("../openapi.rs"),
    include_str!("../probes.rs"),
    include_str!("../problem_types.rs"),
    include_str!("../processes.rs"),
    include_str!("../quarantine.rs"),
    include_str!("../runs.rs"),
    include_str!("../sql.rs"),
    include_str!("../streams.rs"),
    include_str!("../views.rs"),
];

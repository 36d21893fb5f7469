//! CloudEvents in structured, batch and binary mode.

use super::*;

const ONE: (&str, &str) = ("content-type", "application/cloudevents+json");
const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");

/// An envelope around data.
fn envelope(data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"ce-1","source":"/shop","type":"view","time":"2026-11-20T10:00:00Z","other":[1],"data":{data}}}"#
    )
}

#[tokio::test]
async fn data_is_the_event_and_the_envelope_fills_gaps() {
    let cases = [
        (r#"{"path":"/"}"#, r#"{"event_id":"/shop#ce-1","ts":"2026-11-20T10:00:00Z","path":"/"}"#),
        (r#"{ "path":"/","event_id":"mine"}"#, r#"{"ts":"2026-11-20T10:00:00Z", "path":"/","event_id":"mine"}"#),
        (
            r#"{"event_id":"a","ts":"2026-11-20T11:00:00Z","path":"/"}"#,
            r#"{"event_id":"a","ts":"2026-11-20T11:00:00Z","path":"/"}"#,
        ),
        (
            r#"{"path":"/","more":{"ts":1,"event_id":2}}"#,
            r#"{"event_id":"/shop#ce-1","ts":"2026-11-20T10:00:00Z","path":"/","more":{"ts":1,"event_id":2}}"#,
        ),
    ];
    for (data, expected) in cases {
        let platform = Platform::new().await;
        let reply = platform.post(EVENTS, &[ONE], envelope(data)).await;
        assert_eq!(counts(&reply.json()), [1, 1, 0, 0], "{:?}", reply.body);
        assert_eq!(platform.logged("page_views").await, [expected]);
        let reply = platform.post(EVENTS, &[BATCH], format!("[{0},{0}]", envelope(data))).await;
        assert_eq!(counts(&reply.json()), [2, 2, 0, 0]);
    }
}

/// CloudEvents 1.0.2, "source": "Producers MUST ensure that source + id is unique for each distinct event."
#[tokio::test]
async fn an_id_counts_within_its_source() {
    let platform = Platform::new().await;
    let cases = [
        ("/shop", "1", "/shop#1"),
        ("/bank", "1", "/bank#1"),
        ("/shop#a", "1", "/shop%23a#1"),
        ("/shop", "a#1", "/shop#a#1"),
        ("/shop%23a", "1", "/shop%2523a#1"),
    ];
    for (source, id, _) in cases {
        let body = envelope(r#"{"path":"/"}"#).replace("ce-1", id).replace("/shop", source);
        assert_eq!(platform.post(EVENTS, &[ONE], body).await.json()["accepted"], 1);
    }
    let event_id = |event: &String| serde_json::from_str::<Value>(event).expect("JSON")["event_id"].clone();
    let mut ids: Vec<_> = platform.logged("page_views").await.iter().map(|event| event_id(event).to_string()).collect();
    ids.sort();
    let mut expected = cases.map(|(_, _, expected)| json!(expected).to_string());
    expected.sort();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn ids_fit_their_column() {
    let platform = Platform::new().await;
    let path = "/v1/streams/readings/events";
    for (id, accepted) in [("17", 1), ("seventeen", 0), ("1 }", 0)] {
        let body = envelope("{}").replace("ce-1", id);
        assert_eq!(platform.post(path, &[ONE], body).await.json()["accepted"], accepted, "{id}");
    }
    assert_eq!(platform.logged("readings").await, [r#"{"number":17,"at":"2026-11-20T10:00:00Z"}"#]);
}

#[tokio::test]
async fn hostile_attributes_stay_text() {
    let platform = Platform::new().await;
    let body = envelope(r#"{"path":"/"}"#).replace("ce-1", r#"x\",\"path\":\"/other"#);
    assert_eq!(platform.post(EVENTS, &[ONE], body).await.json()["accepted"], 1);
    let event: Value = serde_json::from_str(&platform.logged("page_views").await[0]).expect("JSON");
    assert_eq!((&event["event_id"], &event["path"]), (&json!(r##"/shop#x","path":"/other"##), &json!("/")));
}

#[tokio::test]
async fn broken_envelopes_go_to_quarantine() {
    let good = envelope(r#"{"path":"/"}"#);
    let cases = [
        (good.replace(r#""specversion":"1.0","#, ""), "invalid_cloudevent", "/specversion"),
        (good.replace("1.0", "0.3"), "invalid_cloudevent", "/specversion"),
        (good.replace(r#""id":"ce-1","#, ""), "invalid_cloudevent", "/id"),
        (good.replace(r#""source":"/shop""#, r#""source":"""#), "invalid_cloudevent", "/source"),
        (good.replace(r#""id":"ce-1""#, r#""id":1"#), "invalid_cloudevent", ""),
        (good.replace(r#","data":{"path":"/"}"#, ""), "invalid_cloudevent", "/data"),
        (good.replace(r#""data":{"path":"/"}"#, r#""data_base64":"e30=""#), "invalid_cloudevent", "/data_base64"),
        (envelope("[1]"), "not_an_object", "/data"),
        (envelope("{}"), "missing_field", "/data/path"),
        ("{\"data\":".to_owned(), "invalid_cloudevent", ""),
        ("42".to_owned(), "invalid_cloudevent", ""),
    ];
    for (body, code, pointer) in cases {
        let platform = Platform::new().await;
        let reply = platform.post(EVENTS, &[ONE], body.clone()).await;
        assert_eq!(counts(&reply.json()), [1, 0, 1, 0], "{body}");
        let error = &reply.json()["errors"][0];
        assert_eq!((error["code"].as_str(), error["pointer"].as_str()), (Some(code), Some(pointer)), "{body}");
        assert_eq!(entries(&platform, "page_views").await[0].raw.as_deref(), Some(body.as_str()), "what came is kept");
    }
}

#[tokio::test]
async fn binary_mode() {
    let platform = Platform::new().await;
    let attributes = [
        ("ce-specversion", "1.0"),
        ("ce-id", "%C3%BCber%20100%"),
        ("ce-source", "/shop"),
        ("ce-type", "view"),
        ("ce-time", "2026-11-20T10:00:00Z"),
        JSON,
    ];
    let reply = platform.post(EVENTS, &attributes, r#"{"path":"/"}"#).await;
    assert_eq!(counts(&reply.json()), [1, 1, 0, 0], "{:?}", reply.body);
    assert_eq!(
        platform.logged("page_views").await,
        [r##"{"event_id":"/shop#über 100%","ts":"2026-11-20T10:00:00Z","path":"/"}"##]
    );

    let reply = platform.post(EVENTS, &attributes[..1], r#"{"path":"/"}"#).await;
    assert_eq!(reply.json()["errors"][0]["pointer"], "/id");
    let reply = platform.post(EVENTS, &[attributes[0], NDJSON], r#"{"path":"/"}"#).await;
    check_problem(&reply, 415, "unsupported_media_type");
}

#[tokio::test]
async fn a_batch_that_is_no_array() {
    let platform = Platform::new().await;
    check_problem(&platform.post(EVENTS, &[BATCH], envelope("{}")).await, 400, "malformed_json");
}

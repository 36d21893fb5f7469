//! C9: every limit at the limit and one beyond.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use riomar_schemas::limits::EVENT_BYTES_MAX;

use super::*;
use crate::ingestion::{IngestionLimits, limits::ERRORS_MAX};

/// A valid event of exactly this many bytes.
fn event_of(id: &str, bytes: usize) -> String {
    let short = event(id).replace('}', r#","more":""}"#);
    let event = short.replace(r#""more":"""#, &format!(r#""more":"{}""#, "x".repeat(bytes - short.len())));
    assert_eq!(event.len(), bytes);
    event
}

#[tokio::test]
async fn event_bytes() {
    let platform = Platform::new().await;
    let body = format!("{}\n{}\n{}", event_of("1", EVENT_BYTES_MAX), event_of("2", EVENT_BYTES_MAX + 1), event("3"));
    let reply = platform.post(EVENTS, &[NDJSON], body).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(counts(&reply.json()), [3, 2, 0, 1]);
    assert_eq!(reply.json()["errors"][0]["line"], 2);
    assert_eq!(reply.json()["errors"][0]["code"], "event_too_large");
    let entries = entries(&platform, "page_views").await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].kind, entries[0].events, &entries[0].raw), (EntryKind::Rejected, 1, &None));
}

#[tokio::test]
async fn event_bytes_may_be_lowered_but_not_raised() {
    for (event_bytes_max, length, accepted) in [(200, 200, 1), (200, 201, 0), (usize::MAX, EVENT_BYTES_MAX + 1, 0)] {
        let platform = Platform::with_limits(IngestionLimits { event_bytes_max, ..IngestionLimits::default() }).await;
        let reply = platform.post(EVENTS, &[JSON], event_of("1", length)).await;
        assert_eq!(reply.json()["accepted"], accepted, "{event_bytes_max} {length}");
    }
}

#[tokio::test]
async fn a_line_of_20_mb_is_rejected_alone() {
    let limits = IngestionLimits { body_bytes_max: 64 << 20, ..IngestionLimits::default() };
    let platform = Platform::with_limits(limits).await;
    let body = format!("{}\n{}\n{}", event("1"), event_of("2", 20_000_000), event("3"));
    let reply = platform.post(EVENTS, &[NDJSON], body).await;
    assert_eq!(counts(&reply.json()), [3, 2, 0, 1]);
}

#[tokio::test]
async fn every_event_rejected() {
    let platform = Platform::new().await;
    let body = format!("{0}\n{0}", event_of("1", EVENT_BYTES_MAX + 1));
    let reply = platform.post(EVENTS, &[NDJSON], body).await;
    check_problem(&reply, 413, "events_rejected");
    assert_eq!(counts(&reply.json()), [2, 0, 0, 2]);
    let entries = entries(&platform, "page_views").await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].kind, entries[0].events), (EntryKind::Rejected, 2));
}

#[tokio::test]
async fn body_bytes() {
    let body = event("1");
    for (limit, status) in [(body.len(), 200), (body.len() - 1, 413)] {
        let limits = IngestionLimits { body_bytes_max: limit as u64, ..IngestionLimits::default() };
        // Announced, and in pieces without an announcement.
        let pieces: Vec<_> =
            body.as_bytes().chunks(10).map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece))).collect();
        for sent in [Body::from(body.clone()), Body::from_stream(futures::stream::iter(pieces))] {
            let platform = Platform::with_limits(limits).await;
            let reply = platform.post(EVENTS, &[JSON], sent).await;
            assert_eq!(reply.status.as_u16(), status, "{:?}", reply.body);
            if status == 413 {
                check_problem(&reply, 413, "body_too_large");
                check_refused_whole(&platform, "body_too_large").await;
            }
        }
    }
}

#[tokio::test]
async fn an_announced_length_over_the_limit_is_refused_unread() {
    let platform = Platform::new().await;
    let unread = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let reply = platform.post(EVENTS, &[JSON, ("content-length", "16777217")], unread).await;
    check_problem(&reply, 413, "body_too_large");
}

#[tokio::test]
async fn events_in_one_request() {
    let limits = IngestionLimits { events_max: 3, ..IngestionLimits::default() };
    let bodies = |count: usize| {
        let events: Vec<_> = (0..count).map(|id| event(&id.to_string())).collect();
        [(JSON, format!("[{}]", events.join(","))), (NDJSON, events.join("\n\n"))]
    };
    for (header, body) in bodies(3) {
        let reply = Platform::with_limits(limits).await.post(EVENTS, &[header], body).await;
        assert_eq!(counts(&reply.json()), [3, 3, 0, 0]);
    }
    for (header, body) in bodies(4) {
        let platform = Platform::with_limits(limits).await;
        let reply = platform.post(EVENTS, &[header], body).await;
        check_problem(&reply, 413, "too_many_events");
        check_refused_whole(&platform, "too_many_events").await;
    }
}

#[tokio::test]
async fn errors_in_one_response() {
    for broken in [ERRORS_MAX, ERRORS_MAX + 1] {
        let platform = Platform::new().await;
        let reply = platform.post(EVENTS, &[NDJSON], "{}\n".repeat(broken)).await;
        let body = reply.json();
        assert_eq!(counts(&body), [broken as u64, 0, broken as u64, 0]);
        assert_eq!(body["errors"].as_array().map(Vec::len), Some(ERRORS_MAX));
        assert_eq!(body["errors_omitted"].as_u64().unwrap_or_default(), (broken - ERRORS_MAX) as u64);
        assert_eq!(entries(&platform, "page_views").await.len(), broken, "all of them are kept");
    }
}

#[tokio::test]
async fn requests_in_flight() {
    let platform = Platform::with_limits(IngestionLimits { requests_in_flight_max: 1, ..IngestionLimits::default() }).await;
    let unending = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let first = platform.post(EVENTS, &[JSON], unending);
    let mut first = Box::pin(first);
    assert!(futures::poll!(&mut first).is_pending());
    let reply = platform.post(EVENTS, &[JSON], event("1")).await;
    check_problem(&reply, 503, "overloaded");
    assert_eq!((&reply.json()["retryable"], reply.headers.contains_key("retry-after")), (&json!(true), true));
    // A client that goes away makes room.
    drop(first);
    assert_eq!(platform.post(EVENTS, &[JSON], event("1")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn bytes_in_flight() {
    let limits =
        IngestionLimits { bytes_in_flight_max: 64 << 10, decompressed_bytes_max: 64 << 10, ..IngestionLimits::default() };
    let platform = Platform::with_limits(limits).await;
    let piece = Bytes::from(vec![b' '; 60 << 10]);
    let stream = futures::stream::once(async { Ok::<_, std::io::Error>(piece) });
    let half = Body::from_stream(futures::StreamExt::chain(stream, futures::stream::pending()));
    let mut first = Box::pin(platform.post(EVENTS, &[JSON], half));
    assert!(futures::poll!(&mut first).is_pending());
    check_problem(&platform.post(EVENTS, &[JSON], event("1")).await, 503, "overloaded");
    drop(first);
    assert_eq!(platform.post(EVENTS, &[JSON], event("1")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_does_not_come() {
    let platform = Platform::new().await;
    let unending = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let mut waiting = Box::pin(platform.post(EVENTS, &[JSON], unending));
    assert!(futures::poll!(&mut waiting).is_pending());
    platform.clock.advance(Duration::from_secs(59));
    assert!(futures::poll!(&mut waiting).is_pending());
    platform.clock.advance(Duration::from_secs(1));
    let reply = waiting.await;
    check_problem(&reply, 408, "body_timeout");
    assert!(entries(&platform, "page_views").await.is_empty(), "the client will send it again");
}

#[tokio::test]
async fn a_body_that_breaks_off() {
    let platform = Platform::new().await;
    let pieces = [Ok(Bytes::from_static(b"[")), Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))];
    let reply = platform.post(EVENTS, &[JSON], Body::from_stream(futures::stream::iter(pieces))).await;
    check_problem(&reply, 400, "body_interrupted");
    assert_eq!(reply.json()["retryable"], true);
}

#[tokio::test]
async fn a_large_body_leaves_the_runtime_free_and_is_stored_whole() {
    let platform = Platform::new().await;
    let events: Vec<_> = (0..50_000).map(|id| event(&id.to_string())).collect();
    let reply = platform.post(EVENTS, &[NDJSON], events.join("\n")).await;
    assert_eq!(counts(&reply.json()), [50_000, 50_000, 0, 0]);
    let mut logged = platform.logged("page_views").await;
    let mut sent = events;
    logged.sort();
    sent.sort();
    assert!(logged == sent, "every event once");
}

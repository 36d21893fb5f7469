//! Problems that the routes' tests cannot bring about.

use super::*;

#[tokio::test]
async fn a_full_disk_says_what_to_do() {
    // The log's own words: a limit that it no longer names would be no disk that is full.
    let words = include_str!("../../../event-log/src/embedded/store.rs");
    assert!(words.contains("bytes left, DISK_FREE_BYTES_MIN is {DISK_FREE_BYTES_MIN}"), "the log says it otherwise");
    let cause = "the disk of /data/log has 5 bytes left, DISK_FREE_BYTES_MIN is 134217728: make room, send again";
    for error in [
        ApiError::Log(LogError::Unavailable(cause.to_owned())),
        ApiError::Batch(BatchError::Log(LogError::Unavailable(cause.to_owned()))),
    ] {
        let response = finish(error.into_response(), "7-1");
        assert_eq!(
            (response.status(), &response.headers()[header::RETRY_AFTER]),
            (StatusCode::INSUFFICIENT_STORAGE, &HeaderValue::from(30))
        );
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        let problem: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((&problem["code"], &problem["retryable"]), (&json!("disk_full"), &json!(true)));
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.contains("make room") && !detail.contains("/data"), "{detail}");
    }
    let other = ApiError::Log(LogError::Unavailable("it is closed".to_owned()));
    assert_eq!(other.kind().code, "log_unavailable");
}

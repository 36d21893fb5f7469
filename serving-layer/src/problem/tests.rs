//! Problems that the routes' tests cannot bring about.

use super::*;

#[tokio::test]
async fn a_full_disk_says_what_to_do() {
    let full = |reopen| LogError::DiskFull { cause: "the disk of /data/log has 5 bytes left".to_owned(), reopen };
    for (error, restart) in [
        (ApiError::Log(full(false)), false),
        (ApiError::Log(full(true)), true),
        (ApiError::Batch(BatchError::Log(full(false))), false),
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
        assert_eq!(detail.contains("start the process again"), restart, "{detail}");
    }
    let other = ApiError::Log(LogError::Unavailable("it is closed".to_owned()));
    assert_eq!(other.kind().code, "log_unavailable");
}

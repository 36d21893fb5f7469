//! Runs of one process, asked of another.

use std::{sync::Arc, time::Duration};

use object_store::{ObjectStore, memory::InMemory};
use serde_json::json;
use uuid::Uuid;

use crate::{processes::tell, roles::Role, testing::Platform};

#[tokio::test]
async fn a_run_is_known_to_every_batch_process_and_unknown_once_its_own_is_silent() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let one = Platform::with_notices(Role::Batch.into(), &objects, Uuid::from_u128(1)).await;
    let other = Platform::with_notices(Role::Batch.into(), &objects, Uuid::from_u128(2)).await;
    let started = one.post("/v1/batch/runs", &[("content-type", "application/json")], r#"{"full":true}"#).await;
    assert_eq!(started.status, 202, "{:?}", started.body);
    let location = started.headers["location"].to_str().expect("text").to_owned();
    let found = other.get(&location).await;
    assert_eq!((found.status.as_u16(), &found.json()["id"]), (200, &started.json()["id"]), "{:?}", found.body);
    assert_eq!(found.json()["started_at"], started.json()["started_at"]);
    for process in [&one, &other] {
        let listed = process.get("/v1/batch/runs").await.json();
        assert_eq!((listed["runs"].as_array().map(Vec::len), &listed["runs"][0]["id"]), (Some(1), &found.json()["id"]));
    }
    assert_eq!(other.get("/v1/batch/runs/00000000-0000-0000-0000-000000000000").await.json()["code"], "unknown_run");
    // The other one tells of itself, so it knows how old things are; then nothing is told for a minute.
    let mut telling = Box::pin(tell(Arc::clone(&other.services), std::future::pending()));
    while other.services.process.notices.as_ref().expect("one of several").all().await.expect("reads").is_none() {
        tokio::select! {
            () = &mut telling => unreachable!("it tells for ever"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_ne!(other.get(&location).await.json()["state"], "unknown");
    other.clock.advance(Duration::from_secs(60));
    let silent = other.get(&location).await.json();
    assert_eq!((&silent["state"], &silent["id"]), (&json!("unknown"), &found.json()["id"]));
    assert!(silent["error"].as_str().expect("a text").contains("nothing is heard of the process"), "{silent}");
    assert_eq!(other.get("/v1/batch/runs").await.json()["runs"][0]["state"], "unknown");
}

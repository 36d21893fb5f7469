//! A process that is alone, and one that hears of others.

use std::sync::Arc;

use object_store::{ObjectStore, memory::InMemory};
use riomar_schemas::paths;
use serde_json::json;
use tokio::sync::oneshot;

use super::*;
use crate::testing::Platform;

/// How long anything that is waited for may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A process of a deployment whose objects these are.
async fn process_of(objects: &Arc<dyn ObjectStore>, role: Role, id: u128) -> Platform {
    Platform::with_notices(role.into(), objects, Uuid::from_u128(id)).await
}

fn roles(answer: &Value) -> Vec<(&str, &str)> {
    let processes = answer["processes"].as_array().expect("processes");
    processes.iter().map(|one| (one["roles"][0].as_str().unwrap_or("?"), one["state"].as_str().expect("a state"))).collect()
}

#[tokio::test]
async fn a_process_that_is_the_whole_platform_is_one_row_and_writes_nothing() {
    let platform = Platform::new().await;
    platform.services.process.address.set(([127, 0, 0, 1], 8080).into()).expect("not set yet");
    platform.clock.advance(Duration::from_secs(65));
    let answer = platform.get("/v1/processes").await.json();
    assert_eq!((&answer["missing_roles"], &answer["left_out"]), (&json!([]), &json!(0)));
    let [process] = answer["processes"].as_array().expect("processes").as_slice() else { panic!("{answer}") };
    for (member, expected) in [
        ("state", json!("heard")),
        ("heard_seconds_ago", json!(0)),
        ("roles", json!(["ingest", "speed", "batch", "serve"])),
        ("address", json!("http://127.0.0.1:8080")),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("up_seconds", json!(65)),
        ("status", json!("ready")),
        ("ingest", json!({"accepts": true})),
        ("speed", json!({"partitions": []})),
        ("batch", json!({"leads": true, "run": null})),
    ] {
        assert_eq!(process[member], expected, "{member}: {process}");
    }
    assert!(platform.objects_below(&paths::processes()).await.is_empty());
}

#[tokio::test]
async fn processes_hear_of_each_other_and_say_when_they_stop() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let serve = process_of(&objects, Role::Serve, 1).await;
    // Nobody has told anything yet: it is asked before its first turn.
    let answer = serve.get("/v1/processes").await.json();
    assert_eq!(roles(&answer), [("serve", "heard")]);
    assert_eq!(answer["missing_roles"], json!(["ingest", "speed", "batch"]));

    let batch = process_of(&objects, Role::Batch, 2).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let telling = tokio::spawn(tell(Arc::clone(&batch.services), async move { drop(stopped.await) }));
    let both = async {
        loop {
            let answer = serve.get("/v1/processes").await.json();
            if roles(&answer).len() == 2 {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    let answer = tokio::time::timeout(DEADLINE, both).await.expect("it tells of itself");
    assert_eq!(roles(&answer), [("batch", "heard"), ("serve", "heard")]);
    assert_eq!(answer["processes"][0]["ingest"], json!(null), "it has no such role");
    // Longer than anybody may be silent: nobody has told anything since, as far as this clock knows.
    serve.clock.advance(Duration::from_secs(60));
    let answer = serve.get("/v1/processes").await.json();
    assert_eq!(roles(&answer), [("batch", "silent"), ("serve", "silent")]);
    assert_eq!(answer["missing_roles"], json!(["ingest", "speed", "batch", "serve"]));
    stop.send(()).expect("it tells");
    telling.await.expect("ends");
    assert_eq!(roles(&serve.get("/v1/processes").await.json()), [("serve", "silent")]);
    assert!(batch.get("/v1/processes").await.status == 421, "asked of those who serve");
}

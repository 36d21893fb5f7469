//! What makes a process unready, and what does not.

use std::time::Duration;

use riomar_event_log::{Log, Membership};
use riomar_schemas::{Name, session::session_state};
use riomar_speed_layer::{SpeedLimits, SpeedParts, SpeedWorker, worker};
use serde_json::Value;

use super::*;
use crate::testing::{Fault, Platform, Reply};

/// For what must happen in the end.
const DEADLINE: Duration = Duration::from_secs(60);

async fn with_role(role: Role) -> Platform {
    Platform::with_roles(role.into()).await
}

/// The check of this name.
fn check(reply: &Reply, name: &str) -> Value {
    let all = reply.json()["checks"].as_array().expect("checks").clone();
    all.into_iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {:?}", reply.body))
}

#[tokio::test]
async fn a_store_that_holds_what_cannot_be_read_is_there() {
    let platform = with_role(Role::Speed).await;
    platform.store.reads.set(Some(Fault::Damaged));
    let ready = platform.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["status"]), (StatusCode::OK, &json!("ready")), "{:?}", ready.body);
    platform.store.reads.set(Some(Fault::Refuses));
    let away = platform.get("/readyz").await;
    assert_eq!((away.status, &check(&away, "realtime store")["ok"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(false)));
}

#[tokio::test]
async fn checks_that_hang_are_waited_for_all_at_once() {
    let platform = Platform::new().await;
    // The master datasets are opened, so that a look at them is a read.
    assert_eq!(platform.get("/readyz").await.json()["status"], "ready");
    platform.faulty_log.faults.set(Some(Fault::Hangs));
    platform.objects.reads.set(Some(Fault::Hangs));
    platform.store.reads.set(Some(Fault::Hangs));
    let mut reply = std::pin::pin!(platform.get("/readyz"));
    assert!(futures::poll!(&mut reply).is_pending());
    platform.clock.advance(Duration::from_secs(CHECK_SECONDS_MAX));
    let reply = tokio::time::timeout(DEADLINE, reply).await.expect("no check waits for another one");
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    for name in ["log", "master dataset of page_views", "master dataset of readings", "realtime store"] {
        assert_eq!(check(&reply, name)["ok"], false, "{:?}", reply.body);
    }
}

#[tokio::test]
async fn an_object_store_that_takes_no_writes_makes_a_batch_process_unready() {
    for (roles, code, listed) in [
        ("batch", StatusCode::SERVICE_UNAVAILABLE, true),
        ("batch,ingest", StatusCode::OK, true),
        ("serve", StatusCode::OK, false),
    ] {
        let platform = Platform::with_roles(roles.parse().expect("roles")).await;
        assert_eq!(platform.get("/readyz").await.json()["status"], "ready");
        platform.services.object_writes.failed("permission denied");
        // However long ago that was.
        platform.clock.advance(Duration::from_secs(3600));
        let unready = platform.get("/readyz").await;
        assert_eq!((unready.status, unready.json()["status"] == "ready"), (code, !listed), "{:?}", unready.body);
        if listed {
            assert_eq!(check(&unready, "object store")["ok"], false);
        }
        platform.services.object_writes.succeeded();
        assert_eq!(platform.get("/readyz").await.json()["status"], "ready");
    }
}

/// The speed layer of the platform, which runs until it is dropped.
async fn run_speed(platform: &Platform) {
    let services = &platform.services;
    let streams: Vec<Name> = services.catalog.streams().map(|stream| stream.name.clone()).collect();
    let membership: Membership = platform.log.join("speed", &streams).await.expect("a share");
    let open = |stream: &Name, partition| {
        let views: Vec<_> = services.catalog.views_of(stream).cloned().collect();
        (!views.is_empty()).then(|| {
            SpeedWorker::open(SpeedParts {
                log: services.log.clone(),
                history: services.batch.history(),
                store: services.realtime.clone(),
                clock: services.clock.clone(),
                session_state: session_state(Arc::default(), 1),
                stream: services.catalog.stream(stream.as_str()).expect("a stream").clone(),
                views,
                partition,
                limits: SpeedLimits { wait: Duration::ZERO, ..SpeedLimits::default() },
                activity: services.process.speed.clone(),
            })
        })
    };
    worker::run(membership, open, std::future::pending()).await.expect("it goes on for ever");
}

/// Lets time pass until the process is told to be in this state.
async fn until(platform: &Platform, status: &str) -> Reply {
    let becomes = async {
        loop {
            platform.clock.advance(Duration::from_millis(50));
            let reply = platform.get("/readyz").await;
            if reply.json()["status"] == status {
                return reply;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, becomes).await.unwrap_or_else(|_| panic!("it never becomes {status}"))
}

#[tokio::test]
async fn a_realtime_store_that_takes_no_writes_makes_a_speed_process_unready() {
    let platform = with_role(Role::Speed).await;
    let checked = async {
        assert_eq!(platform.get("/readyz").await.json()["status"], "ready");
        // As a Redis does that is full: it answers every read.
        platform.store.writes.set(Some(Fault::Refuses));
        let unready = until(&platform, UNREADY).await;
        assert_eq!(unready.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(check(&unready, "realtime store")["detail"], "it takes no writes: realtime views grow older");
        platform.store.writes.set(None);
        until(&platform, "ready").await;
    };
    tokio::select! {
        () = checked => {}
        () = run_speed(&platform) => unreachable!("it ends with the test"),
    }
}

//! One test for each thing that can happen to a worker.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use riomar_event_log::{Membership, SystemClock};
use riomar_infra::RedisServer;
use riomar_schemas::{Epoch, Name, Offset, keys};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use super::{
    super::{RebuildReason, SpeedError, SpeedParts, SpeedWorker, WorkerStep, run},
    world::{DEFINITIONS, PARTITION, World, Written, in_redis},
};
use crate::{
    memory::MemoryStore,
    store::{Entry, RealtimeStore, StoreError},
};

async fn step(worker: &mut SpeedWorker) -> WorkerStep {
    worker.step(Duration::ZERO).await.expect("a step")
}

#[tokio::test]
async fn a_new_view_begins_at_the_hand_over_and_reads_on() {
    let mut world = World::in_memory().await;
    world.hits(10, 3).await;
    let mut worker = world.worker();
    let first = step(&mut worker).await;
    assert_eq!(first.rebuilds.iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), [RebuildReason::NoEntry; 2]);
    assert_eq!((first.records, first.events_folded), (10, 20));
    assert_eq!(first.position, Some(World::position(10, 0)));
    world.check("ten hits").await;

    // Cuts, duplicates and records that do not decode move the position too.
    let again = world.records[0].clone();
    world.append([Written::Cut(1), again, Written::Broken]).await;
    let second = step(&mut worker).await;
    assert_eq!((second.records, second.events_folded), (3, 0));
    assert_eq!(world.entry(&world.views[0]).await.expect("entry").position, World::position(13, 1));
    let idle = step(&mut worker).await;
    assert_eq!((idle.records, idle.position), (0, Some(World::position(13, 1))));
}

#[tokio::test]
async fn states_that_are_handed_over_are_removed_once_after_the_grace_period() {
    let mut world = World::in_memory().await;
    let mut worker = world.worker();
    for cut in 1..=3 {
        world.hits(4, 2).await;
        world.append([Written::Cut(cut)]).await;
        world.catch_up(&mut worker).await;
        world.land_all();
        world.publish();
        step(&mut worker).await;
    }
    let floor = |entry: Option<Entry>| entry.expect("entry").floor;
    // Generation 3 ends at cut 3; generation 2, which queries may still be reading, needs epochs from 2 on.
    let start = floor(world.entry(&world.views[0]).await);
    assert!(start < Epoch(2));
    world.clock.advance(world.limits.removal_grace - Duration::from_millis(1));
    step(&mut worker).await;
    assert_eq!(floor(world.entry(&world.views[0]).await), start);
    world.clock.advance(Duration::from_millis(1));
    step(&mut worker).await;
    assert_eq!(floor(world.entry(&world.views[0]).await), Epoch(2));
    world.check("after the removal").await;

    let calls = world.store.calls.load(Ordering::SeqCst);
    world.clock.advance(world.limits.removal_grace);
    step(&mut worker).await;
    assert_eq!(
        world.store.calls.load(Ordering::SeqCst),
        calls + world.views.len() as u64,
        "a hand-over is cleaned up after once, and an idle step only looks whether each view's entry is still there"
    );
}

#[tokio::test]
async fn c9_too_many_groups_halt_one_view_until_a_later_cut() {
    let mut world = World::in_memory().await;
    world.limits.groups_max = 5;
    world.hits(5, 5).await;
    let mut worker = world.worker();
    step(&mut worker).await;
    world.hits(6, 6).await;
    let halting = step(&mut worker).await;
    let (by_key, by_minute) = (world.views[0].clone(), world.views[1].clone());
    assert_eq!(halting.halted.len(), 1);
    assert_eq!(&halting.halted[0].0, by_key.name());
    assert!(halting.halted[0].1.contains("epoch 0 would have 6 groups, above the limit of 5"), "{halting:?}");

    // It is exact where it stopped and says why; the other view goes on.
    world.check("halted").await;
    let entry = world.entry(&by_key).await.expect("entry");
    assert_eq!((entry.position, entry.halted.as_ref()), (World::position(5, 0), Some(&halting.halted[0].1)));
    assert_eq!(world.entry(&by_minute).await.expect("entry").position, World::position(11, 0));
    world.hits(2, 2).await;
    world.append([Written::Cut(1)]).await;
    world.hits(3, 3).await;
    assert!(step(&mut worker).await.halted.is_empty(), "told once");
    let mut restarted = world.worker();
    step(&mut restarted).await;
    assert_eq!(world.entry(&by_key).await, Some(entry), "a restart does not lift it");
    assert_eq!(world.entry(&by_minute).await.expect("entry").position.offset, world.end());

    world.land_all();
    world.publish();
    let lifted = step(&mut worker).await;
    assert_eq!(lifted.rebuilds, [(by_key.name().clone(), RebuildReason::BehindCut)]);
    world.catch_up(&mut worker).await;
    let entry = world.entry(&by_key).await.expect("entry");
    assert_eq!((entry.halted, entry.position.offset), (None, world.end()));
    world.check("after the cut").await;
}

#[tokio::test]
async fn groups_are_counted_over_restarts() {
    let mut world = World::in_memory().await;
    world.limits.groups_max = 5;
    for _ in 0..4 {
        world.hits(5, 5).await;
        let mut worker = world.worker();
        assert!(step(&mut worker).await.halted.is_empty(), "old groups do not count again");
    }
    world.hits(6, 6).await;
    let mut worker = world.worker();
    assert_eq!(step(&mut worker).await.halted.len(), 1);
}

#[tokio::test]
async fn c10_a_view_whose_sql_fails_is_halted_and_the_others_go_on() {
    let failing = format!(
        "{DEFINITIONS} CREATE MATERIALIZED VIEW ratio AS SELECT window_start, sum(100 / (amount - 2)) AS ratio \
         FROM TUMBLE(hits, ts, INTERVAL '1 minute') GROUP BY window_start;"
    );
    let mut world = World::with_definitions(&failing, Arc::new(MemoryStore::new()), 0, 0).await;
    let ratio = world.views.pop().expect("the last by name");
    assert_eq!(ratio.name().as_str(), "ratio");
    world.hits(2, 2).await;
    let mut worker =
        SpeedWorker::open(SpeedParts { views: [world.views.clone(), vec![ratio.clone()]].concat(), ..world.parts() });
    assert!(step(&mut worker).await.halted.is_empty());
    world.hits(3, 3).await; // the third has amount 2
    let halting = step(&mut worker).await;
    assert_eq!(halting.halted.len(), 1, "{halting:?}");
    assert!(halting.halted[0].1.contains("its SQL fails on these events"), "{halting:?}");
    assert_eq!(world.entry(&ratio).await.expect("entry").position, World::position(2, 0));
    world.check("the other views").await;
    assert_eq!(world.entry(&world.views[0]).await.expect("entry").position.offset, world.end());
}

#[tokio::test]
async fn a_view_that_was_overtaken_by_its_batch_view_skips_ahead() {
    let mut world = World::in_memory().await;
    world.limits.batch_records_max = 3;
    world.hits(9, 3).await;
    let mut worker = world.worker();
    step(&mut worker).await;
    world.append([Written::Cut(1)]).await;
    world.hits(2, 2).await;
    world.land_all();
    world.history.publish(world.views[0].name(), PARTITION);
    let skipping = step(&mut worker).await;
    assert_eq!(skipping.rebuilds, [(world.views[0].name().clone(), RebuildReason::BehindCut)]);
    let entry = world.entry(&world.views[0]).await.expect("entry");
    assert_eq!((entry.position, entry.start), (World::position(10, 1), Epoch(1)));
    // It waits there for the other view, which has to read everything.
    assert_eq!(world.entry(&world.views[1]).await.expect("entry").position, World::position(6, 0));
    world.catch_up(&mut worker).await;
    world.check("both at the end").await;
    assert_eq!(world.entry(&world.views[1]).await.expect("entry").start, Epoch(0));
}

#[tokio::test]
async fn an_entry_of_another_logs_life_is_rebuilt() {
    let store = Arc::new(MemoryStore::new());
    let mut world = World::new(store.clone(), 0, 0).await;
    world.hits(20, 3).await;
    world.catch_up(&mut world.worker()).await;
    // The data directory is gone, and the store still there.
    let mut world = World::new(store, 0, 0).await;
    world.hits(2, 2).await;
    let mut worker = world.worker();
    let first = step(&mut worker).await;
    assert_eq!(first.rebuilds.iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), [RebuildReason::AheadOfLog; 2]);
    world.check("a new life").await;
}

#[tokio::test]
async fn without_the_object_store_a_worker_goes_on_with_the_last_hand_over() {
    let mut world = World::in_memory().await;
    world.hits(3, 3).await;
    let mut worker = world.worker();
    step(&mut worker).await;
    world.history.past().unavailable = true;
    world.hits(3, 3).await;
    let blind = step(&mut worker).await;
    assert_eq!((blind.events_folded, blind.failed.len()), (6, 2), "{blind:?}");
    world.check("blind").await;
    assert!(matches!(blind.failed[0].1, SpeedError::HandOver { .. }), "{blind:?}");
    world.history.past().unavailable = false;
    assert!(step(&mut worker).await.failed.is_empty());
    world.history.past().unavailable = true;
    let fresh = world.worker().step(Duration::ZERO).await;
    assert!(matches!(fresh, Err(SpeedError::Log { .. })), "a new worker cannot tell whether its entry is in line: {fresh:?}");
}

#[tokio::test]
async fn c6_a_store_that_is_down_loses_nothing() {
    let mut world = World::in_memory().await;
    world.hits(3, 3).await;
    let mut worker = world.worker();
    world.store.fail(100);
    for _ in 0..3 {
        let down = worker.step(Duration::ZERO).await;
        assert!(matches!(down, Err(SpeedError::Store { source: StoreError::Unavailable(_), .. })), "{down:?}");
    }
    world.catch_up(&mut worker).await;
    world.hits(3, 3).await;
    world.store.fail(100);
    assert!(worker.step(Duration::ZERO).await.is_err());
    world.catch_up(&mut worker).await;
    world.check("up again").await;
}

#[tokio::test]
async fn a_damaged_view_does_not_hold_back_the_others_and_is_not_overwritten() {
    let server = RedisServer::start().unwrap_or_else(|error| panic!("{error}"));
    let mut world = World::new(in_redis(&server.url()), 0, 0).await;
    world.hits(3, 3).await;
    let mut worker = world.worker();
    step(&mut worker).await;
    let entry_key = keys::entry("test", &world.views[0], PARTITION);
    server.command(&["HSET", &entry_key, "format", "99"]).expect("set");
    for _ in 0..2 {
        world.hits(3, 3).await;
        let mut worker = world.worker();
        let step = step(&mut worker).await;
        assert_eq!(step.failed.len(), 1, "{step:?}");
        assert!(matches!(&step.failed[0].1, SpeedError::Store { source: StoreError::Damaged(_), .. }), "{step:?}");
        assert_eq!(step.events_folded, 3, "of the other view");
    }
    assert_eq!(server.command(&["HGET", &entry_key, "offset"]).expect("get"), "3");
    server.command(&["DEL", &entry_key]).expect("deleted");
    world.catch_up(&mut worker).await;
    world.check("after the key was deleted").await;
}

#[tokio::test]
async fn a_step_that_is_dropped_halfway_loses_nothing() {
    let mut world = World::in_memory().await;
    world.limits.batch_records_max = 2;
    let mut worker = world.worker();
    for round in 0..40 {
        world.hits(2, 2).await;
        // The store yields at every call, so the step ends at another place each time.
        let mut steps = Box::pin(worker.step(Duration::ZERO));
        for _ in 0..round {
            if futures::poll!(&mut steps).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(steps);
        world.check(&format!("dropped after {round} polls")).await;
    }
    world.catch_up(&mut worker).await;
    world.check("at the end").await;
}

#[tokio::test]
async fn rows_that_the_log_no_longer_holds_come_from_the_master_dataset() {
    let mut world = World::in_memory().await;
    world.hits(6, 3).await;
    world.append([Written::Cut(1)]).await;
    world.hits(4, 2).await;
    world.land(8);
    world.trim(Offset(8)).await;
    world.catch_up(&mut world.worker()).await;
    world.check("from the master dataset").await;
}

#[tokio::test]
async fn the_loop_folds_retries_and_ends_when_it_is_told_to() {
    let mut world = World::in_memory().await;
    world.hits(50, 5).await;
    world.store.fail(30);
    let clock = Arc::new(SystemClock);
    world.limits.batch_records_max = 7;
    world.limits.wait = Duration::from_millis(5);
    (world.limits.retry_pause_min, world.limits.retry_pause_max) = (Duration::from_millis(1), Duration::from_millis(20));
    world.limits.batch_pause = Duration::ZERO;
    let parts = SpeedParts { clock, ..world.parts() };
    let mine: BTreeSet<_> = [(parts.stream.name.clone(), PARTITION)].into();
    let (assign, assigned) = watch::channel(mine.clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let opened = Arc::new(AtomicUsize::new(0));
    let open = {
        let opened = Arc::clone(&opened);
        move |_: &Name, _| {
            opened.fetch_add(1, Ordering::SeqCst);
            Some(SpeedWorker::open(parts.clone()))
        }
    };
    let running = tokio::spawn(run(Membership::new(assigned, (), None), open, async move {
        let _ = stopped.await;
    }));
    let reached = async |world: &World| {
        let reached = async {
            loop {
                let entry = world.store.entry(&world.views[1], PARTITION).await.ok().flatten();
                if entry.is_some_and(|entry| entry.position.offset == world.end()) {
                    return;
                }
                // The log's clock moves only here, and a read at its end waits for that: another view may be further on.
                world.clock.advance(Duration::from_millis(1));
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), reached).await.expect("the loop reaches the end");
    };
    reached(&world).await;
    // A partition that is taken away and comes back has a new worker, which goes on from the stored position.
    world.hits(20, 5).await;
    let taken_and_given = async {
        while opened.load(Ordering::SeqCst) < 2 {
            for partitions in [BTreeSet::new(), mine.clone()] {
                assign.send_replace(partitions);
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(Duration::from_secs(60), taken_and_given).await.expect("a new worker");
    reached(&world).await;
    stop.send(()).expect("it still runs");
    timeout(Duration::from_secs(60), running).await.expect("it ends").expect("no panic").expect("no error");
    world.store.fail(0);
    world.check("after the loop").await;
}

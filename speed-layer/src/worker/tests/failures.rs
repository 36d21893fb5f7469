//! One view fails, the others go on; and what was damaged or decoded differently is put right from the master dataset.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use riomar_event_log::Clock;
use riomar_infra::RedisServer;
use riomar_schemas::{Epoch, Offset, View, state_codec::EncodedState};

use super::{
    super::{RebuildReason, SpeedError, SpeedLimits, SpeedWorker, WorkerStep},
    flaky::WriteFault,
    world::{PARTITION, World, Written, in_redis},
};
use crate::{
    memory::MemoryStore,
    redis_store::RedisLimits,
    store::{RealtimeStore, StoreError},
};

async fn step(worker: &mut SpeedWorker) -> WorkerStep {
    worker.step(Duration::ZERO).await.expect("a step")
}

async fn offset(world: &World, view: &View) -> Offset {
    world.entry(view).await.expect("entry").position.offset
}

#[tokio::test]
async fn a_view_that_keeps_failing_pauses_and_the_others_go_on() {
    let mut world = World::in_memory().await;
    world.limits.batch_records_max = 3;
    (world.limits.retry_pause_min, world.limits.retry_pause_max) = (Duration::from_millis(100), Duration::from_millis(300));
    let (failing, well) = (world.views[0].clone(), world.views[1].clone());
    world.hits(3, 3).await;
    let mut worker = world.worker();
    step(&mut worker).await;
    world.hits(27, 3).await;
    world.store.break_view(Some(failing.name()));
    let first = step(&mut worker).await;
    assert_eq!(first.failed.iter().map(|(view, _)| view).collect::<Vec<_>>(), [failing.name()], "{first:?}");
    assert!(first.paused.is_empty());

    // The reader stays open, and the view that failed is not asked for.
    let opened = world.history.past().landed_asked;
    for batch in 3..=6 {
        let step = step(&mut worker).await;
        assert!(step.failed.is_empty() && step.events_folded == 3, "{step:?}");
        assert_eq!(step.paused, [failing.name().clone()]);
        assert_eq!(offset(&world, &well).await, Offset(batch * 3));
    }
    assert_eq!(world.history.past().landed_asked, opened);

    // Each failure in a row doubles its pause, up to the longest; each try costs the other view one step and no reader.
    for pause_ms in [100, 200, 300, 300] {
        world.clock.advance(Duration::from_millis(pause_ms - 1));
        assert!(step(&mut worker).await.failed.is_empty(), "not before {pause_ms} ms are over");
        world.clock.advance(Duration::from_millis(1));
        let before = offset(&world, &well).await;
        let opened = world.history.past().landed_asked;
        let tried = step(&mut worker).await;
        assert_eq!((tried.failed.len(), tried.events_folded), (1, 0), "{tried:?}");
        assert_eq!((offset(&world, &failing).await, offset(&world, &well).await), (Offset(3), before));
        assert_eq!(world.history.past().landed_asked, opened + 1);
        world.hits(3, 3).await;
        assert_eq!(step(&mut worker).await.events_folded, 3);
        assert_eq!(world.history.past().landed_asked, opened + 1, "the other view's reader was kept");
    }
    world.check("one failing").await;

    world.store.break_view(None);
    world.clock.advance(world.limits.retry_pause_max);
    let back = step(&mut worker).await;
    assert_eq!((back.events_folded, offset(&world, &failing).await), (3, Offset(6)), "nothing twice for the other: {back:?}");
    world.catch_up(&mut worker).await;
    world.check("both at the end").await;

    // It went well since, so the first pause is the shortest again.
    world.hits(3, 3).await;
    world.store.break_view(Some(failing.name()));
    assert_eq!(step(&mut worker).await.failed.len(), 1);
    world.store.break_view(None);
    world.clock.advance(world.limits.retry_pause_min);
    assert_eq!(step(&mut worker).await.events_folded, 3);
    world.check("at the end").await;
}

#[tokio::test]
async fn all_views_go_on_soon_after_a_store_that_was_away_for_long_is_back() {
    const TICK: Duration = Duration::from_millis(50);
    let mut world = World::in_memory().await;
    let paces = SpeedLimits::default();
    (world.limits.retry_pause_min, world.limits.retry_pause_max) = (paces.retry_pause_min, paces.retry_pause_max);
    world.hits(3, 3).await;
    let mut worker = world.worker();
    step(&mut worker).await;
    world.hits(3, 3).await;
    // A failed step is what happens here: its views are paused.
    let tick = async |worker: &mut SpeedWorker| {
        world.clock.advance(TICK);
        let _ = worker.step(Duration::ZERO).await;
    };
    world.store.fail(100);
    for _ in 0..600 {
        tick(&mut worker).await;
    }
    // It is back, and lets one call through: the views that come with it are refused once more, as if it were still away.
    let back_ms = world.clock.now_ms();
    let tried = world.store.calls.load(Ordering::SeqCst) + world.views.len() as u64;
    while world.store.calls.load(Ordering::SeqCst) < tried {
        tick(&mut worker).await;
    }
    world.store.fail(0);
    while offset(&world, &world.views[0]).await.min(offset(&world, &world.views[1]).await) < world.end() {
        tick(&mut worker).await;
    }
    let away = Duration::from_millis((world.clock.now_ms() - back_ms).unsigned_abs());
    let period = RedisLimits::default().breaker_period;
    assert!(away <= period * 2 + TICK * 4, "the views go on {away:?} after the store is back, which probes every {period:?}");
}

/// Overwrites the states of a view by bytes that are none.
async fn damage(world: &World, view: &View) {
    let part = world.store.read(view, PARTITION, Epoch(0)).await.expect("read").expect("entry");
    assert!(!part.states.is_empty());
    let states: Vec<_> = part.states.into_iter().map(|state| EncodedState { state: vec![0xff], ..state }).collect();
    world.store.write(view, PARTITION, &part.entry, &part.entry, &states).await.expect("written");
}

async fn damaged_states_are_rebuilt(store: Arc<dyn RealtimeStore>) {
    let mut world = World::new(store, 0, 0).await;
    let mut worker = world.worker();
    world.hits(5, 3).await;
    world.append([Written::Cut(1)]).await;
    world.hits(6, 3).await;
    world.land(8);
    world.publish();
    world.catch_up(&mut worker).await;
    let view = world.views[0].clone();
    damage(&world, &view).await;
    world.hits(3, 3).await;
    let failing = step(&mut worker).await;
    assert_eq!(failing.events_folded, 3, "of the other view: {failing:?}");
    assert!(
        matches!(&failing.failed[..], [(name, SpeedError::Store { source: StoreError::Damaged(_), .. })] if name == view.name()),
        "{failing:?}"
    );
    let rebuilding = step(&mut worker).await;
    assert_eq!(rebuilding.rebuilds, [(view.name().clone(), RebuildReason::Damaged)]);
    world.catch_up(&mut worker).await;
    let entry = world.entry(&view).await.expect("entry");
    assert_eq!((entry.start, entry.position.offset), (Epoch(1), world.end()), "from the hand-over on");
    world.check("rebuilt").await;

    // Another worker was faster: what it wrote is not thrown away.
    damage(&world, &view).await;
    world.hits(3, 3).await;
    assert_eq!(step(&mut worker).await.failed.len(), 1);
    let mut other = world.worker();
    assert_eq!(other.step(Duration::ZERO).await.expect("a step").failed.len(), 1);
    assert_eq!(step(&mut other).await.rebuilds, [(view.name().clone(), RebuildReason::Damaged)]);
    world.catch_up(&mut other).await;
    assert!(step(&mut worker).await.rebuilds.is_empty());
    world.check("rebuilt by another worker").await;
}

#[tokio::test]
async fn c6_damaged_states_are_rebuilt_in_memory() {
    damaged_states_are_rebuilt(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn c6_damaged_states_are_rebuilt_in_redis() {
    let server = RedisServer::start().unwrap_or_else(|error| panic!("{error}"));
    damaged_states_are_rebuilt(in_redis(&server.url())).await;
}

#[tokio::test]
async fn c3_c7_a_rebuild_folds_the_rows_that_landed_and_not_what_their_records_decode_to_now() {
    let store = Arc::new(MemoryStore::new());
    let mut world = World::new(store.clone(), 0, 0).await;
    world.limits.batch_records_max = 4;
    world.hits(9, 3).await;
    world.append([Written::Cut(1), Written::Broken, world.records[0].clone()]).await;
    world.hits(5, 3).await;
    // The log still has every record, and they decode otherwise than when they landed.
    for record in &mut world.records[..15] {
        if let Written::Hit(hit) = record {
            hit.amount += 1_000;
        }
    }
    world.land(15);
    let mut worker = world.worker();
    world.catch_up(&mut worker).await;
    world.check("from the beginning").await;
    assert_eq!(world.entry(&world.views[0]).await.expect("entry").position, World::position(17, 1));

    store.clear();
    world.publish();
    world.catch_up(&mut world.worker()).await;
    assert_eq!(world.entry(&world.views[0]).await.expect("entry").start, Epoch(1));
    world.check("from the hand-over").await;
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_told_of_until_it_does() {
    let mut world = World::in_memory().await;
    let parts = world.parts();
    let activity = parts.activity.clone();
    let working = activity.begin(&parts.stream.name, PARTITION);
    let mut worker = SpeedWorker::open(parts);
    let failure = || activity.write_failure().unwrap_or_default();
    world.hits(3, 3).await;
    step(&mut worker).await;
    assert_eq!(failure(), "");

    world.store.fault_writes(Some(WriteFault::Refused));
    world.hits(3, 3).await;
    for _ in 0..3 {
        // Every view failed.
        let _ = worker.step(Duration::ZERO).await;
        assert!(failure().contains("it takes no writes"), "{}", failure());
        world.clock.advance(Duration::from_secs(3600));
    }
    world.store.fault_writes(None);
    world.catch_up(&mut worker).await;
    assert_eq!(failure(), "");

    // What was applied all the same is found so, though there is nothing more to write.
    world.store.fault_writes(Some(WriteFault::ReplyLost));
    world.hits(3, 3).await;
    let _ = worker.step(Duration::ZERO).await;
    assert!(failure().contains("the reply is lost"), "{}", failure());
    let calm = step(&mut worker).await;
    assert_eq!((calm.records, failure().as_str()), (0, ""), "{calm:?}");

    world.store.fault_writes(Some(WriteFault::Refused));
    world.hits(3, 3).await;
    let _ = worker.step(Duration::ZERO).await;
    assert!(!failure().is_empty());
    drop(working);
    assert_eq!(failure(), "", "the partition is another process's");
}

#[tokio::test]
async fn an_entry_that_came_back_from_a_copy_waits_for_its_hand_over() {
    let mut world = World::in_memory().await;
    let mut worker = world.worker();
    world.hits(4, 2).await;
    world.catch_up(&mut worker).await;
    let (restored, well) = (world.views[0].clone(), world.views[1].clone());
    let copy = world.store.read(&restored, PARTITION, Epoch(0)).await.expect("read").expect("entry");
    world.hits(4, 2).await;
    world.catch_up(&mut worker).await;

    world.history.past().unavailable = true;
    let newer = world.entry(&restored).await.expect("entry");
    world.store.reset(&restored, PARTITION, Some(&newer), &copy.entry).await.expect("reset");
    world.store.write(&restored, PARTITION, &copy.entry, &copy.entry, &copy.states).await.expect("written");
    world.hits(4, 2).await;
    for _ in 0..3 {
        let waiting = step(&mut worker).await;
        assert!(waiting.failed.iter().any(|(view, _)| view == restored.name()), "{waiting:?}");
    }
    assert_eq!(world.entry(&restored).await, Some(copy.entry), "nobody knows whether it is of any use");
    assert_eq!(offset(&world, &well).await, world.end(), "one that only went on is in line with its hand-over");

    world.history.past().unavailable = false;
    world.catch_up(&mut worker).await;
    world.check("at the end").await;
}

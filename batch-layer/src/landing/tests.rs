//! Landing lands every record exactly once, whatever fails and whoever else lands.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt};
use riomar_event_log::{Clock, Log, quarantine::Quarantine};
use riomar_schemas::{Epoch, Offset, PartitionId, paths, record::RecordBody};

use super::*;
use crate::{
    BatchConfig, BatchLayer,
    testing::{Fault, FaultLog, FaultStore, Fixture, Trouble, expected_rows, land_all, landed_rows, memory},
};

/// A log with duplicates, late events, cuts (one number was never appended) and events that do not decode.
async fn filled() -> Fixture {
    let fixture = Fixture::new().await;
    fill(&fixture).await;
    fixture
}

async fn fill(fixture: &Fixture) {
    fixture.append_events(0..40).await;
    fixture.append_cut(1).await;
    fixture.append(1, RecordBody::Event(Bytes::from_static(b"{\"ts\": 5"))).await;
    fixture.append_events(40..60).await;
    fixture.append_cut(1).await;
    fixture.append_cut(3).await;
    fixture.append_events(56..80).await;
}

/// Commits after every few records, so that there are many commits.
fn small_steps(fixture: &Fixture, store: Arc<dyn ObjectStore>) -> BatchLayer {
    let landing = LandingLimits { step_records: 12, buffered_rows: 10, ..LandingLimits::default() };
    fixture.layer_with(store, BatchConfig { landing, target_partitions: 1, ..BatchConfig::default() })
}

async fn assert_landed_once(fixture: &Fixture, store: &Arc<dyn ObjectStore>, why: &str) {
    assert_landed(fixture, store, 6, why).await;
}

async fn assert_landed(fixture: &Fixture, store: &Arc<dyn ObjectStore>, cuts: u64, why: &str) {
    let layer = fixture.layer(store.clone());
    let stream = fixture.stream();
    let snapshot = layer.master(&stream.name).expect("known").snapshot().await.expect("a snapshot");
    let expected = expected_rows(fixture).await;
    assert_eq!(landed_rows(store, &snapshot).await, expected, "C2 {why}");
    let account = layer.account(&stream.name).await.expect("an account");
    let mut records = 0;
    for partition in [PartitionId(0), PartitionId(1)] {
        let end = fixture.log.bounds(&stream.name, partition).await.expect("bounds").end;
        assert_eq!(snapshot.position(partition).offset, end, "{why}");
        records += end.0;
    }
    assert_eq!(account.landed, expected.len() as u64, "{why}");
    assert_eq!(account.landed + account.duplicates + account.undecodable + cuts, records, "C5 {why}");
    assert_eq!(account.undecodable, 1, "{why}");
}

#[tokio::test]
async fn lands_everything_once_and_counts() {
    let fixture = filled().await;
    let store = memory();
    let layer = small_steps(&fixture, store.clone());
    land_all(&mut layer.landing(&fixture.stream()).expect("known")).await;
    assert_landed_once(&fixture, &store, "undisturbed").await;
    let account = layer.account(&fixture.stream().name).await.expect("an account");
    assert!(account.late > 0 && account.lateness_max_ms > 86_400_000, "C4: {account:?}");
    assert!(account.duplicates >= 8, "{account:?}");
    assert!(account.files > 3, "{account:?}");
    let name = fixture.stream().name.clone();
    let quarantine = Quarantine::new(fixture.log.clone());
    let entries = quarantine.read(&name, Offset(0), 10).await.expect("entries");
    assert_eq!(entries[0].1.raw.as_deref(), Some("{\"ts\": 5"));
    assert_eq!(entries[0].1.position, Some((PartitionId(1), Offset(21))));
}

#[tokio::test]
async fn records_where_cuts_lie_and_which_were_skipped() {
    let fixture = filled().await;
    let store = memory();
    let layer = small_steps(&fixture, store.clone());
    land_all(&mut layer.landing(&fixture.stream()).expect("known")).await;
    let snapshot = layer.master(&fixture.stream().name).expect("known").snapshot().await.expect("a snapshot");
    for (cut, zero, one) in [(1, 21, 21), (3, 33, 34)] {
        let progress = layer.cuts().progress(&snapshot, Epoch(cut)).await.expect("positions");
        let expected = [(PartitionId(0), Offset(zero)), (PartitionId(1), Offset(one))].into();
        assert_eq!((progress.positions, progress.missing.len()), (expected, 0), "cut {cut}");
    }
    let skipped = layer.cuts().progress(&snapshot, Epoch(2)).await;
    assert!(matches!(skipped, Err(BatchError::CutOvertaken { cut: Epoch(2), by: Epoch(3), .. })), "{skipped:?}");
    let ahead = layer.cuts().progress(&snapshot, Epoch(4)).await.expect("positions");
    assert_eq!(ahead.missing, [PartitionId(0), PartitionId(1)]);
}

#[tokio::test]
async fn records_that_do_not_decode_count_against_what_may_be_held() {
    let fixture = Fixture::new().await;
    let landing = LandingLimits { buffered_bytes: 64 << 10, ..LandingLimits::default() };
    let layer = fixture.layer_with(memory(), BatchConfig { landing, ..BatchConfig::default() });
    let mut landing = layer.landing(&fixture.stream()).expect("known");
    let garbage = || RecordBody::Event(Bytes::from(vec![b'x'; 8 << 10]));
    for (count, commits) in [(2, false), (7, true)] {
        for _ in 0..count {
            fixture.append(1, garbage()).await;
        }
        assert_eq!(landing.step().await.expect("a step").committed.is_some(), commits, "{count} more");
    }
    assert_eq!(layer.account(&fixture.stream().name).await.expect("an account").undecodable, 9);
}

#[tokio::test]
async fn numbers_that_a_partition_skipped_cost_nothing() {
    let (fixture, store) = (Fixture::new().await, FaultStore::new(memory(), Fault::never()));
    let layer = fixture.layer(store.clone());
    let mut landing = layer.landing(&fixture.stream()).expect("known");
    fixture.append_cut(1).await;
    land_all(&mut landing).await;
    let before = store.operations();
    fixture.append_cut(50_000).await;
    land_all(&mut landing).await;
    assert!(store.operations() - before < 50, "{} requests", store.operations() - before);
    let snapshot = layer.master(&fixture.stream().name).expect("known").snapshot().await.expect("a snapshot");
    assert!(layer.cuts().progress(&snapshot, Epoch(50_000)).await.expect("landed").missing.is_empty());
    for cut in [2, 49_999] {
        let skipped = layer.cuts().progress(&snapshot, Epoch(cut)).await;
        assert!(matches!(skipped, Err(BatchError::CutOvertaken { by: Epoch(50_000), .. })), "{skipped:?}");
    }
}

#[tokio::test]
async fn survives_a_failure_at_every_operation() {
    let fixture = filled().await;
    let operations = {
        let store = FaultStore::new(memory(), Fault::never());
        let layer = small_steps(&fixture, store.clone());
        land_all(&mut layer.landing(&fixture.stream()).expect("known")).await;
        store.operations()
    };
    assert!(operations > 40, "{operations}");
    for fault in (0..operations).flat_map(Fault::all) {
        let store = memory();
        let layer = small_steps(&fixture, FaultStore::new(store.clone(), fault));
        let mut landing = layer.landing(&fixture.stream()).expect("known");
        for _ in 0..60 {
            // Errors make it begin again, as `run` does.
            if landing.step().await.is_err() && fault.for_good {
                break;
            }
        }
        drop(landing);
        let restarted = small_steps(&fixture, store.clone());
        land_all(&mut restarted.landing(&fixture.stream()).expect("known")).await;
        assert_landed_once(&fixture, &store, &format!("{fault:?}")).await;
    }
}

#[tokio::test]
async fn two_landings_never_land_a_record_twice() {
    let fixture = filled().await;
    let store = memory();
    let (one, other) = (small_steps(&fixture, store.clone()), small_steps(&fixture, store.clone()));
    let mut landings = [one.landing(&fixture.stream()).expect("known"), other.landing(&fixture.stream()).expect("known")];
    let mut refused = 0;
    for step in 0..200_usize {
        // Uneven turns, so that each is behind the other for a while.
        let turn = usize::from(step % 5 < 2);
        match landings[turn].step().await {
            Ok(_) => {}
            Err(BatchError::Conflict { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        fixture.clock.advance(1_000);
    }
    assert!(refused > 0, "the two were never in each other's way");
    assert_landed_once(&fixture, &store, "by two").await;
}

#[tokio::test]
async fn a_partition_added_later_begins_at_the_current_cut() {
    let fixture = Fixture::new().await;
    let store = memory();
    let layer = small_steps(&fixture, store.clone());
    let stream = fixture.stream();
    let mut landing = layer.landing(&stream).expect("known");
    fixture.append_events(0..10).await;
    let cut = layer.cuts().issue(&stream.name).await.expect("a number");
    fixture.append_cut(cut.0).await;
    land_all(&mut landing).await;
    fixture.log.create(&stream.name, 3).await.expect("a third partition");
    fixture.append(2, RecordBody::Event(crate::testing::event(1000))).await;
    fixture.clock.advance(PARTITIONS_CHECK_MS);
    land_all(&mut landing).await;
    let snapshot = layer.master(&stream.name).expect("known").snapshot().await.expect("a snapshot");
    assert_eq!(snapshot.position(PartitionId(2)).epoch, cut);
    let progress = layer.cuts().progress(&snapshot, cut).await.expect("positions");
    assert_eq!(progress.positions.get(&PartitionId(2)), Some(&Offset(0)), "all its records lie behind the cut");
    assert!(store.head(&paths::partition(&stream.name, PartitionId(2))).await.is_ok());
}

#[tokio::test]
async fn a_clock_that_is_set_back_delays_neither_a_commit_nor_a_new_partition() {
    let (fixture, store) = (Fixture::new().await, memory());
    let (stream, layer) = (fixture.stream(), fixture.layer(store));
    let mut landing = layer.landing(&stream).expect("known");
    fixture.append_events(0..10).await;
    assert_eq!(landing.step().await.expect("a step").committed, None, "they are held");
    fixture.clock.advance(-3_600_000);
    assert!(landing.step().await.expect("a step").committed.is_some());
    fixture.log.create(&stream.name, 3).await.expect("a third partition");
    fixture.append(2, RecordBody::Event(crate::testing::event(1000))).await;
    fixture.clock.advance(-3_600_000);
    land_all(&mut landing).await;
    assert_eq!(landed_up_to(&layer, &fixture, PartitionId(2)).await, Offset(1));
    // What a query is told of losses is no older either.
    let master = layer.master(&stream.name).expect("known");
    let before = master.recent(1_000).await.expect("a snapshot").version;
    fixture.append_events(10..20).await;
    let elsewhere = fixture.layer(layer.context().store.clone());
    land_all(&mut elsewhere.landing(&stream).expect("known")).await;
    assert_eq!(master.recent(1_000).await.expect("a snapshot").version, before);
    fixture.clock.advance(-3_600_000);
    assert!(master.recent(1_000).await.expect("a snapshot").version > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_until_told_to_stop_and_flushes() {
    let fixture = Fixture::in_real_time().await;
    fill(&fixture).await;
    let store = memory();
    let layer = fixture.layer(store.clone());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(layer.landing(&fixture.stream()).expect("known").run(async {
        let _ = stopped.await;
    }));
    let deadline_ms = fixture.clock.now_ms() + 30_000;
    while layer.account(&fixture.stream().name).await.expect("an account").landed == 0 {
        assert!(fixture.clock.now_ms() < deadline_ms, "nothing lands");
        tokio::task::yield_now().await;
    }
    stop.send(()).expect("running");
    task.await.expect("ends");
    assert_landed_once(&fixture, &store, "after run").await;
}

/// How far a partition has landed.
async fn landed_up_to(layer: &BatchLayer, fixture: &Fixture, partition: PartitionId) -> Offset {
    let master = layer.master(&fixture.stream().name).expect("known");
    master.snapshot().await.expect("a snapshot").position(partition).offset
}

#[tokio::test]
async fn a_partition_that_cannot_be_read_holds_up_no_other() {
    for (trouble, in_trouble) in
        [(Trouble::Unavailable, 0), (Trouble::Damaged, 0), (Trouble::Unavailable, 1), (Trouble::Damaged, 1)]
    {
        let (fixture, store) = (Fixture::new().await, memory());
        let (name, bad, good) = (fixture.stream().name.clone(), PartitionId(in_trouble), PartitionId(1 - in_trouble));
        let log = FaultLog::new(fixture.log.clone());
        let layer = fixture.layer_over(log.clone(), store.clone(), BatchConfig::default());
        let mut landing = layer.landing(&fixture.stream()).expect("known");
        let why = format!("partition {in_trouble} is {trouble:?}");
        // From the beginning: one that cannot even be opened.
        log.trouble(bad, Some(trouble));
        fill(&fixture).await;
        for _ in 0..3 {
            let error = landing.step().await.expect_err("it is told");
            assert!(matches!(error, BatchError::Log(LogError::Unavailable(_) | LogError::Damaged(_))), "{why}: {error}");
        }
        let end = fixture.log.bounds(&name, good).await.expect("bounds").end;
        assert_eq!(landed_up_to(&layer, &fixture, good).await, end, "{why}");
        log.trouble(bad, None);
        land_all(&mut landing).await;
        assert_landed_once(&fixture, &store, &why).await;

        // While it lands: what was read of it before is committed with what the others have read.
        fixture.append_events(80..100).await;
        landing.step().await.expect("nothing is wrong");
        let held = fixture.log.bounds(&name, bad).await.expect("bounds").end;
        log.trouble(bad, Some(trouble));
        fixture.append_events(100..120).await;
        landing.step().await.expect_err("it is told");
        assert_eq!(landed_up_to(&layer, &fixture, bad).await, held, "{why}");
        fixture.clock.advance(10_000);
        fixture.append_events(120..140).await;
        landing.step().await.expect_err("it is told again");
        landing.flush().await.expect("commits");
        let end = fixture.log.bounds(&name, good).await.expect("bounds").end;
        assert_eq!(landed_up_to(&layer, &fixture, good).await, end, "{why}");
        log.trouble(bad, None);
        land_all(&mut landing).await;
        assert_landed_once(&fixture, &store, &why).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn landing_goes_on_while_nobody_answers_for_a_partition() {
    let (fixture, store) = (Fixture::in_real_time().await, memory());
    let (bad, good) = (PartitionId(0), PartitionId(1));
    let log = FaultLog::new(fixture.log.clone());
    let layer = fixture.layer_over(log.clone(), store.clone(), BatchConfig::default());
    let deadline_ms = fixture.clock.now_ms() + 60_000;
    let until = async |what: &str, is_so: &dyn Fn(Offset, Offset) -> bool| {
        while !is_so(landed_up_to(&layer, &fixture, bad).await, landed_up_to(&layer, &fixture, good).await) {
            assert!(fixture.clock.now_ms() < deadline_ms, "{what}");
            tokio::task::yield_now().await;
        }
    };
    log.trouble(bad, Some(Trouble::Unavailable));
    fill(&fixture).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(layer.landing(&fixture.stream()).expect("known").run(async {
        let _ = stopped.await;
    }));
    until("the other one lands", &|_, good| good > Offset(0)).await;
    // From now on whoever asks for it waits.
    log.trouble(bad, Some(Trouble::Silent));
    let asked = log.asked(bad);
    until("it is tried again", &|_, _| log.asked(bad) > asked).await;
    let before = landed_up_to(&layer, &fixture, good).await;
    fixture.append_events(80..100).await;
    fixture.append_cut(4).await;
    until("the other one lands on meanwhile", &|_, good| good > before).await;
    assert_eq!(landed_up_to(&layer, &fixture, bad).await, Offset(0));
    log.trouble(bad, None);
    until("it lands as well", &|bad, _| bad > Offset(0)).await;
    stop.send(()).expect("running");
    task.await.expect("ends");
    assert_landed(&fixture, &store, 8, "after run").await;
}

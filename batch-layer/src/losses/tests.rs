//! The log loses records before they land: nothing of the partition is skipped until that is accepted, and nothing happens twice.

use std::{collections::BTreeMap, sync::Arc};

use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use riomar_event_log::{Log, Loss};
use riomar_schemas::{Epoch, Offset, PartitionId};

use super::LostRange;
use crate::{
    BatchError, BatchLayer,
    landing::Landing,
    runs::RunRequest,
    testing::{Fault, FaultStore, Fixture, land_all, memory},
};

const P0: PartitionId = PartitionId(0);
const P1: PartitionId = PartitionId(1);

/// Partition 0 has landed 0 to 9, and 10 to 15 are gone, cut 1 among them at 12; 16 to 18 are left. Partition 1 lacks nothing.
async fn fixture(store: &Arc<dyn ObjectStore>) -> (Fixture, LostRange) {
    let fixture = Fixture::new().await;
    let layer = fixture.layer(store.clone());
    fixture.append_events(0..20).await;
    land_all(&mut layer.landing(&fixture.stream()).expect("known")).await;
    fixture.append_events(20..24).await;
    let cut = layer.cuts().issue(&fixture.stream().name).await.expect("a number");
    fixture.append_cut(cut.0).await;
    fixture.append_events(24..36).await;
    fixture.log.trim(&fixture.stream().name, P0, Offset(16)).await.expect("trimmed");
    (fixture, LostRange { partition: P0, from: Offset(10), to: Offset(16) })
}

/// Steps often enough that everything has landed that can.
async fn land_what_can(fixture: &Fixture, landing: &mut Landing) {
    for _ in 0..10 {
        landing.step().await.expect("a step");
        fixture.clock.advance(10_000);
    }
}

/// Offset, epoch, and what was counted, by partition.
async fn landed(fixture: &Fixture, layer: &BatchLayer) -> BTreeMap<PartitionId, (u64, u64, u64, u64)> {
    let snapshot = layer.master(&fixture.stream().name).expect("known").snapshot().await.expect("a snapshot");
    let numbers = snapshot.partitions.iter().map(|(partition, landed)| {
        let records = landed.landed + landed.duplicates;
        (*partition, (landed.position.offset.0, landed.position.epoch.0, records, landed.lost))
    });
    numbers.collect()
}

#[tokio::test]
async fn c2_a_partition_that_lost_records_halts_alone_and_lands_on_once_that_is_accepted() {
    let store = memory();
    let (fixture, lost) = fixture(&store).await;
    let name = fixture.stream().name.clone();
    let layer = fixture.layer(store.clone());
    let mut landing = layer.landing(&fixture.stream()).expect("known");
    land_what_can(&fixture, &mut landing).await;
    assert_eq!(landed(&fixture, &layer).await, [(P0, (10, 0, 10, 0)), (P1, (19, 1, 18, 0))].into(), "the other lands");
    assert_eq!(layer.losses(&name).await.expect("losses").waiting, [lost]);
    let run = layer.runs().accept(&RunRequest::default()).expect("accepted").execute().await;
    let error = run.error.expect("it cannot be done");
    assert!(error.contains("offsets 10 to 16 of partition 0") && error.contains("riomar accept-loss clicks"), "{error}");

    // What is not lost is not accepted.
    let other = |partition, from, to| LostRange { partition: PartitionId(partition), from: Offset(from), to: Offset(to) };
    for wrong in [other(0, 9, 16), other(0, 10, 17), other(0, 10, 10), other(1, 10, 16), other(7, 0, 1)] {
        let refused = layer.accept_loss(&name, &[lost, wrong]).await;
        assert!(matches!(refused, Err(BatchError::NotLost { .. })), "{wrong:?}: {refused:?}");
    }
    assert_eq!(landed(&fixture, &layer).await[&P0], (10, 0, 10, 0), "all of it or nothing");

    let accepted = layer.accept_loss(&name, &[lost]).await.expect("accepted");
    let loss = accepted.accepted[&P0][0];
    let cut = layer.cuts().current(&name).await.expect("a cut");
    assert_eq!((loss.from, loss.to, loss.epoch_before, loss.epoch), (lost.from, lost.to, Epoch(0), cut));
    assert!(accepted.waiting.is_empty() && cut > Epoch(1));
    layer.accept_loss(&name, &[lost]).await.expect("once more");
    assert_eq!(layer.cuts().current(&name).await.expect("a cut"), cut, "nothing happens twice");
    // The landing that was halted all the time goes on, and so does one that begins.
    land_what_can(&fixture, &mut landing).await;
    let (offset, epoch, records, lost_offsets) = landed(&fixture, &layer).await[&P0];
    let end = fixture.log.bounds(&name, P0).await.expect("bounds").end;
    assert_eq!((offset, lost_offsets), (end.0, 6));
    assert!(epoch >= cut.0 && records == 13, "epoch {epoch}, {records} records");
    let account = layer.account(&name).await.expect("an account");
    assert_eq!(account.lost, 6);

    // Cut 1 lay in what was lost; so it was overtaken, and a copy of it that comes later opens nothing.
    fixture.append_cut(1).await;
    land_what_can(&fixture, &mut landing).await;
    let snapshot = layer.master(&name).expect("known").snapshot().await.expect("a snapshot");
    assert!(snapshot.position(P0).epoch >= cut);
    let overtaken = layer.cuts().progress(&snapshot, Epoch(1)).await;
    assert!(matches!(overtaken, Err(BatchError::CutOvertaken { partition: P0, by, .. }) if by == cut), "{overtaken:?}");

    // Every generation from now on is one like any other.
    let stopped = tokio::sync::Notify::new();
    let run = layer.runs().accept(&RunRequest::default()).expect("accepted");
    let run = tokio::join!(
        async {
            let run = run.execute().await;
            stopped.notify_one();
            run
        },
        landing.run(stopped.notified())
    );
    assert_eq!(run.0.error, None, "{run:?}");
    let audit = crate::testing::audit_generation(&layer, &fixture.view()).await;
    assert!(audit.comparison.is_equal(), "{audit:?}");
}

#[tokio::test]
async fn what_was_read_before_it_was_lost_lands_and_the_rest_is_lost() {
    let store = memory();
    let fixture = Fixture::new().await;
    let name = fixture.stream().name.clone();
    let layer = fixture.layer(store.clone());
    let mut landing = layer.landing(&fixture.stream()).expect("known");
    fixture.append_events(0..20).await;
    assert_eq!(landing.step().await.expect("a step").committed, None, "they are held");
    fixture.append_events(20..40).await;
    fixture.log.trim(&name, P0, Offset(15)).await.expect("trimmed");
    let step = landing.step().await.expect("a step");
    assert!(step.committed.is_some(), "what was held of partition 0 lands before it halts");
    assert_eq!(landed(&fixture, &layer).await[&P0], (10, 0, 10, 0));
    land_what_can(&fixture, &mut landing).await;
    let lost = LostRange { partition: P0, from: Offset(10), to: Offset(15) };
    assert_eq!(layer.losses(&name).await.expect("losses").waiting, [lost]);
    assert_eq!(landed(&fixture, &layer).await[&P1], (20, 0, 20, 0));
    // The log loses more before anybody has accepted it: what was seen may be accepted, and the rest waits.
    fixture.log.trim(&name, P0, Offset(18)).await.expect("trimmed");
    let left = layer.accept_loss(&name, &[lost]).await.expect("accepted").waiting;
    assert_eq!(left, [LostRange { from: Offset(15), to: Offset(18), ..lost }]);
    layer.accept_loss(&name, &left).await.expect("accepted");
    land_what_can(&fixture, &mut landing).await;
    let (offset, _, records, lost) = landed(&fixture, &layer).await[&P0];
    assert_eq!((offset, records, lost), (20, 12, 8));
    let history = layer.history().losses(&fixture.stream(), P0).await.expect("losses");
    assert_eq!(history.iter().map(Loss::offsets).collect::<Vec<_>>(), [5, 3]);
    assert!(history[0].epoch < history[1].epoch && history[1].epoch_before == history[0].epoch, "{history:?}");
}

#[tokio::test]
async fn a_log_that_began_before_it_was_first_landed_has_lost_its_beginning() {
    let fixture = Fixture::new().await;
    let (store, name) = (memory(), fixture.stream().name.clone());
    let layer = fixture.layer(store.clone());
    fixture.append_events(0..20).await;
    fixture.log.trim(&name, P1, Offset(4)).await.expect("trimmed");
    let mut landing = layer.landing(&fixture.stream()).expect("known");
    land_what_can(&fixture, &mut landing).await;
    assert_eq!(landed(&fixture, &layer).await, [(P0, (10, 0, 10, 0))].into());
    let lost = [LostRange { partition: P1, from: Offset(0), to: Offset(4) }];
    assert_eq!(layer.losses(&name).await.expect("losses").waiting, lost);
    layer.accept_loss(&name, &lost).await.expect("accepted");
    land_what_can(&fixture, &mut landing).await;
    assert_eq!(landed(&fixture, &layer).await[&P1], (10, 1, 6, 4));
}

#[tokio::test]
async fn the_loss_is_in_the_commit_and_survives_its_removal() {
    let store = memory();
    let (fixture, lost) = fixture(&store).await;
    let name = fixture.stream().name.clone();
    let layer = fixture.layer(store.clone());
    let master = layer.master(&name).expect("known");
    let loss = layer.accept_loss(&name, &[lost]).await.expect("accepted").accepted[&P0][0];
    let version = master.snapshot().await.expect("a snapshot").version;
    let commit = Path::from(format!("{}/_delta_log/{version:020}.json", riomar_schemas::paths::master(&name)));
    let text = store.get(&commit).await.expect("the commit").bytes().await.expect("its text");
    let text = String::from_utf8(text.to_vec()).expect("text");
    assert!(text.contains(r#""riomarLost":[{"from":10,"partition":0,"to":16}]"#), "{text}");

    // A checkpoint stands for it when the commit is gone.
    let mut landing = layer.landing(&fixture.stream()).expect("known");
    while master.snapshot().await.expect("a snapshot").version < 100 {
        fixture.append_events(100..102).await;
        fixture.clock.advance(10_000);
        landing.step().await.expect("a step");
        landing.flush().await.expect("a commit");
    }
    for version in 0..100 {
        let commit = Path::from(format!("{}/_delta_log/{version:020}.json", riomar_schemas::paths::master(&name)));
        store.delete(&commit).await.expect("deleted");
    }
    let reopened = fixture.layer(store);
    let snapshot = reopened.master(&name).expect("known").snapshot().await.expect("a snapshot");
    assert_eq!((snapshot.losses_of(P0), snapshot.losses_of(P1)), ([loss].as_slice(), [].as_slice()));
    assert_eq!(snapshot.partitions[&P0].lost, 6);
}

#[tokio::test]
async fn accepting_survives_a_failure_at_every_operation_and_a_rival() {
    let operations = {
        let plain = memory();
        let (fixture, lost) = fixture(&plain).await;
        let store = FaultStore::new(plain, Fault::never());
        fixture.layer(store.clone()).accept_loss(&fixture.stream().name, &[lost]).await.expect("accepted");
        store.operations()
    };
    assert!(operations > 5, "{operations}");
    for fault in (0..operations).flat_map(Fault::all) {
        let store = memory();
        let (fixture, lost) = fixture(&store).await;
        let name = fixture.stream().name.clone();
        let first = fixture.layer(FaultStore::new(store.clone(), fault)).accept_loss(&name, &[lost]).await;
        let (one, other) = (fixture.layer(store.clone()), fixture.layer(store.clone()));
        let (lost, rival) = ([lost], [lost]);
        let (one_result, other_result) = tokio::join!(one.accept_loss(&name, &lost), other.accept_loss(&name, &rival));
        assert!(one_result.is_ok() || other_result.is_ok(), "{fault:?}: {first:?} {one_result:?} {other_result:?}");
        for result in [one_result, other_result] {
            assert!(matches!(result, Ok(_) | Err(BatchError::Conflict { .. })), "{fault:?}: {result:?}");
        }
        let losses = one.losses(&name).await.expect("losses");
        assert_eq!((losses.accepted[&P0].len(), losses.waiting.len()), (1, 0), "{fault:?}");
        assert_eq!(landed(&fixture, &one).await[&P0].3, 6, "{fault:?}");
    }
}

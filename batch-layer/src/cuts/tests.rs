//! Numbers of cuts, first epochs, and which partitions a cut must be in.

use super::*;
use crate::{
    BatchConfig,
    runs::RunRequest,
    testing::{FaultLog, Fixture, land_all, memory},
};

#[tokio::test]
async fn numbers_have_no_gaps_and_nobody_gets_one_twice() {
    let fixture = Fixture::new().await;
    let store = memory();
    let layers = [fixture.layer(store.clone()), fixture.layer(store.clone())];
    let name = fixture.stream().name.clone();
    assert_eq!(layers[0].cuts().current(&name).await.expect("reads"), Epoch(0));
    for number in 1..=70_u64 {
        let issuer = usize::from(number % 3 == 0);
        assert_eq!(layers[issuer].cuts().issue(&name).await.expect("a number"), Epoch(number));
    }
    let started = fixture.layer(store);
    assert_eq!(started.cuts().current(&name).await.expect("reads"), Epoch(70), "found without a cache");
    let (one, other) = tokio::join!(layers[0].cuts().issue(&name), layers[1].cuts().issue(&name));
    let mut numbers = [one.expect("a number").0, other.expect("a number").0];
    numbers.sort_unstable();
    assert_eq!(numbers, [71, 72]);
}

#[tokio::test]
async fn a_partition_keeps_the_epoch_it_was_first_seen_in() {
    let fixture = Fixture::new().await;
    let store = memory();
    let layer = fixture.layer(store.clone());
    let name = fixture.stream().name.clone();
    layer.cuts().issue(&name).await.expect("a number");
    assert_eq!(layer.cuts().first_epoch(&name, PartitionId(0)).await.expect("registers"), Epoch(1));
    layer.cuts().issue(&name).await.expect("a number");
    for layer in [&layer, &fixture.layer(store)] {
        assert_eq!(layer.cuts().first_epoch(&name, PartitionId(0)).await.expect("reads"), Epoch(1));
    }
    assert_eq!(layer.cuts().first_epoch(&name, PartitionId(1)).await.expect("registers"), Epoch(2));
    for told in ["recorded", "the same"] {
        layer.cuts().record_position(&name, Epoch(1), PartitionId(0), Offset(7)).await.expect(told);
    }
    let damaged = layer.cuts().record_position(&name, Epoch(1), PartitionId(0), Offset(8)).await;
    assert!(matches!(damaged, Err(BatchError::Damaged { .. })), "{damaged:?}");
}

/// Whether it was said that landing must be waited for, or the log asked again; `None` where the cut is said to have landed.
fn refusal(progress: Result<CutProgress, BatchError>) -> Option<String> {
    match progress {
        Ok(progress) if progress.missing.is_empty() => None,
        Ok(progress) => Some(format!("{:?} are missing", progress.missing)),
        Err(BatchError::Log(LogError::Unavailable(what))) => Some(what),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn c3_a_log_that_tells_of_fewer_partitions_is_asked_again_and_nothing_is_published() {
    let fixture = Fixture::new().await;
    let (store, stream) = (memory(), fixture.stream());
    let log = FaultLog::new(fixture.log.clone());
    let layer = fixture.layer_over(log.clone(), store.clone(), BatchConfig::default());
    let elsewhere = fixture.layer(store.clone());
    fixture.append_events(0..20).await;
    let cut = layer.runs().parts().cut(&stream.name).await.expect("a cut");
    let snapshot = layer.master(&stream.name).expect("known").snapshot().await.expect("a snapshot");
    // As many as are declared, though nothing has landed and this process has seen none of them.
    for told in [0, 1] {
        log.tell_partitions(Some(told));
        let begun = fixture.layer_over(log.clone(), store.clone(), BatchConfig::default());
        let refused = refusal(begun.cuts().progress(&snapshot, cut).await);
        assert!(refused.as_ref().is_some_and(|why| why.contains("which has 2")), "{told}: {refused:?}");
        let run = begun.runs().accept(&RunRequest::default()).expect("accepted").execute().await;
        assert!(run.error.is_some(), "{told}: {run:?}");
        let lost = begun.losses(&stream.name).await;
        assert!(lost.is_err(), "whether anything is lost of the others is not known either: {lost:?}");
    }
    log.tell_partitions(None);
    assert!(refusal(layer.cuts().progress(&snapshot, cut).await).is_some_and(|why| why.contains("missing")));
    assert_eq!(layer.generations().current(&fixture.view()).await.expect("reads"), None);

    // A third one is added, and registered below the next cut where somebody has heard of it; what is in it belongs below that cut.
    fixture.log.create(&stream.name, 3).await.expect("a third partition");
    log.tell_partitions(Some(2));
    let first_epoch = elsewhere.cuts().first_epoch(&stream.name, PartitionId(2)).await.expect("registers");
    let next = elsewhere.cuts().issue(&stream.name).await.expect("a number");
    assert!(first_epoch < next);
    fixture.append_cut(next.0).await;
    fixture.append(2, RecordBody::Event(crate::testing::event(1000))).await;
    log.tell_partitions(Some(2));
    let mut landing = layer.landing(&stream).expect("known");
    land_all(&mut landing).await;
    let snapshot = layer.master(&stream.name).expect("known").snapshot().await.expect("a snapshot");
    assert_eq!(snapshot.partitions.len(), 2, "those that the log tells of have landed beyond the cut");
    let refused = refusal(layer.cuts().progress(&snapshot, next).await);
    assert!(refused.as_ref().is_some_and(|why| why.contains("which has 3")), "{refused:?}");
    // No cut is taken either: it would not be sent there.
    let taken = fixture.layer_over(log.clone(), store.clone(), BatchConfig::default()).runs().parts().cut(&stream.name).await;
    assert!(matches!(taken, Err(BatchError::Log(LogError::Unavailable(_)))), "{taken:?}");

    // What has landed of it tells as well, whoever registered it.
    log.tell_partitions(None);
    fixture.append(2, RecordBody::Cut(next)).await;
    land_all(&mut elsewhere.landing(&stream).expect("known")).await;
    let snapshot = elsewhere.master(&stream.name).expect("known").snapshot().await.expect("a snapshot");
    let progress = elsewhere.cuts().progress(&snapshot, next).await.expect("landed");
    assert_eq!((progress.positions.len(), progress.missing.len()), (3, 0));
    log.tell_partitions(Some(2));
    let begun = fixture.layer_over(log, store, BatchConfig::default());
    assert!(refusal(begun.cuts().progress(&snapshot, Epoch(1000)).await).is_some_and(|why| why.contains("which has 3")));
}

//! Incremental generations equal full ones, whatever is late; and a failing recompute changes nothing.

use std::sync::Arc;

use object_store::{ObjectStore, memory::InMemory};
use riomar_event_log::Clock;
use riomar_schemas::{Epoch, GenerationManifest};

use super::*;
use crate::{
    BatchConfig, BatchLayer,
    audit::compare,
    generations::Publication,
    runs::{RunRequest, RunState, ViewOutcome},
    testing::{CountingStore, Fault, FaultStore, Fixture, land_all, memory, values_from_rows, values_of_generation},
};

/// Cuts, lands and publishes the next generation of the fixture's view.
async fn recompute(fixture: &Fixture, layer: &BatchLayer, full: bool) -> Arc<GenerationManifest> {
    let stream = fixture.stream();
    let parts = layer.runs().parts();
    let cut = parts.cut(&stream.name).await.expect("a cut");
    land_all(&mut layer.landing(&stream).expect("known")).await;
    let landed = parts.landed_cut(&stream.name, cut).await.expect("reads").expect("landed");
    let view = fixture.view();
    let manifest = parts.prepare(&view, &landed, full, &Progress::default()).await.expect("computes").expect("something new");
    match layer.generations().publish(&view, manifest).await.expect("publishes") {
        Publication::Published(manifest) => manifest,
        Publication::LostRace => panic!("nobody else publishes"),
    }
}

#[tokio::test]
async fn incremental_generations_equal_full_ones() {
    let fixture = Fixture::new().await;
    let layer = fixture.layer(memory());
    let view = fixture.view();
    let mut numbers = 0;
    for (round, events) in [300, 7, 0, 120, 1, 500].into_iter().enumerate() {
        fixture.append_events(numbers..numbers + events).await;
        numbers += events;
        let manifest = recompute(&fixture, &layer, false).await;
        assert_eq!(manifest.generation, round as u64 + 1);
        assert_eq!((manifest.cut, manifest.previous_cut), (Epoch(round as u64 + 1), Epoch(round as u64)));
        assert_eq!(manifest.full, round == 0);
        let (rows, states) = (values_from_rows(&layer, &view, manifest.cut).await, values_of_generation(&layer, &view).await);
        let comparison = compare(&view, &rows, &states).expect("compares");
        assert!(comparison.is_equal(), "C7 in round {round}: {comparison:?}");
        assert_eq!(comparison.groups, manifest.groups, "round {round}");
        assert!(manifest.groups > 0);
    }
    let incremental = values_of_generation(&layer, &view).await;
    let manifest = recompute(&fixture, &layer, true).await;
    assert!(manifest.full);
    let comparison = compare(&view, &incremental, &values_of_generation(&layer, &view).await).expect("compares");
    assert!(comparison.is_equal(), "C7: {comparison:?}");
    assert!(manifest.files.len() > 1, "late events fall into a window partition of their own");
    assert!(manifest.event_time_max_us.len() == 2 && manifest.positions.len() == 2);
}

#[tokio::test]
async fn only_touched_window_partitions_are_written() {
    let fixture = Fixture::new().await;
    let layer = fixture.layer(memory());
    fixture.append_events(0..40).await;
    let first = recompute(&fixture, &layer, false).await;
    assert_eq!(first.files.len(), 2);
    // None of these is late, so only the later window partition changes.
    fixture.append_events(43..48).await;
    let second = recompute(&fixture, &layer, false).await;
    assert_eq!(second.files[0], first.files[0], "shared");
    assert_ne!(second.files[1], first.files[1], "written anew");
    let third = recompute(&fixture, &layer, false).await;
    assert_eq!((third.generation, third.cut), (3, Epoch(3)), "nothing happened, and the epochs are let go of");
    assert_eq!(third.files, second.files);
}

#[tokio::test]
async fn an_increment_opens_new_rows_and_touched_states_only() {
    let fixture = Fixture::new().await;
    let store = CountingStore::new(memory());
    let layer = fixture.layer(store.clone());
    let (stream, view) = (fixture.stream(), fixture.view());
    fixture.append_events(0..40).await;
    let first = recompute(&fixture, &layer, false).await;
    let master = layer.master(&stream.name).expect("known");
    let before = master.snapshot().await.expect("a snapshot");
    // None of these is late, so only the later window partition is touched.
    fixture.append_events(43..48).await;
    let parts = layer.runs().parts();
    let cut = parts.cut(&stream.name).await.expect("a cut");
    land_all(&mut layer.landing(&stream).expect("known")).await;
    let landed = parts.landed_cut(&stream.name, cut).await.expect("reads").expect("landed");
    let (rows, states) = (riomar_schemas::paths::master(&stream.name), riomar_schemas::paths::generation_data(&view));
    for (folder, expected) in [
        (rows, {
            let after = master.snapshot().await.expect("a snapshot");
            after.files.keys().filter(|name| !before.files.contains_key(*name)).cloned().collect::<BTreeSet<_>>()
        }),
        (states, BTreeSet::from([first.files[1].path.rsplit('/').next().expect("a name").to_owned()])),
    ] {
        store.take_parquet_in(&folder);
        parts.prepare(&view, &landed, false, &Progress::default()).await.expect("computes").expect("something new");
        assert_eq!(expected.len(), 1);
        assert_eq!(store.take_parquet_in(&folder), expected, "in {folder}");
    }
}

#[tokio::test]
async fn too_many_groups_leave_the_generation_before() {
    let fixture = Fixture::new().await;
    let store = memory();
    fixture.append_events(0..20).await;
    let layer = fixture.layer(store.clone());
    let first = recompute(&fixture, &layer, false).await;
    let limited = BatchConfig { groups_per_view_max: first.groups + 1, ..BatchConfig::default() };
    let layer = fixture.layer_with(store, limited);
    fixture.append_events(20..200).await;
    let cut = layer.runs().parts().cut(&fixture.stream().name).await.expect("a cut");
    land_all(&mut layer.landing(&fixture.stream()).expect("known")).await;
    let landed = layer.runs().parts().landed_cut(&fixture.stream().name, cut).await.expect("reads").expect("landed");
    let refused = layer.runs().parts().prepare(&fixture.view(), &landed, false, &Progress::default()).await;
    assert!(matches!(refused, Err(BatchError::TooManyGroups { .. })), "C9: {refused:?}");
    let current = layer.generations().current(&fixture.view()).await.expect("reads").expect("published");
    assert_eq!(current, first, "C8");
}

#[tokio::test]
async fn a_run_that_fails_anywhere_leaves_a_whole_generation() {
    let fixture = Fixture::new().await;
    let base = Arc::new(InMemory::new());
    let view = fixture.view();
    {
        let layer = fixture.layer(base.clone());
        fixture.append_events(0..60).await;
        recompute(&fixture, &layer, false).await;
        fixture.append_events(60..90).await;
        layer.runs().parts().cut(&fixture.stream().name).await.expect("a cut");
        land_all(&mut layer.landing(&fixture.stream()).expect("known")).await;
    }
    let cut = Epoch(2);
    let prepare_and_publish = |store: Arc<dyn ObjectStore>| {
        let layer = fixture.layer(store);
        let (stream, view) = (fixture.stream(), view.clone());
        async move {
            let parts = layer.runs().parts();
            let landed = parts.landed_cut(&stream.name, cut).await?.expect("landed");
            match parts.prepare(&view, &landed, false, &Progress::default()).await? {
                Some(manifest) => layer.generations().publish(&view, manifest).await.map(|_| ()),
                None => Ok(()),
            }
        }
    };
    let operations = {
        let store = FaultStore::new(Arc::new(base.fork()), Fault::never());
        prepare_and_publish(store.clone()).await.expect("undisturbed");
        store.operations()
    };
    assert!(operations > 10, "{operations}");
    for fault in (0..operations).flat_map(Fault::all) {
        let store = Arc::new(base.fork());
        let _ = prepare_and_publish(FaultStore::new(store.clone(), fault)).await;
        let layer = fixture.layer(store.clone());
        let current = layer.generations().current(&view).await.expect("reads").expect("C8: one is always there");
        assert!(current.generation <= 2, "{fault:?}");
        let check = async |layer: &BatchLayer, cut: Epoch| {
            let rows = values_from_rows(layer, &view, cut).await;
            compare(&view, &rows, &values_of_generation(layer, &view).await).expect("compares")
        };
        assert!(check(&layer, current.cut).await.is_equal(), "C8 {fault:?}");
        prepare_and_publish(store).await.expect("the next run");
        let current = layer.generations().current(&view).await.expect("reads").expect("published");
        assert_eq!((current.generation, current.cut), (2, cut), "{fault:?}");
        assert!(check(&layer, cut).await.is_equal(), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_cut_wait_and_publish_while_landing_runs() {
    let fixture = Fixture::in_real_time().await;
    let layer = Arc::new(fixture.layer(memory()));
    fixture.append_events(0..100).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let landing = tokio::spawn(layer.landing(&fixture.stream()).expect("known").run(async {
        let _ = stopped.await;
    }));
    let run = layer.runs().start(&RunRequest::default()).await.expect("accepted");
    let again = layer.runs().start(&RunRequest::default()).await.expect_err("overlapping");
    assert!(matches!(again, BatchError::RunInProgress { run: other, .. } if other == run.id), "{again}");
    let run = layer.runs().wait(run.id).await.expect("known");
    assert_eq!(run.state, RunState::Done, "{run:?}");
    let ViewOutcome::Published { generation: 1, rows, .. } = run.results[0].outcome else { panic!("{run:?}") };
    assert!(rows > 80, "{rows}");
    let report = crate::testing::audit_generation(&layer, &fixture.view()).await;
    assert!(report.comparison.is_equal() && report.comparison.groups > 0, "{report:?}");
    let unknown = RunRequest { views: vec![crate::testing::name("nowhere")], full: false };
    assert!(matches!(layer.runs().start(&unknown).await, Err(BatchError::UnknownView(_))));
    stop.send(()).expect("running");
    landing.await.expect("ends");
}

#[tokio::test]
async fn a_run_fails_when_nobody_lands() {
    let fixture = Fixture::new().await;
    let layer = fixture.layer(memory());
    fixture.append_events(0..4).await;
    let run = layer.runs().accept(&RunRequest::default()).expect("accepted").execute().await;
    assert_eq!(run.state, RunState::Failed);
    assert!(run.error.as_deref().is_some_and(|error| error.contains("is landing running?")), "{run:?}");
    assert!(layer.generations().current(&fixture.view()).await.expect("reads").is_none());
    let dropped = layer.runs().accept(&RunRequest::default()).expect("free again");
    let id = dropped.id();
    drop(dropped);
    assert_eq!(layer.runs().get(id).expect("known").state, RunState::Failed, "a dropped run is over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schedule_publishes_by_itself() {
    let fixture = Fixture::in_real_time().await;
    let layer = Arc::new(fixture.layer(memory()));
    fixture.append_events(0..30).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let until_stopped = || {
        let mut stopped = stopped.clone();
        async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
    };
    let landing = tokio::spawn(layer.landing(&fixture.stream()).expect("known").run(until_stopped()));
    let scheduled = tokio::spawn({
        let (layer, stopped) = (layer.clone(), until_stopped());
        async move { layer.run_schedule(&"1s".parse().expect("a schedule"), stopped).await }
    });
    let deadline_ms = fixture.clock.now_ms() + 30_000;
    while layer.generations().current(&fixture.view()).await.expect("reads").is_none_or(|current| current.generation < 2) {
        assert!(fixture.clock.now_ms() < deadline_ms, "nothing is published: {:?}", layer.runs().all());
        tokio::task::yield_now().await;
    }
    stop.send_replace(true);
    landing.await.expect("ends");
    scheduled.await.expect("ends");
}

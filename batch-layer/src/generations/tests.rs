//! Publishing, finding and removing generations.

use std::collections::BTreeMap;

use object_store::{ObjectStoreExt, PutPayload};
use riomar_event_log::Clock;
use riomar_schemas::{Epoch, GenerationManifest, Offset, PartitionId, paths};

use super::*;
use crate::{
    BatchConfig, BatchLayer,
    testing::{Fixture, memory},
};

fn manifest(view: &View, generation: u64, files: &[&str], created_at_ms: i64) -> GenerationManifest {
    let file = |name: &&str| GenerationFile {
        window_partition: 0,
        path: paths::generation_data(view).join(*name).to_string(),
        bytes: 1,
        groups: 1,
    };
    GenerationManifest {
        format: MANIFEST_FORMAT,
        view: view.name().clone(),
        fingerprint: view.fingerprint().to_owned(),
        generation,
        cut: Epoch(generation),
        previous_cut: Epoch(generation - 1),
        positions: BTreeMap::from([(PartitionId(0), Offset(generation))]),
        event_time_max_us: BTreeMap::new(),
        master_version: 0,
        full: false,
        groups: files.len() as u64,
        created_at_ms,
        files: files.iter().map(file).collect(),
    }
}

async fn current(layer: &BatchLayer, view: &View) -> u64 {
    number(layer.generations().current(view).await.expect("reads").as_deref())
}

#[tokio::test]
async fn one_of_two_racing_publishes_wins() {
    let fixture = Fixture::new().await;
    let store = memory();
    let (one, other) = (fixture.layer(store.clone()), fixture.layer(store));
    let view = fixture.view();
    assert_eq!((current(&one, &view).await, current(&other, &view).await), (0, 0));
    let won = one.generations().publish(&view, manifest(&view, 1, &["a"], 1)).await.expect("publishes");
    assert!(matches!(won, Publication::Published(_)));
    let lost = other.generations().publish(&view, manifest(&view, 1, &["b"], 1)).await.expect("loses");
    assert_eq!(lost, Publication::LostRace, "C8");
    let (seen, also) = (one.generations().current(&view).await, other.generations().current(&view).await);
    assert_eq!(seen.expect("reads"), also.expect("reads"));
    let hand_over = other.history().hand_over(&view).await.expect("reads");
    assert_eq!((hand_over.generation, hand_over.position(PartitionId(0))), (1, Offset(1)));
}

/// C8: a run stands still for so long that its generation was published by others, replaced and removed.
#[tokio::test]
async fn a_number_that_was_removed_is_not_published_again() {
    let fixture = Fixture::new().await;
    let store = memory();
    let retention = Retention { generations: 2, grace_ms: 10_000, orphan_age_ms: i64::MAX };
    let new_layer = || fixture.layer_with(store.clone(), BatchConfig { retention, ..BatchConfig::default() });
    let (leader, paused) = (new_layer(), new_layer());
    let view = fixture.view();
    let publish = async |generation| {
        let manifest = manifest(&view, generation, &[], fixture.clock.now_ms());
        let published = leader.generations().publish(&view, manifest).await.expect("publishes");
        assert!(matches!(published, Publication::Published(_)), "{generation}: {published:?}");
        fixture.clock.advance(10_000);
    };
    // Two runs begin from nothing, and one from generation 1.
    let prepared =
        |number| GenerationManifest { cut: Epoch(100 + number), ..manifest(&view, number, &[], fixture.clock.now_ms()) };
    let (first, second) = (prepared(1), prepared(2));
    publish(1).await;
    assert_eq!(current(&paused, &view).await, 1);
    for generation in 2..=5 {
        publish(generation).await;
    }
    assert_eq!(leader.generations().remove_old(&view).await.expect("removes").generations, 3);
    let numbers = async || {
        let manifests = leader.generations().list(&view).await.expect("lists");
        manifests.iter().filter_map(paths::number).collect::<Vec<_>>()
    };
    assert_eq!(numbers().await, [4, 5]);
    for late in [first, second] {
        let generation = late.generation;
        assert_eq!(paused.generations().publish(&view, late).await.expect("is told"), Publication::LostRace, "{generation}");
        assert_eq!(numbers().await, [4, 5], "{generation}");
        assert_eq!((current(&paused, &view).await, current(&leader, &view).await), (5, 5));
    }
    publish(6).await;
    assert_eq!(leader.generations().remove_old(&view).await.expect("removes").generations, 1, "generations go as before");
}

#[test]
fn what_others_have_built_on_stands() {
    let catalog = riomar_schemas::Catalog::parse([("s.sql", crate::testing::SQL)]).expect("valid definitions");
    let view = catalog.views().next().expect("a view");
    let created = GenerationManifest { cut: Epoch(70), ..manifest(view, 7, &[], 1) };
    let next = |previous_cut| GenerationManifest { previous_cut: Epoch(previous_cut), ..manifest(view, 8, &[], 1) };
    for (highest, next, expected, why) in [
        (7, None, true, "it is the current one"),
        (8, Some(next(70)), true, "somebody was quick"),
        (8, Some(next(69)), false, "it follows another one of this number"),
        (9, None, false, "its follower is removed, so it was as well"),
    ] {
        assert_eq!(stands(&created, highest, next.as_ref()), expected, "{why}");
    }
}

#[tokio::test]
async fn old_generations_go_and_a_reader_that_slept_finds_the_newest() {
    let fixture = Fixture::new().await;
    let store = memory();
    let retention = Retention { generations: 2, grace_ms: 10_000, orphan_age_ms: i64::MAX };
    let layer = fixture.layer_with(store.clone(), BatchConfig { retention, ..BatchConfig::default() });
    let sleeper = fixture.layer_with(store.clone(), BatchConfig { retention, ..BatchConfig::default() });
    let view = fixture.view();
    let put = async |name: &str| {
        let path = paths::generation_data(&view).join(name);
        store.put(&path, PutPayload::from_static(b"x")).await.expect("written");
    };
    for name in ["shared", "one", "two", "orphan"] {
        put(name).await;
    }
    let now_ms = || fixture.clock.now_ms();
    for (generation, files) in [(1, vec!["shared", "one"]), (2, vec!["shared", "two"]), (3, vec!["shared"]), (4, vec!["shared"])]
    {
        layer.generations().publish(&view, manifest(&view, generation, &files, now_ms())).await.expect("publishes");
        if generation == 1 {
            assert_eq!(current(&sleeper, &view).await, 1);
        }
        fixture.clock.advance(4_000);
    }
    // Generations 1 and 2 were replaced 12 and 8 seconds ago.
    let removed = layer.generations().remove_old(&view).await.expect("removes");
    assert_eq!(removed, Removed { generations: 1, files: 1 });
    let left = async || {
        let objects = crate::objects::list(layer.context(), &paths::generation_data(&view)).await.expect("lists");
        objects.into_iter().filter_map(|object| object.location.filename().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(left().await, ["orphan", "shared", "two"]);
    fixture.clock.advance(4_000);
    assert_eq!(layer.generations().remove_old(&view).await.expect("removes"), Removed { generations: 1, files: 1 });
    assert_eq!(left().await, ["orphan", "shared"]);
    assert_eq!(current(&sleeper, &view).await, 4, "though generations 1 and 2 are gone");
    assert_eq!(current(&fixture.layer(store.clone()), &view).await, 4, "after a start");
}

#[tokio::test]
async fn a_reader_whose_clock_was_set_back_finds_the_newest() {
    let fixture = Fixture::new().await;
    let store = memory();
    let retention = Retention { generations: 1, grace_ms: 0, orphan_age_ms: i64::MAX };
    let [reader, publisher] = [Retention::default(), retention]
        .map(|retention| fixture.layer_with(store.clone(), BatchConfig { retention, ..BatchConfig::default() }));
    let view = fixture.view();
    for generation in 1..=4 {
        let manifest = manifest(&view, generation, &[], fixture.clock.now_ms());
        publisher.generations().publish(&view, manifest).await.expect("publishes");
        if generation == 1 {
            assert_eq!(current(&reader, &view).await, 1);
        }
    }
    assert_eq!(publisher.generations().remove_old(&view).await.expect("removes").generations, 3);
    // Since it looked hours have passed, though its clock tells of none.
    fixture.clock.advance(-3_600_000);
    assert_eq!(current(&reader, &view).await, 4);
}

#[tokio::test]
async fn what_others_wrote_is_refused() {
    let fixture = Fixture::new().await;
    let view = fixture.view();
    for (bad, why) in [
        (GenerationManifest { format: MANIFEST_FORMAT + 1, ..manifest(&view, 1, &[], 1) }, "a later format"),
        (GenerationManifest { fingerprint: "0".repeat(16), ..manifest(&view, 1, &[], 1) }, "another definition"),
    ] {
        let store = memory();
        let layer = fixture.layer(store);
        layer.generations().publish(&view, bad).await.expect("written");
        let reader = fixture.layer(layer.context().store.clone());
        let refused = reader.generations().current(&view).await;
        assert!(matches!(refused, Err(BatchError::Damaged { .. })), "{why}: {refused:?}");
    }
}

#[tokio::test]
async fn a_view_without_generations_has_no_states() {
    let fixture = Fixture::new().await;
    let layer = fixture.layer(memory());
    let view = fixture.view();
    let states = layer.generations().states(&view, &manifest(&view, 1, &[], 1)).expect("a plan");
    let rows = riomar_schemas::session::collect(&layer.context().session(), states).await.expect("runs");
    assert_eq!(rows.iter().map(arrow::record_batch::RecordBatch::num_rows).sum::<usize>(), 0);
}

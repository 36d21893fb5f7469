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

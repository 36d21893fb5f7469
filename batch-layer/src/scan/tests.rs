//! A scan opens the files that can hold what it selects, and no others.

use std::collections::BTreeSet;

use bytes::Bytes;
use object_store::ObjectStore;
use riomar_schemas::{Epoch, Offset, PartitionId, paths, record::RecordBody, session::collect};

use crate::{
    master::{FileStats, MasterSnapshot, RowSelection},
    testing::{CountingStore, Fixture, land_all, memory},
};

const HOUR_US: i64 = 3_600_000_000;
/// 2026-11-20T00:00:00Z.
const DAY_US: i64 = 1_795_132_800_000_000;

fn event(hour: u64) -> RecordBody {
    let text = format!(r#"{{"event_id": "{hour}", "ts": "2026-11-20T{hour:02}:30:00Z", "path": "/"}}"#);
    RecordBody::Event(Bytes::from(text))
}

/// Files 0 to 3 hold an event of each partition, in an epoch and an hour of their own; file 4 one of partition 1.
async fn landed(fixture: &Fixture, store: std::sync::Arc<dyn ObjectStore>) -> (crate::BatchLayer, MasterSnapshot) {
    let layer = fixture.layer(store);
    let mut landing = layer.landing(&fixture.stream()).expect("known");
    for file in 0..5 {
        for partition in 0..2 {
            if file < 4 || partition == 1 {
                fixture.append(partition, event(file)).await;
            }
        }
        land_all(&mut landing).await;
        fixture.append_cut(file + 1).await;
    }
    land_all(&mut landing).await;
    let snapshot = layer.master(&fixture.stream().name).expect("known").snapshot().await.expect("a snapshot");
    assert_eq!(snapshot.files.len(), 5);
    (layer, MasterSnapshot::clone(&snapshot))
}

#[tokio::test]
async fn opens_only_files_that_can_match() {
    let fixture = Fixture::new().await;
    let store = CountingStore::new(memory());
    let (layer, mut snapshot) = landed(&fixture, store.clone()).await;
    let folder = paths::master(&fixture.stream().name);
    let mut names: Vec<_> = snapshot.files.values().map(|file| (file.stats.epoch, file.name.clone())).collect();
    names.sort();
    let hours = |from: i64, to: i64| Some(DAY_US + from * HOUR_US..DAY_US + to * HOUR_US);
    let cases: [(RowSelection, &[usize], usize); 9] = [
        (RowSelection::default(), &[0, 1, 2, 3, 4], 9),
        (RowSelection::epochs(Epoch(2)..Epoch(3)), &[2], 2),
        (RowSelection::before(Epoch(2)), &[0, 1], 4),
        (RowSelection::epochs(Epoch(3)..Epoch(u64::MAX)), &[3, 4], 3),
        (RowSelection::epochs(Epoch(7)..Epoch(9)), &[], 0),
        // An event and a cut in each epoch.
        (RowSelection { offsets: Some(Offset(3)..Offset(5)), ..RowSelection::default() }, &[2], 2),
        (RowSelection { partition: Some(PartitionId(0)), ..RowSelection::default() }, &[0, 1, 2, 3], 4),
        (RowSelection { event_time_us: hours(1, 3), ..RowSelection::default() }, &[1, 2], 4),
        (RowSelection { event_time_us: hours(0, 2), ..RowSelection::epochs(Epoch(1)..Epoch(4)) }, &[1], 2),
    ];
    // A file that says nothing of itself is opened by every scan, and spoils nothing for the others.
    for unknown in [None, Some(3), Some(0)] {
        if let Some(file) = unknown.and_then(|file: usize| snapshot.files.get_mut(&names[file].1)) {
            file.stats = FileStats { rows: file.stats.rows, ..FileStats::default() };
        }
        for (selection, files, rows) in &cases {
            store.take_parquet_in(&folder);
            let plan = snapshot.scan(selection).expect("plans");
            // A process of its own: no footer is remembered.
            let layer = fixture.layer(store.clone());
            let found = collect(&layer.context().session(), plan).await.expect("reads");
            assert_eq!(found.iter().map(|batch| batch.num_rows()).sum::<usize>(), *rows, "{selection:?}");
            let unknowns = [3, 0].into_iter().filter(|file| unknown == Some(0) || unknown == Some(*file));
            let expected: BTreeSet<_> = files.iter().copied().chain(unknowns).map(|file| names[file].1.clone()).collect();
            assert_eq!(store.take_parquet_in(&folder), expected, "{selection:?} with {unknown:?} unknown");
        }
    }
    // No files, no bounds.
    snapshot.files.clear();
    let plan = snapshot.scan(&RowSelection::before(Epoch(2))).expect("plans");
    assert!(collect(&layer.context().session(), plan).await.expect("reads").iter().all(|batch| batch.num_rows() == 0));
}

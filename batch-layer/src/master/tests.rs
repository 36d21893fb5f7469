//! Commits of the master dataset: conflicts, lost answers, checkpoints, and reading it as a Delta table.

use std::{collections::BTreeMap, sync::Arc};

use deltalake_core::DeltaTableBuilder;
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem};
use riomar_event_log::{Clock, SystemClock};
use riomar_infra::S3Server;
use riomar_schemas::{Epoch, Offset, PartitionId, ReaderPosition, paths};

use super::{checkpoint::table_url, *};
use crate::testing::{Fault, FaultStore, Fixture, S3Client, bucket, memory};

fn file(number: u64) -> DataFile {
    let stats = FileStats { rows: 1, epoch: Some((0, 0)), ..FileStats::default() };
    DataFile { name: format!("{number:04}.parquet"), bytes: 10, created_at_ms: 5, stats }
}

/// Landing of one record a commit in partition 0.
fn landing_of(number: u64) -> Change {
    let position = ReaderPosition { offset: Offset(number + 1), epoch: Epoch(0) };
    let to = LandedPartition { landed: number + 1, event_time_max_us: Some(-5), ..LandedPartition::starting_at(position) };
    let advance = Advance { from: Offset(number), to };
    Change { adds: vec![file(number)], advances: BTreeMap::from([(PartitionId(0), advance)]), ..Change::default() }
}

async fn assert_delta_reads_the_same(store: Arc<dyn ObjectStore>, snapshot: &MasterSnapshot) {
    let url = table_url(&paths::master(&snapshot.stream.name)).expect("a url");
    let table = DeltaTableBuilder::from_url(url.clone()).expect("a builder").with_storage_backend(store, url).load().await;
    let table = table.expect("a Delta table");
    assert_eq!(table.version(), Some(snapshot.version));
    let mut names: Vec<_> = table.get_file_uris().expect("files").collect();
    names.sort();
    let names: Vec<_> = names.iter().map(|uri| uri.rsplit('/').next().expect("a name").to_owned()).collect();
    assert_eq!(names, snapshot.files.keys().cloned().collect::<Vec<_>>());
    let state = table.snapshot().expect("a state");
    let fields: Vec<_> = state.schema().fields().map(|field| field.name().clone()).collect();
    let declared: Vec<_> = snapshot.stream.row_schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(fields, declared);
    let offset = state.transaction_version(table.log_store().as_ref(), "riomar/0/offset").await.expect("a txn");
    assert_eq!(offset, snapshot.partitions.get(&PartitionId(0)).map(|landed| landed.position.offset.0.cast_signed()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_a_delta_table_with_checkpoints() {
    let fixture = Fixture::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).expect("a store"));
    let server = S3Server::start().expect("a server");
    for store in [memory(), local, bucket(&server, S3Client::default())] {
        let layer = fixture.layer(store.clone());
        let master = layer.master(&fixture.stream().name).expect("known");
        for number in 0..120 {
            master.commit(&landing_of(number)).await.expect("committed");
            if number == 60 {
                let merge = Change { adds: vec![file(900)], removes: vec![file(3).name, file(4).name], ..Change::default() };
                master.commit(&merge).await.expect("committed");
            }
        }
        let snapshot = master.snapshot().await.expect("a snapshot");
        assert_eq!((snapshot.version, snapshot.files.len(), snapshot.removed.len()), (121, 119, 2));
        assert_delta_reads_the_same(store.clone(), &snapshot).await;
        // Without the commits before the checkpoint, only the checkpoint can tell of them.
        let folder = log_folder(&fixture.stream().name);
        for version in 0..100 {
            store.delete(&folder.clone().join(format!("{version:020}.json"))).await.expect("deleted");
        }
        let reopened = fixture.layer(store.clone());
        let again = reopened.master(&fixture.stream().name).expect("known").snapshot().await.expect("a snapshot");
        assert_eq!(again.version, snapshot.version);
        assert_eq!(again.files, snapshot.files);
        assert_eq!(again.partitions, snapshot.partitions);
        assert_eq!(again.removed, snapshot.removed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_commits_go_and_the_table_stays() {
    let fixture = Fixture::new().await;
    let store = memory();
    let name = fixture.stream().name.clone();
    let (layer, sleeper) = (fixture.layer(store.clone()), fixture.layer(store.clone()));
    let (master, sleeper) = (layer.master(&name).expect("known"), sleeper.master(&name).expect("known"));
    let land = async |numbers: std::ops::Range<u64>| {
        for number in numbers {
            master.commit(&landing_of(number)).await.expect("committed");
        }
    };
    land(0..50).await;
    let behind = sleeper.snapshot().await.expect("a snapshot");
    land(50..230).await;
    assert_eq!(master.remove_old_commits().await.expect("removes"), 0, "all are young");
    land(230..310).await;
    // Objects are stamped by the machine's clock, which the test's clock may be behind or ahead of by days.
    fixture.clock.advance(SystemClock.now_ms() - fixture.clock.now_ms());
    fixture.clock.advance(cleanup::COMMITS_RETAIN_MS + 60_000);
    assert_eq!(master.remove_old_commits().await.expect("removes"), 302, "300 commits and two checkpoints");
    assert_eq!(master.remove_old_commits().await.expect("removes"), 0);
    let snapshot = master.snapshot().await.expect("a snapshot");
    assert_eq!((snapshot.version, snapshot.files.len()), (310, 310));
    assert_delta_reads_the_same(store.clone(), &snapshot).await;

    // Who stood still all the time reads the table anew, and cannot put a commit where others were: not even with the last step.
    let same = |found: &MasterSnapshot| assert_eq!((found.version, &found.files), (310, &snapshot.files));
    *sleeper.newest.lock().await = Some(Newest { snapshot: behind.clone(), at_ms: i64::MAX / 2 });
    let refused = sleeper.commit(&landing_of(50)).await.expect_err("C2: version 51 was taken");
    assert!(matches!(refused, BatchError::Conflict { .. }), "{refused}");
    assert!(objects::read(layer.context(), &commit_path(&name, 51)).await.expect("reads").is_none(), "taken back");
    same(sleeper.snapshot().await.expect("a snapshot").as_ref());
    *sleeper.newest.lock().await = Some(Newest { snapshot: behind, at_ms: fixture.clock.now_ms() - FOLLOW_MAX_MS });
    same(sleeper.snapshot().await.expect("a snapshot").as_ref());

    // Without the note the checkpoint is found all the same; without both nothing is begun anew.
    let folder = log_folder(&name);
    store.delete(&folder.clone().join("_last_checkpoint")).await.expect("deleted");
    same(fixture.layer(store.clone()).master(&name).expect("known").snapshot().await.expect("a snapshot").as_ref());
    store.delete(&folder.join(format!("{:020}.checkpoint.parquet", 300))).await.expect("deleted");
    let refused = fixture.layer(store).master(&name).expect("known").snapshot().await.expect_err("no checkpoint");
    assert!(matches!(refused, BatchError::Damaged { .. }), "{refused}");
}

#[tokio::test]
async fn refuses_what_does_not_fit() {
    let fixture = Fixture::new().await;
    let store = memory();
    let (one, other) = (fixture.layer(store.clone()), fixture.layer(store.clone()));
    let (one, other) = (one.master(&fixture.stream().name).expect("known"), other.master(&fixture.stream().name).expect("known"));
    one.commit(&landing_of(0)).await.expect("committed");
    let refused = other.commit(&landing_of(0)).await.expect_err("C2: the same records");
    assert!(matches!(refused, BatchError::Conflict { .. }), "{refused}");
    one.commit(&landing_of(1)).await.expect("committed");
    let merge = || Change { adds: vec![file(100)], removes: vec![file(0).name, file(1).name], ..Change::default() };
    one.commit(&merge()).await.expect("merged");
    let refused = other.commit(&merge()).await.expect_err("the files are gone");
    assert!(matches!(refused, BatchError::Conflict { .. }), "{refused}");
    other.commit(&landing_of(2)).await.expect("landing and merging get along");
    let snapshot = one.snapshot().await.expect("a snapshot");
    assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), ["0002.parquet", "0100.parquet"]);
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_counts_once() {
    let fixture = Fixture::new().await;
    let operations = {
        let store = FaultStore::new(memory(), Fault::never());
        let layer = fixture.layer(store.clone());
        layer.master(&fixture.stream().name).expect("known").commit(&landing_of(0)).await.expect("committed");
        store.operations()
    };
    assert!(operations > 3, "{operations}");
    for fault in (0..operations).flat_map(Fault::all) {
        let store = memory();
        let layer = fixture.layer(FaultStore::new(store.clone(), fault));
        let first = layer.master(&fixture.stream().name).expect("known").commit(&landing_of(0)).await;
        if !fault.for_good {
            first.expect("one failure is survived");
        }
        let layer = fixture.layer(store);
        let master = layer.master(&fixture.stream().name).expect("known");
        let landed = master.snapshot().await.expect("a snapshot").position(PartitionId(0)).offset;
        if landed == Offset(0) {
            master.commit(&landing_of(0)).await.expect("committed");
        }
        let snapshot = master.snapshot().await.expect("a snapshot");
        assert_eq!((snapshot.version, snapshot.files.len()), (1, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn a_stream_may_grow_columns_that_may_be_null() {
    let stream = |columns: &str| {
        let sql = format!("CREATE TABLE t (ts TIMESTAMP NOT NULL, {columns}) WITH (event_time = 'ts');");
        let catalog = riomar_schemas::Catalog::parse([("t.sql", sql.as_str())]).expect("valid");
        catalog.streams().next().expect("one stream").clone()
    };
    let fixture = Fixture::new().await;
    let context = fixture.layer(memory()).context().clone();
    let open = |columns: &str| {
        let master = Master::new(context.clone(), stream(columns));
        async move { master.snapshot().await.map(|snapshot| snapshot.version) }
    };
    assert_eq!(open("a INT").await.expect("created"), 0);
    assert_eq!(open("a INT, b VARCHAR").await.expect("widened"), 1);
    assert_eq!(open("a INT, b VARCHAR").await.expect("fits"), 1);
    for columns in ["a BIGINT, b VARCHAR", "b VARCHAR", "a INT, b VARCHAR, c INT NOT NULL", "a INT NOT NULL, b VARCHAR"] {
        let refused = open(columns).await.expect_err(columns);
        assert!(matches!(refused, BatchError::SchemaChanged { .. }), "{columns}: {refused}");
    }
}

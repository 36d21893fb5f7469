//! What must have landed, by plain loops over the log; and what has, by a plain Parquet reader.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::AsArray,
    datatypes::{Int32Type, Int64Type},
};
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use riomar_event_log::{Log, ReadLimit};
use riomar_schemas::{Offset, PartitionId, paths, record::RecordBody};

use super::Fixture;
use crate::master::MasterSnapshot;

/// Where a row stands, and its epoch and id.
pub(crate) type Rows = BTreeMap<(u32, i64), (i64, String)>;

/// The rows that the log must give: every event that decodes and is no duplicate.
pub(crate) async fn expected_rows(fixture: &Fixture) -> Rows {
    let stream = fixture.stream();
    let mut rows = Rows::new();
    for partition in 0..fixture.log.partitions(&stream.name).await.expect("partitions") {
        let limit = ReadLimit { records: 1_000_000, bytes: 1 << 30, wait: Duration::ZERO };
        let records = fixture.log.read(&stream.name, PartitionId(partition), Offset(0), limit).await.expect("records");
        let mut epoch = 0;
        let mut kept: HashMap<String, u64> = HashMap::new();
        for record in records {
            match record.body {
                RecordBody::Cut(cut) => epoch = epoch.max(cut.0),
                RecordBody::Event(text) => {
                    let Ok(event) = serde_json::from_slice::<serde_json::Value>(&text) else { continue };
                    let Some(id) = event["event_id"].as_str() else { continue };
                    if kept.get(id).is_some_and(|seen| seen + stream.dedup_epochs >= epoch) {
                        continue;
                    }
                    kept.insert(id.to_owned(), epoch);
                    let offset = i64::try_from(record.offset.0).expect("small");
                    rows.insert((partition, offset), (i64::try_from(epoch).expect("small"), id.to_owned()));
                }
            }
        }
    }
    rows
}

/// The rows in the files of a snapshot. A row that is there twice is an error.
pub(crate) async fn landed_rows(store: &Arc<dyn ObjectStore>, snapshot: &MasterSnapshot) -> Rows {
    let mut rows = Rows::new();
    for file in snapshot.files.values() {
        let path = paths::master(&snapshot.stream.name).join(file.name.as_str());
        let bytes = store.get(&path).await.expect("the file").bytes().await.expect("its bytes");
        assert_eq!(bytes.len() as u64, file.bytes, "{}", file.name);
        let mut found = 0;
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet").build().expect("a reader");
        for batch in reader {
            let batch = batch.expect("a batch");
            found += batch.num_rows() as u64;
            let column = |name: &str| batch.column_by_name(name).expect("the column").clone();
            let (partition, offset, epoch) = (column("_partition"), column("_offset"), column("_epoch"));
            let id = column("event_id");
            for row in 0..batch.num_rows() {
                let partition = u32::try_from(partition.as_primitive::<Int32Type>().value(row)).expect("positive");
                let key = (partition, offset.as_primitive::<Int64Type>().value(row));
                let value = (epoch.as_primitive::<Int64Type>().value(row), id.as_string::<i32>().value(row).to_owned());
                assert_eq!(rows.insert(key, value), None, "{key:?} landed twice");
            }
        }
        assert_eq!(found, file.stats.rows, "{}", file.name);
    }
    rows
}

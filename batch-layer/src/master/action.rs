//! The actions of Delta's commit log that the master dataset uses, as their JSON lines.
//!
//! The format is the protocol's (reader version 1, writer version 2), so that Spark, Trino, DuckDB and Polars read the master
//! dataset as a table. Positions and counters ride in `txn` actions, in the same commit as the rows they belong to.

use std::collections::BTreeMap;

use riomar_schemas::PartitionId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{data_file::DataFile, partition::LandedPartition};

/// One line of a commit: exactly one of the fields is set. Actions of other kinds are passed over.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_info: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<MetaData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn: Option<Txn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add: Option<Add>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove: Option<Remove>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetaData {
    pub id: String,
    pub format: Value,
    pub schema_string: String,
    pub partition_columns: Vec<String>,
    pub configuration: BTreeMap<String, String>,
    pub created_time: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Txn {
    pub app_id: String,
    pub version: i64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Add {
    pub path: String,
    pub partition_values: BTreeMap<String, Option<String>>,
    pub size: i64,
    pub modification_time: i64,
    pub data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remove {
    pub path: String,
    pub deletion_timestamp: Option<i64>,
    pub data_change: bool,
}

impl Line {
    pub(super) fn commit_info(operation: &str, commit: &str, now_ms: i64) -> Self {
        let info = json!({
            "timestamp": now_ms,
            "operation": operation,
            "operationParameters": {},
            "engineInfo": concat!("riomar/", env!("CARGO_PKG_VERSION")),
            "riomarCommit": commit,
        });
        Self { commit_info: Some(info), ..Self::default() }
    }

    pub(super) fn protocol() -> Self {
        Self { protocol: Some(json!({"minReaderVersion": 1, "minWriterVersion": 2})), ..Self::default() }
    }

    pub(super) fn meta_data(id: &str, schema_string: String, now_ms: i64) -> Self {
        let configuration = [
            // Rows are never changed or taken away; files may still be merged.
            ("delta.appendOnly", "true"),
            // Old commits are removed by Riomar alone, which knows how far behind its own readers may be.
            ("delta.enableExpiredLogCleanup", "false"),
        ];
        let meta_data = MetaData {
            id: id.to_owned(),
            format: json!({"provider": "parquet", "options": {}}),
            schema_string,
            partition_columns: Vec::new(),
            configuration: configuration.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            created_time: Some(now_ms),
        };
        Self { meta_data: Some(meta_data), ..Self::default() }
    }

    pub(super) fn add(file: &DataFile, data_change: bool, event_time: &str) -> Self {
        let add = Add {
            path: file.name.clone(),
            partition_values: BTreeMap::new(),
            size: i64::try_from(file.bytes).unwrap_or(i64::MAX),
            modification_time: file.created_at_ms,
            data_change,
            stats: Some(file.stats.to_delta(event_time)),
        };
        Self { add: Some(add), ..Self::default() }
    }

    /// Only merging files removes some, so no data changes.
    pub(super) fn remove(name: &str, now_ms: i64) -> Self {
        let remove = Remove { path: name.to_owned(), deletion_timestamp: Some(now_ms), data_change: false };
        Self { remove: Some(remove), ..Self::default() }
    }

    /// One `txn` action for each number that is kept of a partition.
    pub(super) fn landed(partition: PartitionId, landed: &LandedPartition) -> Vec<Self> {
        let line = |(what, version): (&str, i64)| {
            let txn = Txn { app_id: format!("riomar/{partition}/{what}"), version };
            Self { txn: Some(txn), ..Self::default() }
        };
        landed.numbers().map(line).collect()
    }
}

/// The partition and the kind of number in the app id of a `txn` action, if it is one of ours.
pub(super) fn parse_app_id(app_id: &str) -> Option<(PartitionId, &str)> {
    let (partition, what) = app_id.strip_prefix("riomar/")?.split_once('/')?;
    Some((PartitionId(partition.parse().ok()?), what))
}

/// The lines of a commit as bytes.
pub(super) fn encode(lines: &[Line]) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line)?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// The lines of a commit.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Line>, serde_json::Error> {
    serde_json::Deserializer::from_slice(bytes).into_iter().collect()
}

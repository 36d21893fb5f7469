//! The actions of Delta's commit log that the master dataset uses, as their JSON lines.
//!
//! The format is the protocol's (reader version 1, writer version 2), so that Spark, Trino, DuckDB and Polars read the master
//! dataset as a table. Positions and counters ride in `txn` actions, in the same commit as the rows they belong to; so do losses that
//! were accepted, which stay for good.

use std::collections::BTreeMap;

use riomar_event_log::Loss;
use riomar_schemas::{Epoch, Offset, PartitionId};
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

    /// One `txn` action for each number of a loss.
    pub(super) fn loss(partition: PartitionId, loss: &Loss) -> Vec<Self> {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let numbers = [
            ("to", signed(loss.to.0)),
            ("epoch_before", signed(loss.epoch_before.0)),
            ("epoch", signed(loss.epoch.0)),
            ("accepted_at_ms", loss.accepted_at_ms),
        ];
        let line = |(what, version): (&str, i64)| {
            let txn = Txn { app_id: format!("riomar/{partition}/{LOSS}{}/{what}", loss.from), version };
            Self { txn: Some(txn), ..Self::default() }
        };
        numbers.into_iter().map(line).collect()
    }

    /// Tells of losses in the commit that accepts them, for whoever reads the table's history.
    pub(super) fn with_lost<'a>(mut self, losses: impl Iterator<Item = (&'a PartitionId, &'a Loss)>) -> Self {
        let lost: Vec<_> = losses.map(|(id, loss)| json!({"partition": id, "from": loss.from, "to": loss.to})).collect();
        if let Some(info) = self.commit_info.as_mut().filter(|_| !lost.is_empty()) {
            info["riomarLost"] = lost.into();
        }
        self
    }
}

/// What the app id of a loss's number has behind the partition, before the first offset lost.
pub(super) const LOSS: &str = "loss/";

/// Takes over one number of a loss, if it is one; numbers of later versions are passed over.
pub(super) fn set_loss(losses: &mut Vec<Loss>, what: &str, number: i64) -> bool {
    let Some((from, what)) = what.strip_prefix(LOSS).and_then(|rest| rest.split_once('/')) else { return false };
    let Ok(from) = from.parse().map(Offset) else { return false };
    let unsigned = u64::try_from(number).unwrap_or_default();
    let place = losses.partition_point(|loss| loss.from < from);
    if losses.get(place).is_none_or(|loss| loss.from != from) {
        let unknown = Loss { from, to: from, epoch_before: Epoch(0), epoch: Epoch(0), accepted_at_ms: 0 };
        losses.insert(place, unknown);
    }
    match what {
        "to" => losses[place].to = Offset(unsigned),
        "epoch_before" => losses[place].epoch_before = Epoch(unsigned),
        "epoch" => losses[place].epoch = Epoch(unsigned),
        "accepted_at_ms" => losses[place].accepted_at_ms = number,
        _ => {}
    }
    true
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

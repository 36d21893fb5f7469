//! Checkpoints of the commit log: the state at one version in one Parquet file, so that opening does not read every commit.
//!
//! `deltalake` writes them; reading back takes only the few columns that the master dataset uses.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, StructArray},
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use bytes::Bytes;
use deltalake_core::{DeltaTableBuilder, checkpoints::create_checkpoint};
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use riomar_schemas::{Stream, paths};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{
    action::{Add, Line, MetaData, Remove, Txn},
    cleanup, log_folder,
    snapshot::MasterSnapshot,
};
use crate::{context::Context, error::BatchError, objects};

/// A checkpoint is written for every version that this divides.
pub(super) const CHECKPOINT_INTERVAL_VERSIONS: u64 = 100;

/// Where the newest checkpoint is; a hint that may be old or absent.
#[derive(Deserialize)]
struct LastCheckpoint {
    version: u64,
    parts: Option<u64>,
}

/// The version of the checkpoint that readers begin at, as far as is noted.
pub(super) async fn hinted(context: &Context, stream: &Stream) -> Result<Option<u64>, BatchError> {
    let path = log_folder(&stream.name).join("_last_checkpoint");
    let Some(hint) = objects::read(context, &path).await? else { return Ok(None) };
    match serde_json::from_slice(&hint) {
        Ok(LastCheckpoint { version, parts: None | Some(1) }) => Ok(Some(version)),
        _ => Ok(None),
    }
}

/// The newest checkpoint that there is, with its content. Looks through the whole log where the note is missing or old.
async fn find(context: &Context, stream: &Stream) -> Result<Option<(u64, Path, Bytes)>, BatchError> {
    let path = |version: u64| log_folder(&stream.name).join(format!("{version:020}.checkpoint.parquet"));
    if let Some(version) = hinted(context, stream).await?
        && let Some(bytes) = objects::read(context, &path(version)).await?
    {
        return Ok(Some((version, path(version), bytes)));
    }
    let files = cleanup::log_files(context, stream).await?;
    if let Some(newest) = files.iter().rfind(|file| file.is_checkpoint) {
        let bytes = objects::read(context, &path(newest.version)).await?;
        return Ok(bytes.map(|bytes| (newest.version, path(newest.version), bytes)));
    }
    match files.first() {
        // Beginning a new table here would give numbers of commits twice.
        Some(first) if first.version > 0 => {
            let detail = format!("it begins with version {}, and there is no checkpoint", first.version);
            Err(BatchError::damaged(log_folder(&stream.name), detail))
        }
        _ => Ok(None),
    }
}

/// The state at the newest checkpoint; `None` where there is none, and the commits are read from the first on.
pub(super) async fn load(context: &Context, stream: &Arc<Stream>) -> Result<Option<MasterSnapshot>, BatchError> {
    let Some((version, path, bytes)) = find(context, stream).await? else { return Ok(None) };
    let damaged = |error: &dyn std::fmt::Display| BatchError::damaged(&path, error);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| damaged(&error))?;
    let mut snapshot = MasterSnapshot::empty(stream.clone());
    snapshot.version = version;
    for batch in reader {
        for line in lines(&StructArray::from(batch.map_err(|error| damaged(&error))?)) {
            snapshot.apply(line);
        }
    }
    if snapshot.schema_text.is_empty() {
        return Err(damaged(&"it has no metaData action"));
    }
    Ok(Some(snapshot))
}

/// The actions of a batch of a checkpoint: one column an action, all but one of them null in each row.
fn lines(batch: &StructArray) -> Vec<Line> {
    let mut lines = Vec::new();
    let action = |name: &str| batch.column_by_name(name).and_then(|column| column.as_struct_opt());
    let rows = |action: &StructArray| (0..action.len()).filter(|row| action.is_valid(*row)).collect::<Vec<_>>();
    if let Some(adds) = action("add") {
        let (path, size, time, stats) =
            (text(adds, "path"), long(adds, "size"), long(adds, "modificationTime"), text(adds, "stats"));
        lines.extend(rows(adds).into_iter().filter_map(|row| {
            let add = Add {
                path: path(row)?,
                partition_values: Default::default(),
                size: size(row)?,
                modification_time: time(row).unwrap_or_default(),
                data_change: false,
                stats: stats(row),
            };
            Some(Line { add: Some(add), ..Line::default() })
        }));
    }
    if let Some(removes) = action("remove") {
        let (path, time) = (text(removes, "path"), long(removes, "deletionTimestamp"));
        lines.extend(rows(removes).into_iter().filter_map(|row| {
            let remove = Remove { path: path(row)?, deletion_timestamp: time(row), data_change: false };
            Some(Line { remove: Some(remove), ..Line::default() })
        }));
    }
    if let Some(txns) = action("txn") {
        let (app_id, version) = (text(txns, "appId"), long(txns, "version"));
        lines.extend(rows(txns).into_iter().filter_map(|row| {
            let txn = Txn { app_id: app_id(row)?, version: version(row)? };
            Some(Line { txn: Some(txn), ..Line::default() })
        }));
    }
    if let Some(meta_datas) = action("metaData") {
        let (id, schema) = (text(meta_datas, "id"), text(meta_datas, "schemaString"));
        lines.extend(rows(meta_datas).into_iter().filter_map(|row| {
            let meta_data = MetaData {
                id: id(row)?,
                format: Value::Null,
                schema_string: schema(row)?,
                partition_columns: Vec::new(),
                configuration: Default::default(),
                created_time: None,
            };
            Some(Line { meta_data: Some(meta_data), ..Line::default() })
        }));
    }
    lines
}

/// Reads a text field of an action by row.
fn text(action: &StructArray, field: &str) -> impl Fn(usize) -> Option<String> + use<> {
    let column = action.column_by_name(field).and_then(|column| cast(column, &DataType::Utf8).ok());
    move |row| {
        let column = column.as_ref()?.as_string_opt::<i32>()?;
        column.is_valid(row).then(|| column.value(row).to_owned())
    }
}

/// Reads a number field of an action by row.
fn long(action: &StructArray, field: &str) -> impl Fn(usize) -> Option<i64> + use<> {
    let column = action.column_by_name(field).and_then(|column| cast(column, &DataType::Int64).ok());
    move |row| {
        let column = column.as_ref()?.as_primitive_opt::<Int64Type>()?;
        column.is_valid(row).then(|| column.value(row))
    }
}

/// Writes the checkpoint of a version. Failing costs nothing but time at the next opening.
pub(super) async fn write(context: &Context, stream: &Stream, version: u64) {
    if let Err(error) = try_write(context, stream, version).await {
        tracing::warn!(stream = %stream.name, version, %error, "the checkpoint could not be written; the next one will be");
    }
}

async fn try_write(context: &Context, stream: &Stream, version: u64) -> Result<(), BatchError> {
    let path = paths::master(&stream.name);
    let failed = |error: deltalake_core::DeltaTableError| BatchError::damaged(&path, error);
    let table = DeltaTableBuilder::from_url(table_url(&path)?)
        .map_err(failed)?
        .with_storage_backend(context.store.clone(), table_url(&path)?)
        .with_version(version)
        .load()
        .await
        .map_err(failed)?;
    create_checkpoint(&table, None).await.map_err(failed)
}

/// Where `deltalake` finds the table in the store it is given. Only the path counts; the scheme keeps it off the machine's disk, and
/// the host is of a kind whose listings it sorts, as those of local stores must be.
pub(super) fn table_url(path: &Path) -> Result<Url, BatchError> {
    Url::parse(&format!("memory://riomar--x-s3/{path}/")).map_err(|error| BatchError::damaged(path, error))
}

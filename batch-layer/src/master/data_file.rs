//! The Parquet files of a master dataset, and the statistics by which readers leave files out.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrowPrimitiveType, AsArray},
    datatypes::{Int32Type, Int64Type, TimestampMicrosecondType},
    record_batch::RecordBatch,
};
use chrono::{DateTime, SecondsFormat, Utc};
use datafusion::common::ScalarValue;
use riomar_schemas::{
    Stream, paths,
    stream::{EPOCH, OFFSET, PARTITION},
};
use serde_json::{Map, Value, json};

use crate::{context::Context, error::BatchError, parquet_file::ParquetFile, scan::ColumnRange};

/// One Parquet file of a master dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Its name within the master dataset's folder.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// When it was written, in milliseconds since 1970-01-01 UTC.
    pub created_at_ms: i64,
    /// What is known of its rows.
    pub stats: FileStats,
}

/// What is known of a file's rows: their number, and inclusive bounds of some columns. A file that another program wrote may lack
/// any of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileStats {
    /// Number of rows.
    pub rows: u64,
    /// Lowest and highest partition.
    pub partition: Option<(i64, i64)>,
    /// Lowest and highest offset.
    pub offset: Option<(i64, i64)>,
    /// Lowest and highest epoch.
    pub epoch: Option<(i64, i64)>,
    /// Bounds of the event time in microseconds since 1970-01-01 UTC, widened to whole milliseconds.
    pub event_time_us: Option<(i64, i64)>,
}

impl FileStats {
    /// Adds rows of the stream's row schema.
    fn add(&mut self, rows: &RecordBatch, event_time: &str) {
        self.rows += rows.num_rows() as u64;
        widen(&mut self.partition, bounds::<Int32Type>(rows, PARTITION));
        widen(&mut self.offset, bounds::<Int64Type>(rows, OFFSET));
        widen(&mut self.epoch, bounds::<Int64Type>(rows, EPOCH));
        let whole = |(min, max): (i64, i64)| (min - min.rem_euclid(1000), max.saturating_add((-max).rem_euclid(1000)));
        widen(&mut self.event_time_us, bounds::<TimestampMicrosecondType>(rows, event_time).map(whole));
    }

    /// The statistics as Delta keeps them in an `add` action. Times have whole milliseconds there.
    pub(super) fn to_delta(&self, event_time: &str) -> String {
        let (mut min, mut max, mut nulls) = (Map::new(), Map::new(), Map::new());
        let mut put = |column: &str, range: Option<(Value, Value)>| {
            if let Some((low, high)) = range {
                min.insert(column.to_owned(), low);
                max.insert(column.to_owned(), high);
                nulls.insert(column.to_owned(), json!(0));
            }
        };
        let numbers = |range: Option<(i64, i64)>| range.map(|(low, high)| (json!(low), json!(high)));
        put(PARTITION, numbers(self.partition));
        put(OFFSET, numbers(self.offset));
        put(EPOCH, numbers(self.epoch));
        let times = self.event_time_us.and_then(|(low, high)| Some((json!(time_text(low)?), json!(time_text(high)?))));
        put(event_time, times);
        json!({"numRecords": self.rows, "minValues": min, "maxValues": max, "nullCount": nulls}).to_string()
    }

    /// Reads what [`Self::to_delta`] or another program wrote.
    pub(super) fn from_delta(text: &str, event_time: &str) -> Self {
        let Ok(stats) = serde_json::from_str::<Value>(text) else { return Self::default() };
        let value = |side: &str, column: &str| stats.get(side).and_then(|values| values.get(column)).cloned();
        let number = |column: &str| Some((value("minValues", column)?.as_i64()?, value("maxValues", column)?.as_i64()?));
        let time = |side: &str| {
            let text = value(side, event_time)?;
            Some(DateTime::parse_from_rfc3339(text.as_str()?).ok()?.timestamp_micros())
        };
        Self {
            rows: stats.get("numRecords").and_then(Value::as_u64).unwrap_or_default(),
            partition: number(PARTITION),
            offset: number(OFFSET),
            epoch: number(EPOCH),
            event_time_us: time("minValues").zip(time("maxValues")),
        }
    }

    /// The bounds, for a scan to leave the file out by.
    pub(super) fn ranges(&self, event_time: &str) -> Vec<ColumnRange> {
        let range = |column: &str, bounds: Option<(i64, i64)>, scalar: fn(i64) -> ScalarValue| {
            bounds.map(|(min, max)| ColumnRange { column: column.to_owned(), min: scalar(min), max: scalar(max) })
        };
        [
            range(PARTITION, self.partition, |number| ScalarValue::Int32(i32::try_from(number).ok())),
            range(OFFSET, self.offset, |number| ScalarValue::Int64(Some(number))),
            range(EPOCH, self.epoch, |number| ScalarValue::Int64(Some(number))),
            range(event_time, self.event_time_us, |number| ScalarValue::TimestampMicrosecond(Some(number), Some("UTC".into()))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// RFC 3339 with milliseconds; `None` for years that this form cannot hold.
fn time_text(time_us: i64) -> Option<String> {
    let time = DateTime::<Utc>::from_timestamp_micros(time_us)?;
    let text = time.to_rfc3339_opts(SecondsFormat::Millis, true);
    (text.len() == "2026-11-20T10:00:00.000Z".len()).then_some(text)
}

fn bounds<T: ArrowPrimitiveType>(rows: &RecordBatch, column: &str) -> Option<(i64, i64)>
where
    T::Native: Into<i64>,
{
    let values = rows.column_by_name(column)?.as_primitive_opt::<T>()?;
    if values.null_count() > 0 {
        return None;
    }
    let min = arrow::compute::min(values)?;
    let max = arrow::compute::max(values)?;
    Some((min.into(), max.into()))
}

fn widen(range: &mut Option<(i64, i64)>, other: Option<(i64, i64)>) {
    *range = match (*range, other) {
        (Some((min, max)), Some((low, high))) => Some((min.min(low), max.max(high))),
        (range, other) => range.or(other),
    };
}

/// Writes one file of a master dataset.
pub struct DataFileWriter {
    stream: Arc<Stream>,
    name: String,
    file: ParquetFile,
    stats: FileStats,
}

impl DataFileWriter {
    /// Starts a file under a fresh name.
    ///
    /// # Errors
    /// As [`ParquetFile::create`].
    pub fn create(context: &Context, stream: Arc<Stream>) -> Result<Self, BatchError> {
        let name = format!("{}.parquet", context.fresh_ids.next());
        let path = paths::master(&stream.name).join(name.as_str());
        let file = ParquetFile::create(context, path, stream.row_schema().clone(), Vec::new())?;
        Ok(Self { stream, name, file, stats: FileStats::default() })
    }

    /// Adds rows of the stream's row schema.
    ///
    /// # Errors
    /// As [`ParquetFile::write`].
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<(), BatchError> {
        let event_time = self.stream.columns[self.stream.event_time].name.as_str();
        self.stats.add(rows, event_time);
        self.file.write(rows).await
    }

    /// Finishes the file, which belongs to the master dataset only once it is committed.
    ///
    /// # Errors
    /// As [`ParquetFile::finish`].
    pub async fn finish(self, now_ms: i64) -> Result<DataFile, BatchError> {
        let (_, bytes) = self.file.finish().await?;
        Ok(DataFile { name: self.name, bytes, created_at_ms: now_ms, stats: self.stats })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_come_back() {
        let stats = FileStats {
            rows: 3,
            partition: Some((0, 2)),
            offset: Some((5, 9)),
            epoch: Some((1, 1)),
            event_time_us: Some((-1_000, 1_700_000_000_123_000)),
        };
        assert_eq!(FileStats::from_delta(&stats.to_delta("ts"), "ts"), stats);
        let far = FileStats { event_time_us: Some((0, i64::MAX / 2)), ..stats };
        assert_eq!(FileStats::from_delta(&far.to_delta("ts"), "ts").event_time_us, None, "no year above 9999 in the text");
        assert_eq!(FileStats::from_delta("{", "ts"), FileStats::default());
    }
}

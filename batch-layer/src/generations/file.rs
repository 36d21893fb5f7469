//! A generation's Parquet files: one for each window partition, with finished values for people and states for Riomar.
//!
//! The columns are the view's own, finished, and then its states, as [`View::finish_with_states`] gives them.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::AsArray,
    datatypes::{Schema, SchemaRef, TimestampMicrosecondType},
    record_batch::RecordBatch,
};
use datafusion::{common::ScalarValue, error::DataFusionError};
use parquet::file::metadata::KeyValue;
use riomar_schemas::{View, generation::GenerationFile, paths, view::Window};

use crate::{context::Context, error::BatchError, parquet_file::ParquetFile, scan::ColumnRange};

/// The version of the files' format that this build writes.
const STATE_FORMAT: &str = "1";
/// A window partition holds at least this many windows, and at least a day of them.
const WINDOWS_PER_PARTITION_MIN: i64 = 1024;
const DAY_US: i64 = 86_400_000_000;

/// The width of a window partition in microseconds: the window's size times the greater of 1,024 and the number of windows in a
/// day. So minutes come in files of a day, hours in files of 43 days, and a year of even the shortest windows in 366 files.
#[must_use]
pub fn window_partition_width_us(window: Window) -> i64 {
    let size_us = window.step_us().max(1);
    let windows_a_day = DAY_US / size_us + i64::from(DAY_US % size_us != 0);
    size_us.saturating_mul(windows_a_day.max(WINDOWS_PER_PARTITION_MIN))
}

/// The window partition that a window belongs to.
#[must_use]
pub fn window_partition(window: Window, window_start_us: i64) -> i64 {
    window_start_us.div_euclid(window_partition_width_us(window))
}

/// The schema of a view's files.
pub(super) fn schema(view: &View) -> SchemaRef {
    let values = view.value_schema().fields().iter();
    let states = view.state_schema().fields().iter().skip(view.group_names().count());
    Arc::new(Schema::new(values.chain(states).cloned().collect::<Vec<_>>()))
}

/// The bounds of the windows in a file, for a scan to leave it out by.
pub(super) fn ranges(view: &View, window_partition: i64) -> Vec<ColumnRange> {
    let width = window_partition_width_us(view.window());
    let time = |time_us| ScalarValue::TimestampMicrosecond(Some(time_us), Some("UTC".into()));
    let first = window_partition.saturating_mul(width);
    let range =
        ColumnRange { column: view.window_start().to_owned(), min: time(first), max: time(first.saturating_add(width - 1)) };
    vec![range]
}

/// Writes rows, sorted by window, into one file for each window partition.
pub struct GenerationWriter<'a> {
    context: &'a Context,
    view: &'a View,
    schema: SchemaRef,
    open: Option<(i64, ParquetFile)>,
    files: Vec<GenerationFile>,
    finished: BTreeSet<i64>,
}

impl<'a> GenerationWriter<'a> {
    /// A writer that has no file yet.
    #[must_use]
    pub fn new(context: &'a Context, view: &'a View) -> Self {
        Self { context, view, schema: schema(view), open: None, files: Vec::new(), finished: BTreeSet::new() }
    }

    /// Adds rows of [`View::finish_with_states`], in order of their windows.
    ///
    /// # Errors
    /// The object store's, or windows that are out of order.
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<(), BatchError> {
        let rows = rows.clone().with_schema(self.schema.clone()).map_err(DataFusionError::from)?;
        let mut first = 0;
        for (partition, rows_of_partition) in window_partitions(self.view, &rows)? {
            self.switch_to(partition).await?;
            if let Some((_, file)) = &mut self.open {
                file.write(&rows.slice(first, rows_of_partition)).await?;
            }
            first += rows_of_partition;
        }
        Ok(())
    }

    /// Finishes the last file and gives all of them. They belong to a generation once its manifest names them.
    ///
    /// # Errors
    /// The object store's.
    pub async fn finish(mut self) -> Result<Vec<GenerationFile>, BatchError> {
        self.close().await?;
        Ok(self.files)
    }

    async fn switch_to(&mut self, partition: i64) -> Result<(), BatchError> {
        if self.open.as_ref().is_some_and(|(open, _)| *open == partition) {
            return Ok(());
        }
        self.close().await?;
        if !self.finished.insert(partition) {
            return Err(DataFusionError::Internal(format!("the rows came back to window partition {partition}")).into());
        }
        let path = paths::generation_data(self.view).join(format!("{}.parquet", self.context.fresh_ids.next()));
        let metadata = [
            ("riomar.view", self.view.name().as_str()),
            ("riomar.fingerprint", self.view.fingerprint()),
            ("riomar.state_format", STATE_FORMAT),
        ];
        let metadata = metadata.map(|(key, value)| KeyValue::new(key.to_owned(), value.to_owned()));
        self.open = Some((partition, ParquetFile::create(self.context, path, self.schema.clone(), metadata.into())?));
        Ok(())
    }

    async fn close(&mut self) -> Result<(), BatchError> {
        if let Some((window_partition, file)) = self.open.take() {
            let groups = file.rows();
            let (path, bytes) = file.finish().await?;
            self.files.push(GenerationFile { window_partition, path: path.to_string(), bytes, groups });
        }
        Ok(())
    }
}

/// The window partitions in a batch, in order, each with its number of rows.
fn window_partitions(view: &View, rows: &RecordBatch) -> Result<Vec<(i64, usize)>, BatchError> {
    let starts = rows
        .column_by_name(view.window_start())
        .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
        .ok_or_else(|| DataFusionError::Internal(format!("rows of {} have no window start", view.name())))?;
    let mut partitions: Vec<(i64, usize)> = Vec::new();
    for start in starts.values() {
        let partition = window_partition(view.window(), *start);
        match partitions.last_mut() {
            Some((last, rows)) if *last == partition => *rows += 1,
            _ => partitions.push((partition, 1)),
        }
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_partitions_hold_whole_windows() {
        let (second, hour) = (1_000_000, 3_600_000_000);
        let cases = [
            (second, DAY_US),
            (60 * second, DAY_US),
            (hour, 1024 * hour),
            (DAY_US, 1024 * DAY_US),
            (7 * second, 12_343 * 7 * second),
        ];
        for (size_us, width_us) in cases {
            let window = Window::Tumble { size_us };
            assert_eq!(window_partition_width_us(window), width_us, "{size_us}");
            assert_eq!(width_us % size_us, 0, "no window lies in two partitions");
        }
        let window = Window::Tumble { size_us: second };
        assert_eq!(window_partition(window, -1), -1);
        assert_eq!(window_partition(window, DAY_US - 1), 0);
        assert_eq!(window_partition(window, DAY_US), 1);
    }
}

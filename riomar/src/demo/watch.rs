//! Asking the platform for what the demo shows: both layers' parts and their merge at one moment, and the account.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, SecondsFormat};
use datafusion::arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int64Type, TimestampMicrosecondType},
};
use riomar_schemas::View;
use riomar_serving_layer::query::{Answer, QueryEngine, QueryLimits, RowsRequest};
use serde::Deserialize;

use super::{
    STREAM, VIEW,
    screen::{Frame, Minute},
};
use crate::{client::Client, command::status::StreamStatus};

/// The minutes that are shown.
const MINUTES: i64 = 8;
const MINUTE_US: i64 = 60_000_000;

/// What the demo asks.
#[derive(Debug, Clone)]
pub struct Watcher {
    /// Asks as every client does.
    pub client: Client,
    /// Tells the parts of an answer apart, which no client needs to.
    pub engine: QueryEngine,
    /// The view that is watched.
    pub view: Arc<View>,
}

#[derive(Debug, Deserialize)]
struct Visitors {
    rows: Vec<(String, u64)>,
}

impl Watcher {
    /// Fills in the latest minutes, the receipt and the account; `now_ms` is milliseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// What did not answer, in words.
    pub async fn look(&self, now_ms: i64, frame: &mut Frame) -> Result<(), String> {
        let from_us = (now_ms * 1_000).div_euclid(MINUTE_US).saturating_sub(MINUTES - 1) * MINUTE_US;
        let columns = Some([self.view.window_start(), "hits", "bytes"].map(str::to_owned).to_vec());
        let request = RowsRequest { from_us: Some(from_us), columns, ..RowsRequest::default() };
        let parts = self.engine.parts(&self.view, &request, QueryLimits::default()).await.map_err(|error| error.to_string())?;
        let visitors = self.visitors(from_us).await?;
        frame.minutes = minutes(&parts.batch, &parts.realtime, &parts.merged, &visitors)?;
        if let Some(view) = parts.merged.receipt.views.get(self.view.name()) {
            (frame.generation, frame.cut) = (view.generation, view.cut.0);
        }
        let lacks = parts.merged.receipt.degraded.iter();
        frame.degraded = lacks.map(|lack| format!("degraded: {}: {}", lack.code, lack.detail)).collect();
        let stream: StreamStatus = self.client.read(&["v1", "streams", STREAM]).await.map_err(|error| error.to_string())?;
        frame.account = Some(stream.account);
        Ok(())
    }

    /// Distinct visitors of each minute, over all pages: only a merge of sketches can tell.
    async fn visitors(&self, from_us: i64) -> Result<BTreeMap<String, u64>, String> {
        let sql = format!(
            "SELECT window_start, merge(visitors) AS visitors FROM {VIEW} WHERE window_start >= TIMESTAMP '{}' GROUP BY window_start",
            time(from_us)
        );
        let answer = self.client.sql(&sql).await.map_err(|error| error.to_string())?;
        let visitors: Visitors = answer.read().map_err(|error| error.to_string())?;
        Ok(visitors.rows.into_iter().collect())
    }
}

/// Hits and bytes of each minute, over all pages, by the start of the minute.
type Sums = BTreeMap<i64, (u64, u64)>;

fn minutes(batch: &Answer, realtime: &Answer, merged: &Answer, visitors: &BTreeMap<String, u64>) -> Result<Vec<Minute>, String> {
    let (batch, realtime, merged) = (sums(&batch.batches)?, sums(&realtime.batches)?, sums(&merged.batches)?);
    let hits = |sums: &Sums, start_us: i64| sums.get(&start_us).map_or(0, |(hits, _)| *hits);
    let minute = |(start_us, (merged_hits, bytes)): (&i64, &(u64, u64))| {
        let window_start = time(*start_us);
        Minute {
            parts: Some((hits(&batch, *start_us), hits(&realtime, *start_us))),
            hits: *merged_hits,
            visitors: visitors.get(&window_start).copied().unwrap_or_default(),
            bytes: *bytes,
            window_start,
        }
    };
    Ok(merged.iter().rev().map(minute).collect())
}

fn sums(batches: &[RecordBatch]) -> Result<Sums, String> {
    let mut sums = Sums::new();
    for batch in batches {
        let unexpected = || format!("{VIEW} is not the view that the demo knows");
        let [starts, hits, bytes] = batch.columns() else { return Err(unexpected()) };
        let starts = starts.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(unexpected)?;
        let hits = hits.as_primitive_opt::<Int64Type>().ok_or_else(unexpected)?;
        // A sum of integers is a decimal, so that it cannot overflow.
        let bytes = cast(bytes, &DataType::Int64).map_err(|_| unexpected())?;
        let bytes = bytes.as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let sum = sums.entry(starts.value(row)).or_default();
            sum.0 += u64::try_from(hits.value(row)).unwrap_or_default();
            // A sum of no bytes at all is null.
            sum.1 += if bytes.is_null(row) { 0 } else { u64::try_from(bytes.value(row)).unwrap_or_default() };
        }
    }
    Ok(sums)
}

/// Microseconds since 1970-01-01 UTC as the platform writes them.
fn time(time_us: i64) -> String {
    DateTime::from_timestamp_micros(time_us).unwrap_or_default().to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

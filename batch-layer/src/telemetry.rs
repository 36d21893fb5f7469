//! The batch layer's metrics. They name their unit.

use metrics::{counter, gauge, histogram};
use riomar_event_log::PartitionBounds;
use riomar_schemas::{GenerationManifest, Name, PartitionId};

use crate::master::LandedPartition;

/// Tells what has landed of each partition. The counters are those of the master dataset, so they survive restarts.
pub(crate) fn landed<'a>(stream: &Name, partitions: impl Iterator<Item = (PartitionId, &'a LandedPartition)>) {
    for (partition, landed) in partitions {
        let labels = [("stream", stream.to_string()), ("partition", partition.to_string())];
        counter!("riomar_landing_rows_total", &labels).absolute(landed.landed);
        counter!("riomar_landing_duplicates_total", &labels).absolute(landed.duplicates);
        counter!("riomar_landing_undecodable_total", &labels).absolute(landed.undecodable);
        counter!("riomar_landing_late_total", &labels).absolute(landed.late);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a floating-point number")]
        gauge!("riomar_landing_lateness_max_seconds", &labels).set(landed.lateness_max_ms as f64 / 1000.0);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a floating-point number")]
        gauge!("riomar_landing_offset", &labels).set(landed.position.offset.0 as f64);
    }
}

/// Tells what the log holds of a partition, and how far landing is behind its end: records and milliseconds.
pub(crate) fn landing_lag(stream: &Name, partition: PartitionId, bounds: PartitionBounds, (records, age_ms): (u64, i64)) {
    let labels = [("stream", stream.to_string()), ("partition", partition.to_string())];
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a floating-point number")]
    {
        gauge!("riomar_log_start_offset", &labels).set(bounds.start.0 as f64);
        gauge!("riomar_log_end_offset", &labels).set(bounds.end.0 as f64);
        gauge!("riomar_landing_lag_records", &labels).set(records as f64);
        gauge!("riomar_landing_lag_seconds", &labels).set(age_ms as f64 / 1000.0);
    }
}

/// Makes the counters of a stream's errors known before the first one: a rise from nothing is seen by nobody.
pub(crate) fn landing_begins(stream: &Name) {
    counter!("riomar_landing_errors_total", "stream" => stream.to_string()).increment(0);
    counter!("riomar_recompute_starts_skipped_total", "stream" => stream.to_string()).increment(0);
}

/// Counts an error of landing.
pub(crate) fn landing_failed(stream: &Name) {
    counter!("riomar_landing_errors_total", "stream" => stream.to_string()).increment(1);
}

/// Tells of a published generation.
pub(crate) fn published(manifest: &GenerationManifest, took_ms: i64, rows: u64) {
    let labels = [("view", manifest.view.to_string())];
    counter!("riomar_recompute_rows_total", &labels).increment(rows);
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a floating-point number")]
    {
        histogram!("riomar_recompute_seconds", &labels).record(took_ms as f64 / 1000.0);
        gauge!("riomar_recompute_generation", &labels).set(manifest.generation as f64);
        gauge!("riomar_recompute_cut", &labels).set(manifest.cut.0 as f64);
        gauge!("riomar_recompute_groups", &labels).set(manifest.groups as f64);
        gauge!("riomar_recompute_published_timestamp_seconds", &labels).set(manifest.created_at_ms as f64 / 1000.0);
    }
}

/// Counts a view whose recompute failed.
pub(crate) fn recompute_failed(view: &Name) {
    counter!("riomar_recompute_errors_total", "view" => view.to_string()).increment(1);
}

/// Counts a start that the schedule had to leave out because the run before was not through.
pub(crate) fn start_skipped(stream: &Name) {
    counter!("riomar_recompute_starts_skipped_total", "stream" => stream.to_string()).increment(1);
}

//! The batch layer's metrics. They name their unit.
//!
//! Gauges are told by the process that leads, and by no other. When it no longer does, it withdraws them by setting them to NaN, which
//! `/metrics` leaves out: so a series ends with its owner, as Prometheus expects of what is no longer there, and sums over all processes
//! count every partition once. A process that leads and hangs goes on telling them, so that it is seen to stand still.

use std::collections::BTreeSet;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use riomar_event_log::PartitionBounds;
use riomar_schemas::{Catalog, GenerationManifest, Name, Offset, PartitionId, View};

use crate::master::LandedPartition;

/// Says what the metrics of the batch layer mean; call it once the recorder is installed.
pub fn describe() {
    describe_landing();
    describe_recompute();
    describe_gauge!("riomar_batch_leader", "1 in the process that lands and starts the scheduled runs, 0 in those that stand by");
}

fn describe_landing() {
    // The same sums as in the master dataset, so that they go on where they were after a restart.
    describe_counter!("riomar_landing_rows_total", Unit::Count, "Events in the master dataset, by stream and partition");
    describe_counter!(
        "riomar_landing_duplicates_total",
        Unit::Count,
        "Events that landing left out because an event of their id had landed, by stream and partition"
    );
    describe_counter!(
        "riomar_landing_undecodable_total",
        Unit::Count,
        "Records of the log that landing put into quarantine, by stream and partition"
    );
    describe_counter!("riomar_landing_late_total", Unit::Count, "Landed events that were late, by stream and partition");
    describe_counter!(
        "riomar_landing_errors_total",
        Unit::Count,
        "Rounds of landing that failed, as a whole or in some partition, and are tried again, by stream"
    );
    describe_gauge!(
        "riomar_landing_lateness_max_seconds",
        Unit::Seconds,
        "How late the latest landed event was, by stream and partition"
    );
    describe_gauge!("riomar_landing_offset", "The first offset of the log that has not landed, by stream and partition");
    describe_gauge!(
        "riomar_landing_lag_records",
        Unit::Count,
        "Records of the log that have not landed, cuts included, by stream and partition"
    );
    describe_gauge!(
        "riomar_landing_lag_seconds",
        Unit::Seconds,
        "Time since the oldest record that has not landed was seen in the log, by stream and partition"
    );
    describe_gauge!(
        "riomar_landing_lost_records",
        Unit::Count,
        "Offsets that the log let go of before they landed, and whose loss nobody has accepted, by stream and partition"
    );
    describe_gauge!("riomar_log_start_offset", "The lowest offset that the log still holds, by stream and partition");
    describe_gauge!("riomar_log_end_offset", "The offset that the next record of the log gets, by stream and partition");
}

fn describe_recompute() {
    describe_counter!("riomar_recompute_rows_total", Unit::Count, "Rows of the master dataset read for generations, by view");
    describe_counter!(
        "riomar_recompute_errors_total",
        Unit::Count,
        "Recomputes that failed while the generation before kept serving, by view"
    );
    describe_counter!(
        "riomar_recompute_starts_skipped_total",
        Unit::Count,
        "Scheduled runs left out because the one before was not through, by stream"
    );
    describe_histogram!(
        "riomar_recompute_seconds",
        Unit::Seconds,
        "Time that a published generation took from its recompute's beginning, by view"
    );
    describe_gauge!("riomar_recompute_generation", "Number of the current generation, by view");
    describe_gauge!("riomar_recompute_cut", "Number of the cut that the current generation ends at, by view");
    describe_gauge!(
        "riomar_recompute_cut_offset",
        "The first offset of the log that the current generation does not contain, by stream, view and partition"
    );
    describe_gauge!("riomar_recompute_groups", Unit::Count, "Groups of the current generation, by view");
    describe_gauge!(
        "riomar_recompute_published_timestamp_seconds",
        Unit::Seconds,
        "When the current generation was computed, in seconds since 1970-01-01 UTC, by view"
    );
}

/// Makes the counters of errors known before the first one: a rise from nothing is seen by nobody.
pub(crate) fn begin(catalog: &Catalog) {
    for stream in catalog.streams() {
        landing_errors(&stream.name).increment(0);
        starts_skipped(&stream.name).increment(0);
    }
    for view in catalog.views() {
        recompute_errors(view.name()).increment(0);
    }
}

/// Tells what has landed of each partition. The counters are those of the master dataset, so they survive restarts.
pub(crate) fn landed<'a>(stream: &Name, partitions: impl IntoIterator<Item = (PartitionId, &'a LandedPartition)>) {
    for (partition, landed) in partitions {
        let labels = of_partition(stream, partition);
        counter!("riomar_landing_rows_total", &labels).absolute(landed.landed);
        counter!("riomar_landing_duplicates_total", &labels).absolute(landed.duplicates);
        counter!("riomar_landing_undecodable_total", &labels).absolute(landed.undecodable);
        counter!("riomar_landing_late_total", &labels).absolute(landed.late);
        gauge!("riomar_landing_lateness_max_seconds", &labels).set(landed.lateness_max_ms as f64 / 1000.0);
    }
}

/// Where landing stands in a partition of the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LandingGauges {
    /// The first offset that has not landed.
    pub landed: Offset,
    /// What the log holds.
    pub bounds: PartitionBounds,
    /// Records that have not landed.
    pub lag_records: u64,
    /// Milliseconds since the oldest of them was seen.
    pub lag_ms: i64,
}

/// Tells where landing stands in a partition.
pub(crate) fn landing(stream: &Name, partition: PartitionId, gauges: &LandingGauges) {
    let labels = of_partition(stream, partition);
    gauge!("riomar_landing_offset", &labels).set(gauges.landed.0 as f64);
    gauge!("riomar_log_start_offset", &labels).set(gauges.bounds.start.0 as f64);
    gauge!("riomar_log_end_offset", &labels).set(gauges.bounds.end.0 as f64);
    gauge!("riomar_landing_lag_records", &labels).set(gauges.lag_records as f64);
    gauge!("riomar_landing_lag_seconds", &labels).set(gauges.lag_ms as f64 / 1000.0);
}

/// Tells how many offsets of a partition the log lost before they landed, of which nobody has accepted the loss.
pub(crate) fn lost_records(stream: &Name, partition: PartitionId, offsets: u64) {
    gauge!("riomar_landing_lost_records", &of_partition(stream, partition)).set(offsets as f64);
}

/// Withdraws what was told of a partition: this process does not land it any more.
pub(crate) fn landing_ended(stream: &Name, partition: PartitionId) {
    let labels = of_partition(stream, partition);
    for name in [
        "riomar_landing_lateness_max_seconds",
        "riomar_landing_offset",
        "riomar_log_start_offset",
        "riomar_log_end_offset",
        "riomar_landing_lag_records",
        "riomar_landing_lag_seconds",
        "riomar_landing_lost_records",
    ] {
        gauge!(name, &labels).set(f64::NAN);
    }
}

/// Counts an error of landing.
pub(crate) fn landing_failed(stream: &Name) {
    landing_errors(stream).increment(1);
}

/// Counts the work of a published generation.
pub(crate) fn published(view: &Name, took_ms: i64, rows: u64) {
    let labels = [("view", view.to_string())];
    counter!("riomar_recompute_rows_total", &labels).increment(rows);
    histogram!("riomar_recompute_seconds", &labels).record(took_ms as f64 / 1000.0);
}

/// Counts a view whose recompute failed.
pub(crate) fn recompute_failed(view: &Name) {
    recompute_errors(view).increment(1);
}

/// Counts a start that the schedule had to leave out because the run before was not through.
pub(crate) fn start_skipped(stream: &Name) {
    starts_skipped(stream).increment(1);
}

/// Tells the current generations, for as long as it lives.
#[derive(Debug, Default)]
pub(crate) struct GenerationGauges {
    views: BTreeSet<Name>,
    cuts: BTreeSet<(Name, Name, PartitionId)>,
}

impl GenerationGauges {
    /// Tells the current generation of a view.
    pub(crate) fn tell(&mut self, view: &View, manifest: &GenerationManifest) {
        let labels = [("view", view.name().to_string())];
        gauge!("riomar_recompute_generation", &labels).set(manifest.generation as f64);
        gauge!("riomar_recompute_cut", &labels).set(manifest.cut.0 as f64);
        gauge!("riomar_recompute_groups", &labels).set(manifest.groups as f64);
        gauge!("riomar_recompute_published_timestamp_seconds", &labels).set(manifest.created_at_ms as f64 / 1000.0);
        self.views.insert(view.name().clone());
        for (partition, offset) in &manifest.positions {
            let of = (view.stream().name.clone(), view.name().clone(), *partition);
            cut_offset(&of, offset.0 as f64);
            self.cuts.insert(of);
        }
    }
}

impl Drop for GenerationGauges {
    /// Another process leads now, or none.
    fn drop(&mut self) {
        for view in &self.views {
            let labels = [("view", view.to_string())];
            for name in [
                "riomar_recompute_generation",
                "riomar_recompute_cut",
                "riomar_recompute_groups",
                "riomar_recompute_published_timestamp_seconds",
            ] {
                gauge!(name, &labels).set(f64::NAN);
            }
        }
        for of in &self.cuts {
            cut_offset(of, f64::NAN);
        }
    }
}

fn cut_offset((stream, view, partition): &(Name, Name, PartitionId), offset: f64) {
    let labels = [("stream", stream.to_string()), ("view", view.to_string()), ("partition", partition.to_string())];
    gauge!("riomar_recompute_cut_offset", &labels).set(offset);
}

fn of_partition(stream: &Name, partition: PartitionId) -> [(&'static str, String); 2] {
    [("stream", stream.to_string()), ("partition", partition.to_string())]
}

fn landing_errors(stream: &Name) -> metrics::Counter {
    counter!("riomar_landing_errors_total", "stream" => stream.to_string())
}

fn starts_skipped(stream: &Name) -> metrics::Counter {
    counter!("riomar_recompute_starts_skipped_total", "stream" => stream.to_string())
}

fn recompute_errors(view: &Name) -> metrics::Counter {
    counter!("riomar_recompute_errors_total", "view" => view.to_string())
}

//! What a worker tells about itself.
//!
//! Its gauges are told by whoever works on the partition, and by nobody else. A worker that ends withdraws its own by setting them
//! to NaN, which `/metrics` leaves out: so the series ends with its owner, as Prometheus expects of what is no longer there, and sums
//! over all processes count every partition once. A worker that hangs goes on telling them, so that it is seen to stand still.

use std::collections::BTreeMap;

use arrow::{array::AsArray, datatypes::TimestampMicrosecondType};
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use riomar_event_log::ReadStep;
use riomar_schemas::{Name, PartitionId, stream::APPEND_TIME};

use super::{RebuildReason, SpeedParts, WorkerStep, lane::Lane};
use crate::activity::Behind;

macro_rules! of_view {
    ($kind:ident, $name:literal, $stream:expr, $partition:expr, $view:expr $(, $label:literal => $value:expr)*) => {
        $kind!(
            $name, "stream" => $stream.to_string(), "partition" => $partition.to_string(),
            "view" => $view.to_string() $(, $label => $value)*
        )
    };
}

/// Says what the metrics of the speed layer mean; call it once the recorder is installed.
pub fn describe() {
    describe_counter!(
        "riomar_speed_folded_events_total",
        Unit::Count,
        "Events folded into the realtime view of a partition, by stream, partition and view"
    );
    describe_counter!(
        "riomar_speed_fenced_writes_total",
        Unit::Count,
        "Writes to the realtime store that another worker was ahead of, by stream, partition and view; nothing is lost by them"
    );
    describe_counter!(
        "riomar_speed_rebuilds_total",
        Unit::Count,
        "Realtime views begun anew at their hand-over, by stream, partition, view and reason"
    );
    describe_gauge!(
        "riomar_speed_halted",
        "1 while a partition's realtime view is halted because an epoch has too many groups, by stream, partition and view"
    );
    describe_gauge!(
        "riomar_speed_position",
        "The next offset that is not in the realtime view of a partition, by stream, partition and view"
    );
    describe_gauge!(
        "riomar_speed_lag_records",
        Unit::Count,
        "Records of the log that are not in the realtime view of a partition, by stream, partition and view"
    );
    describe_gauge!(
        "riomar_speed_lag_seconds",
        Unit::Seconds,
        "Age of the newest event in the realtime view of a partition while it lacks newer ones, else 0, by stream, partition and view"
    );
}

/// Makes the counters of a worker known before they count: a rise from nothing is seen by nobody.
pub(super) fn begin(parts: &SpeedParts) {
    for view in &parts.views {
        count_folded(parts, view.name(), 0);
        count_fenced(parts, view.name(), 0);
        for reason in RebuildReason::ALL {
            count_rebuilt(parts, view.name(), *reason, 0);
        }
    }
}

pub(super) fn count_folded(parts: &SpeedParts, view: &Name, events: u64) {
    of_view!(counter, "riomar_speed_folded_events_total", parts.stream.name, parts.partition, view).increment(events);
}

pub(super) fn count_fenced(parts: &SpeedParts, view: &Name, writes: u64) {
    of_view!(counter, "riomar_speed_fenced_writes_total", parts.stream.name, parts.partition, view).increment(writes);
}

pub(super) fn count_settled(parts: &SpeedParts, step: &WorkerStep) {
    for (view, reason) in &step.rebuilds {
        count_rebuilt(parts, view, *reason, 1);
    }
}

fn count_rebuilt(parts: &SpeedParts, view: &Name, reason: RebuildReason, times: u64) {
    let (stream, partition) = (&parts.stream.name, parts.partition);
    of_view!(counter, "riomar_speed_rebuilds_total", stream, partition, view, "reason" => reason.label()).increment(times);
}

/// The gauges of one view's partition.
#[derive(Debug, Clone, Copy)]
struct Told {
    halted: f64,
    position: f64,
    lag_records: f64,
    lag_seconds: f64,
}

/// What a gauge of a worker that ended is set to.
const WITHDRAWN: Told = Told { halted: f64::NAN, position: f64::NAN, lag_records: f64::NAN, lag_seconds: f64::NAN };

impl Told {
    fn set(&self, stream: &Name, partition: PartitionId, view: &Name) {
        of_view!(gauge, "riomar_speed_halted", stream, partition, view).set(self.halted);
        of_view!(gauge, "riomar_speed_position", stream, partition, view).set(self.position);
        of_view!(gauge, "riomar_speed_lag_records", stream, partition, view).set(self.lag_records);
        of_view!(gauge, "riomar_speed_lag_seconds", stream, partition, view).set(self.lag_seconds);
    }
}

/// What is known of a view's entry.
#[derive(Debug, Clone, Copy)]
struct Reached {
    offset: u64,
    halted: bool,
}

/// How far a worker is behind, reported at the pace of hand-overs, for as long as it works.
#[derive(Debug)]
pub(super) struct Lag {
    stream: Name,
    partition: PartitionId,
    reported_ms: Option<i64>,
    /// When the log took the last event that was read.
    append_time_ms: Option<i64>,
    /// What was known last of each view. All of them have been told.
    views: BTreeMap<Name, Reached>,
}

impl Lag {
    pub(super) fn new(stream: Name, partition: PartitionId) -> Self {
        Self { stream, partition, reported_ms: None, append_time_ms: None, views: BTreeMap::new() }
    }

    /// Notes what was read.
    pub(super) fn read(&mut self, read: &ReadStep) {
        let append_times =
            read.rows.column_by_name(APPEND_TIME).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        if let Some(last_us) = append_times.and_then(|times| times.values().last()) {
            self.append_time_ms = Some(last_us / 1000);
        }
    }

    pub(super) async fn report(&mut self, parts: &SpeedParts, lanes: &[Lane]) {
        let now_ms = parts.clock.now_ms();
        let interval_ms = i64::try_from(parts.limits.hand_over_interval.as_millis()).unwrap_or(i64::MAX);
        if self.reported_ms.is_some_and(|reported_ms| now_ms.saturating_sub(reported_ms) < interval_ms) {
            return;
        }
        self.reported_ms = Some(now_ms);
        // A log that does not answer is reported by the next read.
        let Ok(bounds) = parts.log.bounds(&self.stream, self.partition).await else { return };
        let mut behind = Behind::default();
        for lane in lanes {
            if let Some(known) = &lane.known {
                let reached = Reached { offset: known.entry.position.offset.0, halted: known.entry.halted.is_some() };
                self.views.insert(lane.view.name().clone(), reached);
            }
        }
        for (view, reached) in &self.views {
            let records = bounds.end.0.saturating_sub(reached.offset);
            let behind_ms = match self.append_time_ms {
                Some(append_time_ms) if records > 0 => now_ms.saturating_sub(append_time_ms).max(0),
                _ => 0,
            };
            behind = Behind { records: behind.records.max(records), ms: behind.ms.max(behind_ms) };
            let told = Told {
                halted: f64::from(u8::from(reached.halted)),
                position: reached.offset as f64,
                lag_records: records as f64,
                lag_seconds: behind_ms as f64 / 1000.0,
            };
            told.set(&self.stream, self.partition, view);
        }
        parts.activity.report(&self.stream, self.partition, behind);
    }
}

impl Drop for Lag {
    /// The partition is somebody else's now, or nobody's.
    fn drop(&mut self) {
        for view in self.views.keys() {
            WITHDRAWN.set(&self.stream, self.partition, view);
        }
    }
}

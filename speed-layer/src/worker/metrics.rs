//! What a worker tells about itself.

use std::collections::BTreeMap;

use arrow::{array::AsArray, datatypes::TimestampMicrosecondType};
use metrics::{counter, gauge};
use riomar_event_log::ReadStep;
use riomar_schemas::{Name, stream::APPEND_TIME};

use super::{SpeedParts, WorkerStep, lane::Lane};

macro_rules! of_view {
    ($kind:ident, $name:literal, $parts:expr, $view:expr $(, $label:literal => $value:expr)*) => {
        $kind!(
            $name, "stream" => $parts.stream.name.to_string(), "partition" => $parts.partition.to_string(),
            "view" => $view.to_string() $(, $label => $value)*
        )
    };
}

pub(super) fn count_folded(parts: &SpeedParts, view: &Name, events: u64) {
    of_view!(counter, "riomar_speed_folded_events_total", parts, view).increment(events);
}

pub(super) fn count_fenced(parts: &SpeedParts, view: &Name) {
    of_view!(counter, "riomar_speed_fenced_writes_total", parts, view).increment(1);
}

pub(super) fn count_settled(parts: &SpeedParts, step: &WorkerStep) {
    for (view, reason) in &step.rebuilds {
        of_view!(counter, "riomar_speed_rebuilds_total", parts, view, "reason" => reason.label()).increment(1);
    }
}

/// How far a worker is behind, reported at the pace of hand-overs.
#[derive(Debug, Default)]
pub(super) struct Lag {
    reported_ms: Option<i64>,
    /// When the log took the last event that was read.
    append_time_ms: Option<i64>,
    /// The last position known of each view.
    positions: BTreeMap<Name, u64>,
}

impl Lag {
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
        let Ok(bounds) = parts.log.bounds(&parts.stream.name, parts.partition).await else { return };
        for lane in lanes {
            let view = lane.view.name();
            if let Some(known) = &lane.known {
                self.positions.insert(view.clone(), known.entry.position.offset.0);
                of_view!(gauge, "riomar_speed_halted", parts, view).set(f64::from(u8::from(known.entry.halted.is_some())));
            }
            let Some(&offset) = self.positions.get(view) else { continue };
            let records = bounds.end.0.saturating_sub(offset);
            let behind_ms = match self.append_time_ms {
                Some(append_time_ms) if records > 0 => now_ms.saturating_sub(append_time_ms).max(0),
                _ => 0,
            };
            of_view!(gauge, "riomar_speed_position", parts, view).set(offset as f64);
            of_view!(gauge, "riomar_speed_lag_records", parts, view).set(records as f64);
            of_view!(gauge, "riomar_speed_lag_seconds", parts, view).set(behind_ms as f64 / 1000.0);
        }
    }
}

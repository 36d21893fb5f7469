//! How far landing is behind the log: told whether or not landing succeeds, for that is when it falls behind.

use std::collections::BTreeMap;

use futures::future::join_all;
use riomar_event_log::{Clock, Log, PartitionBounds};
use riomar_schemas::{Name, Offset, PartitionId};

use crate::{
    context::is_over,
    telemetry::{self, LandingGauges},
};

/// How often it is told.
const REPORT_EVERY_MS: i64 = 2_000;

/// How far each partition of a stream is behind.
#[derive(Debug)]
pub(super) struct Lags {
    stream: Name,
    /// What is known, for as long as this landing works: a failure forgets what is buffered, not what has landed.
    partitions: BTreeMap<PartitionId, Lag>,
    reported_ms: Option<i64>,
}

/// How far one partition is behind.
#[derive(Debug, Default, Clone, Copy)]
struct Lag {
    /// The first offset that has not landed.
    landed: Offset,
    /// The log's end when it was first seen that not all had landed, and when that was, in milliseconds since 1970-01-01 UTC.
    behind: Option<(Offset, i64)>,
    /// What the log was last seen to hold.
    bounds: Option<PartitionBounds>,
}

impl Lag {
    /// Records that have not landed, and milliseconds since the oldest of them was first seen.
    fn behind(&mut self, end: Offset, now_ms: i64) -> (u64, i64) {
        if self.behind.is_none_or(|(seen, _)| seen <= self.landed) {
            self.behind = (self.landed < end).then_some((end, now_ms));
        }
        let since_ms = self.behind.map_or(now_ms, |(_, since_ms)| since_ms);
        (end.0.saturating_sub(self.landed.0), now_ms.saturating_sub(since_ms).max(0))
    }
}

impl Lags {
    pub(super) fn new(stream: Name) -> Self {
        Self { stream, partitions: BTreeMap::new(), reported_ms: None }
    }

    /// Notes that everything before an offset has landed.
    pub(super) fn landed(&mut self, partition: PartitionId, offset: Offset) {
        let lag = self.partitions.entry(partition).or_default();
        lag.landed = lag.landed.max(offset);
    }

    /// Notes what the log holds of a partition.
    pub(super) fn looked_at(&mut self, partition: PartitionId, bounds: PartitionBounds) {
        self.partitions.entry(partition).or_default().bounds = Some(bounds);
    }

    /// Tells how far each partition is behind, if that is due. Those that fail are looked at by whoever tries them again.
    pub(super) async fn report(&mut self, log: &dyn Log, clock: &dyn Clock, is_failing: impl Fn(PartitionId) -> bool) {
        let now_ms = clock.now_ms();
        if self.reported_ms.is_some_and(|reported_ms| !is_over(reported_ms, REPORT_EVERY_MS, now_ms)) {
            return;
        }
        self.reported_ms = Some(now_ms);
        let asked: Vec<_> = self.partitions.keys().copied().filter(|id| !is_failing(*id)).collect();
        let stream = &self.stream;
        let answers = join_all(asked.iter().map(|id| log.bounds(stream, *id))).await;
        for (id, answer) in asked.into_iter().zip(answers) {
            // A log that does not answer is reported by the next read.
            self.partitions.entry(id).or_default().bounds = answer.ok();
        }
        for (partition, lag) in &mut self.partitions {
            let Some(bounds) = lag.bounds else { continue };
            let (lag_records, lag_ms) = lag.behind(bounds.end, now_ms);
            let gauges = LandingGauges { landed: lag.landed, bounds, lag_records, lag_ms };
            telemetry::landing(&self.stream, *partition, &gauges);
        }
    }
}

impl Drop for Lags {
    /// Another process lands now, or none.
    fn drop(&mut self) {
        for partition in self.partitions.keys() {
            telemetry::landing_ended(&self.stream, *partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_that_of_the_oldest_record_that_was_seen_not_to_have_landed() {
        let mut lag = Lag { landed: Offset(10), ..Lag::default() };
        assert_eq!(lag.behind(Offset(10), 1_000), (0, 0));
        assert_eq!(lag.behind(Offset(15), 2_000), (5, 0));
        assert_eq!(lag.behind(Offset(30), 5_000), (20, 3_000), "the first five have not landed yet");
        lag.landed = Offset(14);
        assert_eq!(lag.behind(Offset(30), 6_000), (16, 4_000), "nor all of them now");
        lag.landed = Offset(15);
        assert_eq!(lag.behind(Offset(30), 7_000), (15, 0), "those behind them count from here");
        lag.landed = Offset(30);
        assert_eq!(lag.behind(Offset(30), 9_000), (0, 0));
    }
}

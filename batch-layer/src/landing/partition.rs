//! What landing holds of one partition between two commits.

use arrow::{array::AsArray, datatypes::TimestampMicrosecondType, record_batch::RecordBatch};
use riomar_event_log::{EpochReader, ReadStep, reader::Undecodable};
use riomar_schemas::{Epoch, Offset};

use crate::master::{Advance, LandedPartition};

/// An event is late when its event time is more than this behind the highest one seen before in its partition.
pub const LATE_AFTER_US: i64 = 60_000_000;

/// A partition that is being landed.
#[derive(Debug)]
pub(super) struct PartitionBuffer {
    pub reader: EpochReader,
    /// The offset that the last commit reached.
    committed: Offset,
    /// What will have landed with the next commit.
    landed: LandedPartition,
    /// The rows for the next commit.
    pub rows: Vec<RecordBatch>,
    /// Cuts that opened an epoch since the last commit: the number, and the first position behind it.
    pub cuts: Vec<(Epoch, Offset)>,
    /// Records for quarantine.
    pub undecodable: Vec<Undecodable>,
}

impl PartitionBuffer {
    pub(super) fn new(reader: EpochReader, landed: LandedPartition) -> Self {
        let committed = landed.position.offset;
        Self { reader, committed, landed, rows: Vec::new(), cuts: Vec::new(), undecodable: Vec::new() }
    }

    /// Takes over what one step of the reader gave.
    pub(super) fn absorb(&mut self, step: ReadStep, event_time: &str) {
        self.cuts.extend(step.cuts);
        self.landed.position = step.to;
        self.landed.landed += step.rows.num_rows() as u64;
        self.landed.duplicates += step.duplicates;
        self.landed.undecodable += step.undecodable.len() as u64;
        self.undecodable.extend(step.undecodable);
        if step.rows.num_rows() > 0 {
            observe_times(&mut self.landed, &step.rows, event_time);
            self.rows.push(step.rows);
        }
    }

    /// How far the next commit takes the partition; `None` where nothing was read.
    pub(super) fn advance(&self) -> Option<Advance> {
        (self.landed.position.offset != self.committed).then_some(Advance { from: self.committed, to: self.landed })
    }

    /// What has landed once the last commit is counted.
    pub(super) fn landed(&self) -> &LandedPartition {
        &self.landed
    }

    /// The buffered rows are in the master dataset.
    pub(super) fn committed(&mut self) {
        self.committed = self.landed.position.offset;
        self.rows.clear();
        self.cuts.clear();
        self.undecodable.clear();
    }
}

/// Counts late events: the rows stand in order of their offsets.
fn observe_times(landed: &mut LandedPartition, rows: &RecordBatch, event_time: &str) {
    let Some(times) = rows.column_by_name(event_time).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
    else {
        return;
    };
    for time in times.values() {
        let highest = landed.event_time_max_us.unwrap_or(*time);
        let behind = highest.saturating_sub(*time);
        if behind > LATE_AFTER_US {
            landed.late += 1;
            landed.lateness_max_ms = landed.lateness_max_ms.max(behind.unsigned_abs() / 1000);
        }
        landed.event_time_max_us = Some(highest.max(*time));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::TimestampMicrosecondArray,
        datatypes::{Field, Schema},
    };
    use riomar_schemas::stream::timestamp_type;

    use super::*;

    #[test]
    fn counts_late_events_and_how_late() {
        let schema = Arc::new(Schema::new(vec![Field::new("ts", timestamp_type(), false)]));
        let seconds = [100, 40, 39, 160, 99, -100_000];
        let times = TimestampMicrosecondArray::from_iter_values(seconds.map(|s| s * 1_000_000)).with_timezone("UTC");
        let rows = RecordBatch::try_new(schema, vec![Arc::new(times)]).expect("one column");
        let mut landed = LandedPartition::default();
        observe_times(&mut landed, &rows, "ts");
        assert_eq!(landed.late, 3, "39, 99 and -100000; 40 is exactly 60 s behind");
        assert_eq!(landed.lateness_max_ms, 100_160_000);
        assert_eq!(landed.event_time_max_us, Some(160_000_000));
    }
}

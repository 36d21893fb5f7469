//! Which events of a partition count: epochs at cuts, duplicates by the rule of the cut protocol.

use std::collections::HashMap;

use riomar_schemas::record::{Record, RecordBody};

use super::{
    OracleStream,
    row::{Row, parse},
};

/// Everything the log holds of one partition, in order of offsets, and the epoch that it begins in.
#[derive(Debug, Clone, Default)]
pub struct LogPartition {
    /// The registered first epoch of the partition.
    pub first_epoch: u64,
    /// All its records.
    pub records: Vec<Record>,
}

/// What became of one event record.
#[derive(Debug, Clone, PartialEq)]
pub enum Kept {
    /// It counts, in this epoch.
    Kept(u64, Row),
    /// An earlier kept event has its id.
    Duplicate,
    /// It is no event of the stream.
    Undecodable,
}

/// What becomes of each event record before offset `through`: `(offset, …)`.
#[must_use]
pub fn walk(stream: &OracleStream, partition: &LogPartition, through: u64) -> Vec<(u64, Kept)> {
    let mut epoch = partition.first_epoch;
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut outcome = Vec::new();
    for record in partition.records.iter().take_while(|record| record.offset.0 < through) {
        let text = match &record.body {
            RecordBody::Cut(number) => {
                epoch = epoch.max(number.0);
                continue;
            }
            RecordBody::Event(text) => text,
        };
        let kept = match parse(stream, text) {
            None => Kept::Undecodable,
            Some((Some(id), _)) if seen.get(&id).is_some_and(|kept_in| kept_in + stream.dedup_epochs >= epoch) => Kept::Duplicate,
            Some((id, row)) => {
                seen.extend(id.map(|id| (id, epoch)));
                Kept::Kept(epoch, row)
            }
        };
        outcome.push((record.offset.0, kept));
    }
    outcome
}

/// The events that count before the positions `through` (one for each partition, in order).
#[must_use]
pub fn kept(stream: &OracleStream, partitions: &[LogPartition], through: &[u64]) -> Vec<Row> {
    let walked = partitions.iter().zip(through).flat_map(|(partition, &through)| walk(stream, partition, through));
    walked.filter_map(|(_, kept)| if let Kept::Kept(_, row) = kept { Some(row) } else { None }).collect()
}

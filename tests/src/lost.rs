//! The oracle's log where the platform's log has lost records: everything that was ever in it, and what of it does not count any more.

use riomar_event_log::{Log, LogError, ReadLimit};
use riomar_schemas::{
    Epoch, Name, Offset, PartitionId,
    record::{Record, RecordBody},
};
use serde::Deserialize;

use crate::{oracle::LogPartition, process::DEADLINE};

/// Everything that was ever in the log of a stream.
#[derive(Debug, Clone)]
pub struct Book {
    stream: Name,
    partitions: Vec<LogPartition>,
    losses: Vec<Accepted>,
}

/// A loss that was accepted, as the platform tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Accepted {
    /// The partition.
    pub partition: usize,
    /// The first offset lost.
    pub from: u64,
    /// The first offset behind those lost.
    pub to: u64,
    /// The epoch that begins there.
    pub epoch: u64,
}

impl Book {
    /// An empty book of a stream whose partitions were there before its first cut.
    ///
    /// # Panics
    /// When the name is none.
    #[must_use]
    pub fn new(stream: &str, partitions: usize) -> Self {
        let stream = Name::new(stream).expect("a name");
        Self { stream, partitions: vec![LogPartition::default(); partitions], losses: Vec::new() }
    }

    /// Writes down what the log holds by now. To be called before it lets go of anything.
    ///
    /// # Errors
    /// A log that cannot be read, or that let go of records before they were written down.
    pub async fn note(&mut self, log: &dyn Log) -> Result<(), LogError> {
        for (number, book) in (0..).zip(&mut self.partitions) {
            let partition = PartitionId(number);
            let end = log.bounds(&self.stream, partition).await?.end;
            let mut next = book.records.last().map_or(Offset(0), |last| last.offset.next());
            while next < end {
                let limit = ReadLimit { records: 10_000, bytes: 64 << 20, wait: DEADLINE };
                let read = log.read(&self.stream, partition, next, limit).await?;
                next = read.next;
                book.records.extend(read);
            }
        }
        Ok(())
    }

    /// Takes over what was accepted.
    pub fn accept(&mut self, losses: Vec<Accepted>) {
        self.losses = losses;
    }

    /// What was accepted.
    #[must_use]
    pub fn losses(&self) -> &[Accepted] {
        &self.losses
    }

    /// The log that answers are held against: without what was lost, and with a cut behind each loss that opens its epoch.
    #[must_use]
    pub fn log(&self) -> Vec<LogPartition> {
        let mut log = self.partitions.clone();
        for Accepted { partition, from, to, epoch } in &self.losses {
            let records = &mut log[*partition].records;
            records.retain(|record| !(*from..*to).contains(&record.offset.0));
            let place = records.partition_point(|record| record.offset.0 < *from);
            let cut = Record { offset: Offset(*to - 1), append_time_ms: 0, body: RecordBody::Cut(Epoch(*epoch)) };
            records.insert(place, cut);
        }
        log
    }

    /// The first offset behind the last event of each partition.
    #[must_use]
    pub fn event_ends(&self) -> Vec<u64> {
        let is_event = |record: &&Record| matches!(record.body, RecordBody::Event(_));
        let end = |book: &LogPartition| book.records.iter().rfind(is_event).map_or(0, |last| last.offset.0 + 1);
        self.partitions.iter().map(end).collect()
    }

    /// The text of the events in a range of offsets, one a line.
    #[must_use]
    pub fn events(&self, partition: usize, from: u64, to: u64) -> String {
        let lost = self.partitions[partition].records.iter().filter(|record| (from..to).contains(&record.offset.0));
        let text = |record: &Record| match &record.body {
            RecordBody::Event(text) => Some(String::from_utf8_lossy(text).into_owned() + "\n"),
            RecordBody::Cut(_) => None,
        };
        lost.filter_map(text).collect()
    }
}

//! The reader that landing and the speed layer share: counts epochs at cuts, decodes, and leaves out duplicates.
//!
//! Its rules are pure functions of the log, so whoever reads the same records keeps the same events in the same epochs:
//! - A cut opens its epoch if its number is higher than the reader's epoch; otherwise it changes nothing. One whose number is more
//!   than [`CUT_GAP_MAX`] higher is no cut of a batch layer: it changes nothing either, and is returned for quarantine.
//! - A record is a duplicate if an earlier *kept* record of the partition has its id, in the same epoch or in the `dedup_epochs`
//!   epochs before it. A duplicate does not prolong the memory of its id.
//! - A record that breaks its stream's schema has no id, and is returned for quarantine.
//! - An offset at which there is no record (a log may keep some for itself) is passed over, and changes nothing.
//! - Records that the log lost before they landed are passed over once their loss was accepted, and only then: the master dataset
//!   tells where landing goes on, and in which epoch. Until then reading them is an error.
//!
//! A record is decoded once: by whoever lands it. A reader that is opened below the landed position takes the rows up to there from
//! the master dataset, and only what has not landed from the log. The log may still hold the older records, but what they decode to
//! depends on the stream as it is declared now, and a stream may have been given columns since they landed. So both layers fold the
//! same rows by construction, whether a view is computed from the master dataset or rebuilt through a reader. Landing itself opens
//! its readers at the landed position, and reads the log alone.

mod ids;
mod past;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use riomar_schemas::{
    Epoch, EventDecoder, Offset, PartitionId, ReaderPosition, Stream, Violation,
    decode::{RowPosition, violation::OUT_OF_RANGE},
    record::{Record, RecordBody},
};

use crate::{
    error::LogError,
    history::{History, Loss},
    log::{Log, ReadLimit, ReadRecords},
};
use ids::KeptIds;
use past::Past;

/// How much of the log is read at once to learn the ids of records that have not landed.
const REPLAY: ReadLimit = ReadLimit { records: 8192, bytes: 8 << 20, wait: Duration::ZERO };

/// By how much the number of a cut may be higher than the epoch that it ends.
///
/// Numbers have no gaps, and each run sends its cut to every partition; so a partition skips only what was issued while the log did
/// not take appends to it. At a run a minute that would have to go on for 69 days. A number that is higher still was written by a
/// producer that went round the batch layer: taken for a cut, it would make landing record where each number before it lies.
pub const CUT_GAP_MAX: u64 = 100_000;

/// What a cut does to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutEffect {
    /// It opens its epoch.
    Opens,
    /// It was sent again, or later than one with a higher number: it changes nothing.
    Nothing,
    /// It is none, since no batch layer is so far ahead: it is a record that does not decode.
    Refused,
}

impl CutEffect {
    /// What a cut does to a partition in this epoch.
    #[must_use]
    pub fn of(cut: Epoch, epoch: Epoch) -> Self {
        match cut.0.checked_sub(epoch.0) {
            None | Some(0) => Self::Nothing,
            Some(gap) if gap <= CUT_GAP_MAX => Self::Opens,
            Some(_) => Self::Refused,
        }
    }
}

/// What one read of a partition gave.
#[derive(Debug)]
pub struct ReadStep {
    /// Where it began.
    pub from: ReaderPosition,
    /// Where the next one begins.
    pub to: ReaderPosition,
    /// The kept events, in order of their offsets, in [`Stream::row_schema`].
    pub rows: RecordBatch,
    /// Number of records left out as duplicates; 0 where the rows come from the master dataset: landing counted those.
    pub duplicates: u64,
    /// Records that do not decode; none where the rows come from the master dataset: landing quarantined those.
    pub undecodable: Vec<Undecodable>,
    /// Cuts that opened an epoch: its number, and the first position behind the cut. None where the rows come from the master
    /// dataset: landing recorded those when it passed them.
    pub cuts: Vec<(Epoch, Offset)>,
    /// The highest event time among the kept events, in microseconds since 1970-01-01 UTC.
    pub event_time_max_us: Option<i64>,
    /// Losses that were passed over, whole; none where the rows come from the log.
    pub losses: Vec<Loss>,
}

/// A record that breaks its stream's schema though it is in the log, or a cut that cannot be one: its producer went round Riomar.
#[derive(Debug, Clone)]
pub struct Undecodable {
    /// Where it stands.
    pub offset: Offset,
    /// When the log took it, in milliseconds since 1970-01-01 UTC.
    pub append_time_ms: i64,
    /// Its bytes; none of a cut.
    pub raw: Bytes,
    /// What is wrong with it.
    pub violation: Violation,
}

/// Reads one partition from a position on.
pub struct EpochReader {
    log: Arc<dyn Log>,
    history: Arc<dyn History>,
    stream: Arc<Stream>,
    partition: PartitionId,
    position: ReaderPosition,
    ids: KeptIds,
    decoder: EventDecoder,
    /// How far the rows come from the master dataset.
    landed: Offset,
    /// The rest of those rows, while they are being read.
    past: Option<Past>,
}

impl fmt::Debug for EpochReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochReader")
            .field("stream", &self.stream.name)
            .field("partition", &self.partition)
            .field("position", &self.position)
            .field("ids", &self.ids.len())
            .finish_non_exhaustive()
    }
}

impl EpochReader {
    /// A reader that starts at `position`, with the ids of the epochs that `dedup_epochs` reaches back to: from the master
    /// dataset, and from the log where landing is behind `position`. Where landing is ahead of `position`, the rows between come
    /// from the master dataset.
    ///
    /// # Errors
    /// Whatever the log or the history reports; [`LogError::OutOfRange`] where the log no longer holds what lies between landing
    /// and `position`, or does not reach up to `position`.
    pub async fn open(
        log: Arc<dyn Log>,
        history: Arc<dyn History>,
        stream: Arc<Stream>,
        partition: PartitionId,
        position: ReaderPosition,
    ) -> Result<Self, LogError> {
        let landed = history.landed(&stream, partition).await?;
        let ids = KeptIds::new(stream.dedup_epochs);
        let decoder = EventDecoder::new(stream.clone());
        let mut reader = Self { log, history, stream, partition, position, ids, decoder, landed: landed.offset, past: None };
        if reader.stream.dedup_by.is_some() {
            reader.load_ids(landed).await?;
        }
        Ok(reader)
    }

    /// Where the next step begins.
    #[must_use]
    pub fn position(&self) -> ReaderPosition {
        self.position
    }

    /// Reads on: from the master dataset what had landed when the reader was opened, and what the log no longer holds; from the
    /// log everything else.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] where neither log nor master dataset has the next record; after any error the reader may be used
    /// again and stands where it stood.
    pub async fn next(&mut self, limit: ReadLimit) -> Result<ReadStep, LogError> {
        // The position and the ids change behind the last await, so a step that fails or is given up has not happened.
        let past = match self.past.take() {
            None if self.position.offset < self.landed => self.open_past().await?,
            past => past,
        };
        if let Some(past) = past {
            return self.next_of_past(past, limit).await;
        }
        match self.log.read(&self.stream.name, self.partition, self.position.offset, limit).await {
            Ok(read) => self.fold(read),
            Err(trimmed @ LogError::OutOfRange { wanted, start, .. }) if wanted < start => match self.open_past().await? {
                Some(past) => self.next_of_past(past, limit).await,
                None => Err(trimmed),
            },
            Err(error) => Err(error),
        }
    }

    /// Loads the ids that records behind the position may repeat.
    async fn load_ids(&mut self, landed: ReaderPosition) -> Result<(), LogError> {
        let target = self.position;
        // Rows that landed behind the position are not the past of this reader.
        let start = if landed.offset < target.offset { landed } else { target };
        let horizon = start.epoch.dedup_horizon(self.stream.dedup_epochs);
        let kept = self.history.kept_ids(&self.stream, self.partition, horizon, start.offset).await?;
        self.check_ids(kept.len())?;
        self.ids.load(kept);
        self.ids.enter(start.epoch);
        self.position = start;
        while self.position.offset < target.offset {
            let remaining = usize::try_from(target.offset.0 - self.position.offset.0).unwrap_or(usize::MAX);
            let limit = ReadLimit { records: remaining.min(REPLAY.records), ..REPLAY };
            let mut read = self.log.read(&self.stream.name, self.partition, self.position.offset, limit).await?;
            read.records.retain(|record| record.offset < target.offset);
            if read.next <= self.position.offset {
                return Err(self.log_ends_before(target.offset).await?);
            }
            self.fold(read)?;
        }
        self.position = target;
        self.ids.enter(target.epoch);
        Ok(())
    }

    /// Refuses to hold more ids than the stream allows, before anything of a step has happened: so each event counts as a new id.
    fn check_ids(&self, more: usize) -> Result<(), LogError> {
        let (found, max) = ((self.ids.len() + more) as u64, self.stream.dedup_ids_max);
        if self.stream.dedup_by.is_some() && found > max {
            return Err(LogError::TooManyIds { stream: self.stream.name.clone(), partition: self.partition, found, max });
        }
        Ok(())
    }

    async fn log_ends_before(&self, wanted: Offset) -> Result<LogError, LogError> {
        let bounds = self.log.bounds(&self.stream.name, self.partition).await?;
        let (stream, partition) = (self.stream.name.clone(), self.partition);
        Ok(LogError::OutOfRange { stream, partition, wanted, start: bounds.start, end: bounds.end })
    }

    /// Takes the step over these records: the only place where the rules are.
    fn fold(&mut self, read: ReadRecords) -> Result<ReadStep, LogError> {
        let got = read.first().map_or(read.next, |first| first.offset);
        if got < self.position.offset {
            let from = self.position.offset;
            return Err(LogError::Damaged(format!("a read from offset {from} returned the record at {got}")));
        }
        self.check_ids(read.iter().filter(|record| matches!(record.body, RecordBody::Event(_))).count())?;
        let from = self.position;
        let mut to = from;
        let mut duplicates = 0;
        let mut undecodable = Vec::new();
        let mut cuts = Vec::new();
        let mut event_time_max_us = None;
        let next = read.next;
        for Record { offset, append_time_ms, body } in read {
            to.offset = offset.next();
            match body {
                RecordBody::Cut(cut) => match CutEffect::of(cut, to.epoch) {
                    CutEffect::Opens => {
                        to.epoch = cut;
                        self.ids.enter(cut);
                        cuts.push((cut, to.offset));
                    }
                    CutEffect::Nothing => {}
                    CutEffect::Refused => {
                        let (raw, violation) = (Bytes::new(), refused_cut(cut, to.epoch));
                        undecodable.push(Undecodable { offset, append_time_ms, raw, violation });
                    }
                },
                RecordBody::Event(raw) => match self.decoder.decode(&raw) {
                    Err(violation) => undecodable.push(Undecodable { offset, append_time_ms, raw, violation }),
                    Ok(event) => {
                        if event.id.is_none_or(|id| self.ids.keep(id)) {
                            self.decoder.keep(RowPosition { partition: self.partition, offset, epoch: to.epoch, append_time_ms });
                            event_time_max_us = event_time_max_us.max(Some(event.event_time_us));
                        } else {
                            duplicates += 1;
                        }
                    }
                },
            }
        }
        // Behind offsets at which there is no record, as far as the log knows of them.
        to.offset = to.offset.max(next);
        self.position = to;
        let (rows, losses) = (self.decoder.finish(), Vec::new());
        Ok(ReadStep { from, to, rows, duplicates, undecodable, cuts, event_time_max_us, losses })
    }
}

/// Why a record that says it is a cut is none.
fn refused_cut(cut: Epoch, epoch: Epoch) -> Violation {
    let detail = format!(
        "it says that it is cut {cut}, which is more than CUT_GAP_MAX ({CUT_GAP_MAX}) above epoch {epoch} of its partition: cuts are \
         written by the batch layer alone"
    );
    Violation { code: OUT_OF_RANGE.to_owned(), pointer: String::new(), detail }
}

//! Reading from the master dataset what has landed.
//!
//! The rows there are what an earlier reader kept, with the epochs it counted; so they are taken as they are, up to where landing
//! stood when the rows were asked for. From there on it is the log's turn again.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array},
    compute,
    datatypes::{Int64Type, TimestampMicrosecondType},
    record_batch::RecordBatch,
};
use futures::{StreamExt, stream::BoxStream};
use riomar_schemas::{
    Epoch, Offset, ReaderPosition, Stream,
    decode::{IdDigest, id_digests},
    stream::{EPOCH, OFFSET},
};

use super::{EpochReader, ReadStep};
use crate::{error::LogError, history::Loss, log::ReadLimit};

/// The rows between a position and where landing stood.
pub struct Past {
    /// A stream alone cannot be shared between threads; only `get_mut` is used, which never locks.
    batches: Mutex<BoxStream<'static, Result<RecordBatch, LogError>>>,
    /// Rows that were read and not returned yet; none of them is empty.
    pending: VecDeque<Pending>,
    ended: bool,
    landed: ReaderPosition,
    /// What landing has lost from the position that the rows begin at.
    losses: Vec<Loss>,
}

/// The rest of a batch, and what a row of it takes on average.
struct Pending {
    rows: RecordBatch,
    row_bytes: usize,
}

impl Past {
    /// Reads until it is known what the next step returns, and whether it is the last one.
    async fn fill(&mut self, limit: ReadLimit) -> Result<(), LogError> {
        while !self.ended && self.pending.iter().map(|pending| pending.rows.num_rows()).sum::<usize>() <= self.step_rows(limit) {
            match self.batches.get_mut().unwrap_or_else(PoisonError::into_inner).next().await.transpose()? {
                Some(rows) if rows.num_rows() > 0 => {
                    let row_bytes = rows.get_array_memory_size().div_ceil(rows.num_rows()).max(1);
                    self.pending.push_back(Pending { rows, row_bytes });
                }
                Some(_) => {}
                None => self.ended = true,
            }
        }
        Ok(())
    }

    /// How many rows the next step returns: as many of the first batch as the limit allows, but one at least.
    fn step_rows(&self, limit: ReadLimit) -> usize {
        let first = self.pending.front();
        first.map_or(0, |first| first.rows.num_rows().min(limit.records).min(limit.bytes / first.row_bytes).max(1))
    }

    /// Takes the rows of the next step. Tells whether it is the last one.
    fn take(&mut self, limit: ReadLimit) -> (Option<RecordBatch>, bool) {
        let count = self.step_rows(limit);
        let taken = self.pending.pop_front().map(|Pending { rows, row_bytes }| {
            if count < rows.num_rows() {
                self.pending.push_front(Pending { rows: rows.slice(count, rows.num_rows() - count), row_bytes });
            }
            rows.slice(0, count)
        });
        (taken, self.ended && self.pending.is_empty())
    }
}

impl EpochReader {
    /// Asks for the rows from the position up to where landing stands; `None` where nothing has landed from the position on.
    pub(super) async fn open_past(&mut self) -> Result<Option<Past>, LogError> {
        let landed = self.history.landed(&self.stream, self.partition).await?;
        if landed.offset <= self.position.offset {
            return Ok(None);
        }
        // Behind `landed`: whatever was lost before it is known by now. What has been lost behind it since is none of these rows' matter.
        let mut losses = self.history.losses(&self.stream, self.partition).await?;
        losses.retain(|loss| self.position.offset <= loss.from && loss.to <= landed.offset);
        let batches = self.history.rows(&self.stream, self.partition, self.position.offset, landed.offset).await?;
        // Also after an error: what came from the master dataset in part comes from there to its end.
        self.landed = landed.offset;
        Ok(Some(Past { batches: Mutex::new(batches), pending: VecDeque::new(), ended: false, landed, losses }))
    }

    /// A step over rows of the master dataset. The last one ends where landing stood.
    ///
    /// # Errors
    /// Whatever the history reports; `past` is lost then, and asked for again from the position that the reader still has.
    pub(super) async fn next_of_past(&mut self, mut past: Past, limit: ReadLimit) -> Result<ReadStep, LogError> {
        past.fill(limit).await?;
        let (rows, last) = past.take(limit);
        let rows = rows.unwrap_or_else(|| RecordBatch::new_empty(self.stream.row_schema().clone()));
        let kept = Kept::of(&self.stream, &rows)?;
        self.check_ids(kept.ids.len())?;
        let from = self.position;
        let to = match kept.last {
            Some(position) if !last => position,
            _ => past.landed,
        };
        for (id, epoch) in kept.ids {
            self.ids.enter(epoch);
            self.ids.keep(id);
        }
        self.ids.enter(to.epoch);
        self.position = to;
        // No row lies within a loss, so a step has passed it whole or not at all.
        let losses = past.losses.extract_if(.., |loss| loss.to <= to.offset).collect();
        self.past = (!last).then_some(past);
        let (event_time_max_us, undecodable, cuts) = (kept.event_time_max_us, Vec::new(), Vec::new());
        Ok(ReadStep { from, to, rows, duplicates: 0, undecodable, cuts, event_time_max_us, losses })
    }
}

/// What a reader needs to know of rows that were kept before.
struct Kept {
    ids: Vec<(IdDigest, Epoch)>,
    /// The position behind the last row.
    last: Option<ReaderPosition>,
    event_time_max_us: Option<i64>,
}

impl Kept {
    fn of(stream: &Stream, rows: &RecordBatch) -> Result<Self, LogError> {
        let offsets = integers(rows, OFFSET)?;
        let epochs = integers(rows, EPOCH)?;
        let epoch = |row: usize| epochs.value(row).try_into().map(Epoch).map_err(|_| wrong(EPOCH));
        let last = match rows.num_rows().checked_sub(1) {
            Some(row) => {
                let offset = offsets.value(row).try_into().map(Offset).map_err(|_| wrong(OFFSET))?;
                Some(ReaderPosition { offset: offset.next(), epoch: epoch(row)? })
            }
            None => None,
        };
        let digests = match stream.dedup_by {
            Some(column) => id_digests(stream, declared(stream, rows, column)?),
            None => Vec::new(),
        };
        let known = digests.into_iter().enumerate().filter_map(|(row, id)| Some((row, id?)));
        let ids = known.map(|(row, id)| Ok((id, epoch(row)?))).collect::<Result<_, LogError>>()?;
        let event_times = declared(stream, rows, stream.event_time)?
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| wrong(stream.columns[stream.event_time].name.as_str()))?;
        Ok(Self { ids, last, event_time_max_us: compute::max(event_times) })
    }
}

fn declared<'a>(stream: &Stream, rows: &'a RecordBatch, column: usize) -> Result<&'a ArrayRef, LogError> {
    let name = stream.columns[column].name.as_str();
    rows.column_by_name(name).ok_or_else(|| wrong(name))
}

fn integers<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a Int64Array, LogError> {
    rows.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>()).ok_or_else(|| wrong(name))
}

fn wrong(column: &str) -> LogError {
    LogError::History(format!("the column {column} of the master dataset is missing, or does not hold what landing writes"))
}

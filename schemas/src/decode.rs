//! From an event's JSON text to a row: the one place where events are checked and decoded.
//!
//! | column | accepts |
//! |---|---|
//! | VARCHAR | a string |
//! | BOOLEAN | `true`, `false` |
//! | INT, BIGINT | a number without fraction and exponent |
//! | DOUBLE | a number; the nearest finite double is kept |
//! | DECIMAL | a number, or a string of one; its digits are taken as they are written, never through floating point |
//! | TIMESTAMP | an RFC 3339 string with an offset (see below), or integer milliseconds since 1970-01-01 UTC |
//! | DATE | a string `YYYY-MM-DD` |
//! | JSON | any value; its compact text is kept |
//!
//! Timestamps are kept to the microsecond: finer digits are cut off, which is towards the past. An absent field is null. Fields
//! that the stream does not declare are kept, in their order and with the digits of their numbers, as one compact JSON object in
//! [`EXTRA`](crate::stream::EXTRA). Names of fields are compared after their escapes are resolved. What breaks these rules is a
//! [`Violation`]; its codes are the constants of [`violation`].

mod fields;
mod json;
mod key;
mod number;
mod row;
#[cfg(test)]
mod tests;
pub(crate) mod time;
pub mod violation;

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder},
    record_batch::RecordBatch,
};

pub(crate) use self::time::TIMESTAMPS_US;
use self::{
    fields::Fields,
    key::KeyHash,
    row::{ColumnBuilder, Row, Slot},
    violation::{EVENT_TOO_LARGE, Fault, INVALID_JSON, INVALID_UTF8, MISSING_FIELD, NOT_AN_OBJECT, TOO_DEEP},
};
pub use self::{
    key::{IdDigest, id_digests},
    violation::Violation,
};
use crate::{
    limits::{EVENT_BYTES_MAX, EVENT_DEPTH_MAX},
    position::{Epoch, Offset, PartitionId},
    stream::Stream,
};

/// What is known of a decoded event before it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// The digest of its id; `None` where the stream has no `dedup_by` or the id is null.
    pub id: Option<IdDigest>,
    /// Its event time in microseconds since 1970-01-01 UTC.
    pub event_time_us: i64,
    /// The partition that its key hashes to: the value of `partition_by`; where that is null, the id; where that is null too, the
    /// whole text of the event. It is the first 8 bytes of the key's BLAKE3 hash, little-endian, modulo the number of
    /// partitions, and stays so for ever.
    pub partition: PartitionId,
}

/// Where a kept event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPosition {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Its epoch.
    pub epoch: Epoch,
    /// When the log took it, in milliseconds since 1970-01-01 UTC.
    pub append_time_ms: i64,
}

/// Decodes events of one stream into batches of [`Stream::row_schema`].
///
/// [`EventDecoder::decode`] checks an event and holds it; [`EventDecoder::keep`] adds the held event to the batch. An event that
/// is not kept leaves no trace, so ingestion checks with the very code that landing and the speed layer decode with.
#[derive(Debug)]
pub struct EventDecoder {
    stream: Arc<Stream>,
    /// The index of each declared column.
    names: HashMap<Box<str>, usize>,
    /// The columns in the order that the event before brought them: the next event most likely does the same.
    order: Vec<usize>,
    row: Row,
    /// Whether `row` is an event that was accepted and not kept so far.
    held: bool,
    batch: Batch,
}

/// The columns of the batch.
#[derive(Debug)]
struct Batch {
    declared: Vec<ColumnBuilder>,
    extra: StringBuilder,
    partition: Int32Builder,
    offset: Int64Builder,
    epoch: Int64Builder,
    append_time: TimestampMicrosecondBuilder,
    rows: usize,
}

impl EventDecoder {
    /// A decoder with an empty batch.
    #[must_use]
    pub fn new(stream: Arc<Stream>) -> Self {
        let names = stream.columns.iter().enumerate().map(|(index, column)| (column.name.as_str().into(), index)).collect();
        let batch = Batch {
            declared: stream.columns.iter().map(|column| ColumnBuilder::new(column.column_type)).collect(),
            extra: StringBuilder::new(),
            partition: Int32Builder::new(),
            offset: Int64Builder::new(),
            epoch: Int64Builder::new(),
            append_time: row::timestamps(),
            rows: 0,
        };
        Self { stream, names, order: Vec::new(), row: Row::default(), held: false, batch }
    }

    /// Checks one event's JSON text and holds its row until the next call.
    ///
    /// # Errors
    /// The first [`Violation`] found. The same bytes give the same result everywhere and always.
    pub fn decode(&mut self, event: &[u8]) -> Result<Decoded, Violation> {
        self.held = false;
        let text = checked_text(event)?;
        self.row.clear(self.stream.columns.len());
        Fields::new(&self.stream.columns, &self.names, &mut self.order, &mut self.row).read(text)?;
        self.complete()?;
        let decoded = self.decoded(text)?;
        self.held = true;
        Ok(decoded)
    }

    /// Makes absent fields null, where they may be.
    fn complete(&mut self) -> Result<(), Violation> {
        for (index, column) in self.stream.columns.iter().enumerate() {
            if matches!(self.row.slot(index), Slot::Absent) {
                if column.not_null {
                    let fault = Fault::new(MISSING_FIELD, format!("{} is NOT NULL, and the field is absent", column.name));
                    return Err(Violation::of_field(column.name.as_str(), fault));
                }
                self.row.set_null(index);
            }
        }
        Ok(())
    }

    /// What is known of the event in `row`.
    fn decoded(&self, text: &str) -> Result<Decoded, Violation> {
        let Slot::Integer(event_time_us) = *self.row.slot(self.stream.event_time) else {
            return Err(Violation::of_event(MISSING_FIELD, "the event has no time"));
        };
        let id = self.stream.dedup_by.and_then(|column| self.row.key(column));
        let key = match self.stream.partition_by {
            column if column == self.stream.dedup_by => id,
            Some(column) => self.row.key(column).or(id),
            None => id,
        };
        let partition = key.unwrap_or_else(|| KeyHash::of_text(text)).partition(self.stream.partitions);
        Ok(Decoded { id: id.map(KeyHash::digest), event_time_us, partition })
    }

    /// Adds the event that [`Self::decode`] accepted last to the batch.
    ///
    /// The texts of one column of a batch may not exceed 2 GiB: finish a batch before its events do.
    ///
    /// # Panics
    /// When the last call was not a [`Self::decode`] that accepted its event: going on would count an event twice, or none.
    pub fn keep(&mut self, at: RowPosition) {
        assert!(self.held, "an event is kept once, after it was accepted");
        self.held = false;
        let batch = &mut self.batch;
        self.row.append_to(&mut batch.declared);
        batch.extra.append_option(self.row.extra());
        batch.partition.append_value(i32::try_from(at.partition.0).expect("a stream has at most 1,024 partitions"));
        batch.offset.append_value(i64::try_from(at.offset.0).expect("offsets count records"));
        batch.epoch.append_value(i64::try_from(at.epoch.0).expect("epochs count cuts"));
        batch.append_time.append_value(at.append_time_ms.checked_mul(1_000).expect("clocks stand within 292,000 years of 1970"));
        batch.rows += 1;
    }

    /// Number of rows in the batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batch.rows
    }

    /// Takes the batch and starts an empty one.
    pub fn finish(&mut self) -> RecordBatch {
        let batch = &mut self.batch;
        let mut columns: Vec<ArrayRef> = batch.declared.iter_mut().map(ColumnBuilder::finish).collect();
        columns.push(Arc::new(batch.extra.finish()));
        columns.push(Arc::new(batch.partition.finish()));
        columns.push(Arc::new(batch.offset.finish()));
        columns.push(Arc::new(batch.epoch.finish()));
        columns.push(Arc::new(batch.append_time.finish()));
        batch.rows = 0;
        RecordBatch::try_new(Arc::clone(self.stream.row_schema()), columns)
            .expect("each builder has its field's type, and every row appended to each of them")
    }
}

/// The event's text, once its bytes, its encoding, its depth and its kind are known to be harmless.
fn checked_text(event: &[u8]) -> Result<&str, Violation> {
    if event.len() > EVENT_BYTES_MAX {
        let detail = format!("the event has {} bytes, at most {EVENT_BYTES_MAX} are accepted", event.len());
        return Err(Violation::of_event(EVENT_TOO_LARGE, detail));
    }
    let text = std::str::from_utf8(event).map_err(|error| {
        let detail = format!("the bytes from index {} on are not UTF-8", error.valid_up_to());
        Violation::of_event(INVALID_UTF8, detail)
    })?;
    if json::is_deeper_than(text, EVENT_DEPTH_MAX) {
        return Err(Violation::of_event(TOO_DEEP, format!("the event has more than {EVENT_DEPTH_MAX} levels")));
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    if event.iter().find(|byte| !is_space(byte)) != Some(&b'{') {
        return Err(match json::check(text) {
            Ok(()) => Violation::of_event(NOT_AN_OBJECT, "an event is a JSON object"),
            Err(error) => Violation::of_event(INVALID_JSON, error.to_string()),
        });
    }
    Ok(text)
}

//! Quarantine: where an event goes that cannot be decoded or breaks its schema, with the reason and its raw bytes.
//!
//! It is a log of its own beside the stream's log, so it is durable in the same way and read with the same positions.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use riomar_schemas::{
    Name, Offset, PartitionId, Violation,
    limits::EVENT_BYTES_MAX,
    name::NAME_BYTES_MAX,
    record::{Record, RecordBody},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{
    error::LogError,
    log::{Log, ReadLimit},
};

/// What the name of a stream's quarantine ends with.
pub const SUFFIX: &str = "__quarantine";
/// Bytes that the name of a stream with a quarantine may have.
pub const QUARANTINED_NAME_BYTES_MAX: usize = NAME_BYTES_MAX - SUFFIX.len();
/// Bytes of entries that one read returns, though never fewer than one entry.
pub const READ_BYTES_MAX: usize = 16 << 20;

/// Bytes of an event that are kept here. Ingestion refuses a larger one; what a producer that goes round it has put into the log is
/// kept up to here, and the reason says so: whole it might not fit into any record.
pub const RAW_BYTES_MAX: usize = EVENT_BYTES_MAX;

/// Every quarantine has one partition: its entries are few, and their order is that of their arrival.
const PARTITION: PartitionId = PartitionId(0);
/// Bytes and entries that are appended at once.
const APPEND_BYTES: usize = 8 << 20;
const APPEND_ENTRIES: usize = 10_000;
/// Entries that are summed up at once.
const ACCOUNT_ENTRIES: usize = 10_000;

/// What the entry tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// One event, kept with its raw bytes.
    Quarantined,
    /// Events that were refused and not kept, because they broke a limit: only their number and the reason are.
    Rejected,
}

/// One entry of a stream's quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineEntry {
    /// What the entry tells.
    pub kind: EntryKind,
    /// Number of events: 1 for [`EntryKind::Quarantined`].
    pub events: u64,
    /// What was wrong.
    #[serde(flatten)]
    pub reason: Violation,
    /// When it was received, in milliseconds since 1970-01-01 UTC.
    pub received_at_ms: i64,
    /// The event as it came, where it is UTF-8, up to [`RAW_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// The event as it came, in Base64, where it is not UTF-8, up to [`RAW_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_base64: Option<String>,
    /// Where it stands in the stream's log, when it was found there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<(PartitionId, Offset)>,
}

/// How many events a stream's quarantine tells of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct QuarantineAccount {
    /// Events kept by ingestion with their raw bytes (those found in the log are counted by landing).
    pub quarantined: u64,
    /// Events refused and not kept.
    pub rejected: u64,
    /// Offsets that were gone before they were counted. The log lets go of none of its own accord, so somebody deleted them, and what
    /// their entries told of is not known: while this is not 0, the other two are *at least* so many.
    pub lost: u64,
}

impl QuarantineAccount {
    fn add(&mut self, entry: &QuarantineEntry) {
        match entry.kind {
            _ if entry.position.is_some() => {}
            EntryKind::Quarantined => self.quarantined += entry.events,
            EntryKind::Rejected => self.rejected += entry.events,
        }
    }
}

/// The sums of one stream, and the offset they reach.
#[derive(Debug, Clone, Copy, Default)]
struct Running {
    account: QuarantineAccount,
    next: Offset,
}

impl Running {
    /// Goes on at `start`: what lies before it is gone.
    fn pass_over(&mut self, stream: &Name, start: Offset) {
        let lost = start.0 - self.next.0;
        tracing::warn!(
            %stream, from = self.next.0, to = start.0,
            "entries of this stream's quarantine were deleted before they were counted: from now on the account's received, quarantined \
             and rejected events are at least what it says"
        );
        self.account.lost += lost;
        self.next = start;
    }
}

/// The quarantines of all streams of a log. Clones share their sums.
#[derive(Debug, Clone)]
pub struct Quarantine {
    log: Arc<dyn Log>,
    /// One lock a stream: whoever asks for an account waits for the one who is adding it up.
    running: Arc<Mutex<HashMap<Name, Arc<Mutex<Running>>>>>,
}

impl Quarantine {
    /// The quarantines that live in this log.
    #[must_use]
    pub fn new(log: Arc<dyn Log>) -> Self {
        Self { log, running: Arc::default() }
    }

    /// Creates the quarantine of a stream, if it is not there.
    ///
    /// # Errors
    /// [`LogError::LimitExceeded`] where the stream's name is longer than [`QUARANTINED_NAME_BYTES_MAX`]; whatever the log
    /// reports.
    pub async fn create(&self, stream: &Name) -> Result<(), LogError> {
        self.log.create(&quarantine_of(stream)?, 1).await
    }

    /// Checks how the quarantine of a stream is set up, if it is there; changes nothing.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn check(&self, stream: &Name) -> Result<(), LogError> {
        match self.log.partitions(&quarantine_of(stream)?).await? {
            0 => Ok(()),
            _ => self.create(stream).await,
        }
    }

    /// Appends entries; returns once they are durable.
    ///
    /// # Errors
    /// Whatever the log reports; the entries are then sent again by the caller.
    pub async fn append(&self, stream: &Name, entries: &[QuarantineEntry]) -> Result<(), LogError> {
        let name = quarantine_of(stream)?;
        let mut records = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let text = serde_json::to_vec(&of_bounded_size(entry))
                .map_err(|error| LogError::Damaged(format!("an entry is not JSON: {error}")))?;
            if !records.is_empty() && (bytes + text.len() > APPEND_BYTES || records.len() >= APPEND_ENTRIES) {
                self.log.append(&name, std::mem::take(&mut records)).await?;
                bytes = 0;
            }
            bytes += text.len();
            records.push((PARTITION, RecordBody::Event(Bytes::from(text))));
        }
        self.log.append(&name, records).await?;
        Ok(())
    }

    /// Up to `limit` entries from an offset on, each with its offset; fewer than there are where they are large.
    ///
    /// # Errors
    /// Whatever the log reports; [`LogError::Damaged`] for an entry that this build cannot read.
    pub async fn read(&self, stream: &Name, from: Offset, limit: usize) -> Result<Vec<(Offset, QuarantineEntry)>, LogError> {
        let limit = ReadLimit { records: limit, bytes: READ_BYTES_MAX, wait: Duration::ZERO };
        let records = self.log.read(&quarantine_of(stream)?, PARTITION, from, limit).await?;
        records.iter().map(|record| Ok((record.offset, entry(stream, record)?))).collect()
    }

    /// The sums over all entries. Reads each entry once in the life of this value; what is deleted afterwards stays counted.
    ///
    /// # Errors
    /// Whatever the log reports; [`LogError::Damaged`] for an entry that this build cannot read. Entries that are gone are no error:
    /// nobody can bring them back, so the sums go on without them and say so.
    pub async fn account(&self, stream: &Name) -> Result<QuarantineAccount, LogError> {
        let running = self.running.lock().await.entry(stream.clone()).or_default().clone();
        let mut running = running.lock().await;
        loop {
            let entries = match self.read(stream, running.next, ACCOUNT_ENTRIES).await {
                Ok(entries) => entries,
                Err(LogError::OutOfRange { wanted, start, .. }) if wanted < start => {
                    running.pass_over(stream, start);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some((last, _)) = entries.last() else {
                return Ok(running.account);
            };
            running.next = last.next();
            for (_, entry) in &entries {
                running.account.add(entry);
            }
        }
    }
}

/// The name of a stream's quarantine.
fn quarantine_of(stream: &Name) -> Result<Name, LogError> {
    Name::new(format!("{stream}{SUFFIX}")).map_err(|_| LogError::LimitExceeded {
        limit: "QUARANTINED_NAME_BYTES_MAX",
        found: stream.as_str().len() as u64,
        max: QUARANTINED_NAME_BYTES_MAX as u64,
    })
}

/// The entry with no more of its event than is kept.
fn of_bounded_size(entry: &QuarantineEntry) -> Cow<'_, QuarantineEntry> {
    // Four characters of Base64 are three bytes.
    const BASE64_MAX: usize = RAW_BYTES_MAX.div_ceil(3) * 4;
    let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    if len(&entry.raw) <= RAW_BYTES_MAX && len(&entry.raw_base64) <= BASE64_MAX {
        return Cow::Borrowed(entry);
    }
    let bytes = len(&entry.raw).max(len(&entry.raw_base64) / 4 * 3);
    let mut shorter = entry.clone();
    shorter.raw = entry.raw.as_ref().map(|raw| raw[..raw.floor_char_boundary(RAW_BYTES_MAX)].to_owned());
    shorter.raw_base64 = entry.raw_base64.as_ref().map(|raw| raw[..raw.floor_char_boundary(BASE64_MAX)].to_owned());
    shorter.reason.detail += &format!(" (of its {bytes} bytes the first {RAW_BYTES_MAX} are kept here)");
    Cow::Owned(shorter)
}

fn entry(stream: &Name, record: &Record) -> Result<QuarantineEntry, LogError> {
    let damaged = |what: String| LogError::Damaged(format!("entry {} of {stream}'s quarantine: {what}", record.offset));
    match &record.body {
        RecordBody::Event(text) => serde_json::from_slice(text).map_err(|error| damaged(error.to_string())),
        RecordBody::Cut(cut) => Err(damaged(format!("it is cut {cut}"))),
    }
}

#[cfg(test)]
mod tests;

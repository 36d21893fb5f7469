//! Retention of the log: letting go of records that are old and have landed.
//!
//! What has landed is read from the master dataset by whoever still needs it, so nothing but disk depends on the age. What has not
//! landed stays, however old it is.

use std::time::Duration;

use riomar_event_log::{Log, LogError, PartitionBounds, ReadLimit};
use riomar_schemas::{Name, Offset, PartitionId};

use crate::{context::Context, error::BatchError, master::Master};

/// One record at a time: only its age is looked at.
const ONE_RECORD: ReadLimit = ReadLimit { records: 1, bytes: 1, wait: Duration::ZERO };

/// What is known of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// The lowest offset that the log holds.
    pub start: Offset,
    /// The first offset that has not landed.
    pub landed: Offset,
    /// The first offset that is too young to go.
    pub young: Offset,
}

/// What to do with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing may go.
    Keep,
    /// The records below this offset may go.
    TrimBelow(Offset),
}

/// Decides how much of a partition goes: what is old and has landed.
#[must_use]
pub fn decide(observed: &Observed) -> Decision {
    let below = observed.young.min(observed.landed);
    if below > observed.start { Decision::TrimBelow(below) } else { Decision::Keep }
}

/// Lets go of the records of a stream that are older than `retain_ms` and have landed. A partition that cannot be read is left as
/// it is, and looked at again with the next call. Gives the number of offsets that went.
///
/// # Errors
/// Where it is unknown what has landed, or how many partitions there are.
pub async fn trim(context: &Context, log: &dyn Log, master: &Master, retain_ms: i64) -> Result<u64, BatchError> {
    let stream = &master.stream().name;
    // An old snapshot says that less has landed, so it matters little when it is taken.
    let snapshot = master.snapshot().await?;
    let oldest_ms = context.clock.now_ms().saturating_sub(retain_ms);
    let mut trimmed = 0;
    for (partition, landed) in &snapshot.partitions {
        match trim_partition(log, stream, *partition, landed.position.offset, oldest_ms).await {
            Ok(offsets) => trimmed += offsets,
            Err(error) => {
                tracing::warn!(%stream, %partition, %error, "old records of the log stay for now; retention goes on with the next run");
            }
        }
    }
    Ok(trimmed)
}

async fn trim_partition(
    log: &dyn Log,
    stream: &Name,
    partition: PartitionId,
    landed: Offset,
    oldest_ms: i64,
) -> Result<u64, LogError> {
    let bounds = log.bounds(stream, partition).await?;
    let young = first_young(log, stream, partition, PartitionBounds { end: bounds.end.min(landed), ..bounds }, oldest_ms).await?;
    match decide(&Observed { start: bounds.start, landed, young }) {
        Decision::Keep => Ok(0),
        Decision::TrimBelow(below) => {
            log.trim(stream, partition, below).await?;
            tracing::debug!(%stream, %partition, %below, "old records of the log went");
            Ok(below.0 - bounds.start.0)
        }
    }
}

/// The first offset within bounds whose record was appended at `oldest_ms` or later; the end where all are older. Append times
/// never fall, so it takes a read for each time that the number of records can be halved; offsets without a record do no harm.
async fn first_young(
    log: &dyn Log,
    stream: &Name,
    partition: PartitionId,
    within: PartitionBounds,
    oldest_ms: i64,
) -> Result<Offset, LogError> {
    let (Offset(mut low), Offset(mut high)) = (within.start, within.end);
    // Nearly always the first record is young enough: one read.
    let mut middle = low;
    while low < high {
        match log.read(stream, partition, Offset(middle), ONE_RECORD).await?.first() {
            Some(record) if record.append_time_ms < oldest_ms => low = record.offset.0 + 1,
            _ => high = middle,
        }
        middle = low + high.saturating_sub(low) / 2;
    }
    Ok(Offset(low.min(within.end.0)))
}

#[cfg(test)]
mod tests;

//! The account of a stream: what was received, and what became of it, to the event.
//!
//! ```text
//! received = accepted + quarantined + rejected
//! accepted = landed + duplicates + in flight + lost
//! ```
//!
//! `lost` is what the log let go of before it landed, once that is accepted: whoever let go of it left no count, so every offset counts
//! as an event, though some may have been cuts. Until it is accepted those offsets are accepted events that are nowhere, and the line
//! does not add up.
//!
//! Entries of quarantine that somebody deleted cannot be counted any more. The account then says how many (`quarantine_lost`), and that
//! what came is *at least* what the first line adds up.
//!
//! `landed`, `duplicates` and `undecodable` are what landing committed beside the rows. A record that landing cannot decode is an
//! event that went round the ingestion endpoint: it counts as quarantined, not as accepted. `accepted` does not come from those
//! numbers: [`Counters`] counts the event records of the log itself, which is neither cuts nor offsets, from where landing stood
//! when this process first looked. So the second line is a check, and `adds_up` says how it came out.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use riomar_batch_layer::master::LandedPartition;
use riomar_event_log::{Log, LogError, Loss, PartitionBounds, ReadLimit, quarantine::QuarantineAccount, reader::CutEffect};
use riomar_schemas::{Epoch, Name, Offset, PartitionId, record::RecordBody};
use serde::Serialize;

/// Records that one read of the count takes.
const READ_RECORDS: usize = 8192;
/// Bytes that one read of the count takes.
const READ_BYTES: usize = 8 << 20;
/// Records behind landing's position that are still counted; beyond them the count begins anew at landing's position.
const COUNT_BEHIND_LANDING_RECORDS_MAX: u64 = 1 << 20;

/// The account of one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StreamAccount {
    /// Events that came, whatever became of them.
    pub received: u64,
    /// Events in the log that are not known to be undecodable.
    pub accepted: u64,
    /// Events in quarantine: kept by ingestion, or found undecodable by landing.
    pub quarantined: u64,
    /// Events refused and not kept.
    pub rejected: u64,
    /// Events in the master dataset.
    pub landed: u64,
    /// Events that landing left out because an event with their id had landed.
    pub duplicates: u64,
    /// Of `quarantined`, those that landing found in the log.
    pub undecodable: u64,
    /// Events in the log that have not landed.
    pub in_flight: u64,
    /// Offsets that the log lost before they landed, whose loss was accepted: at most as many events.
    pub lost: u64,
    /// Entries of quarantine that were deleted before they were counted. While this is not 0, `received`, `quarantined` and `rejected`
    /// are *at least* what they say.
    pub quarantine_lost: u64,
    /// Landed events that were late.
    pub late: Lateness,
    /// Whether `accepted = landed + duplicates + in_flight + lost`.
    pub adds_up: bool,
}

/// How many events were late, and how late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Lateness {
    /// Number of late events.
    pub count: u64,
    /// How far the latest of them was behind, in seconds.
    pub lateness_max_seconds: u64,
}

impl StreamAccount {
    /// The account, from its parts.
    #[must_use]
    pub fn of(partitions: &[(LandedPartition, PartitionCount)], quarantine: QuarantineAccount) -> Self {
        let sum = |number: fn(&LandedPartition) -> u64| partitions.iter().map(|(landed, _)| number(landed)).sum::<u64>();
        let (landed, duplicates, undecodable) = (sum(|p| p.landed), sum(|p| p.duplicates), sum(|p| p.undecodable));
        let records: u64 = partitions.iter().map(|(_, count)| count.events).sum();
        let lost = sum(|p| p.lost);
        let in_flight = partitions.iter().map(|(_, count)| count.in_flight).sum();
        let accepted = records.saturating_sub(undecodable);
        let quarantined = quarantine.quarantined + undecodable;
        let lateness_max_ms = partitions.iter().map(|(landed, _)| landed.lateness_max_ms).max().unwrap_or_default();
        Self {
            received: accepted + quarantined + quarantine.rejected,
            accepted,
            quarantined,
            rejected: quarantine.rejected,
            landed,
            duplicates,
            undecodable,
            in_flight,
            lost,
            quarantine_lost: quarantine.lost,
            late: Lateness { count: sum(|p| p.late), lateness_max_seconds: lateness_max_ms.div_ceil(1000) },
            adds_up: accepted == landed + duplicates + in_flight + lost,
        }
    }
}

/// The event records of one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionCount {
    /// All of them.
    pub events: u64,
    /// Those that landing has not come to.
    pub in_flight: u64,
}

/// One partition's count; `None` until it is first asked for.
type SharedCounter = Arc<tokio::sync::Mutex<Option<Counter>>>;

/// Counts the event records of the log, each partition's once in the life of this value.
#[derive(Debug, Default)]
pub struct Counters {
    partitions: Mutex<HashMap<(Name, PartitionId), SharedCounter>>,
}

impl Counters {
    /// Counts the event records of a partition before the log's end. `landed` must have been read before the end was. What the log
    /// lost counts as events, all of it: `losses`, which were accepted, and what lies between `landed` and the log's start.
    ///
    /// # Errors
    /// Whatever the log reports.
    pub async fn count(
        &self,
        log: &dyn Log,
        stream: &Name,
        partition: PartitionId,
        landed: &LandedPartition,
        losses: &[Loss],
        bounds: PartitionBounds,
    ) -> Result<PartitionCount, LogError> {
        let counter = {
            let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(partitions.entry((stream.clone(), partition)).or_default())
        };
        let mut counter = counter.lock().await;
        let counter = match &mut *counter {
            Some(counter) if counter.reaches(landed, bounds) => counter,
            stale => stale.insert(Counter::starting_at(landed)),
        };
        counter.to = counter.to.max(bounds.start.0);
        counter.count_to(log, stream, partition, bounds.end).await?;
        Ok(counter.counted(landed, losses, bounds))
    }
}

/// The count of one partition.
#[derive(Debug)]
struct Counter {
    /// Event records before `from`, as landing counted them.
    events_before: u64,
    from: u64,
    /// The next record to count, and the epoch that it is in.
    to: u64,
    epoch: Epoch,
    /// Offsets in `[from, to)` at which there is no event: cuts, and what a log may keep for itself.
    not_events: Vec<Range<u64>>,
}

impl Counter {
    fn starting_at(landed: &LandedPartition) -> Self {
        let events_before = landed.landed + landed.duplicates + landed.undecodable + landed.lost;
        let (from, epoch) = (landed.position.offset.0, landed.position.epoch);
        Self { events_before, from, to: from, epoch, not_events: Vec::new() }
    }

    /// Whether counting may go on where it stopped.
    fn reaches(&self, landed: &LandedPartition, bounds: PartitionBounds) -> bool {
        let landed = landed.position.offset.0;
        landed >= self.from && self.to >= bounds.start.0 && landed.saturating_sub(self.to) <= COUNT_BEHIND_LANDING_RECORDS_MAX
    }

    async fn count_to(&mut self, log: &dyn Log, stream: &Name, partition: PartitionId, end: Offset) -> Result<(), LogError> {
        let limit = ReadLimit { records: READ_RECORDS, bytes: READ_BYTES, wait: Duration::ZERO };
        while self.to < end.0 {
            let from = self.to;
            let records = log.read(stream, partition, Offset(from), limit).await?;
            for record in records.iter().take_while(|record| record.offset < end) {
                self.skip_to(record.offset.0);
                if let RecordBody::Cut(cut) = record.body {
                    // One that is refused is an event that does not decode, here as for landing.
                    let effect = CutEffect::of(cut, self.epoch);
                    if effect == CutEffect::Opens {
                        self.epoch = cut;
                    }
                    if effect != CutEffect::Refused {
                        self.skip_to(record.offset.0 + 1);
                    }
                }
                self.to = record.offset.0 + 1;
            }
            // What lies between the records and there is what the log keeps for itself.
            self.skip_to(records.next.0.min(end.0));
            if self.to == from {
                return Err(LogError::Unavailable(format!(
                    "{stream}/{partition} has no records from {from} on, and ends at {end}"
                )));
            }
        }
        Ok(())
    }

    /// Passes over offsets at which there is no event.
    fn skip_to(&mut self, offset: u64) {
        if offset <= self.to {
            return;
        }
        match self.not_events.last_mut() {
            Some(last) if last.end == self.to => last.end = offset,
            _ => self.not_events.push(self.to..offset),
        }
        self.to = offset;
    }

    fn counted(&self, landed: &LandedPartition, losses: &[Loss], bounds: PartitionBounds) -> PartitionCount {
        let (landed, Offset(start), Offset(end)) = (landed.position.offset.0, bounds.start, bounds.end);
        let lost = losses.iter().map(|loss| loss.from.0..loss.to.0).chain(std::iter::once(landed..start));
        // Cuts of what was lost count as events there, as they do in the number of offsets lost.
        let counted_before: u64 = lost.map(|lost| self.not_events(lost.start.max(self.from), lost.end.min(end))).sum();
        let events = self.events_before + self.events(self.from, end) + counted_before;
        PartitionCount { events, in_flight: self.events(landed.max(start), end) }
    }

    /// Event records in `[from, to)`.
    fn events(&self, from: u64, to: u64) -> u64 {
        to.saturating_sub(from) - self.not_events(from, to)
    }

    /// Offsets in `[from, to)` that are known to hold no event.
    fn not_events(&self, from: u64, to: u64) -> u64 {
        self.not_events.iter().map(|range| range.end.min(to).saturating_sub(range.start.max(from))).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use riomar_event_log::{EmbeddedLog, clock::ManualClock, reader::CUT_GAP_MAX};
    use riomar_schemas::{Epoch, ReaderPosition};

    use super::*;

    fn landed(offset: u64, landed: u64, duplicates: u64, undecodable: u64) -> LandedPartition {
        let position = ReaderPosition { offset: Offset(offset), epoch: Epoch(0) };
        LandedPartition { landed, duplicates, undecodable, ..LandedPartition::starting_at(position) }
    }

    fn open(directory: &Path) -> EmbeddedLog {
        EmbeddedLog::open(directory, Arc::new(ManualClock::new(0))).expect("a log")
    }

    #[tokio::test]
    async fn counts_events_and_not_cuts() {
        let directory = tempfile::tempdir().expect("a directory");
        let (log, stream, partition) = (open(directory.path()), Name::new("s").expect("a name"), PartitionId(0));
        log.create(&stream, 1).await.expect("created");
        let event = || (partition, RecordBody::Event(Bytes::from_static(b"{}")));
        let cut = |number| (partition, RecordBody::Cut(Epoch(number)));
        let append = async |records| log.append(&stream, records).await.expect("appended");
        let counters = Counters::default();
        let count = async |landed: &LandedPartition| {
            let bounds = log.bounds(&stream, partition).await.expect("bounds");
            let count = counters.count(&log, &stream, partition, landed, &[], bounds).await.expect("counted");
            (count.events, count.in_flight)
        };

        append(vec![event(), event(), cut(1), event()]).await;
        assert_eq!(count(&landed(0, 0, 0, 0)).await, (3, 3));
        // Landing has passed the cut, and left out one event.
        assert_eq!(count(&landed(3, 1, 1, 0)).await, (3, 1));
        append(vec![cut(2), cut(2), event()]).await;
        assert_eq!(count(&landed(3, 1, 1, 0)).await, (4, 2));
        assert_eq!(count(&landed(6, 2, 1, 0)).await, (4, 1));
        // The count is the log's own: landing that lost an event is found out.
        let lost = landed(7, 2, 1, 0);
        assert_eq!(count(&lost).await, (4, 0));
        let bounds = log.bounds(&stream, partition).await.expect("bounds");
        let counted = counters.count(&log, &stream, partition, &lost, &[], bounds).await.expect("counted");
        assert!(!StreamAccount::of(&[(lost, counted)], QuarantineAccount::default()).adds_up);
        assert!(StreamAccount::of(&[(landed(7, 3, 1, 0), counted)], QuarantineAccount::default()).adds_up);
        // What the end promises and a read does not give, such as that of a broker which lags, is not counted as nothing.
        let ahead = PartitionBounds { end: bounds.end.next(), ..bounds };
        let refused = counters.count(&log, &stream, partition, &lost, &[], ahead).await;
        assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
        append(vec![event()]).await;
        assert_eq!(count(&lost).await, (5, 1));
    }

    #[tokio::test]
    async fn c5_a_cut_that_is_refused_is_an_event_that_does_not_decode() {
        let directory = tempfile::tempdir().expect("a directory");
        let (log, stream, partition) = (open(directory.path()), Name::new("s").expect("a name"), PartitionId(0));
        log.create(&stream, 1).await.expect("created");
        let event = || (partition, RecordBody::Event(Bytes::from_static(b"{}")));
        let cut = |number| (partition, RecordBody::Cut(Epoch(number)));
        let highest = 1 + CUT_GAP_MAX;
        let records = vec![cut(1), cut(highest + 1), event(), cut(highest), cut(highest + 1), cut(1), cut(u64::MAX), event()];
        log.append(&stream, records).await.expect("appended");
        let bounds = log.bounds(&stream, partition).await.expect("bounds");
        // Counted from the beginning, and behind the cut that landing has passed.
        let started = landed(0, 0, 0, 0);
        let position = ReaderPosition { offset: Offset(4), epoch: Epoch(highest) };
        let passed = LandedPartition { position, ..landed(4, 1, 0, 1) };
        for (landed, in_flight) in [(started, 4), (passed, 2)] {
            let counted = Counters::default().count(&log, &stream, partition, &landed, &[], bounds).await.expect("counted");
            assert_eq!(counted, PartitionCount { events: 4, in_flight });
        }
    }

    #[tokio::test]
    async fn begins_anew_where_the_log_was_trimmed() {
        let directory = tempfile::tempdir().expect("a directory");
        let (log, stream, partition) = (open(directory.path()), Name::new("s").expect("a name"), PartitionId(0));
        log.create(&stream, 1).await.expect("created");
        let counters = Counters::default();
        for trimmed in [0, 4] {
            log.append(&stream, vec![(partition, RecordBody::Event(Bytes::from_static(b"{}"))); 5]).await.expect("appended");
            log.trim(&stream, partition, Offset(trimmed)).await.expect("trimmed");
            let bounds = log.bounds(&stream, partition).await.expect("bounds");
            let landed = landed(trimmed, trimmed, 0, 0);
            let count = counters.count(&log, &stream, partition, &landed, &[], bounds).await.expect("counted");
            assert_eq!((count.events, count.in_flight), (bounds.end.0, bounds.end.0 - trimmed));
        }
    }

    #[tokio::test]
    async fn what_the_log_lost_is_missing_until_it_is_accepted_whoever_counts_and_since_when() {
        let directory = tempfile::tempdir().expect("a directory");
        let (log, stream, partition) = (open(directory.path()), Name::new("s").expect("a name"), PartitionId(0));
        log.create(&stream, 1).await.expect("created");
        let event = || (partition, RecordBody::Event(Bytes::from_static(b"{}")));
        let cut = |number| (partition, RecordBody::Cut(Epoch(number)));
        let append = async |records| log.append(&stream, records).await.expect("appended");
        let account = async |counters: &Counters, landed: LandedPartition, losses: &[Loss]| {
            let bounds = log.bounds(&stream, partition).await.expect("bounds");
            let count = counters.count(&log, &stream, partition, &landed, losses, bounds).await.expect("counted");
            let account = StreamAccount::of(&[(landed, count)], QuarantineAccount::default());
            (account.accepted, account.in_flight, account.lost, account.adds_up)
        };
        append(vec![event(), event(), cut(1), event(), event(), cut(2), event()]).await;
        let witness = Counters::default();
        assert_eq!(account(&witness, landed(1, 1, 0, 0), &[]).await, (5, 4, 0, true));
        // An event, a cut and an event are gone; one event, a cut and one event are left to land.
        log.trim(&stream, partition, Offset(4)).await.expect("trimmed");
        let (late, later) = (Counters::default(), Counters::default());
        for counters in [&witness, &late] {
            assert_eq!(account(counters, landed(1, 1, 0, 0), &[]).await, (6, 2, 0, false), "three offsets are nowhere");
        }
        append(vec![event()]).await;
        let (from, to, epoch_before, epoch) = (Offset(1), Offset(4), Epoch(0), Epoch(3));
        let losses = [Loss { from, to, epoch_before, epoch, accepted_at_ms: 0 }];
        for (counters, whom) in [(&witness, "who saw the events"), (&late, "who saw the gap"), (&later, "who saw neither")] {
            let behind = LandedPartition { lost: 3, ..landed(4, 1, 0, 0) };
            assert_eq!(account(counters, behind, &losses).await, (7, 3, 3, true), "{whom}");
            let whole = LandedPartition { lost: 3, ..landed(8, 4, 0, 0) };
            assert_eq!(account(counters, whole, &losses).await, (7, 0, 3, true), "{whom}");
            let wrong = LandedPartition { lost: 3, ..landed(8, 3, 0, 0) };
            assert!(!account(counters, wrong, &losses).await.3, "{whom} finds out when landing loses an event");
        }
    }

    #[test]
    fn undecodable_records_are_quarantined_and_not_accepted() {
        let count = PartitionCount { events: 10, in_flight: 2 };
        let quarantine = QuarantineAccount { quarantined: 3, rejected: 4, lost: 0 };
        let account = StreamAccount::of(&[(landed(8, 5, 1, 2), count)], quarantine);
        assert!(account.adds_up);
        assert_eq!((account.received, account.accepted, account.quarantined, account.rejected), (17, 8, 5, 4));
    }
}

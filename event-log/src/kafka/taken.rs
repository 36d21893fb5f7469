//! What a read has taken so far, within its limit.

use riomar_schemas::{Offset, record::Record};

use crate::log::{ReadLimit, ReadRecords, body_bytes};

/// What a read has taken.
#[derive(Debug)]
pub(super) struct Taken {
    records: Vec<Record>,
    bytes: usize,
    limit: ReadLimit,
    from: Offset,
    next: Offset,
    /// A record came that does not fit any more.
    closed: bool,
}

/// Whether a record was taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It was.
    Found,
    /// It was not: it is for the next read.
    Lacking(Record),
}

impl Taken {
    /// Nothing yet, from an offset on.
    pub(super) fn new(from: Offset, limit: ReadLimit) -> Self {
        Self { records: Vec::new(), bytes: 0, limit, from, next: from, closed: false }
    }

    /// Takes a record if there is room for it, but the first in any case. One that lies before the next offset is dropped: it was
    /// asked for by nobody.
    pub(super) fn take(&mut self, record: Record) -> Room {
        if record.offset < self.next {
            return Room::Found;
        }
        let bytes = self.bytes + body_bytes(&record.body);
        if self.is_full() || (!self.records.is_empty() && bytes > self.limit.bytes) {
            self.closed = true;
            return Room::Lacking(record);
        }
        self.bytes = bytes;
        self.next = record.offset.next();
        self.records.push(record);
        Room::Found
    }

    /// Goes on behind offsets at which there is no record.
    pub(super) fn pass(&mut self, to: Offset) {
        self.next = self.next.max(to);
    }

    /// Whether nothing more can be taken.
    pub(super) fn is_full(&self) -> bool {
        self.closed || self.records.len() >= self.limit.records || (self.bytes >= self.limit.bytes && !self.records.is_empty())
    }

    /// Whether there is no record.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The offset that the read began at.
    pub(super) fn from(&self) -> Offset {
        self.from
    }

    /// The offset to go on from.
    pub(super) fn next(&self) -> Offset {
        self.next
    }

    /// The offset behind the last record: there is none from here up to the next offset.
    pub(super) fn behind_records(&self) -> Offset {
        self.records.last().map_or(self.from, |record| record.offset.next())
    }

    /// What the read gives.
    pub(super) fn into_records(self) -> ReadRecords {
        ReadRecords { records: self.records, next: self.next }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use riomar_schemas::record::RecordBody;

    use super::*;

    fn record(offset: u64, bytes: usize) -> Record {
        Record { offset: Offset(offset), append_time_ms: 0, body: RecordBody::Event(Bytes::from(vec![0; bytes])) }
    }

    fn taken(records: usize, bytes: usize) -> Taken {
        Taken::new(Offset(10), ReadLimit { records, bytes, wait: Duration::ZERO })
    }

    #[test]
    fn what_does_not_fit_is_given_back() {
        let mut two = taken(2, 100);
        assert_eq!((two.take(record(10, 1)), two.take(record(11, 1))), (Room::Found, Room::Found));
        assert!(two.is_full());
        assert_eq!(two.take(record(12, 1)), Room::Lacking(record(12, 1)));
        let mut bytes = taken(9, 25);
        assert_eq!((bytes.take(record(10, 10)), bytes.take(record(11, 10))), (Room::Found, Room::Found));
        assert!(!bytes.is_full());
        assert_eq!(bytes.take(record(12, 10)), Room::Lacking(record(12, 10)));
        assert!(bytes.is_full(), "a smaller one behind it must not overtake it");
        assert_eq!((bytes.next(), bytes.into_records().len()), (Offset(12), 2));
    }

    #[test]
    fn the_first_is_taken_whatever_its_size() {
        let mut small = taken(9, 0);
        assert!(!small.is_full());
        assert_eq!((small.take(record(10, 5)), small.is_full()), (Room::Found, true));
        let none = taken(0, 100);
        assert!(none.is_full());
    }

    #[test]
    fn gaps_are_passed_and_what_is_older_is_left_out() {
        let mut taken = taken(9, 100);
        assert_eq!(taken.take(record(9, 1)), Room::Found);
        assert!(taken.is_empty());
        assert_eq!(taken.take(record(12, 1)), Room::Found);
        taken.pass(Offset(15));
        taken.pass(Offset(3));
        assert_eq!((taken.behind_records(), taken.next()), (Offset(13), Offset(15)));
    }
}

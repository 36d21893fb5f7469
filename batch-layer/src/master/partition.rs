//! What has landed of one partition.

use riomar_schemas::{Epoch, Offset, ReaderPosition};
use serde::Serialize;

/// The position that landing has reached in a partition, and what it has counted up to there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LandedPartition {
    /// The next record to land.
    pub position: ReaderPosition,
    /// Kept events: rows of the master dataset.
    pub landed: u64,
    /// Records left out as duplicates.
    pub duplicates: u64,
    /// Records that did not decode; they are in quarantine.
    pub undecodable: u64,
    /// Offsets that the log lost before they landed, and that were passed over because their loss was accepted.
    pub lost: u64,
    /// Kept events that were late.
    pub late: u64,
    /// How far the latest of the late events was behind, in milliseconds.
    pub lateness_max_ms: u64,
    /// The highest event time, in microseconds since 1970-01-01 UTC.
    pub event_time_max_us: Option<i64>,
}

impl LandedPartition {
    /// What is known of a partition before anything of it has landed.
    #[must_use]
    pub fn starting_at(position: ReaderPosition) -> Self {
        Self { position, ..Self::default() }
    }

    /// Every number by the name it is stored under.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (&'static str, i64)> {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        [
            ("offset", signed(self.position.offset.0)),
            ("epoch", signed(self.position.epoch.0)),
            ("landed", signed(self.landed)),
            ("duplicates", signed(self.duplicates)),
            ("undecodable", signed(self.undecodable)),
            ("lost", signed(self.lost)),
            ("late", signed(self.late)),
            ("lateness_max_ms", signed(self.lateness_max_ms)),
        ]
        .into_iter()
        .chain(self.event_time_max_us.map(|time| ("event_time_max_us", time)))
    }

    /// Takes over one stored number; numbers of later versions are passed over.
    pub(super) fn set(&mut self, what: &str, number: i64) {
        let unsigned = u64::try_from(number).unwrap_or_default();
        match what {
            "offset" => self.position.offset = Offset(unsigned),
            "epoch" => self.position.epoch = Epoch(unsigned),
            "landed" => self.landed = unsigned,
            "duplicates" => self.duplicates = unsigned,
            "undecodable" => self.undecodable = unsigned,
            "lost" => self.lost = unsigned,
            "late" => self.late = unsigned,
            "lateness_max_ms" => self.lateness_max_ms = unsigned,
            "event_time_max_us" => self.event_time_max_us = Some(number),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let landed = LandedPartition {
            position: ReaderPosition { offset: Offset(7), epoch: Epoch(2) },
            landed: 5,
            duplicates: 1,
            undecodable: 1,
            lost: 4,
            late: 3,
            lateness_max_ms: 90_000,
            event_time_max_us: Some(-1),
        };
        let mut back = LandedPartition::default();
        landed.numbers().for_each(|(what, number)| back.set(what, number));
        assert_eq!(back, landed);
    }
}

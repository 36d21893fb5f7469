//! Partitions that land no more, because the log has lost what they would land next.

use std::collections::BTreeMap;

use riomar_schemas::{Name, PartitionId};

use crate::{losses::LostRange, telemetry};

/// The partitions of a stream that are halted. Each is told of once when that begins and once when it ends, however often it is
/// looked at.
#[derive(Debug, Default)]
pub(super) struct Halted {
    /// When each was first seen so, in milliseconds since 1970-01-01 UTC.
    since_ms: BTreeMap<PartitionId, i64>,
}

/// What changed.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Began(LostRange),
    Ended(PartitionId),
}

impl Halted {
    /// Takes what all partitions of a stream lack now, and tells what changed.
    pub(super) fn observe(
        &mut self,
        stream: &Name,
        partitions: impl Iterator<Item = PartitionId>,
        lost: &[LostRange],
        now_ms: i64,
    ) {
        for change in self.changes(lost, now_ms) {
            match change {
                Change::Began(LostRange { partition, from, to }) => tracing::error!(
                    %stream, %partition, %from, %to,
                    "the log let go of records before they landed (offsets from, up to and without to): this partition lands no \
                     more and no generation is published, until they are back in the log or their loss is accepted with \
                     `riomar accept-loss {stream}`"
                ),
                Change::Ended(partition) => tracing::info!(%stream, %partition, "the partition lands again"),
            }
        }
        for id in partitions {
            let range = lost.iter().find(|range| range.partition == id);
            telemetry::lost_records(stream, id, range.map_or(0, LostRange::offsets));
        }
    }

    fn changes(&mut self, lost: &[LostRange], now_ms: i64) -> Vec<Change> {
        let mut before = std::mem::take(&mut self.since_ms);
        let mut changes = Vec::new();
        for range in lost {
            let since_ms = before.remove(&range.partition).unwrap_or_else(|| {
                changes.push(Change::Began(*range));
                now_ms
            });
            self.since_ms.insert(range.partition, since_ms);
        }
        changes.extend(before.into_keys().map(Change::Ended));
        changes
    }
}

#[cfg(test)]
mod tests {
    use riomar_schemas::Offset;

    use super::*;

    #[test]
    fn a_partition_is_told_of_when_it_halts_and_when_it_lands_again() {
        let range = |partition, to| LostRange { partition: PartitionId(partition), from: Offset(5), to: Offset(to) };
        let mut halted = Halted::default();
        assert_eq!(halted.changes(&[], 0), []);
        assert_eq!(halted.changes(&[range(1, 9)], 10), [Change::Began(range(1, 9))]);
        assert_eq!(halted.changes(&[range(1, 12)], 20), [], "the log loses more of it, and nothing is to be done that was not");
        let other = halted.changes(&[range(0, 7), range(1, 12)], 30);
        assert_eq!((other, halted.since_ms.get(&PartitionId(1))), (vec![Change::Began(range(0, 7))], Some(&10)));
        assert_eq!(halted.changes(&[range(0, 7)], 40), [Change::Ended(PartitionId(1))]);
        assert_eq!(halted.changes(&[range(0, 7), range(1, 20)], 50), [Change::Began(range(1, 20))]);
    }
}

//! Partitions that land no more, because the log has lost what they would land next.

use std::collections::BTreeSet;

use riomar_schemas::{Name, PartitionId};

use crate::{losses::LostRange, telemetry};

/// The partitions of a stream that are halted. Each is told of once when that begins and once when it ends, however often it is
/// looked at.
#[derive(Debug, Default)]
pub(super) struct Halted {
    partitions: BTreeSet<PartitionId>,
}

impl Halted {
    /// Takes note that a partition lacks records; whether that is news.
    pub(super) fn begin(&mut self, stream: &Name, range: &LostRange) -> bool {
        let LostRange { partition, from, to } = range;
        let is_news = self.partitions.insert(*partition);
        if is_news {
            tracing::error!(
                %stream, %partition, %from, %to,
                "the log let go of records before they landed (offsets from, up to and without to): this partition lands no \
                 more and no generation is published, until they are back in the log or their loss is accepted with \
                 `riomar accept-loss {stream}`"
            );
        }
        telemetry::lost_records(stream, *partition, range.offsets());
        is_news
    }

    /// Takes note that a partition lacks nothing; whether that is news.
    pub(super) fn end(&mut self, stream: &Name, partition: PartitionId) -> bool {
        let is_news = self.partitions.remove(&partition);
        if is_news {
            tracing::info!(%stream, %partition, "the partition lands again");
        }
        telemetry::lost_records(stream, partition, 0);
        is_news
    }
}

#[cfg(test)]
mod tests {
    use riomar_schemas::Offset;

    use super::*;

    #[test]
    fn a_partition_is_told_of_when_it_halts_and_when_it_lands_again() {
        let stream = Name::new("s").expect("a name");
        let range = |partition, to| LostRange { partition: PartitionId(partition), from: Offset(5), to: Offset(to) };
        let mut halted = Halted::default();
        assert!(!halted.end(&stream, PartitionId(1)), "it lands as ever");
        assert!(halted.begin(&stream, &range(1, 9)));
        assert!(!halted.begin(&stream, &range(1, 12)), "the log loses more of it, and nothing is to be done that was not");
        assert!(halted.begin(&stream, &range(0, 7)) && !halted.begin(&stream, &range(1, 12)));
        assert!(halted.end(&stream, PartitionId(1)) && !halted.end(&stream, PartitionId(1)));
        assert!(halted.begin(&stream, &range(1, 20)) && !halted.begin(&stream, &range(0, 7)));
    }
}

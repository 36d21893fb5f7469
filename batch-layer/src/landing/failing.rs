//! Partitions that cannot be landed for now, each with its own pauses.

use std::{
    collections::BTreeMap,
    mem::{Discriminant, discriminant},
};

use riomar_event_log::LogError;
use riomar_schemas::{Name, PartitionId};

use crate::context::is_over;

/// The pause after a first failure; it doubles with each further one.
const PAUSE_FIRST_MS: i64 = 1_000;
/// The longest pause.
const PAUSE_MAX_MS: i64 = 30_000;

/// Whether an error is that of one partition, so that the others land on. What the readers' history reports is the object store's,
/// and that of all of them.
pub(super) fn is_of_one_partition(error: &LogError) -> bool {
    !matches!(error, LogError::History(_))
}

/// The partitions of a stream that fail. Each is told of once when that begins and once when it ends, however often it is tried.
#[derive(Debug, Default)]
pub(super) struct Failing {
    partitions: BTreeMap<PartitionId, Failure>,
}

#[derive(Debug)]
struct Failure {
    /// What was told of.
    kind: Discriminant<LogError>,
    last_ms: i64,
    pause_ms: i64,
}

impl Failing {
    pub(super) fn contains(&self, id: PartitionId) -> bool {
        self.partitions.contains_key(&id)
    }

    /// The partitions whose pause is over; all of them where nobody wants to wait.
    pub(super) fn due(&self, now_ms: i64, all: bool) -> Vec<PartitionId> {
        let is_due = |failure: &Failure| all || is_over(failure.last_ms, failure.pause_ms, now_ms);
        self.partitions.iter().filter(|(_, failure)| is_due(failure)).map(|(id, _)| *id).collect()
    }

    /// Takes note of a failure, and tells of it unless that is known.
    pub(super) fn failed(&mut self, stream: &Name, id: PartitionId, error: &LogError, now_ms: i64) {
        if self.is_news(id, error, now_ms) {
            tracing::error!(
                %stream, partition = %id, %error,
                "this partition cannot be landed; it is tried again and again, and the others land on"
            );
        }
    }

    /// Whether a failure is the first one, or of another kind than those before it.
    fn is_news(&mut self, id: PartitionId, error: &LogError, now_ms: i64) -> bool {
        let kind = discriminant(error);
        let before = self.partitions.get(&id);
        let pause_ms = before.map_or(PAUSE_FIRST_MS, |before| (before.pause_ms * 2).min(PAUSE_MAX_MS));
        let is_news = before.is_none_or(|before| before.kind != kind);
        self.partitions.insert(id, Failure { kind, last_ms: now_ms, pause_ms });
        is_news
    }

    /// Takes note that a partition fails no more.
    pub(super) fn recovered(&mut self, stream: &Name, id: PartitionId) {
        if self.partitions.remove(&id).is_some() {
            tracing::info!(%stream, partition = %id, "the partition can be read again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_told_of_once_and_tried_ever_more_rarely() {
        let (mut failing, id) = (Failing::default(), PartitionId(3));
        let (gone, damaged) = (LogError::Unavailable("no leader".to_owned()), LogError::Damaged("a record".to_owned()));
        let mut now_ms = 50_000;
        let mut pauses = Vec::new();
        for attempt in 0..7 {
            assert_eq!(failing.is_news(id, &gone, now_ms), attempt == 0, "attempt {attempt}");
            let due_ms = (now_ms..).find(|at_ms| !failing.due(*at_ms, false).is_empty()).expect("it ends");
            pauses.push(due_ms - now_ms);
            assert_eq!(failing.due(now_ms, true), [id], "who does not want to wait need not");
            now_ms = due_ms;
        }
        assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(failing.due(now_ms - 3_600_000, false), [id], "a clock that was set back makes nobody wait");
        assert!(failing.is_news(id, &damaged, now_ms), "it is something else now");
        failing.recovered(&Name::new("s").expect("a name"), id);
        assert!(failing.due(i64::MAX, true).is_empty() && failing.is_news(id, &gone, now_ms));
    }
}

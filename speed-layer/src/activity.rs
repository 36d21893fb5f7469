//! What the workers of this process do now, for whoever asks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use riomar_schemas::{Name, PartitionId};

/// How far the slowest view of a partition is behind the end of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Behind {
    /// Records of the log that it lacks, cuts included.
    pub records: u64,
    /// How long ago the log took the last event that was read, in milliseconds; 0 where none is lacking.
    pub ms: i64,
}

/// The workers of a partition, of which there are two for the moment in which one takes over from another.
#[derive(Debug, Default)]
struct Workers {
    count: u32,
    behind: Option<Behind>,
    write_failure: Option<String>,
}

type Key = (Name, PartitionId);

/// The partitions that this process works on. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Activity(Arc<Mutex<BTreeMap<Key, Workers>>>);

impl Activity {
    /// Each partition that is worked on, and how far behind it is where that is known.
    #[must_use]
    pub fn partitions(&self) -> Vec<(Name, PartitionId, Option<Behind>)> {
        let all = self.lock();
        all.iter().map(|((stream, partition), workers)| (stream.clone(), *partition, workers.behind)).collect()
    }

    /// Why a write to the realtime store failed, where a partition is worked on and none of its writes succeeded since.
    #[must_use]
    pub fn write_failure(&self) -> Option<String> {
        self.lock().values().find_map(|workers| workers.write_failure.clone())
    }

    /// Notes that a worker begins; dropping what is returned, that it has ended.
    pub(crate) fn begin(&self, stream: &Name, partition: PartitionId) -> Working {
        let key = (stream.clone(), partition);
        self.lock().entry(key.clone()).or_default().count += 1;
        Working { activity: self.clone(), key }
    }

    /// Notes how far behind a partition is, if it is worked on.
    pub(crate) fn report(&self, stream: &Name, partition: PartitionId, behind: Behind) {
        if let Some(workers) = self.lock().get_mut(&(stream.clone(), partition)) {
            workers.behind = Some(behind);
        }
    }

    /// Notes why the last write of a partition failed, or that none did, if it is worked on.
    pub(crate) fn report_writes(&self, stream: &Name, partition: PartitionId, failure: Option<&str>) {
        if let Some(workers) = self.lock().get_mut(&(stream.clone(), partition)) {
            workers.write_failure = failure.map(str::to_owned);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Workers>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker that works.
#[derive(Debug)]
pub(crate) struct Working {
    activity: Activity,
    key: Key,
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut all = self.activity.lock();
        if let Some(workers) = all.get_mut(&self.key) {
            workers.count -= 1;
            if workers.count == 0 {
                all.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_told_of_while_somebody_works_on_it() {
        let (stream, activity) = (Name::new("hits").expect("a name"), Activity::default());
        let behind = |records| Behind { records, ms: 1 };
        let told = || activity.partitions().into_iter().map(|(_, partition, behind)| (partition.0, behind)).collect::<Vec<_>>();
        activity.report(&stream, PartitionId(0), behind(9));
        assert_eq!(told(), [], "nobody works on it");
        let first = activity.begin(&stream, PartitionId(0));
        let other = activity.begin(&stream, PartitionId(1));
        assert_eq!(told(), [(0, None), (1, None)]);
        activity.report(&stream, PartitionId(0), behind(9));
        let successor = activity.begin(&stream, PartitionId(0));
        drop((first, other));
        assert_eq!(told(), [(0, Some(behind(9)))], "the one that took over is still there");
        drop(successor);
        assert_eq!(told(), []);
    }
}

//! The readers of a log: those that are not in use wait where their last read ended.
//!
//! Landing and the speed layer read the same partition at different offsets, and each goes on where it stopped; so each finds its
//! own reader again, with what it has fetched meanwhile. A read from anywhere else begins with a new one.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use rdkafka::ClientConfig;
use riomar_schemas::Offset;
use tokio::time::Instant;

use super::{
    cluster::{Cluster, Place},
    incidents::Incidents,
    reader::{Filled, Reader, Trouble},
    taken::Taken,
};
use crate::{
    clock::Clock,
    error::LogError,
    log::{PartitionBounds, ReadLimit, ReadRecords},
};

/// Readers of one partition that wait to be used again: those of landing, of the speed layer of each view, and of whoever counts or
/// shows what is there. The one that has waited longest makes room. Reads of one partition from anywhere, such as of a quarantine, do
/// not drive out the readers of the others.
pub const IDLE_PARTITION_READERS_MAX: usize = 64;
/// Readers of all partitions that wait to be used again; the one that has waited longest makes room. As many as are used in turn wait,
/// and no more: nobody keeps a reader longer than [`IDLE_READER_MS`] that is not come back for. This limit is there for memory and
/// threads: each reader has some threads, and up to a megabyte of records ready while its partition has more. It is enough for landing
/// and one view of 128 partitions in one process. One that reads more opens readers anew, which is slow: divide it by roles.
pub const IDLE_READERS_MAX: usize = 256;
/// How long a reader waits to be used again, in milliseconds.
pub const IDLE_READER_MS: i64 = 60_000;

/// The readers of a log.
pub(super) struct Readers {
    config: ClientConfig,
    cluster: Arc<Cluster>,
    incidents: Arc<Incidents>,
    clock: Arc<dyn Clock>,
    /// In the order in which they were used.
    idle: Mutex<VecDeque<Reader>>,
}

impl Readers {
    pub(super) fn new(config: ClientConfig, cluster: Arc<Cluster>, incidents: Arc<Incidents>, clock: Arc<dyn Clock>) -> Self {
        Self { config, cluster, incidents, clock, idle: Mutex::default() }
    }

    /// See [`crate::Log::read`].
    pub(super) async fn read(&self, place: Place<'_>, from: Offset, limit: ReadLimit) -> Result<ReadRecords, LogError> {
        let mut reader = self.find(place, from);
        let mut taken = Taken::new(from, limit);
        if let Some(reader) = &reader {
            taken.pass(reader.next());
        }
        match self.read_with(&mut reader, place, &mut taken, limit).await {
            Ok(()) => {}
            // What was taken is right; the next read finds what is wrong.
            Err(_) if !taken.is_empty() => return Ok(taken.into_records()),
            Err(error) => {
                // A reader that has only been slow goes on: another one would have to begin anew, and might never get so far.
                if let Some(mut reader) =
                    reader.filter(|reader| reader.may_be_slow() && matches!(error, LogError::Unavailable(_)))
                {
                    reader.stand_behind(&taken);
                    self.keep(reader);
                }
                return Err(error);
            }
        }
        if let Some(mut reader) = reader {
            reader.stand_behind(&taken);
            self.keep(reader);
        }
        Ok(taken.into_records())
    }

    async fn read_with(
        &self,
        reader: &mut Option<Reader>,
        place: Place<'_>,
        taken: &mut Taken,
        limit: ReadLimit,
    ) -> Result<(), LogError> {
        if limit.records > 0
            && let Some(open) = reader
            && let Err(trouble) = open.fill_now(taken)
        {
            return Err(self.error(trouble, reader, place, taken).await);
        }
        if limit.records > 0 && taken.is_full() {
            return Ok(());
        }
        let bounds = self.cluster.bounds(place).await?;
        if taken.is_empty() && (taken.next() < bounds.start || taken.next() > bounds.end) {
            return Err(place.out_of_range(taken.from(), bounds));
        }
        if limit.records == 0 {
            return Ok(());
        }
        if let Err(trouble) = self.fill(reader, place, taken, bounds).await? {
            return Err(self.error(trouble, reader, place, taken).await);
        }
        if taken.is_empty() && !limit.wait.is_zero() {
            let waited = self.wait(reader, place, taken, limit).await;
            if let Err(trouble) = waited {
                return Err(self.error(trouble, reader, place, taken).await);
            }
        }
        Ok(())
    }

    /// Takes what there is before the end of the bounds.
    async fn fill(
        &self,
        reader: &mut Option<Reader>,
        place: Place<'_>,
        taken: &mut Taken,
        bounds: PartitionBounds,
    ) -> Result<Result<(), Trouble>, LogError> {
        let within = self.cluster.deadline();
        let deadline = Instant::now() + within;
        let mut is_new = false;
        while !taken.is_full() && taken.next() < bounds.end {
            let filled = match self.reader(reader, place, taken, &mut is_new) {
                Ok(reader) => reader.fill(taken, bounds.end, is_new, deadline).await,
                Err(trouble) => Err(trouble),
            };
            match filled {
                Ok(Filled::Done) => {}
                Ok(Filled::Nothing) => *reader = None,
                Ok(Filled::Late) if !taken.is_empty() => break,
                Ok(Filled::Late) => {
                    let doing = format_args!("reading {}/{} from {}", place.topic, place.partition, taken.next());
                    let end = bounds.end;
                    let why = format_args!("what there is before {end} did not come within {within:?}");
                    return Err(self.incidents.unavailable(doing, why));
                }
                Err(trouble) => return Ok(Err(trouble)),
            }
        }
        Ok(Ok(()))
    }

    async fn wait(
        &self,
        reader: &mut Option<Reader>,
        place: Place<'_>,
        taken: &mut Taken,
        limit: ReadLimit,
    ) -> Result<(), Trouble> {
        let reader = self.reader(reader, place, taken, &mut false)?;
        tokio::select! {
            waited = reader.wait(taken) => waited,
            () = self.clock.sleep(limit.wait) => Ok(()),
        }
    }

    /// The reader that is there, or a new one.
    fn reader<'a>(
        &self,
        reader: &'a mut Option<Reader>,
        place: Place<'_>,
        taken: &Taken,
        is_new: &mut bool,
    ) -> Result<&'a mut Reader, Trouble> {
        match reader {
            Some(reader) => Ok(reader),
            None => {
                *is_new = true;
                Ok(reader.insert(Reader::open(&self.config, place.topic, place.partition, taken.next())?))
            }
        }
    }

    /// The error for a reader that cannot go on.
    async fn error(&self, trouble: Trouble, reader: &mut Option<Reader>, place: Place<'_>, taken: &Taken) -> LogError {
        *reader = None;
        let doing = format!("reading {}/{} from {}", place.topic, place.partition, taken.next());
        match trouble {
            Trouble::Damaged(what) => LogError::Damaged(format!("{doing}: {what}")),
            Trouble::Broken(what) => self.incidents.unavailable(doing, what),
            Trouble::OutOfRange => match self.cluster.bounds(place).await {
                Ok(bounds) if taken.next() < bounds.start || taken.next() > bounds.end => {
                    place.out_of_range(taken.next(), bounds)
                }
                Ok(_) => self.incidents.unavailable(doing, "the broker that was asked does not have it yet"),
                Err(error) => error,
            },
        }
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn find(&self, place: Place<'_>, from: Offset) -> Option<Reader> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().position(|reader| reader.stands_at(place.topic, place.partition, from))?;
        idle.remove(at)
    }

    /// Keeps a reader for the next read, and lets go of those that nobody came back for.
    fn keep(&self, mut reader: Reader) {
        let now_ms = self.clock.now_ms();
        reader.used_ms = now_ms;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let surplus = keep(&mut idle, reader, now_ms);
        drop(idle);
        drop(surplus);
    }
}

/// What is kept for a while.
trait Idle {
    /// Whether both read the same.
    fn is_beside(&self, other: &Self) -> bool;
    /// When it was used last, in milliseconds since 1970-01-01 UTC.
    fn used_ms(&self) -> i64;
}

impl Idle for Reader {
    fn is_beside(&self, other: &Self) -> bool {
        self.reads_as(other)
    }

    fn used_ms(&self) -> i64 {
        self.used_ms
    }
}

/// Adds one that was used just now to those that were used before, oldest first; gives those that there is no room for any more.
fn keep<T: Idle>(idle: &mut VecDeque<T>, used: T, now_ms: i64) -> Vec<T> {
    let mut surplus = Vec::new();
    let beside = idle.iter().filter(|other| other.is_beside(&used)).count();
    if beside >= IDLE_PARTITION_READERS_MAX
        && let Some(oldest) = idle.iter().position(|other| other.is_beside(&used))
    {
        surplus.extend(idle.remove(oldest));
    }
    idle.push_back(used);
    while idle.len() > IDLE_READERS_MAX || idle.front().is_some_and(|oldest| now_ms - oldest.used_ms() > IDLE_READER_MS) {
        surplus.extend(idle.pop_front());
    }
    surplus
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A partition, and when it was used.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Used(usize, i64);

    impl Idle for Used {
        fn is_beside(&self, other: &Self) -> bool {
            self.0 == other.0
        }

        fn used_ms(&self) -> i64 {
            self.1
        }
    }

    /// Whether a partition's reader was there still.
    fn read(idle: &mut VecDeque<Used>, partition: usize, now_ms: i64) -> bool {
        let found = idle.iter().position(|used| used.0 == partition).and_then(|at| idle.remove(at)).is_some();
        keep(idle, Used(partition, now_ms), now_ms);
        found
    }

    #[test]
    fn every_partition_that_is_read_in_turn_finds_its_reader_again() {
        for (partitions, found) in [(1, 1), (65, 65), (IDLE_READERS_MAX, IDLE_READERS_MAX), (IDLE_READERS_MAX + 1, 0)] {
            let mut idle = VecDeque::new();
            for partition in 0..partitions {
                assert!(!read(&mut idle, partition, 0));
            }
            let again = (0..partitions).filter(|partition| read(&mut idle, *partition, 1)).count();
            assert_eq!((again, idle.len()), (found, partitions.min(IDLE_READERS_MAX)), "{partitions} partitions");
        }
    }

    #[test]
    fn one_partition_drives_out_no_other() {
        let mut idle = VecDeque::from([Used(0, 0), Used(1, 0)]);
        for now_ms in 1..1_000 {
            let surplus = keep(&mut idle, Used(1, now_ms), now_ms);
            let oldest = now_ms - i64::try_from(IDLE_PARTITION_READERS_MAX).expect("small");
            assert_eq!(surplus, Vec::from_iter((oldest >= 0).then_some(Used(1, oldest))));
        }
        assert_eq!((idle.len(), idle[0]), (1 + IDLE_PARTITION_READERS_MAX, Used(0, 0)));
    }

    #[test]
    fn what_nobody_comes_back_for_is_let_go_of() {
        let mut idle = VecDeque::from([Used(0, 0), Used(1, 1), Used(2, 2)]);
        assert_eq!(keep(&mut idle, Used(3, IDLE_READER_MS), IDLE_READER_MS), []);
        assert_eq!(keep(&mut idle, Used(4, IDLE_READER_MS + 2), IDLE_READER_MS + 2), [Used(0, 0), Used(1, 1)]);
        assert_eq!(idle, [Used(2, 2), Used(3, IDLE_READER_MS), Used(4, IDLE_READER_MS + 2)]);
    }
}

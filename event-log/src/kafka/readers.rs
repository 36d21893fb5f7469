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

/// Readers that wait to be used again; the one that has waited longest makes room.
pub const IDLE_READERS_MAX: usize = 64;
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
                    return Err(self.incidents.unavailable(doing, format_args!("no answer within {within:?}")));
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
        let mut surplus = Vec::new();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push_back(reader);
        while idle.len() > IDLE_READERS_MAX || idle.front().is_some_and(|reader| now_ms - reader.used_ms > IDLE_READER_MS) {
            surplus.extend(idle.pop_front());
        }
        drop(idle);
        drop(surplus);
    }
}

//! Cuts: handing out their numbers, appending them to every partition, and where they lie.
//!
//! Numbers have no gaps: number *n* + 1 is created only by whoever saw *n*. So the current cut is found by looking for single
//! objects, without listing the hundreds of thousands of cuts that a year brings.
//!
//! Two processes may append their cuts in another order than they took the numbers. A partition then skips the lower number: its
//! readers ignore it. No position is recorded for a number that was skipped, however many there are, and no generation is made of such
//! a cut ([`BatchError::CutOvertaken`]): one that was would hand over to an epoch that the partition does not have.
//!
//! A loss that was accepted ([`crate::losses`]) takes a number too, and overtakes the cuts before it: where they lay is not known.
//!
//! A cut that a partition lacks is not landed. So it matters that no partition is left out: a broker that has not heard of a partition
//! yet tells of fewer than there are, and is asked again until it tells of all that anybody knows of ([`Cuts::partitions`]).

use std::collections::{BTreeMap, HashMap};

use riomar_event_log::{Log, LogError};
use riomar_schemas::{Epoch, Name, Offset, PartitionId, Stream, paths, record::RecordBody};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::Mutex;

use crate::{
    context::Context,
    error::BatchError,
    master::MasterSnapshot,
    objects::{self, Creation},
};

/// The content of the object that hands out a cut's number.
#[derive(Serialize)]
struct CutObject {
    id: uuid::Uuid,
    created_at_ms: i64,
}

/// The content of the object that records a cut's position in a partition.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CutPosition {
    offset: Offset,
    /// The epoch that begins there: the cut's own. A later one says that the partition skipped the cut; it is not written any more.
    epoch: Epoch,
}

/// The content of the object that registers a partition.
#[derive(Debug, Serialize, Deserialize)]
struct FirstEpoch {
    first_epoch: Epoch,
}

/// How far landing has passed a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutProgress {
    /// The first position behind the cut, for each partition that has passed it.
    pub positions: BTreeMap<PartitionId, Offset>,
    /// The partitions that have not.
    pub missing: Vec<PartitionId>,
}

/// The cuts of all streams.
#[derive(Debug)]
pub struct Cuts {
    context: Context,
    log: Arc<dyn Log>,
    /// The highest cut seen, for each stream.
    seen: Mutex<HashMap<Name, Epoch>>,
    first_epochs: Mutex<HashMap<(Name, PartitionId), Epoch>>,
    /// How many partitions each stream is known to have. A log never loses partitions.
    known: Mutex<HashMap<Name, u32>>,
}

impl Cuts {
    /// The cuts of the streams of a log.
    #[must_use]
    pub fn new(context: Context, log: Arc<dyn Log>) -> Self {
        Self { context, log, seen: Mutex::default(), first_epochs: Mutex::default(), known: Mutex::default() }
    }

    /// The highest number that was handed out; 0 before the first cut.
    ///
    /// # Errors
    /// [`BatchError::Store`].
    pub async fn current(&self, stream: &Name) -> Result<Epoch, BatchError> {
        let mut seen = self.seen.lock().await;
        let mut low = seen.get(stream).copied().unwrap_or_default().0;
        let mut step = 1;
        while self.handed_out(stream, low + step).await? {
            low += step;
            step *= 2;
        }
        // low exists and low + step does not.
        let mut high = low + step;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.handed_out(stream, middle).await? { low = middle } else { high = middle }
        }
        seen.insert(stream.clone(), Epoch(low));
        Ok(Epoch(low))
    }

    async fn handed_out(&self, stream: &Name, number: u64) -> Result<bool, BatchError> {
        objects::exists(&self.context, &paths::cut(stream, Epoch(number))).await
    }

    /// Takes the next number. The cut is nowhere in the log before [`Self::send`].
    ///
    /// # Errors
    /// [`BatchError::Store`]; the number may be taken all the same, which does no harm.
    pub async fn issue(&self, stream: &Name) -> Result<Epoch, BatchError> {
        loop {
            let next = self.current(stream).await?.next();
            let object = CutObject { id: self.context.fresh_ids.next(), created_at_ms: self.context.clock.now_ms() };
            let path = paths::cut(stream, next);
            if objects::create_if_absent(&self.context, &path, objects::json(&path, &object)?).await? == Creation::Created {
                return Ok(next);
            }
        }
    }

    /// Appends the cut to partitions. Sending it again changes nothing: readers ignore a cut that is not above their epoch.
    ///
    /// # Errors
    /// [`BatchError::Log`]; some partitions may have it, and the caller sends it again.
    pub async fn send(&self, stream: &Name, cut: Epoch, partitions: &[PartitionId]) -> Result<(), BatchError> {
        let records = partitions.iter().map(|partition| (*partition, RecordBody::Cut(cut))).collect();
        self.log.append(stream, records).await?;
        Ok(())
    }

    /// The partitions of a stream, as the log has them now: all that the stream declares, and all that were found before.
    ///
    /// # Errors
    /// [`BatchError::Log`], also where the log tells of fewer: whoever left those out would take for landed what has not landed.
    pub async fn partitions(&self, stream: &Stream) -> Result<Vec<PartitionId>, BatchError> {
        let told = self.log.partitions(&stream.name).await?;
        let known = self.know(stream, told).await;
        if told < known {
            let what = format!("it tells of {told} partitions of {}, which has {known}", stream.name);
            return Err(LogError::Unavailable(what).into());
        }
        Ok((0..told).map(PartitionId).collect())
    }

    /// As [`Self::partitions`], and none left out that has landed anything.
    ///
    /// # Errors
    /// As [`Self::partitions`].
    pub async fn partitions_with(&self, snapshot: &MasterSnapshot) -> Result<Vec<PartitionId>, BatchError> {
        let landed = snapshot.partitions.last_key_value().map_or(0, |(PartitionId(highest), _)| highest.saturating_add(1));
        self.know(&snapshot.stream, landed).await;
        self.partitions(&snapshot.stream).await
    }

    /// How many partitions a stream has at least, by its declaration and by all that was found.
    pub(crate) async fn known_partitions(&self, stream: &Stream) -> u32 {
        self.know(stream, 0).await
    }

    /// Learns of the partitions that anybody has registered; gives the number that the stream has at least.
    ///
    /// # Errors
    /// [`BatchError::Store`].
    pub(crate) async fn find_registered(&self, stream: &Stream) -> Result<u32, BatchError> {
        let registered = objects::list(&self.context, &paths::partitions(&stream.name)).await?;
        let highest = registered.iter().filter_map(|object| paths::number(&object.location)).max();
        let count = highest.map_or(0, |highest| u32::try_from(highest.saturating_add(1)).unwrap_or(u32::MAX));
        Ok(self.know(stream, count).await)
    }

    /// Learns that a stream has at least so many partitions; gives the number that it is known to have.
    async fn know(&self, stream: &Stream, found: u32) -> u32 {
        let mut known = self.known.lock().await;
        let known = known.entry(stream.name.clone()).or_insert(stream.partitions);
        *known = found.max(*known);
        *known
    }

    /// The first epoch of a partition. A partition that is seen for the first time is registered with the current cut.
    ///
    /// # Errors
    /// [`BatchError::Store`], [`BatchError::Damaged`].
    pub async fn first_epoch(&self, stream: &Name, partition: PartitionId) -> Result<Epoch, BatchError> {
        let key = (stream.clone(), partition);
        if let Some(epoch) = self.first_epochs.lock().await.get(&key) {
            return Ok(*epoch);
        }
        let path = paths::partition(stream, partition);
        let stored = match objects::read(&self.context, &path).await? {
            Some(bytes) => bytes,
            None => {
                let object = objects::json(&path, &FirstEpoch { first_epoch: self.current(stream).await? })?;
                match objects::create_if_absent(&self.context, &path, object.clone()).await? {
                    Creation::Created => object,
                    Creation::Exists => objects::read(&self.context, &path)
                        .await?
                        .ok_or_else(|| BatchError::damaged(&path, "it was created and is gone"))?,
                }
            }
        };
        let FirstEpoch { first_epoch } = serde_json::from_slice(&stored).map_err(|error| BatchError::damaged(&path, error))?;
        self.first_epochs.lock().await.insert(key, first_epoch);
        Ok(first_epoch)
    }

    /// Records the first position behind a cut that opened its epoch, before landing commits what it has read beyond it. Whoever reads
    /// the partition finds the same, so an object that tells another is damage.
    ///
    /// # Errors
    /// [`BatchError::Store`], [`BatchError::Damaged`].
    pub async fn record_position(
        &self,
        stream: &Name,
        cut: Epoch,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<(), BatchError> {
        let path = paths::cut_position(stream, cut, partition);
        let position = objects::json(&path, &CutPosition { offset, epoch: cut })?;
        match objects::create_if_absent(&self.context, &path, position).await? {
            Creation::Created => Ok(()),
            Creation::Exists => {
                Err(BatchError::damaged(&path, format!("it does not say that epoch {cut} begins at offset {offset}")))
            }
        }
    }

    /// Where a cut lies in the partitions that have landed beyond it. A partition that began at the cut or later is behind it from
    /// its first record on.
    ///
    /// # Errors
    /// [`BatchError::CutOvertaken`], [`BatchError::Store`], [`BatchError::Log`], [`BatchError::Damaged`].
    pub async fn progress(&self, snapshot: &MasterSnapshot, cut: Epoch) -> Result<CutProgress, BatchError> {
        let stream = &snapshot.stream;
        let partitions = self.partitions_with(snapshot).await?;
        let progress = self.progress_in(snapshot, cut, &partitions).await?;
        // Before it is said that nothing is missing: whether somebody else knows of more partitions.
        if !progress.missing.is_empty() || self.find_registered(stream).await? as usize <= partitions.len() {
            return Ok(progress);
        }
        self.progress_in(snapshot, cut, &self.partitions(stream).await?).await
    }

    async fn progress_in(
        &self,
        snapshot: &MasterSnapshot,
        cut: Epoch,
        partitions: &[PartitionId],
    ) -> Result<CutProgress, BatchError> {
        let stream = &snapshot.stream.name;
        let mut progress = CutProgress { positions: BTreeMap::new(), missing: Vec::new() };
        for &partition in partitions {
            if self.first_epoch(stream, partition).await? >= cut {
                progress.positions.insert(partition, Offset(0));
            } else if let Some(loss) = snapshot.losses_of(partition).iter().find(|loss| loss.passed(cut)) {
                // It may be recorded where it lay before it was lost; what was read up to there has not landed.
                return Err(BatchError::CutOvertaken { stream: stream.clone(), cut, partition, by: loss.epoch });
            } else if snapshot.position(partition).epoch >= cut {
                let overtaken = |by| BatchError::CutOvertaken { stream: stream.clone(), cut, partition, by };
                let path = paths::cut_position(stream, cut, partition);
                // Landing records what it passes before it commits.
                let bytes =
                    objects::read(&self.context, &path).await?.ok_or_else(|| overtaken(snapshot.position(partition).epoch))?;
                let CutPosition { offset, epoch } =
                    serde_json::from_slice(&bytes).map_err(|error| BatchError::damaged(&path, error))?;
                if epoch != cut {
                    return Err(overtaken(epoch));
                }
                progress.positions.insert(partition, offset);
            } else {
                progress.missing.push(partition);
            }
        }
        Ok(progress)
    }
}

#[cfg(test)]
mod tests;

//! Cuts: handing out their numbers, appending them to every partition, and where they lie.
//!
//! Numbers have no gaps: number *n* + 1 is created only by whoever saw *n*. So the current cut is found by looking for single
//! objects, without listing the hundreds of thousands of cuts that a year brings.
//!
//! Two processes may append their cuts in another order than they took the numbers. A partition then skips the lower number: its
//! readers ignore it. The position that is recorded for a skipped number tells which epoch begins there in truth, and no generation
//! is made of such a cut ([`BatchError::CutOvertaken`]): one that was would hand over to an epoch that the partition does not have.
//!
//! A loss that was accepted ([`crate::losses`]) takes a number too, and overtakes the cuts before it: where they lay is not known.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use riomar_event_log::Log;
use riomar_schemas::{Epoch, Name, Offset, PartitionId, ReaderPosition, paths, record::RecordBody};
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
    /// The epoch that begins there: the cut's own, or a later one where the partition skipped it.
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
}

impl Cuts {
    /// The cuts of the streams of a log.
    #[must_use]
    pub fn new(context: Context, log: Arc<dyn Log>) -> Self {
        Self { context, log, seen: Mutex::default(), first_epochs: Mutex::default() }
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
            if objects::create_if_absent(&self.context, &paths::cut(stream, next), json(&object)).await? == Creation::Created {
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

    /// The partitions of a stream, as the log has them now.
    ///
    /// # Errors
    /// [`BatchError::Log`].
    pub async fn partitions(&self, stream: &Name) -> Result<Vec<PartitionId>, BatchError> {
        Ok((0..self.log.partitions(stream).await?).map(PartitionId).collect())
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
                let object = json(&FirstEpoch { first_epoch: self.current(stream).await? });
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

    /// Records the first position behind a cut, with the epoch that begins there. Whoever reads the partition finds the same, so an
    /// object that tells another is damage.
    ///
    /// # Errors
    /// [`BatchError::Store`], [`BatchError::Damaged`].
    pub async fn record_position(
        &self,
        stream: &Name,
        cut: Epoch,
        partition: PartitionId,
        begins: ReaderPosition,
    ) -> Result<(), BatchError> {
        let path = paths::cut_position(stream, cut, partition);
        let ReaderPosition { offset, epoch } = begins;
        match objects::create_if_absent(&self.context, &path, json(&CutPosition { offset, epoch })).await? {
            Creation::Created => Ok(()),
            Creation::Exists => {
                Err(BatchError::damaged(&path, format!("it does not say that epoch {epoch} begins at offset {offset}")))
            }
        }
    }

    /// Where a cut lies in the partitions that have landed beyond it. A partition that began at the cut or later is behind it from
    /// its first record on.
    ///
    /// # Errors
    /// [`BatchError::CutOvertaken`], [`BatchError::Store`], [`BatchError::Log`], [`BatchError::Damaged`].
    pub async fn progress(&self, snapshot: &MasterSnapshot, cut: Epoch) -> Result<CutProgress, BatchError> {
        let stream = &snapshot.stream.name;
        let mut progress = CutProgress { positions: BTreeMap::new(), missing: Vec::new() };
        for partition in self.partitions(stream).await? {
            if self.first_epoch(stream, partition).await? >= cut {
                progress.positions.insert(partition, Offset(0));
            } else if let Some(loss) = snapshot.losses_of(partition).iter().find(|loss| loss.passed(cut)) {
                // It may be recorded where it lay before it was lost; what was read up to there has not landed.
                return Err(BatchError::CutOvertaken { stream: stream.clone(), cut, partition, by: loss.epoch });
            } else if snapshot.position(partition).epoch >= cut {
                let path = paths::cut_position(stream, cut, partition);
                let bytes = objects::read(&self.context, &path)
                    .await?
                    .ok_or_else(|| BatchError::damaged(&path, "landing has passed the cut but did not record where it lies"))?;
                let CutPosition { offset, epoch } =
                    serde_json::from_slice(&bytes).map_err(|error| BatchError::damaged(&path, error))?;
                if epoch != cut {
                    return Err(BatchError::CutOvertaken { stream: stream.clone(), cut, partition, by: epoch });
                }
                progress.positions.insert(partition, offset);
            } else {
                progress.missing.push(partition);
            }
        }
        Ok(progress)
    }
}

/// The JSON text of a small object.
fn json(object: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(object).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, memory};

    #[tokio::test]
    async fn numbers_have_no_gaps_and_nobody_gets_one_twice() {
        let fixture = Fixture::new().await;
        let store = memory();
        let layers = [fixture.layer(store.clone()), fixture.layer(store.clone())];
        let name = fixture.stream().name.clone();
        assert_eq!(layers[0].cuts().current(&name).await.expect("reads"), Epoch(0));
        for number in 1..=70_u64 {
            let issuer = usize::from(number % 3 == 0);
            assert_eq!(layers[issuer].cuts().issue(&name).await.expect("a number"), Epoch(number));
        }
        let started = fixture.layer(store);
        assert_eq!(started.cuts().current(&name).await.expect("reads"), Epoch(70), "found without a cache");
        let (one, other) = tokio::join!(layers[0].cuts().issue(&name), layers[1].cuts().issue(&name));
        let mut numbers = [one.expect("a number").0, other.expect("a number").0];
        numbers.sort_unstable();
        assert_eq!(numbers, [71, 72]);
    }

    #[tokio::test]
    async fn a_partition_keeps_the_epoch_it_was_first_seen_in() {
        let fixture = Fixture::new().await;
        let store = memory();
        let layer = fixture.layer(store.clone());
        let name = fixture.stream().name.clone();
        layer.cuts().issue(&name).await.expect("a number");
        assert_eq!(layer.cuts().first_epoch(&name, PartitionId(0)).await.expect("registers"), Epoch(1));
        layer.cuts().issue(&name).await.expect("a number");
        for layer in [&layer, &fixture.layer(store)] {
            assert_eq!(layer.cuts().first_epoch(&name, PartitionId(0)).await.expect("reads"), Epoch(1));
        }
        assert_eq!(layer.cuts().first_epoch(&name, PartitionId(1)).await.expect("registers"), Epoch(2));
        let begins = ReaderPosition { offset: Offset(7), epoch: Epoch(1) };
        for told in ["recorded", "the same"] {
            layer.cuts().record_position(&name, Epoch(1), PartitionId(0), begins).await.expect(told);
        }
        for other in [ReaderPosition { offset: Offset(8), ..begins }, ReaderPosition { epoch: Epoch(2), ..begins }] {
            let damaged = layer.cuts().record_position(&name, Epoch(1), PartitionId(0), other).await;
            assert!(matches!(damaged, Err(BatchError::Damaged { .. })), "{damaged:?}");
        }
    }
}

//! A history in memory: landing and the batch layer as loops over the records.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use arrow::{array::StringArray, record_batch::RecordBatch};
use async_trait::async_trait;
use futures::{StreamExt, stream, stream::BoxStream};
use riomar_event_log::{History, LogError, Loss};
use riomar_schemas::{
    Epoch, EventDecoder, HandOver, Name, Offset, PartitionId, ReaderPosition, Stream, View,
    decode::{IdDigest, RowPosition, id_digests},
};

use super::world::Hit;

/// What landing and the batch layer have done so far.
#[derive(Debug, Default)]
pub struct Past {
    pub landed: ReaderPosition,
    pub first_epoch: Epoch,
    pub losses: Vec<Loss>,
    pub rows: Vec<(Offset, Epoch, Hit)>,
    pub cut_positions: BTreeMap<Epoch, Offset>,
    pub hand_overs: BTreeMap<Name, HandOver>,
    /// What every view begins with.
    pub first_hand_over: HandOver,
    /// Whether hand-overs can be read.
    pub unavailable: bool,
    /// How often it was asked how far landing has come: once by each reader that is opened, and by each that reads rows from here.
    pub landed_asked: usize,
}

#[derive(Debug, Clone, Default)]
pub struct FakeHistory(Arc<Mutex<Past>>);

impl FakeHistory {
    pub fn past(&self) -> MutexGuard<'_, Past> {
        self.0.lock().expect("not poisoned")
    }

    pub fn current(&self, view: &Name) -> HandOver {
        let past = self.past();
        past.hand_overs.get(view).unwrap_or(&past.first_hand_over).clone()
    }

    /// Publishes the next generation of a view at the highest cut that has landed, if there is a new one.
    pub fn publish(&self, view: &Name, partition: PartitionId) -> bool {
        let before = self.current(view);
        let mut past = self.past();
        let Some((&cut, &position)) = past.cut_positions.last_key_value().filter(|(cut, _)| **cut > before.cut) else {
            return false;
        };
        let positions = BTreeMap::from([(partition, position)]);
        let next = HandOver { generation: before.generation + 1, cut, previous_cut: before.cut, positions };
        past.hand_overs.insert(view.clone(), next);
        true
    }
}

#[async_trait]
impl History for FakeHistory {
    async fn landed(&self, _: &Stream, _: PartitionId) -> Result<ReaderPosition, LogError> {
        let mut past = self.past();
        past.landed_asked += 1;
        Ok(past.landed)
    }

    async fn kept_ids(
        &self,
        stream: &Stream,
        _: PartitionId,
        from_epoch: Epoch,
        before: Offset,
    ) -> Result<Vec<(IdDigest, Epoch)>, LogError> {
        let past = self.past();
        let rows: Vec<_> = past.rows.iter().filter(|(offset, epoch, _)| *offset < before && *epoch >= from_epoch).collect();
        let ids: StringArray = rows.iter().map(|(.., hit)| Some(hit.id.as_str())).collect();
        let digests = id_digests(stream, &(Arc::new(ids) as _));
        Ok(digests.into_iter().zip(rows).filter_map(|(digest, (_, epoch, _))| Some((digest?, *epoch))).collect())
    }

    async fn rows(
        &self,
        stream: &Stream,
        partition: PartitionId,
        from: Offset,
        to: Offset,
    ) -> Result<BoxStream<'static, Result<RecordBatch, LogError>>, LogError> {
        let mut decoder = EventDecoder::new(Arc::new(stream.clone()));
        for (offset, epoch, hit) in self.past().rows.iter().filter(|(offset, ..)| (from..to).contains(offset)) {
            decoder.decode(hit.json().as_bytes()).expect("a landed event");
            decoder.keep(RowPosition { partition, offset: *offset, epoch: *epoch, append_time_ms: 0 });
        }
        Ok(stream::iter([Ok(decoder.finish())]).boxed())
    }

    async fn losses(&self, _: &Stream, _: PartitionId) -> Result<Vec<Loss>, LogError> {
        Ok(self.past().losses.clone())
    }

    async fn hand_over(&self, view: &View) -> Result<HandOver, LogError> {
        if self.past().unavailable {
            return Err(LogError::History("as it was told to".to_owned()));
        }
        Ok(self.current(view.name()))
    }

    async fn first_epoch(&self, _: &Stream, _: PartitionId) -> Result<Epoch, LogError> {
        Ok(self.past().first_epoch)
    }
}

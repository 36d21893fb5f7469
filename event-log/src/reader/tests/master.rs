//! A master dataset in memory.

use std::sync::{Mutex, MutexGuard};

use arrow::{
    array::AsArray,
    compute::{self, filter_record_batch},
    datatypes::Int64Type,
};
use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use riomar_schemas::{
    HandOver, View,
    decode::{IdDigest, id_digests},
    stream::{EPOCH, OFFSET},
};

use super::*;

/// Rows, and where landing stands; it fails when it is told to. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Master(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    landed: ReaderPosition,
    losses: Vec<Loss>,
    rows: Vec<RecordBatch>,
    chunk_rows: usize,
    /// Batches that the streams which are open may still return before one of them fails.
    failing: Option<usize>,
    rows_asked: usize,
}

impl Master {
    pub fn new(landed: ReaderPosition) -> Self {
        let state = State { landed, losses: Vec::new(), rows: Vec::new(), chunk_rows: 1_000, failing: None, rows_asked: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    pub fn land(&self, rows: RecordBatch, to: ReaderPosition) {
        let mut state = self.state();
        state.rows.push(rows);
        state.landed = to;
    }

    /// Accepts the loss of what lies between landing and an offset.
    pub fn accept_loss(&self, to: Offset, epoch: Epoch) -> Loss {
        let mut state = self.state();
        let loss = Loss { from: state.landed.offset, to, epoch_before: state.landed.epoch, epoch, accepted_at_ms: 0 };
        state.losses.push(loss);
        state.landed = ReaderPosition { offset: to, epoch };
        loss
    }

    pub fn chunk_rows(&self, rows: usize) {
        self.state().chunk_rows = rows;
    }

    pub fn fail_after(&self, batches: usize) {
        self.state().failing = Some(batches);
    }

    pub fn rows_asked(&self) -> usize {
        self.state().rows_asked
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("not poisoned")
    }

    fn may_fail(&self) -> Result<(), LogError> {
        let failing = &mut self.state().failing;
        match failing {
            Some(0) => {
                *failing = None;
                Err(LogError::History("as it was told to".into()))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Offset and epoch of each row.
pub fn kept(batch: &RecordBatch) -> impl Iterator<Item = (Offset, Epoch)> {
    let column = |name| batch.column_by_name(name).expect("is there").as_primitive::<Int64Type>().values();
    let pairs = column(OFFSET).iter().zip(column(EPOCH));
    pairs.map(|(offset, epoch)| (Offset(offset.cast_unsigned()), Epoch(epoch.cast_unsigned())))
}

#[async_trait]
impl History for Master {
    async fn landed(&self, _: &Stream, _: PartitionId) -> Result<ReaderPosition, LogError> {
        Ok(self.state().landed)
    }

    async fn kept_ids(
        &self,
        stream: &Stream,
        _: PartitionId,
        from_epoch: Epoch,
        before: Offset,
    ) -> Result<Vec<(IdDigest, Epoch)>, LogError> {
        let column = stream.dedup_by.expect("only asked for where it is declared");
        let state = self.state();
        let ids = state.rows.iter().flat_map(|batch| kept(batch).zip(id_digests(stream, batch.column(column))));
        let wanted = ids.filter(|((offset, epoch), _)| *offset < before && *epoch >= from_epoch);
        Ok(wanted.filter_map(|((_, epoch), id)| Some((id?, epoch))).collect())
    }

    async fn rows(
        &self,
        stream: &Stream,
        _: PartitionId,
        from: Offset,
        to: Offset,
    ) -> Result<BoxStream<'static, Result<RecordBatch, LogError>>, LogError> {
        self.state().rows_asked += 1;
        let state = self.state();
        let all = compute::concat_batches(stream.row_schema(), &state.rows).expect("one schema");
        let inside = kept(&all).map(|(offset, _)| Some((from..to).contains(&offset))).collect();
        let rows = filter_record_batch(&all, &inside).expect("filters");
        let step = state.chunk_rows;
        let chunks: Vec<_> =
            (0..rows.num_rows()).step_by(step).map(|at| rows.slice(at, step.min(rows.num_rows() - at))).collect();
        let master = self.clone();
        Ok(futures::stream::iter(chunks).map(move |chunk| master.may_fail().map(|()| chunk)).boxed())
    }

    async fn losses(&self, _: &Stream, _: PartitionId) -> Result<Vec<Loss>, LogError> {
        Ok(self.state().losses.clone())
    }

    async fn hand_over(&self, _: &View) -> Result<HandOver, LogError> {
        Ok(HandOver::default())
    }

    async fn first_epoch(&self, _: &Stream, _: PartitionId) -> Result<Epoch, LogError> {
        Ok(Epoch(0))
    }
}

//! The past of the streams, for the readers of the log.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{array::AsArray, datatypes::Int64Type, record_batch::RecordBatch};
use async_trait::async_trait;
use datafusion::{error::DataFusionError, logical_expr::LogicalPlanBuilder, prelude::ident};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use riomar_event_log::{History, LogError, Loss};
use riomar_schemas::{
    Epoch, HandOver, Name, Offset, PartitionId, ReaderPosition, Stream, View,
    decode::{IdDigest, id_digests},
    session::collect,
    stream::{EPOCH, OFFSET},
};

use crate::{
    context::Context,
    cuts::Cuts,
    error::BatchError,
    generations::Generations,
    losses::LOSSES_SEEN_MAX_MS,
    master::{Master, MasterSnapshot, RowSelection},
    scan,
};

/// The history of every stream of a catalog, from master datasets, cuts and generations.
#[derive(Debug)]
pub struct BatchHistory {
    context: Context,
    masters: Arc<BTreeMap<Name, Arc<Master>>>,
    cuts: Arc<Cuts>,
    generations: Arc<Generations>,
}

impl BatchHistory {
    /// Puts a history together.
    #[must_use]
    pub fn new(
        context: Context,
        masters: Arc<BTreeMap<Name, Arc<Master>>>,
        cuts: Arc<Cuts>,
        generations: Arc<Generations>,
    ) -> Self {
        Self { context, masters, cuts, generations }
    }

    async fn snapshot(&self, stream: &Stream) -> Result<Arc<MasterSnapshot>, BatchError> {
        let master = self.masters.get(&stream.name).ok_or_else(|| BatchError::UnknownStream(stream.name.to_string()))?;
        master.snapshot().await
    }

    async fn try_kept_ids(
        &self,
        stream: &Stream,
        partition: PartitionId,
        from_epoch: Epoch,
        before: Offset,
    ) -> Result<Vec<(IdDigest, Epoch)>, BatchError> {
        let Some(id) = stream.dedup_by else { return Ok(Vec::new()) };
        let selection = RowSelection {
            epochs: Some(from_epoch..Epoch(u64::MAX)),
            partition: Some(partition),
            offsets: Some(Offset(0)..before),
            event_time_us: None,
        };
        let rows = self.snapshot(stream).await?.scan(&selection)?;
        let columns = [ident(stream.columns[id].name.as_str()), ident(EPOCH)];
        let plan = LogicalPlanBuilder::from(rows).project(columns)?.build()?;
        let mut kept = Vec::new();
        for batch in collect(&self.context.session(), plan).await? {
            let epochs = batch.column(1).as_primitive::<Int64Type>();
            let digests = id_digests(stream, batch.column(0));
            kept.extend(
                digests
                    .into_iter()
                    .zip(epochs.values())
                    .filter_map(|(digest, epoch)| Some((digest?, Epoch(u64::try_from(*epoch).unwrap_or_default())))),
            );
        }
        Ok(kept)
    }

    async fn try_rows(
        &self,
        stream: &Stream,
        partition: PartitionId,
        offsets: std::ops::Range<Offset>,
    ) -> Result<BoxStream<'static, Result<RecordBatch, LogError>>, BatchError> {
        let selection = RowSelection { partition: Some(partition), offsets: Some(offsets), ..RowSelection::default() };
        let rows = self.snapshot(stream).await?.scan(&selection)?;
        let plan = LogicalPlanBuilder::from(rows).sort([ident(OFFSET).sort(true, false)])?.build()?;
        let batches = scan::stream(&self.context.session(), &plan).await?;
        let schema = stream.row_schema().clone();
        let batches = batches.map(move |batch| {
            let batch = batch.and_then(|batch| Ok(batch.with_schema(schema.clone())?));
            batch.map_err(|error: DataFusionError| LogError::from(BatchError::from(error)))
        });
        Ok(batches.into_stream().boxed())
    }
}

#[async_trait]
impl History for BatchHistory {
    async fn landed(&self, stream: &Stream, partition: PartitionId) -> Result<ReaderPosition, LogError> {
        let snapshot = self.snapshot(stream).await?;
        match snapshot.partitions.get(&partition) {
            Some(landed) => Ok(landed.position),
            None => Ok(ReaderPosition { offset: Offset(0), epoch: self.first_epoch(stream, partition).await? }),
        }
    }

    async fn kept_ids(
        &self,
        stream: &Stream,
        partition: PartitionId,
        from_epoch: Epoch,
        before: Offset,
    ) -> Result<Vec<(IdDigest, Epoch)>, LogError> {
        Ok(self.try_kept_ids(stream, partition, from_epoch, before).await?)
    }

    async fn rows(
        &self,
        stream: &Stream,
        partition: PartitionId,
        from: Offset,
        to: Offset,
    ) -> Result<BoxStream<'static, Result<RecordBatch, LogError>>, LogError> {
        Ok(self.try_rows(stream, partition, from..to).await?)
    }

    async fn losses(&self, stream: &Stream, partition: PartitionId) -> Result<Vec<Loss>, LogError> {
        let master = self.masters.get(&stream.name).ok_or_else(|| BatchError::UnknownStream(stream.name.to_string()))?;
        Ok(master.recent(LOSSES_SEEN_MAX_MS).await?.losses_of(partition).to_vec())
    }

    async fn hand_over(&self, view: &View) -> Result<HandOver, LogError> {
        let current = self.generations.current(view).await?;
        Ok(current.map(|manifest| HandOver::from(manifest.as_ref())).unwrap_or_default())
    }

    async fn first_epoch(&self, stream: &Stream, partition: PartitionId) -> Result<Epoch, LogError> {
        Ok(self.cuts.first_epoch(&stream.name, partition).await?)
    }
}

//! Audit: recomputing a view from the master dataset and comparing with what its current generation holds.

mod compare;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use datafusion::logical_expr::LogicalPlan;
use riomar_schemas::{Epoch, GenerationManifest, Name, View, session::collect, view::Grain};
use serde::Serialize;
use tokio::sync::Mutex;

pub use self::compare::{Comparison, DIFFERENCES_KEPT_MAX, Difference, FLOAT_TOLERANCE, SKETCH_TOLERANCE, compare};
use crate::{
    context::Context,
    error::BatchError,
    generations::{Generations, window_partition_width_us},
    master::{Master, MasterSnapshot, RowSelection},
    recompute::window_partitions,
};

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditReport {
    /// The view.
    pub view: Name,
    /// The generation that was audited; 0 where there is none.
    pub generation: u64,
    /// Its cut.
    pub cut: Epoch,
    /// When the audit ended, in milliseconds since 1970-01-01 UTC.
    pub finished_at_ms: i64,
    /// How long it took, in milliseconds.
    pub took_ms: i64,
    /// The recomputed values on the left, the generation's on the right.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// Audits generations and remembers the last audit of each view.
#[derive(Debug)]
pub struct Audits {
    context: Context,
    generations: Arc<Generations>,
    last: Mutex<HashMap<Name, Arc<AuditReport>>>,
}

impl Audits {
    /// No audits yet.
    #[must_use]
    pub fn new(context: Context, generations: Arc<Generations>) -> Self {
        Self { context, generations, last: Mutex::default() }
    }

    /// The last audit of a view in this process.
    pub async fn last(&self, view: &Name) -> Option<Arc<AuditReport>> {
        self.last.lock().await.get(view).cloned()
    }

    /// Recomputes a view over the epochs of its current generation, window partition by window partition, and compares.
    ///
    /// # Errors
    /// [`BatchError::Store`], [`BatchError::Query`]; differences are no error but a result.
    pub async fn run(&self, view: &View, master: &Master) -> Result<Arc<AuditReport>, BatchError> {
        let started_ms = self.context.clock.now_ms();
        let manifest = self.generations.current(view).await?;
        let comparison = match &manifest {
            Some(manifest) => self.compare(view, manifest, master.snapshot().await?.as_ref()).await?,
            None => Comparison::default(),
        };
        let finished_at_ms = self.context.clock.now_ms();
        let report = Arc::new(AuditReport {
            view: view.name().clone(),
            generation: manifest.as_ref().map_or(0, |manifest| manifest.generation),
            cut: manifest.as_ref().map(|manifest| manifest.cut).unwrap_or_default(),
            finished_at_ms,
            took_ms: finished_at_ms - started_ms,
            comparison,
        });
        self.last.lock().await.insert(view.name().clone(), report.clone());
        Ok(report)
    }

    async fn compare(
        &self,
        view: &View,
        manifest: &GenerationManifest,
        master: &MasterSnapshot,
    ) -> Result<Comparison, BatchError> {
        let before_cut = RowSelection::before(manifest.cut);
        let mut partitions: BTreeSet<i64> = manifest.files.iter().map(|file| file.window_partition).collect();
        partitions.extend(window_partitions(&self.context, view, master.scan(&before_cut)?).await?);
        let width = window_partition_width_us(view.window());
        let mut comparison = Comparison::default();
        for partition in partitions {
            // A window partition holds whole windows, so its events are those with an event time between its bounds.
            let first = partition.saturating_mul(width);
            let selection = RowSelection { event_time_us: Some(first..first.saturating_add(width)), ..before_cut.clone() };
            let recomputed = view.fold(master.scan(&selection)?, Grain::View)?;
            let files: Vec<_> = manifest.files.iter().filter(|file| file.window_partition == partition).cloned().collect();
            let held = self.generations.states_of(view, &files)?;
            comparison.add(compare(view, &self.values(view, recomputed).await?, &self.values(view, held).await?)?);
        }
        Ok(comparison)
    }

    async fn values(&self, view: &View, states: LogicalPlan) -> Result<Vec<arrow::record_batch::RecordBatch>, BatchError> {
        Ok(collect(&self.context.session(), view.finish(states)?).await?)
    }
}

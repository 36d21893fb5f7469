//! Audit: recomputing from the master dataset what is served, over the same events, and comparing.

mod compare;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, ops::Range, sync::Arc};

use datafusion::{
    error::DataFusionError,
    logical_expr::{LogicalPlan, LogicalPlanBuilder, lit},
    prelude::ident,
    scalar::ScalarValue,
};
use riomar_schemas::{
    Epoch, Name, View,
    session::{collect, scan_batches},
    view::Grain,
};
use serde::Serialize;
use tokio::sync::Mutex;

pub use self::compare::{Comparison, DIFFERENCES_KEPT_MAX, Difference, FLOAT_TOLERANCE, PERCENTILE_TOLERANCE, compare};
use crate::{
    context::Context,
    error::BatchError,
    generations::window_partition_width_us,
    master::{MasterSnapshot, RowSelection},
    recompute::{window_partitions, window_partitions_of},
};

/// What an audit looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditKind {
    /// A whole answer: generation and realtime view, merged.
    Answer,
    /// What the realtime view held of the epochs that a generation took over.
    HandOver,
}

/// What is served, and the events that it claims to contain.
#[derive(Debug, Clone)]
pub struct Served {
    /// What is looked at.
    pub kind: AuditKind,
    /// The current generation; 0 before the first.
    pub generation: u64,
    /// Its cut.
    pub cut: Epoch,
    /// Selections that together are the events, none twice.
    pub events: Vec<RowSelection>,
    /// The states that are served, in [`View::state_schema`], one row a group.
    pub states: LogicalPlan,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditReport {
    /// The view.
    pub view: Name,
    /// What was looked at.
    pub kind: AuditKind,
    /// The generation that was current; 0 where there was none.
    pub generation: u64,
    /// Its cut.
    pub cut: Epoch,
    /// When the audit ended, in milliseconds since 1970-01-01 UTC.
    pub finished_at_ms: i64,
    /// How long it took, in milliseconds.
    pub took_ms: i64,
    /// The recomputed values on the left, the served ones on the right.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// Audits what is served, and remembers the last audit of each view.
#[derive(Debug)]
pub struct Audits {
    context: Context,
    last: Mutex<HashMap<(Name, AuditKind), Arc<AuditReport>>>,
}

impl Audits {
    /// No audits yet.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context, last: Mutex::default() }
    }

    /// The last audit of a view in this process.
    pub async fn last(&self, view: &Name, kind: AuditKind) -> Option<Arc<AuditReport>> {
        self.last.lock().await.get(&(view.clone(), kind)).cloned()
    }

    /// Recomputes what is served from the master dataset, window partition by window partition, and compares.
    ///
    /// # Errors
    /// [`BatchError::Store`], [`BatchError::Query`]; differences are no error but a result.
    pub async fn run(&self, view: &Arc<View>, master: &MasterSnapshot, served: Served) -> Result<Arc<AuditReport>, BatchError> {
        let started_ms = self.context.clock.now_ms();
        let comparison = self.compare(view, master, &served).await?;
        let finished_at_ms = self.context.clock.now_ms();
        let report = Arc::new(AuditReport {
            view: view.name().clone(),
            kind: served.kind,
            generation: served.generation,
            cut: served.cut,
            finished_at_ms,
            took_ms: finished_at_ms - started_ms,
            comparison,
        });
        self.last.lock().await.insert((view.name().clone(), served.kind), report.clone());
        Ok(report)
    }

    async fn compare(&self, view: &Arc<View>, master: &MasterSnapshot, served: &Served) -> Result<Comparison, BatchError> {
        let mut partitions = window_partitions_of(&self.context, view, served.states.clone()).await?;
        partitions.extend(window_partitions(&self.context, view, rows(master, &served.events, None)?).await?);
        let width = window_partition_width_us(view.window());
        let moment = |time_us: i64| lit(ScalarValue::TimestampMicrosecond(Some(time_us), Some("UTC".into())));
        let mut comparison = Comparison::default();
        for partition in partitions {
            // A window partition holds whole windows, so its events are those with an event time between its bounds.
            let first = partition.saturating_mul(width);
            let bounds = first..first.saturating_add(width);
            let recomputed = view.fold(rows(master, &served.events, Some(bounds.clone()))?, Grain::View)?;
            let start = ident(view.window_start());
            let within = start.clone().gt_eq(moment(bounds.start)).and(start.lt(moment(bounds.end)));
            let held = LogicalPlanBuilder::from(served.states.clone()).filter(within)?.build()?;
            let (recomputed, held) = (self.values(view, recomputed).await?, self.values(view, held).await?);
            let view = view.clone();
            // Group by group, which takes a while where there are many: on a thread where nobody waits for it.
            let compared = tokio::task::spawn_blocking(move || compare(&view, &recomputed, &held)).await;
            comparison.add(compared.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))??);
        }
        Ok(comparison)
    }

    async fn values(&self, view: &View, states: LogicalPlan) -> Result<Vec<arrow::record_batch::RecordBatch>, BatchError> {
        Ok(collect(&self.context.session(), view.finish(states)?).await?)
    }
}

/// A plan over the rows of all selections.
fn rows(master: &MasterSnapshot, events: &[RowSelection], times: Option<Range<i64>>) -> Result<LogicalPlan, BatchError> {
    let mut all: Option<LogicalPlanBuilder> = None;
    for selection in events {
        let scan = master.scan(&RowSelection { event_time_us: times.clone(), ..selection.clone() })?;
        all = Some(match all {
            Some(all) => all.union(scan)?,
            None => LogicalPlanBuilder::from(scan),
        });
    }
    match all {
        Some(all) => Ok(all.build()?),
        None => Ok(scan_batches(master.stream.row_schema(), Vec::new())?),
    }
}

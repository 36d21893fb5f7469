//! Recompute: the states of a view over all epochs before a cut, as the next generation.
//!
//! Incremental: the new epochs are folded and combined with the current generation's states, in the window partitions that they
//! touch; the files of all other window partitions are shared. Full: all epochs are folded. Both give the same states.

mod plan;
mod progress;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::AsArray,
    datatypes::{Int32Type, Int64Type, TimestampMicrosecondType},
};
use datafusion::{
    functions_aggregate::expr_fn::{count, max},
    logical_expr::{LogicalPlan, LogicalPlanBuilder, lit},
    physical_plan::execute_stream,
    prelude::ident,
};
use futures::TryStreamExt;
use riomar_schemas::{
    Epoch, GenerationManifest, Offset, PartitionId, View,
    generation::{GenerationFile, MANIFEST_FORMAT},
    session::collect,
    stream::PARTITION,
    view::Grain,
};

pub use self::{
    plan::{Decision, Observed, decide},
    progress::Progress,
};
use crate::{
    context::Context,
    error::BatchError,
    generations::{GenerationWriter, Generations, window_partition},
    master::{MasterSnapshot, RowSelection},
};

/// Groups that one view may have.
pub const GROUPS_PER_VIEW_MAX: u64 = 10_000_000;

/// What a generation is computed from.
#[derive(Debug)]
pub struct Assignment<'a> {
    /// The view.
    pub view: &'a View,
    /// A version of the master dataset that holds all epochs before the cut.
    pub master: &'a MasterSnapshot,
    /// The cut to end at.
    pub cut: Epoch,
    /// Where the cut lies.
    pub positions: &'a BTreeMap<PartitionId, Offset>,
    /// Whether to compute every state afresh.
    pub full: bool,
}

/// Computes generations.
#[derive(Debug)]
pub struct Recompute {
    context: Context,
    generations: Arc<Generations>,
    groups_per_view_max: u64,
}

/// What is known of some rows without reading them whole.
#[derive(Debug, Default)]
struct RowSummary {
    rows: u64,
    event_time_max_us: BTreeMap<PartitionId, i64>,
}

impl Recompute {
    /// Recomputes that publish nothing themselves: the caller hands what [`Self::prepare`] gives to [`Generations::publish`].
    #[must_use]
    pub fn new(context: Context, generations: Arc<Generations>, groups_per_view_max: u64) -> Self {
        Self { context, generations, groups_per_view_max }
    }

    /// Computes and writes the next generation of a view, all but its manifest; `None` where the current one covers the cut.
    ///
    /// # Errors
    /// Any; files that were written belong to nothing and are removed later. The current generation keeps serving.
    pub async fn prepare(
        &self,
        assignment: &Assignment<'_>,
        progress: &Progress,
    ) -> Result<Option<GenerationManifest>, BatchError> {
        let Assignment { view, master, cut, full, .. } = *assignment;
        let current = self.generations.current(view).await?;
        let since = current.as_ref().map(|manifest| manifest.cut).filter(|_| !full).unwrap_or_default();
        let new = match since < cut || full {
            true => self.summarize(master, since, cut).await?,
            false => RowSummary::default(),
        };
        let observed = Observed { cut, current_cut: current.as_ref().map(|manifest| manifest.cut), full, new_rows: new.rows };
        let previous = current.as_deref();
        let (files, event_time_max_us) = match (decide(&observed), previous) {
            (Decision::UpToDate, _) => return Ok(None),
            (Decision::Share, Some(previous)) => (previous.files.clone(), previous.event_time_max_us.clone()),
            (Decision::Incremental { since }, Some(previous)) => {
                progress.expect_rows(new.rows);
                let files = self.increment(assignment, previous, since, progress).await?;
                (files, later(&previous.event_time_max_us, new.event_time_max_us))
            }
            (Decision::Full | Decision::Share | Decision::Incremental { .. }, _) => {
                progress.expect_rows(new.rows);
                let rows = master.scan(&RowSelection::before(cut))?;
                let states = view.fold(rows, Grain::View)?;
                (self.write(view, states, 0, progress).await?, new.event_time_max_us)
            }
        };
        Ok(Some(GenerationManifest {
            format: MANIFEST_FORMAT,
            view: view.name().clone(),
            fingerprint: view.fingerprint().to_owned(),
            generation: previous.map_or(0, |manifest| manifest.generation) + 1,
            cut,
            previous_cut: previous.map(|manifest| manifest.cut).unwrap_or_default(),
            positions: assignment.positions.clone(),
            event_time_max_us,
            master_version: master.version,
            full: decide(&observed) == Decision::Full,
            groups: files.iter().map(|file| file.groups).sum(),
            created_at_ms: self.context.clock.now_ms(),
            files,
        }))
    }

    /// Number and latest event times of the rows of some epochs.
    async fn summarize(&self, master: &MasterSnapshot, since: Epoch, before: Epoch) -> Result<RowSummary, BatchError> {
        let rows = master.scan(&RowSelection::epochs(since..before))?;
        let plan = LogicalPlanBuilder::from(rows)
            .aggregate([ident(PARTITION)], [count(lit(1)).alias("rows"), max(ident(master.event_time())).alias("event_time")])?
            .project([ident(PARTITION), ident("rows"), ident("event_time")])?
            .build()?;
        let mut summary = RowSummary::default();
        for batch in collect(&self.context.session(), plan).await? {
            let partitions = batch.column(0).as_primitive::<Int32Type>();
            let rows = batch.column(1).as_primitive::<Int64Type>();
            let times = batch.column(2).as_primitive::<TimestampMicrosecondType>();
            for row in 0..batch.num_rows() {
                summary.rows += u64::try_from(rows.value(row)).unwrap_or_default();
                let partition = PartitionId(u32::try_from(partitions.value(row)).unwrap_or_default());
                summary.event_time_max_us.insert(partition, times.value(row));
            }
        }
        Ok(summary)
    }

    /// The current generation's files, with those of the touched window partitions written anew.
    async fn increment(
        &self,
        assignment: &Assignment<'_>,
        previous: &GenerationManifest,
        since: Epoch,
        progress: &Progress,
    ) -> Result<Vec<GenerationFile>, BatchError> {
        let Assignment { view, master, cut, .. } = *assignment;
        let new_rows = || master.scan(&RowSelection::epochs(since..cut));
        let touched = window_partitions(&self.context, view, new_rows()?).await?;
        let (replaced, shared): (Vec<_>, Vec<_>) =
            previous.files.iter().cloned().partition(|file| touched.contains(&file.window_partition));
        let old = self.generations.states_of(view, &replaced)?;
        let both = LogicalPlanBuilder::from(old).union(view.fold(new_rows()?, Grain::View)?)?.build()?;
        let shared_groups = shared.iter().map(|file| file.groups).sum();
        let mut files = self.write(view, view.combine(both, Grain::View)?, shared_groups, progress).await?;
        files.extend(shared);
        files.sort_unstable_by_key(|file| file.window_partition);
        Ok(files)
    }

    /// Runs a plan of states and writes what it gives, batch by batch.
    async fn write(
        &self,
        view: &View,
        states: LogicalPlan,
        shared_groups: u64,
        progress: &Progress,
    ) -> Result<Vec<GenerationFile>, BatchError> {
        let order: Vec<_> =
            std::iter::once(view.window_start()).chain(view.group_names()).map(|name| ident(name).sort(true, true)).collect();
        let plan = LogicalPlanBuilder::from(view.finish_with_states(states)?).sort(order)?.build()?;
        let session = self.context.session();
        let physical = session.create_physical_plan(&plan).await?;
        progress.watch(Some(physical.clone()));
        let mut batches = execute_stream(physical, session.task_ctx())?;
        let mut writer = GenerationWriter::new(&self.context, view);
        let mut groups = shared_groups;
        while let Some(rows) = batches.try_next().await? {
            groups += rows.num_rows() as u64;
            if groups > self.groups_per_view_max {
                return Err(BatchError::TooManyGroups { view: view.name().clone(), limit: self.groups_per_view_max });
            }
            writer.write(&rows).await?;
        }
        progress.watch(None);
        writer.finish().await
    }
}

/// The window partitions that rows fall into.
pub(crate) async fn window_partitions(context: &Context, view: &View, rows: LogicalPlan) -> Result<BTreeSet<i64>, BatchError> {
    window_partitions_of(context, view, view.fold(rows, Grain::View)?).await
}

/// The window partitions of states.
pub(crate) async fn window_partitions_of(
    context: &Context,
    view: &View,
    states: LogicalPlan,
) -> Result<BTreeSet<i64>, BatchError> {
    let plan = LogicalPlanBuilder::from(states).project([ident(view.window_start()).alias("start")])?.distinct()?.build()?;
    let mut partitions = BTreeSet::new();
    for batch in collect(&context.session(), plan).await? {
        let starts = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        partitions.extend(starts.values().iter().map(|start| window_partition(view.window(), *start)));
    }
    Ok(partitions)
}

/// The later time of each partition.
fn later(old: &BTreeMap<PartitionId, i64>, new: BTreeMap<PartitionId, i64>) -> BTreeMap<PartitionId, i64> {
    let mut times = old.clone();
    for (partition, time) in new {
        times.entry(partition).and_modify(|known| *known = (*known).max(time)).or_insert(time);
    }
    times
}

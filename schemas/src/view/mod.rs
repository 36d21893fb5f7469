//! Views: one SQL aggregate over a stream, compiled into fold, combine and finish.
//!
//! [`compile`] takes the statement apart, [`window`] assigns events to windows, [`merge`] re-aggregates measures in queries, and
//! [`homomorphism`] tries a view's own algebra on generated rows before it is let in.

mod clauses;
mod compile;
pub mod homomorphism;
pub mod merge;
mod place;
mod planning;
mod source;
mod window;

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::{
    common::Column,
    error::Result,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder},
    prelude::ident,
    sql::sqlparser::ast::Statement,
};

pub(crate) use self::planning::INPUT;
pub use self::window::Window;
use crate::{
    aggregate::MergeableAggregate,
    definition::Problem,
    name::Name,
    stream::{EPOCH, Stream},
};

/// The column that a window's start is in, before the view names it.
pub const WINDOW_START: &str = "window_start";
/// The column that a window's end is in, before the view names it.
pub const WINDOW_END: &str = "window_end";

/// What the names of state columns begin with; the aggregate's number and function follow.
pub(crate) const STATE_PREFIX: &str = "_state_";
/// What a view is called, behind its name, where a query reads its states as well. A `$` is in no name that users can declare.
pub const TWIN_SUFFIX: &str = "$states";

/// A compiled view.
#[derive(Debug)]
pub struct View {
    name: Name,
    stream: Arc<Stream>,
    fingerprint: String,
    sql: String,
    window: Window,
    filter: Option<Expr>,
    groups: Vec<GroupColumn>,
    aggregates: Vec<MergeableAggregate>,
    columns: Vec<ViewColumn>,
    state_schema: SchemaRef,
    epoch_state_schema: SchemaRef,
    value_schema: SchemaRef,
}

/// A column that a view groups by.
#[derive(Debug, Clone)]
struct GroupColumn {
    /// Its name in the view.
    name: String,
    /// Its value, over the stream's columns and the window's.
    expression: Expr,
    /// Whether it is the window's start or end, or a dimension.
    role: Role,
}

/// What a column of a view is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The start of the window, inclusive.
    WindowStart,
    /// The end of the window, exclusive.
    WindowEnd,
    /// A dimension that is grouped by.
    Dimension,
    /// A value computed from aggregates.
    Measure,
}

/// One column of a view, as its `SELECT` lists it.
#[derive(Debug, Clone)]
pub struct ViewColumn {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub role: Role,
    /// Its type.
    pub data_type: DataType,
    /// A measure as an expression over `v0`, `v1`, … : the values of the aggregates in `uses`.
    measure: Option<Expr>,
    /// Indices of the aggregates that the measure is computed from.
    uses: Vec<usize>,
    /// Whether one of them is a sketch.
    approximate: bool,
    /// Whether one of them is a sketch of ranks.
    by_rank: bool,
}

impl ViewColumn {
    /// Whether the measure comes from a sketch, and so is true within the sketch's error only.
    #[must_use]
    pub fn is_approximate(&self) -> bool {
        self.approximate
    }

    /// Whether the measure comes from `approx_percentile_cont`. Its error is one of rank, and depends on how the sketch was merged, so
    /// two answers over the same events may differ; all other aggregates answer the same, `approx_distinct` among them.
    #[must_use]
    pub fn depends_on_merging(&self) -> bool {
        self.by_rank
    }
}

/// What states are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// The view's own group columns.
    View,
    /// The epoch, then the view's own group columns: what the realtime view keeps.
    Epoch,
}

impl View {
    /// Compiles one `CREATE MATERIALIZED VIEW` statement over the streams declared so far.
    ///
    /// # Errors
    /// Everything that makes the statement no view: what is wrong, where, and what to do instead.
    pub fn compile(statement: &Statement, sql: &str, stream: &dyn Fn(&str) -> Option<Arc<Stream>>) -> Result<Self, Problem> {
        compile::compile(statement, sql, stream)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The stream that it aggregates.
    #[must_use]
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// The statement as it was written.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// 16 hexadecimal digits that change with the meaning of the definition. States of another fingerprint are never read.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Its windows.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// Its columns, in the order of its `SELECT`.
    #[must_use]
    pub fn columns(&self) -> &[ViewColumn] {
        &self.columns
    }

    /// The column of that name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&ViewColumn> {
        self.columns.iter().find(|column| column.name.as_str() == name)
    }

    /// The names of the group columns, in the order of [`Self::state_schema`].
    pub fn group_names(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|group| group.name.as_str())
    }

    /// The schema of states at [`Grain::View`]: the group columns under their names in the view, then one Struct for each
    /// aggregate, named `_state_{i}_{function}`.
    #[must_use]
    pub fn state_schema(&self) -> &SchemaRef {
        &self.state_schema
    }

    /// The schema of states at [`Grain::Epoch`]: `_epoch` (BIGINT), then [`Self::state_schema`].
    #[must_use]
    pub fn epoch_state_schema(&self) -> &SchemaRef {
        &self.epoch_state_schema
    }

    /// The schema of finished rows: the view's columns as its `SELECT` lists them.
    #[must_use]
    pub fn value_schema(&self) -> &SchemaRef {
        &self.value_schema
    }

    /// The group column that holds the window's start, by its name in the view.
    #[must_use]
    pub fn window_start(&self) -> &str {
        self.groups.iter().find(|group| group.role == Role::WindowStart).map_or(WINDOW_START, |group| group.name.as_str())
    }

    /// Events to states: a plan over rows of [`Stream::row_schema`].
    ///
    /// # Errors
    /// A plan that DataFusion refuses.
    pub fn fold(&self, rows: LogicalPlan, grain: Grain) -> Result<LogicalPlan> {
        let event_time = ident(self.stream.columns[self.stream.event_time].name.as_str());
        let windows = self.window.columns(event_time);
        let mut plan = LogicalPlanBuilder::from(rows);
        let columns = plan.schema().columns().into_iter().map(Expr::Column).chain(windows).collect::<Vec<_>>();
        plan = plan.project(columns)?;
        if let Some(filter) = &self.filter {
            plan = plan.filter(filter.clone())?;
        }
        let groups = self.groups.iter().map(|group| group.expression.clone().alias(&group.name));
        let groups = epoch_column(grain).map(ident).into_iter().chain(groups).collect::<Vec<_>>();
        let states = self.aggregates.iter().enumerate().map(|(i, aggregate)| aggregate.fold().alias(state_name(i, aggregate)));
        self.states(plan.aggregate(groups, states.collect::<Vec<_>>())?, grain)
    }

    /// States to states: one row a group.
    ///
    /// # Errors
    /// A plan that DataFusion refuses.
    pub fn combine(&self, states: LogicalPlan, grain: Grain) -> Result<LogicalPlan> {
        let groups = epoch_column(grain).into_iter().chain(self.group_names()).map(ident).collect::<Vec<_>>();
        let combined = self.aggregates.iter().enumerate().map(|(i, aggregate)| {
            let name = state_name(i, aggregate);
            aggregate.combine(ident(&name)).alias(name)
        });
        self.states(LogicalPlanBuilder::from(states).aggregate(groups, combined.collect::<Vec<_>>())?, grain)
    }

    /// States (one row a group, [`Grain::View`]) to values of [`Self::value_schema`].
    ///
    /// # Errors
    /// A plan that DataFusion refuses.
    pub fn finish(&self, states: LogicalPlan) -> Result<LogicalPlan> {
        let values = self.columns.iter().map(|column| self.finished(column)).collect::<Result<Vec<_>>>()?;
        LogicalPlanBuilder::from(states).project(values)?.build()
    }

    /// A column's value over states: a group column as it is, a measure from its finished aggregates.
    fn finished(&self, column: &ViewColumn) -> Result<Expr> {
        let Some(measure) = &column.measure else { return Ok(ident(column.name.as_str())) };
        let value = planning::replace_columns(measure.clone(), &|name| {
            let used = column.uses.get(name.strip_prefix('v')?.parse::<usize>().ok()?)?;
            let aggregate = &self.aggregates[*used];
            Some(aggregate.finish(ident(state_name(*used, aggregate))))
        })?;
        Ok(value.alias(column.name.as_str()))
    }

    /// The columns of states in their order, free of table names.
    fn states(&self, plan: LogicalPlanBuilder, grain: Grain) -> Result<LogicalPlan> {
        let states = self.aggregates.iter().enumerate().map(|(i, aggregate)| state_name(i, aggregate));
        let names = epoch_column(grain).map(str::to_owned).into_iter().chain(self.group_names().map(str::to_owned)).chain(states);
        let columns = names.map(|name| {
            let qualified = plan.schema().columns().into_iter().find(|column| column.name == name);
            Expr::Column(qualified.unwrap_or_else(|| Column::new_unqualified(&name))).alias(name)
        });
        let columns = columns.collect::<Vec<_>>();
        plan.project(columns)?.build()
    }
}

fn epoch_column(grain: Grain) -> Option<&'static str> {
    match grain {
        Grain::View => None,
        Grain::Epoch => Some(EPOCH),
    }
}

/// The name of an aggregate's state column.
fn state_name(index: usize, aggregate: &MergeableAggregate) -> String {
    format!("{STATE_PREFIX}{index}_{}", aggregate.function())
}

#[cfg(test)]
mod tests;

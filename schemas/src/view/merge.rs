//! `merge(measure)` in queries: re-aggregates a measure's states over the rows of a group.

use std::sync::Arc;

use datafusion::{
    common::plan_err,
    error::Result,
    logical_expr::{AggregateUDF, LogicalPlan, LogicalPlanBuilder},
    prelude::ident,
};

use super::{Role, View, state_name};
use crate::aggregate;

/// What the names of merge functions begin with; view, fingerprint and measure follow.
pub(crate) const MERGE_PREFIX: &str = "riomar_merge_";

/// The aggregate function behind `merge(measure)`, and the state columns it takes in place of the measure.
#[derive(Debug, Clone)]
pub struct MergeFunction {
    /// The function, under a name that only this measure of this view has.
    pub function: Arc<AggregateUDF>,
    /// The names of its arguments among the columns of [`View::finish_with_states`].
    pub arguments: Vec<String>,
}

impl View {
    /// The function that merges a measure: the answer is what the view would say had it been defined at the grain of the query.
    ///
    /// # Errors
    /// A column that is no measure.
    pub fn merge_function(&self, measure: &str) -> Result<MergeFunction> {
        let Some(column) = self.column(measure).filter(|column| column.role == Role::Measure) else {
            let measures = self.columns().iter().filter(|column| column.role == Role::Measure);
            let known = measures.map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
            return plan_err!("merge takes a measure of a view; '{}' has {known}", self.name());
        };
        let used = column.uses.iter().map(|index| self.aggregates[*index].clone()).collect::<Vec<_>>();
        let name = format!("{MERGE_PREFIX}{}_{}_{measure}", self.name(), self.fingerprint());
        let value = column.measure.clone().unwrap_or_else(|| ident(measure));
        let function = Arc::new(aggregate::merge_function(&name, &used, &value)?);
        let arguments = column.uses.iter().map(|index| state_name(*index, &self.aggregates[*index])).collect();
        Ok(MergeFunction { function, arguments })
    }

    /// Like [`View::finish`], with the state columns behind the view's own, for [`MergeFunction`].
    ///
    /// # Errors
    /// A plan that DataFusion refuses.
    pub fn finish_with_states(&self, states: LogicalPlan) -> Result<LogicalPlan> {
        let values = self.columns().iter().map(|column| self.finished(column)).collect::<Result<Vec<_>>>()?;
        let states_too = self.aggregates.iter().enumerate().map(|(i, aggregate)| ident(state_name(i, aggregate)));
        LogicalPlanBuilder::from(states).project(values.into_iter().chain(states_too).collect::<Vec<_>>())?.build()
    }
}

//! The merge of batch and realtime views.
//!
//! It is a sum and nothing else: the batch view's states of generation *g* (all epochs before cut *n*) and the realtime view's
//! states of the epochs from *n* on, combined by group and finished. No clock, no event time, no look-up: where one part ends and
//! the other begins was settled by [`super::snapshot`].

use datafusion::{
    error::Result,
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
};
use riomar_schemas::{View, view::Grain};

/// The states of a view over everything that `batch` and `realtime` cover; either may be missing.
///
/// # Errors
/// A plan that DataFusion refuses.
pub(super) fn merge(view: &View, batch: Option<LogicalPlan>, realtime: Option<LogicalPlan>) -> Result<LogicalPlan> {
    let states = match (batch, realtime) {
        (Some(batch), Some(realtime)) => LogicalPlanBuilder::from(batch).union(realtime)?.build()?,
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => riomar_schemas::session::scan_batches(view.state_schema(), vec![])?,
    };
    view.combine(states, Grain::View)
}

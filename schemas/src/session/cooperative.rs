//! Joins that can be stopped.
//!
//! DataFusion's leaves give way to other tasks now and then; a join that multiplies its input does not, so an aggregate over a cross
//! join would neither notice a time limit nor let anything else run on its thread.

use std::sync::Arc;

use datafusion::{
    common::tree_node::{Transformed, TransformedResult, TreeNode},
    config::ConfigOptions,
    error::Result,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        coop::CooperativeExec,
        joins::{CrossJoinExec, NestedLoopJoinExec},
    },
};

/// Makes every join that may return far more rows than it reads give way after some batches.
#[derive(Debug)]
pub(super) struct CooperativeJoins;

impl PhysicalOptimizerRule for CooperativeJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            if plan.is::<CrossJoinExec>() || plan.is::<NestedLoopJoinExec>() {
                return Ok(Transformed::yes(Arc::new(CooperativeExec::new(plan)) as Arc<dyn ExecutionPlan>));
            }
            Ok(Transformed::no(plan))
        })
        .data()
    }

    fn name(&self) -> &str {
        "cooperative_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use datafusion::{execution::runtime_env::RuntimeEnv, prelude::SessionContext};

    use crate::session::session_state;

    #[tokio::test]
    async fn a_cross_join_gives_way_to_a_deadline() {
        let context = SessionContext::new_with_state(session_state(Arc::new(RuntimeEnv::default()), 1));
        let ten = "(VALUES (1),(2),(3),(4),(5),(6),(7),(8),(9),(10))";
        let tables = (0..14).map(|i| format!("{ten} AS t{i}(c{i})")).collect::<Vec<_>>().join(", ");
        let endless = async { context.sql(&format!("SELECT count(*), sum(c0 + c13) FROM {tables}")).await?.collect().await };
        // On one thread, the deadline is only noticed if the query gives way.
        assert!(tokio::time::timeout(Duration::from_millis(300), endless).await.is_err(), "10^14 rows in no time");
    }
}

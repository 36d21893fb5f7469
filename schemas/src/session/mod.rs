//! DataFusion sessions with Riomar's functions, and running a plan in one.

mod capped;
mod cooperative;
mod date_trunc;
mod wrapped;

use std::sync::{Arc, LazyLock};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{
    config::Dialect,
    datasource::{MemTable, provider_as_source},
    error::Result,
    execution::{
        SessionState, SessionStateBuilder, SessionStateDefaults,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    logical_expr::{LogicalPlan, LogicalPlanBuilder, ScalarUDF, planner::ExprPlanner},
    physical_plan,
    prelude::SessionConfig,
};

use crate::aggregate;

/// Scalar functions that one call can make gigabytes with, or that tell about the server: left out.
///
/// DataFusion's memory pool does not see what a scalar function allocates, so a query's memory limit would not hold them.
const FUNCTIONS_LEFT_OUT: &[&str] = &[
    "repeat",
    "lpad",
    "rpad",
    "space",
    "range",
    "generate_series",
    "gen_series",
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "version",
    "arrow_cast",
    "arrow_try_cast",
];

/// A session state with every function that views and queries may use, and none that reads or writes files.
///
/// Sessions are cheap to derive from it: [`SessionStateBuilder::new_from_existing`].
#[must_use]
pub fn session_state(runtime: Arc<RuntimeEnv>, target_partitions: usize) -> SessionState {
    let mut config = SessionConfig::new()
        .with_target_partitions(target_partitions)
        .with_information_schema(false)
        .with_collect_statistics(true)
        .with_default_catalog_and_schema("riomar", "public");
    let options = config.options_mut();
    options.sql_parser.dialect = Dialect::PostgreSQL;
    options.sql_parser.map_string_types_to_utf8view = false;
    // So that errors say where in the SQL they stand.
    options.sql_parser.collect_spans = true;
    options.execution.parquet.schema_force_view_types = false;
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    // An aggregate that wraps another one must see every row: repartitioning by hash does that as well as it does for others.
    options.optimizer.enable_dynamic_filter_pushdown = false;

    let allowed = |function: &Arc<ScalarUDF>| !FUNCTIONS_LEFT_OUT.contains(&function.name());
    let mut aggregates = SessionStateDefaults::default_aggregate_functions();
    // Later entries take the place of earlier ones of the same name.
    aggregates.extend(aggregate::functions());
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(capped::ConcatPlanner)];
    planners.extend(SessionStateDefaults::default_expr_planners());
    SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_scalar_functions(
            SessionStateDefaults::default_scalar_functions()
                .into_iter()
                .filter(allowed)
                .map(capped::cap)
                .map(date_trunc::widen)
                .collect(),
        )
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(aggregates)
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_expr_planners(planners)
        .with_physical_optimizer_rule(Arc::new(cooperative::CooperativeJoins))
        .build()
}

/// The session that views are compiled and checked in: no files, one thread.
pub(crate) fn planning_state() -> &'static SessionState {
    static STATE: LazyLock<SessionState> =
        LazyLock::new(|| session_state(RuntimeEnvBuilder::new().build_arc().unwrap_or_default(), 1));
    &STATE
}

/// A plan over batches in memory that all have this schema.
///
/// # Errors
/// A batch whose schema differs.
pub fn scan_batches(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<LogicalPlan> {
    let table = MemTable::try_new(Arc::clone(schema), vec![batches])?;
    LogicalPlanBuilder::scan("rows", provider_as_source(Arc::new(table)), None)?.build()
}

/// Optimises, plans afresh and runs a plan. (Running one physical plan twice returns no rows and no error.)
///
/// # Errors
/// Whatever planning or running it reports.
pub async fn collect(state: &SessionState, plan: LogicalPlan) -> Result<Vec<RecordBatch>> {
    let physical = state.create_physical_plan(&plan).await?;
    physical_plan::collect(physical, state.task_ctx()).await
}

//! The query engine: gate, snapshots, merge and limits put together.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{
    catalog::{CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider},
    datasource::ViewTable,
    execution::{SessionState, SessionStateBuilder, memory_pool::MemoryPool, runtime_env::RuntimeEnv},
    logical_expr::{LogicalPlan, LogicalPlanBuilder, lit, registry::FunctionRegistry},
    physical_plan::{ExecutionPlan, execute_stream},
    prelude::ident,
    scalar::ScalarValue,
    sql::sqlparser::ast::Statement as SqlStatement,
};
use futures::StreamExt;
use riomar_batch_layer::{BatchLayer, master::RowSelection};
use riomar_event_log::Log;
use riomar_schemas::{
    Catalog, Receipt, View,
    receipt::StreamReceipt,
    session::{scan_batches, session_state},
};
use riomar_speed_layer::RealtimeStore;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Answer, Parts, QueryLimits, RowsRequest,
    error::QueryError,
    gate,
    merge::merge,
    partitions::Partitions,
    rewrite::{rewrite, twin},
    snapshot::{Snapshots, ViewSnapshot},
    states::States,
};
use crate::metrics;

/// Queries that may run at once.
const QUERIES_MAX: usize = 64;
/// How long a query waits for its turn.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);
/// The stack of the thread that plans a query: planning recurses with each term of an expression.
const PLANNING_STACK_BYTES: usize = 64 << 20;

/// What the query engine stands on.
#[derive(Debug, Clone)]
pub struct QueryParts {
    /// Streams and views.
    pub catalog: Arc<Catalog>,
    /// The log, for its partitions. It has the streams as the catalog declares them.
    pub log: Arc<dyn Log>,
    /// Batch views, and the master dataset.
    pub batch: Arc<BatchLayer>,
    /// Realtime views.
    pub realtime: Arc<dyn RealtimeStore>,
    /// The memory that all queries share; what does not fit is refused. Recomputes have their own.
    pub memory: Arc<dyn MemoryPool>,
}

/// A query's turn. Planning cannot be broken off, so a plan that nobody waits for any more keeps its turn until it is done.
type Turn = Arc<OwnedSemaphorePermit>;

/// Answers queries.
#[derive(Debug, Clone)]
pub struct QueryEngine {
    catalog: Arc<Catalog>,
    pub(super) batch: Arc<BatchLayer>,
    pub(super) realtime: Arc<dyn RealtimeStore>,
    pub(super) snapshots: Snapshots,
    state: Arc<SessionState>,
    turns: Arc<Semaphore>,
}

impl QueryEngine {
    /// An engine over these parts.
    #[must_use]
    pub fn new(parts: QueryParts) -> Self {
        let QueryParts { catalog, log, batch, realtime, memory } = parts;
        let context = batch.context();
        let runtime = RuntimeEnv { memory_pool: Arc::clone(&memory), ..context.runtime.as_ref().clone() };
        let state = Arc::new(session_state(Arc::new(runtime), context.target_partitions));
        let partitions = Partitions::new(log, &catalog);
        let snapshots = Snapshots::new(Arc::clone(&batch), partitions, Arc::clone(&realtime), memory);
        Self { catalog, batch, realtime, snapshots, state, turns: Arc::new(Semaphore::new(QUERIES_MAX)) }
    }

    /// Answers one SELECT over views (finished values) and streams (raw events that have landed).
    ///
    /// # Errors
    /// [`QueryError`]; never a smaller answer in its place.
    pub async fn sql(&self, sql: &str, limits: QueryLimits) -> Result<Answer, QueryError> {
        let answer = self.limited(limits, async |turn| {
            let gate::Admitted { mut query, relations } = gate::admit(sql)?;
            let rewritten = rewrite(&mut query, &self.catalog)?;
            let tables = MemorySchemaProvider::new();
            let mut receipt = Receipt::default();
            // Held until the query is through.
            let mut snapshots = Vec::new();
            for name in &relations {
                snapshots.extend(self.add_table(name, rewritten.twins.contains(name), &tables, &mut receipt).await?);
            }
            let mut state = self.session_with(tables)?;
            for function in rewritten.functions {
                state.register_udaf(function)?;
            }
            let statement = SqlStatement::Query(query);
            let (physical, state) = plan(state, turn, move |state| async move {
                let statement = datafusion::sql::parser::Statement::Statement(Box::new(statement));
                let plan = state.statement_to_plan(statement).await?;
                Ok((state.create_physical_plan(&plan).await?, state))
            })
            .await
            .map_err(|error| self.name_unknown_table(error))?;
            let answer = run(physical, &state, limits, receipt).await;
            drop(snapshots);
            answer
        });
        counted(answer.await)
    }

    /// Answers a request for rows of one view, in order of window and dimensions.
    ///
    /// # Errors
    /// [`QueryError`]; never a smaller answer in its place.
    pub async fn rows(&self, view: &Arc<View>, request: RowsRequest, limits: QueryLimits) -> Result<Answer, QueryError> {
        let answer = self.limited(limits, async |turn| {
            let snapshot = self.snapshots.take(view).await?;
            self.rows_of(
                &snapshot,
                merge(view, self.batch_states(&snapshot)?, realtime_states(&snapshot)?)?,
                &request,
                limits,
                turn,
            )
            .await
        });
        counted(answer.await)
    }

    /// The same rows from the batch view, from the realtime view, and merged, all at one moment.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn parts(&self, view: &Arc<View>, request: &RowsRequest, limits: QueryLimits) -> Result<Parts, QueryError> {
        self.limited(limits, async |turn| {
            let snapshot = self.snapshots.take(view).await?;
            let (batch, realtime) = (self.batch_states(&snapshot)?, realtime_states(&snapshot)?);
            Ok(Parts {
                batch: self.rows_of(&snapshot, merge(view, batch.clone(), None)?, request, limits, Arc::clone(&turn)).await?,
                realtime: self
                    .rows_of(&snapshot, merge(view, None, realtime.clone())?, request, limits, Arc::clone(&turn))
                    .await?,
                merged: self.rows_of(&snapshot, merge(view, batch, realtime)?, request, limits, turn).await?,
            })
        })
        .await
    }

    /// The receipt that an answer about a view would have now.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn receipt(&self, view: &Arc<View>) -> Result<Receipt, QueryError> {
        self.limited(QueryLimits::default(), async |_| Ok(receipt_of(&self.snapshots.take(view).await?))).await
    }

    /// Waits for a turn, then for the answer, as long as the limits allow.
    async fn limited<T>(
        &self,
        limits: QueryLimits,
        answer: impl AsyncFnOnce(Turn) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let turn = tokio::time::timeout(TURN_WAIT_MAX.min(limits.time_max), Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(QueryError::Busy(QUERIES_MAX)) };
        let seconds = limits.time_max.as_secs();
        tokio::time::timeout(limits.time_max, answer(Arc::new(turn))).await.unwrap_or(Err(QueryError::Timeout { seconds }))
    }

    /// Puts a view, its twin where it is merged, or a stream among the tables. Other names may be common table expressions.
    /// Returns the snapshot that a view's table reads.
    async fn add_table(
        &self,
        name: &str,
        with_twin: bool,
        tables: &MemorySchemaProvider,
        receipt: &mut Receipt,
    ) -> Result<Option<ViewSnapshot>, QueryError> {
        let add = |name: String, plan: LogicalPlan| tables.register_table(name, Arc::new(ViewTable::new(plan, None))).map(drop);
        if let Some(view) = self.catalog.view(name) {
            let snapshot = self.snapshots.take(view).await?;
            let states = merge(view, self.batch_states(&snapshot)?, realtime_states(&snapshot)?)?;
            if with_twin {
                add(twin(name), view.finish_with_states(states.clone())?)?;
            }
            add(name.to_owned(), view.finish(states)?)?;
            let of_view = receipt_of(&snapshot);
            receipt.views.extend(of_view.views);
            receipt.degraded.extend(of_view.degraded);
            return Ok(Some(snapshot));
        }
        if let Some(stream) = self.catalog.stream(name) {
            let snapshot = self.batch.master(&stream.name)?.snapshot().await?;
            add(name.to_owned(), snapshot.scan(&RowSelection::default())?)?;
            let through = snapshot.partitions.iter().map(|(partition, landed)| (*partition, landed.position.offset)).collect();
            receipt.streams.insert(stream.name.clone(), StreamReceipt { version: snapshot.version, through });
        }
        Ok(None)
    }

    pub(super) fn batch_states(&self, snapshot: &ViewSnapshot) -> Result<Option<LogicalPlan>, QueryError> {
        let generation = snapshot.generation.as_deref().filter(|manifest| !manifest.files.is_empty());
        Ok(generation.map(|manifest| self.batch.generations().states(&snapshot.view, manifest)).transpose()?)
    }

    async fn rows_of(
        &self,
        snapshot: &ViewSnapshot,
        states: LogicalPlan,
        request: &RowsRequest,
        limits: QueryLimits,
        turn: Turn,
    ) -> Result<Answer, QueryError> {
        let view = &snapshot.view;
        let mut rows = LogicalPlanBuilder::from(view.finish(states)?);
        let start = || ident(view.window_start());
        let moment = |time_us: i64| lit(ScalarValue::TimestampMicrosecond(Some(time_us), Some("UTC".into())));
        if let Some(from_us) = request.from_us {
            rows = rows.filter(start().gt_eq(moment(from_us)))?;
        }
        if let Some(to_us) = request.to_us {
            rows = rows.filter(start().lt(moment(to_us)))?;
        }
        for (dimension, value) in &request.equals {
            let column = ident(dimension);
            rows = rows.filter(if value.is_null() { column.is_null() } else { column.eq(lit(value.clone())) })?;
        }
        rows = rows.sort(
            std::iter::once(view.window_start())
                .chain(view.group_names().filter(|name| *name != view.window_start()))
                .map(|name| ident(name).sort(true, false))
                .collect::<Vec<_>>(),
        )?;
        if let Some(columns) = &request.columns {
            rows = rows.project(columns.iter().map(ident).collect::<Vec<_>>())?;
        }
        let logical = rows.limit(0, request.limit)?.build()?;
        let state = self.session_with(MemorySchemaProvider::new())?;
        let (physical, state) =
            plan(state, turn, move |state| async move { Ok((state.create_physical_plan(&logical).await?, state)) }).await?;
        run(physical, &state, limits, receipt_of(snapshot)).await
    }

    /// A session of one query: its own tables, all else shared.
    fn session_with(&self, tables: MemorySchemaProvider) -> Result<SessionState, QueryError> {
        let options = &self.state.config_options().catalog;
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(&options.default_schema, Arc::new(tables))?;
        let catalogs = MemoryCatalogProviderList::new();
        datafusion::catalog::CatalogProviderList::register_catalog(&catalogs, options.default_catalog.clone(), Arc::new(catalog));
        let state = SessionStateBuilder::new_from_existing(self.state.as_ref().clone());
        let mut state = state.with_catalog_list(Arc::new(catalogs)).build();
        // What `now()` means in this query.
        state.mark_start_execution();
        Ok(state)
    }

    fn name_unknown_table(&self, error: QueryError) -> QueryError {
        let QueryError::InvalidSql(message) = &error else { return error };
        let Some(name) =
            message.split("table '").nth(1).and_then(|rest| rest.split('\'').next()).filter(|_| message.contains("not found"))
        else {
            return error;
        };
        let known = self
            .catalog
            .views()
            .map(|view| view.name().as_str())
            .chain(self.catalog.streams().map(|stream| stream.name.as_str()));
        QueryError::UnknownTable {
            name: name.rsplit('.').next().unwrap_or(name).to_owned(),
            known: known.collect::<Vec<_>>().join(", "),
        }
    }
}

pub(super) fn realtime_states(snapshot: &ViewSnapshot) -> Result<Option<LogicalPlan>, QueryError> {
    scan_states(&snapshot.view, &snapshot.realtime)
}

/// A plan over states in memory; `None` where there are none.
pub(super) fn scan_states(view: &View, states: &[States]) -> Result<Option<LogicalPlan>, QueryError> {
    if states.iter().all(|states| states.batch.num_rows() == 0) {
        return Ok(None);
    }
    Ok(Some(scan_batches(view.state_schema(), states.iter().map(|states| states.batch.clone()).collect())?))
}

/// Counts an answer that lacks something.
fn counted(answer: Result<Answer, QueryError>) -> Result<Answer, QueryError> {
    answer.inspect(|answer| metrics::answered(&answer.receipt))
}

fn receipt_of(snapshot: &ViewSnapshot) -> Receipt {
    let views = BTreeMap::from([(snapshot.view.name().clone(), snapshot.receipt.clone())]);
    Receipt { views, streams: BTreeMap::new(), degraded: snapshot.degraded.clone() }
}

/// Plans on a thread with a stack that the longest admitted query fits in.
async fn plan<T, F, R>(state: SessionState, turn: Turn, planning: F) -> Result<T, QueryError>
where
    T: Send + 'static,
    F: FnOnce(SessionState) -> R + Send + 'static,
    R: Future<Output = datafusion::error::Result<T>>,
{
    let runtime = tokio::runtime::Handle::current();
    let (done, outcome) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("riomar-planning".to_owned()).stack_size(PLANNING_STACK_BYTES);
    thread
        .spawn(move || {
            // Nobody waits any more when the query ran out of time.
            let _ = done.send(runtime.block_on(planning(state)));
            drop(turn);
        })
        .map_err(|error| QueryError::Unavailable(format!("no thread to plan on: {error}")))?;
    match outcome.await {
        Ok(planned) => Ok(planned?),
        Err(_) => Err(QueryError::InvalidSql("the query cannot be planned: simplify it".to_owned())),
    }
}

/// Runs a plan; an answer over a limit is an error.
async fn run(
    physical: Arc<dyn ExecutionPlan>,
    state: &SessionState,
    limits: QueryLimits,
    receipt: Receipt,
) -> Result<Answer, QueryError> {
    let schema: SchemaRef = physical.schema();
    let mut stream = execute_stream(physical, state.task_ctx())?;
    let mut batches: Vec<RecordBatch> = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    while let Some(batch) = stream.next().await.transpose()? {
        rows += batch.num_rows();
        bytes += batch.get_array_memory_size();
        if rows > limits.rows_max {
            let what = "the answer has too many rows; add LIMIT, or filter";
            return Err(QueryError::TooLarge { what, limit_name: "rows_max", limit: limits.rows_max });
        }
        if bytes > limits.bytes_max {
            let what = "the answer is too large; add LIMIT, or select fewer columns";
            return Err(QueryError::TooLarge { what, limit_name: "bytes_max", limit: limits.bytes_max });
        }
        batches.push(batch);
    }
    Ok(Answer { schema, batches, receipt })
}

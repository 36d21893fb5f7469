//! Reading an explicit list of Parquet files as a table: projection, and files and row groups left out by their statistics.

use std::{fmt, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{ColumnStatistics, DFSchema, ScalarValue, Statistics, pruning::PrunableStatistics, stats::Precision},
    datasource::{
        listing::PartitionedFile,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource, parquet::CachedParquetFileReaderFactory},
        provider_as_source,
        source::DataSourceExec,
    },
    error::Result,
    execution::{SendableRecordBatchStream, SessionState, object_store::ObjectStoreUrl, runtime_env::RuntimeEnv},
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType, utils::conjunction},
    physical_expr::PhysicalExpr,
    physical_optimizer::pruning::PruningPredicateBuilder,
    physical_plan::{ExecutionPlan, empty::EmptyExec, execute_stream},
};
use object_store::{ObjectStore, path::Path};
use url::Url;

/// The name under which queries know the object store. No SQL text can name a file by it.
pub const DATA_URL: &str = "riomar://data/";

/// Makes the object store known to queries that run in this environment.
///
/// # Panics
/// Never: [`DATA_URL`] is a URL.
pub fn register(runtime: &RuntimeEnv, store: Arc<dyn ObjectStore>) {
    let url = Url::parse(DATA_URL).expect("DATA_URL is a URL");
    runtime.register_object_store(&url, store);
}

/// One Parquet file to read.
#[derive(Debug, Clone)]
pub struct ScanFile {
    /// Its path, relative to the root of the object store.
    pub path: Path,
    /// Its size.
    pub bytes: u64,
    /// For some columns, bounds that no value of the file is outside of.
    pub ranges: Vec<ColumnRange>,
}

/// Bounds of a column's values in one file, both inclusive; they may be wider than the values are.
#[derive(Debug, Clone)]
pub struct ColumnRange {
    /// The column.
    pub column: String,
    /// No value is lower.
    pub min: ScalarValue,
    /// No value is higher.
    pub max: ScalarValue,
}

/// A plan that reads these files, which may be none, as a table of this schema. Columns that a file lacks are null.
///
/// # Errors
/// A plan that DataFusion refuses.
pub fn scan_files(name: &str, schema: SchemaRef, files: Vec<ScanFile>) -> Result<LogicalPlan> {
    let provider = provider_as_source(Arc::new(ParquetFiles { schema, files }));
    LogicalPlanBuilder::scan(name, provider, None)?.build()
}

/// Optimises and plans afresh, then runs a plan and gives its batches as they come.
///
/// # Errors
/// Whatever planning reports.
pub async fn stream(state: &SessionState, plan: &LogicalPlan) -> Result<SendableRecordBatchStream> {
    let physical = state.create_physical_plan(plan).await?;
    execute_stream(physical, state.task_ctx())
}

struct ParquetFiles {
    schema: SchemaRef,
    files: Vec<ScanFile>,
}

impl fmt::Debug for ParquetFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ParquetFiles({})", self.files.len())
    }
}

impl ParquetFiles {
    /// The files that may hold rows which pass the filter.
    fn prune(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Result<Vec<&ScanFile>> {
        let Some(predicate) = predicate else { return Ok(self.files.iter().collect()) };
        let pruning = PruningPredicateBuilder::new().with_file_schema(self.schema.clone()).try_build(predicate.clone())?;
        if pruning.always_true() {
            return Ok(self.files.iter().collect());
        }
        let statistics = self.files.iter().map(|file| Arc::new(self.statistics(file))).collect();
        let keep = pruning.prune(&PrunableStatistics::new(statistics, self.schema.clone()))?;
        Ok(self.files.iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect())
    }

    /// Bounds for pruning only. They are called exact because the pruning looks at nothing else; being wider than the values they
    /// must not reach the plan, which would answer `min` and `max` with them.
    fn statistics(&self, file: &ScanFile) -> Statistics {
        let mut statistics = Statistics::new_unknown(&self.schema);
        for range in &file.ranges {
            if let Ok(index) = self.schema.index_of(&range.column) {
                statistics.column_statistics[index] = ColumnStatistics {
                    min_value: Precision::Exact(range.min.clone()),
                    max_value: Precision::Exact(range.max.clone()),
                    ..ColumnStatistics::new_unknown()
                };
            }
        }
        statistics
    }
}

#[async_trait]
impl TableProvider for ParquetFiles {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let predicate = match conjunction(filters.to_vec()) {
            Some(filter) => Some(state.create_physical_expr(filter, &DFSchema::try_from(self.schema.clone())?)?),
            None => None,
        };
        let files: Vec<_> = self
            .prune(predicate.as_ref())?
            .into_iter()
            .map(|file| PartitionedFile::new(file.path.to_string(), file.bytes))
            .collect();
        if files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => self.schema.clone(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let url = ObjectStoreUrl::parse(DATA_URL)?;
        let store = state.runtime_env().object_store(&url)?;
        let footers = state.runtime_env().cache_manager.get_file_metadata_cache();
        let mut source = ParquetSource::new(self.schema.clone())
            .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(store, footers)));
        if let Some(predicate) = predicate {
            source = source.with_predicate(predicate);
        }
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(FileGroup::new(files).split_files(state.config().target_partitions()))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

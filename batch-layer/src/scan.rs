//! Reading an explicit list of Parquet files as a table: projection, and files and row groups left out by their statistics.

use std::{collections::HashSet, fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray},
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Column, DFSchema, ScalarValue, pruning::PruningStatistics},
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

#[cfg(test)]
mod tests;

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
        let Some(predicate) = predicate.filter(|_| !self.files.is_empty()) else { return Ok(self.files.iter().collect()) };
        let pruning = PruningPredicateBuilder::new().with_file_schema(self.schema.clone()).try_build(predicate.clone())?;
        if pruning.always_true() {
            return Ok(self.files.iter().collect());
        }
        let keep = pruning.prune(self)?;
        Ok(self.files.iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect())
    }

    /// One bound of a column in every file, null for a file that says nothing of it; `None` where no file does.
    ///
    /// They are for leaving out files only. Being wider than the values they must not reach the plan, which would answer `min` and
    /// `max` with them.
    fn bounds(&self, column: &Column, bound: fn(&ColumnRange) -> &ScalarValue) -> Option<ArrayRef> {
        let data_type = self.schema.field_with_name(column.name()).ok()?.data_type();
        // An array has one type, so a null has the column's: an untyped one would cost all files their bounds.
        let unknown = ScalarValue::try_from(data_type).ok()?;
        let of_file = |file: &ScanFile| {
            let range = file.ranges.iter().find(|range| range.column == column.name());
            range.map(bound).filter(|value| value.data_type() == *data_type).unwrap_or(&unknown).clone()
        };
        let bounds: Vec<_> = self.files.iter().map(of_file).collect();
        if bounds.iter().all(ScalarValue::is_null) {
            return None;
        }
        ScalarValue::iter_to_array(bounds).ok()
    }
}

impl PruningStatistics for ParquetFiles {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |range| &range.min)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |range| &range.max)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, _column: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
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

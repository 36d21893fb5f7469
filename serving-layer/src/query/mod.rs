//! Queries: SQL over views and streams, each answer with its receipt. Knows no HTTP.
//!
//! [`gate`] lets one harmless query through and nothing else. [`snapshot`] reads what each view holds at one moment: it is where the
//! batch view ends and the realtime view begins; [`partitions`] tells it which partitions there are, and [`states`] counts the memory
//! that takes. [`merge`] adds both up. [`rewrite`] turns `merge(measure)` into the view's own aggregates. [`engine`] puts them
//! together under limits.

mod audit;
mod engine;
mod error;
mod gate;
mod merge;
mod partitions;
mod rewrite;
mod snapshot;
mod states;
#[cfg(test)]
mod tests;

use std::time::Duration;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::common::ScalarValue;
use riomar_schemas::Receipt;

pub(crate) use self::snapshot::DEGRADATION_CODES;
pub use self::{
    audit::HandOverAudit,
    engine::{QueryEngine, QueryParts},
    error::QueryError,
};

/// Limits of one query.
#[derive(Debug, Clone, Copy)]
pub struct QueryLimits {
    /// Rows of the answer; a larger answer is an error.
    pub rows_max: usize,
    /// Bytes of the answer in memory; a larger answer is an error.
    pub bytes_max: usize,
    /// How long planning and running may take.
    pub time_max: Duration,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self { rows_max: 100_000, bytes_max: 128 << 20, time_max: Duration::from_secs(30) }
    }
}

/// Which rows of one view are wanted.
#[derive(Debug, Clone, Default)]
pub struct RowsRequest {
    /// Windows that start at or after this, in microseconds since 1970-01-01 UTC.
    pub from_us: Option<i64>,
    /// Windows that start before this, in microseconds since 1970-01-01 UTC.
    pub to_us: Option<i64>,
    /// Dimensions and the values they must have.
    pub equals: Vec<(String, ScalarValue)>,
    /// The columns to return; all without it.
    pub columns: Option<Vec<String>>,
    /// Rows at the most.
    pub limit: Option<usize>,
}

/// An answer: rows, and what exactly they contain.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// What the answer contains.
    pub receipt: Receipt,
}

/// The same rows of a view from each layer, all read at one moment.
#[derive(Debug, Clone)]
pub struct Parts {
    /// From the batch view alone.
    pub batch: Answer,
    /// From the realtime view alone.
    pub realtime: Answer,
    /// Merged.
    pub merged: Answer,
}

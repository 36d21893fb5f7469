//! Streams: typed sequences of events, declared with `CREATE TABLE`.

mod json_schema;

use std::{fmt, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::Serialize;

use crate::name::Name;

/// The column that keeps, as one JSON object, the fields of an event that its stream does not declare.
pub const EXTRA: &str = "_extra";
/// The column with the partition of an event.
pub const PARTITION: &str = "_partition";
/// The column with the offset of an event.
pub const OFFSET: &str = "_offset";
/// The column with the epoch of an event.
pub const EPOCH: &str = "_epoch";
/// The column with the time at which the log took an event.
pub const APPEND_TIME: &str = "_append_time";

/// The most digits a DECIMAL may have.
pub const DECIMAL_PRECISION_MAX: u8 = 38;

/// A stream as its user declared it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stream {
    /// Its name.
    pub name: Name,
    /// The declared columns, in order.
    pub columns: Vec<Column>,
    /// Index of the column with the event time: TIMESTAMP NOT NULL.
    pub event_time: usize,
    /// Index of the column whose value identifies an event; duplicates are not searched for without one.
    pub dedup_by: Option<usize>,
    /// For how many closed epochs an id is remembered.
    pub dedup_epochs: u64,
    /// Ids of one partition that are remembered at the most. Who would need more stops with an error.
    pub dedup_ids_max: u64,
    /// Index of the column whose value chooses the partition.
    pub partition_by: Option<usize>,
    /// Number of partitions.
    pub partitions: u32,
    /// The `CREATE TABLE` statement as it was written.
    pub sql: String,
    #[serde(skip)]
    row_schema: SchemaRef,
}

/// One declared column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name, which is also the field's name in the event.
    pub name: Name,
    /// Its type.
    pub column_type: ColumnType,
    /// Whether an event must bring a value.
    pub not_null: bool,
}

/// The types a column may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// Text, UTF-8.
    Varchar,
    /// `true` or `false`.
    Boolean,
    /// A signed 32-bit integer.
    Int,
    /// A signed 64-bit integer.
    BigInt,
    /// A finite 64-bit floating-point number.
    Double,
    /// An exact number of at most `precision` digits, `scale` of them behind the point.
    Decimal {
        /// 1 to 38.
        precision: u8,
        /// 0 to `precision`.
        scale: u8,
    },
    /// A moment in UTC, to the microsecond.
    Timestamp,
    /// A calendar day.
    Date,
    /// Nested JSON, kept as its compact text.
    Json,
}

impl ColumnType {
    /// The Arrow type of the column.
    #[must_use]
    pub fn arrow_type(self) -> DataType {
        match self {
            Self::Varchar | Self::Json => DataType::Utf8,
            Self::Boolean => DataType::Boolean,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Double => DataType::Float64,
            #[expect(clippy::cast_possible_wrap, reason = "a scale is at most 38")]
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale as i8),
            Self::Timestamp => timestamp_type(),
            Self::Date => DataType::Date32,
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Varchar => f.write_str("VARCHAR"),
            Self::Boolean => f.write_str("BOOLEAN"),
            Self::Int => f.write_str("INT"),
            Self::BigInt => f.write_str("BIGINT"),
            Self::Double => f.write_str("DOUBLE"),
            Self::Decimal { precision, scale } => write!(f, "DECIMAL({precision},{scale})"),
            Self::Timestamp => f.write_str("TIMESTAMP"),
            Self::Date => f.write_str("DATE"),
            Self::Json => f.write_str("JSON"),
        }
    }
}

/// The Arrow type of every TIMESTAMP: microseconds in UTC, which is what Delta tables know.
#[must_use]
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl Stream {
    /// Puts a stream together; the catalog has checked the indices.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "one for each clause of the statement")]
    pub(crate) fn new(
        name: Name,
        columns: Vec<Column>,
        event_time: usize,
        dedup_by: Option<usize>,
        dedup_epochs: u64,
        dedup_ids_max: u64,
        partition_by: Option<usize>,
        partitions: u32,
        sql: String,
    ) -> Self {
        let declared =
            columns.iter().map(|column| Field::new(column.name.as_str(), column.column_type.arrow_type(), !column.not_null));
        let system = [
            Field::new(EXTRA, DataType::Utf8, true),
            Field::new(PARTITION, DataType::Int32, false),
            Field::new(OFFSET, DataType::Int64, false),
            Field::new(EPOCH, DataType::Int64, false),
            Field::new(APPEND_TIME, timestamp_type(), false),
        ];
        let row_schema = Arc::new(Schema::new(declared.chain(system).collect::<Vec<_>>()));
        Self { name, columns, event_time, dedup_by, dedup_epochs, dedup_ids_max, partition_by, partitions, sql, row_schema }
    }

    /// The schema of decoded events and of the master dataset: the declared columns, then [`EXTRA`] (VARCHAR, null when there is
    /// nothing extra), [`PARTITION`] (INT), [`OFFSET`] (BIGINT), [`EPOCH`] (BIGINT) and [`APPEND_TIME`] (TIMESTAMP).
    #[must_use]
    pub fn row_schema(&self) -> &SchemaRef {
        &self.row_schema
    }

    /// The JSON Schema (2020-12) of an event of this stream.
    ///
    /// What it accepts, [`crate::EventDecoder`] may still refuse: JSON Schema cannot bound the digits of a number's text, tell
    /// `5.0` from `5`, or count the bytes and levels of an event.
    #[must_use]
    pub fn json_schema(&self) -> serde_json::Value {
        json_schema::of(self)
    }
}

//! Why a query has no answer, by what the caller can do next.

use datafusion::{
    error::DataFusionError,
    sql::sqlparser::{parser::ParserError, tokenizer::Location},
};
use riomar_batch_layer::BatchError;
use riomar_event_log::LogError;
use riomar_schemas::sql_error;

/// An error of a query.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The SQL is wrong: correct it.
    #[error("{0}")]
    InvalidSql(String),
    /// The SQL does what queries may not do.
    #[error("{0}")]
    NotAllowed(String),
    /// A table that is neither a view nor a stream.
    #[error("there is no view or stream '{name}': there are {known}")]
    UnknownTable {
        /// Its name.
        name: String,
        /// The names of views and streams.
        known: String,
    },
    /// The query or its answer is larger than a limit allows.
    #[error("{what}: the limit {limit_name} is {limit}")]
    TooLarge {
        /// What is too large, and what to do.
        what: &'static str,
        /// The limit's name.
        limit_name: &'static str,
        /// Its value.
        limit: usize,
    },
    /// The query took too long.
    #[error("the query was stopped after {seconds} s: read fewer windows, or filter by a dimension")]
    Timeout {
        /// The limit, in seconds.
        seconds: u64,
    },
    /// The query needs more memory than it may have.
    #[error(
        "the query needs more memory than is left of serving.memory_max, which all queries share: group by fewer columns, or \
         read fewer windows"
    )]
    OutOfMemory(#[source] Box<DataFusionError>),
    /// Too many queries run at once.
    #[error("{0} queries are running, which is the limit: try again in a moment")]
    Busy(usize),
    /// A value could not be computed.
    #[error("{0}")]
    Execution(String),
    /// Something behind the query does not answer; the same query may succeed later.
    #[error("the query cannot be answered now: {0}")]
    Unavailable(String),
}

impl QueryError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidSql(_) => "invalid_sql",
            Self::NotAllowed(_) => "sql_not_allowed",
            Self::UnknownTable { .. } => "unknown_table",
            Self::TooLarge { .. } => "query_too_large",
            Self::Timeout { .. } => "query_timeout",
            Self::OutOfMemory(_) => "query_out_of_memory",
            Self::Busy(_) => "too_many_queries",
            Self::Execution(_) => "query_failed",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidSql(_) => 400,
            Self::NotAllowed(_) => 403,
            Self::UnknownTable { .. } => 404,
            Self::TooLarge { .. } => 413,
            Self::Timeout { .. } => 504,
            Self::Execution(_) | Self::OutOfMemory(_) => 422,
            Self::Busy(_) | Self::Unavailable(_) => 503,
        }
    }

    /// Whether the same query may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Unavailable(_) | Self::Timeout { .. })
    }
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        let text = placed(sql_error::location(&error), &sql_error::message(&error));
        match error.find_root() {
            DataFusionError::SQL(..)
            | DataFusionError::Plan(_)
            | DataFusionError::SchemaError(..)
            | DataFusionError::NotImplemented(_) => Self::InvalidSql(text),
            DataFusionError::ResourcesExhausted(cause) if !cause.contains("disk space") => Self::OutOfMemory(Box::new(error)),
            DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => Self::Unavailable(text),
            _ => Self::Execution(text),
        }
    }
}

impl From<ParserError> for QueryError {
    fn from(error: ParserError) -> Self {
        let (message, location) = sql_error::syntax(&error);
        Self::InvalidSql(placed(location, &message))
    }
}

/// A message with its place in the SQL, where that is known.
fn placed(location: Option<Location>, message: &str) -> String {
    match location {
        Some(at) => format!("line {}, column {}: {message}", at.line, at.column),
        None => message.to_owned(),
    }
}

impl From<BatchError> for QueryError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Query(error) => error.into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<LogError> for QueryError {
    fn from(error: LogError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

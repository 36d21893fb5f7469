//! The oracle: what an answer must be, computed from the log alone.
//!
//! [`kept`] walks a partition's raw records, counts epochs and leaves out duplicates; [`evaluate`] puts what is left into SQLite
//! and runs the view's SQL, translated by hand; [`compare()`] holds an answer against the result. Nothing here calls Riomar's
//! decoder, reader or aggregation: the record type of the log seam is the only thing shared.

pub mod compare;
mod evaluate;
mod kept;
mod row;
mod sqlite;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use compare::compare;
pub use evaluate::evaluate;
pub use kept::{Kept, LogPartition, kept, walk};
pub use row::{ColumnKind, Row};

/// What the oracle knows of a stream: written by hand beside its `CREATE TABLE`.
#[derive(Debug, Clone, Copy)]
pub struct OracleStream {
    /// The stream's name.
    pub name: &'static str,
    /// Its columns: name, kind, and whether an event must bring a value.
    pub columns: &'static [(&'static str, ColumnKind, bool)],
    /// The field that identifies an event.
    pub id: &'static str,
    /// The field with the event time.
    pub event_time: &'static str,
    /// For how many closed epochs an id is remembered.
    pub dedup_epochs: u64,
}

/// A view as the oracle evaluates it: its SQL translated to SQLite by hand.
#[derive(Debug, Clone, Copy)]
pub struct OracleView {
    /// The view's name.
    pub name: &'static str,
    /// Its stream.
    pub stream: &'static OracleStream,
    /// The length of its windows in microseconds; `None` for a roll-up over all windows.
    pub window_us: Option<i64>,
    /// Its dimensions: name, kind of the column, and the SQLite expression.
    pub dimensions: &'static [(&'static str, ColumnKind, &'static str)],
    /// Which events it takes: an SQLite condition.
    pub filter: &'static str,
    /// Its measures: name, what is computed, and the SQLite expression it is computed of.
    pub measures: &'static [(&'static str, Measure, &'static str)],
}

/// What a measure computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measure {
    /// `count(*)`, or `count(x)` of a nullable expression.
    Count,
    /// `sum(x)` of integers, or of decimals with this many digits behind the point: to the last digit.
    Sum(u32),
    /// `min(x)`, of the column kind given.
    Min(ColumnKind),
    /// `max(x)`, of the column kind given.
    Max(ColumnKind),
    /// `bool_or(x)`.
    BoolOr,
    /// `sum(x)` of floating-point numbers: within 1e-9 of the sum of the magnitudes.
    FloatSum,
    /// `avg(x)`: within 1e-9 of the mean magnitude.
    Average,
    /// `approx_distinct(x)`: within 5 % or 2, whichever is more.
    Distinct,
    /// `approx_percentile_cont`: between the exact values at the rank ± 0.12 √(rank (1 - rank)) (and one event).
    Percentile(f64),
}

/// The group that a row of an answer stands for: the window's start in microseconds, then the dimensions, as text.
pub type GroupKey = Vec<Option<String>>;

/// What a measure's value must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// No value.
    Null,
    /// Exactly this text, number (all digits, no trailing zeros) or boolean.
    Exact(String),
    /// A number in this range, both ends included.
    Between(f64, f64),
}

/// All rows that an answer must have, and no others.
pub type Table = BTreeMap<GroupKey, Vec<Expected>>;

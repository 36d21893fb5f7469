//! Comparing two sets of finished rows of a view, group by group.

use std::collections::HashMap;

use arrow::{
    array::{Array, ArrayRef},
    compute::concat_batches,
    record_batch::RecordBatch,
    row::{OwnedRow, RowConverter, SortField},
};
use datafusion::{common::ScalarValue, error::DataFusionError};
use riomar_schemas::View;
use serde::Serialize;

use crate::error::BatchError;

/// Floating-point sums depend on the order of their terms; equal within this share of the larger value.
pub const FLOAT_TOLERANCE: f64 = 1e-9;
/// Percentiles of the same events differ with the way their sketches were merged, by up to 1 % in rank. What that is in values depends
/// on how they are spread, which the two values alone do not tell: equal within this share of the larger one. Where values are so
/// far apart that neighbouring ranks differ by more, the audit reports a difference that is none.
pub const PERCENTILE_TOLERANCE: f64 = 0.1;
/// How many differing groups are kept.
pub const DIFFERENCES_KEPT_MAX: usize = 100;

/// A group in which the two sides differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The group: its columns with their values.
    pub group: Vec<(String, String)>,
    /// The column that differs; `None` where only one side has the group.
    pub column: Option<String>,
    /// The left value; `None` where the left side lacks the group.
    pub left: Option<String>,
    /// The right value; `None` where the right side lacks the group.
    pub right: Option<String>,
}

/// What comparing gave.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Groups on either side.
    pub groups: u64,
    /// Groups that differ.
    pub differing: u64,
    /// The first [`DIFFERENCES_KEPT_MAX`] differences.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// Whether both sides say the same.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differing == 0
    }

    /// Adds the comparison of other groups.
    pub fn add(&mut self, other: Self) {
        self.groups += other.groups;
        self.differing += other.differing;
        self.differences.extend(other.differences);
        self.differences.truncate(DIFFERENCES_KEPT_MAX);
    }

    fn record(&mut self, differences: Vec<Difference>) {
        if !differences.is_empty() {
            self.differing += 1;
            self.differences.extend(differences);
            self.differences.truncate(DIFFERENCES_KEPT_MAX);
        }
    }
}

/// Compares two answers of a view, each with one row a group in [`View::value_schema`]. Integers, decimals, minima, maxima and
/// `approx_distinct` (the union of equal sets is the same sketch, however they were cut) are equal or differ; floating-point numbers
/// and percentiles have a tolerance.
///
/// # Errors
/// Rows of another schema.
pub fn compare(view: &View, left: &[RecordBatch], right: &[RecordBatch]) -> Result<Comparison, BatchError> {
    let (left, right) = (Side::new(view, left)?, Side::new(view, right)?);
    let keys = Keys::new(&left)?;
    let (left_keys, right_keys) = (keys.of(&left)?, keys.of(&right)?);
    let mut others: HashMap<&OwnedRow, usize> = right_keys.iter().enumerate().map(|(row, key)| (key, row)).collect();
    let mut comparison = Comparison::default();
    for (row, key) in left_keys.iter().enumerate() {
        comparison.groups += 1;
        match others.remove(key) {
            Some(other) => comparison.record(differences(view, (&left, row), (&right, other))?),
            None => comparison.record(vec![left.only(row, true)?]),
        }
    }
    let mut rest: Vec<_> = others.into_values().collect();
    rest.sort_unstable();
    for row in rest {
        comparison.groups += 1;
        comparison.record(vec![right.only(row, false)?]);
    }
    Ok(comparison)
}

/// One of the two answers.
struct Side {
    rows: RecordBatch,
    groups: Vec<usize>,
}

impl Side {
    fn new(view: &View, batches: &[RecordBatch]) -> Result<Self, BatchError> {
        let schema = batches.first().map_or_else(|| view.value_schema().clone(), RecordBatch::schema);
        let rows = concat_batches(&schema, batches).map_err(DataFusionError::from)?;
        let groups = view.group_names().map(|name| rows.schema().index_of(name)).collect::<Result<Vec<_>, _>>();
        Ok(Self { rows, groups: groups.map_err(DataFusionError::from)? })
    }

    fn group_columns(&self) -> Vec<ArrayRef> {
        self.groups.iter().map(|column| self.rows.column(*column).clone()).collect()
    }

    fn group(&self, row: usize) -> Result<Vec<(String, String)>, BatchError> {
        let text = |column: &usize| {
            let name = self.rows.schema().field(*column).name().clone();
            Ok((name, ScalarValue::try_from_array(self.rows.column(*column), row)?.to_string()))
        };
        self.groups.iter().map(text).collect()
    }

    /// The difference of a group that the other side lacks.
    fn only(&self, row: usize, is_left: bool) -> Result<Difference, BatchError> {
        let present = Some("present".to_owned());
        let (left, right) = if is_left { (present, None) } else { (None, present) };
        Ok(Difference { group: self.group(row)?, column: None, left, right })
    }
}

/// Turns groups into comparable keys.
struct Keys(RowConverter);

impl Keys {
    fn new(side: &Side) -> Result<Self, BatchError> {
        let fields = side.group_columns().iter().map(|column| SortField::new(column.data_type().clone())).collect();
        Ok(Self(RowConverter::new(fields).map_err(DataFusionError::from)?))
    }

    fn of(&self, side: &Side) -> Result<Vec<OwnedRow>, BatchError> {
        let rows = self.0.convert_columns(&side.group_columns()).map_err(DataFusionError::from)?;
        Ok(rows.iter().map(|row| row.owned()).collect())
    }
}

/// The columns in which one group differs.
fn differences(view: &View, left: (&Side, usize), right: (&Side, usize)) -> Result<Vec<Difference>, BatchError> {
    let mut found = Vec::new();
    for (index, column) in view.columns().iter().enumerate() {
        let value = |(side, row): (&Side, usize)| ScalarValue::try_from_array(side.rows.column(index), row);
        let (one, other) = (value(left)?, value(right)?);
        if !same(&one, &other, column.depends_on_merging()) {
            found.push(Difference {
                group: left.0.group(left.1)?,
                column: Some(column.name.to_string()),
                left: Some(one.to_string()),
                right: Some(other.to_string()),
            });
        }
    }
    Ok(found)
}

/// Whether two values count as equal.
fn same(one: &ScalarValue, other: &ScalarValue, percentile: bool) -> bool {
    if one == other {
        return true;
    }
    let is_float = matches!(one, ScalarValue::Float64(_) | ScalarValue::Float32(_));
    if (!is_float && !percentile) || one.is_null() != other.is_null() {
        return false;
    }
    let number = |value: &ScalarValue| match value.cast_to(&arrow::datatypes::DataType::Float64) {
        Ok(ScalarValue::Float64(number)) => number,
        _ => None,
    };
    let (Some(a), Some(b)) = (number(one), number(other)) else { return false };
    let tolerance = if percentile { PERCENTILE_TOLERANCE } else { FLOAT_TOLERANCE };
    // A percentile that was cast to an integer is off by one more, by rounding.
    let slack = if percentile && !is_float { 1.0 } else { 0.0 };
    let near = || (a - b).is_finite() && (a - b).abs() <= tolerance * a.abs().max(b.abs()) + slack;
    (a.is_nan() && b.is_nan()) || near()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerances() {
        let int = |number| ScalarValue::Int64(Some(number));
        let float = |number| ScalarValue::Float64(Some(number));
        let cases = [
            (int(1), int(1), false, true),
            (int(1), int(2), false, false),
            (int(1000), int(1100), true, true),
            (int(1000), int(1120), true, false),
            (int(3), int(4), true, true),
            (float(1.0), float(1.1), true, true),
            (float(1.0), float(1.2), true, false),
            (float(1.0), float(1.0 + 1e-10), false, true),
            (float(1.0), float(1.0 + 1e-8), false, false),
            (float(f64::NAN), float(f64::NAN), false, true),
            (float(f64::INFINITY), float(1.0), false, false),
            (ScalarValue::Float64(None), float(0.0), false, false),
            (ScalarValue::Utf8(Some("a".into())), ScalarValue::Utf8(Some("b".into())), false, false),
        ];
        for (one, other, percentile, expected) in cases {
            assert_eq!(same(&one, &other, percentile), expected, "{one} and {other}");
        }
    }
}

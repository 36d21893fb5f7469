//! A view's own algebra, tried on generated rows before the view is let in: `fold(a ++ b) = combine(fold a, fold b)`.
//!
//! The rows hold what breaks aggregates: nulls, zeros, the ends of every type's range. A view that fails on some of them (a
//! division by zero, a cast that does not fit) would one day stop a layer, so it is refused here.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::DataType,
    record_batch::RecordBatch,
};
use datafusion::{error::Result, execution::SessionState, logical_expr::LogicalPlanBuilder, prelude::ident, scalar::ScalarValue};

use super::{Grain, View};
use crate::{
    decode::TIMESTAMPS_US,
    definition::Problem,
    session::{collect, planning_state, scan_batches},
    sql_error,
};

/// Rows of each half.
const ROWS: usize = 48;
/// Pairs of halves.
const TRIALS: u64 = 4;

impl View {
    /// Tries the view's algebra on rows generated from `seed`.
    ///
    /// # Errors
    /// The view fails on some row, or its parts do not add up to the whole.
    pub async fn check_homomorphism(&self, seed: u64) -> std::result::Result<(), Problem> {
        let problem = |message: String, hint: &str| Problem { line: 0, column: 0, message, hint: Some(hint.to_owned()) };
        for trial in 0..TRIALS {
            // One sign of the extremes at a time: doubles that cancel each other out keep no digit to compare.
            let negative = trial % 2 == 1;
            let halves = [self.rows(seed ^ (trial << 1), negative), self.rows(seed ^ (trial << 1) ^ (1 << 63), negative)];
            let (whole, parts) = self.both_ways(halves).await.map_err(|error| {
                let hint = "guard it: NULLIF(x, 0) for divisors, TRY_CAST for casts";
                problem(format!("'{}' fails on some events: {}", self.name(), sql_error::message(&error)), hint)
            })?;
            if let Some(difference) = first_difference(&whole, &parts) {
                let hint = "use another aggregate; this one does not merge";
                return Err(problem(
                    format!("the parts of '{}' do not add up to the whole: {difference} (seed {seed})", self.name()),
                    hint,
                ));
            }
        }
        Ok(())
    }

    /// The values of both halves folded at once, and of each folded alone and then combined; in order of the groups.
    async fn both_ways(&self, halves: [RecordBatch; 2]) -> Result<(RecordBatch, RecordBatch)> {
        let state = planning_state();
        let fold = |batches| self.fold(scan_batches(self.stream().row_schema(), batches)?, Grain::View);
        let whole = collect(state, fold(halves.to_vec())?).await?;
        let mut parts = Vec::new();
        for half in halves {
            parts.extend(collect(state, fold(vec![half])?).await?);
        }
        let combined = self.combine(scan_batches(self.state_schema(), parts)?, Grain::View)?;
        let whole = self.sorted_values(state, scan_batches(self.state_schema(), whole)?).await?;
        Ok((whole, self.sorted_values(state, combined).await?))
    }

    async fn sorted_values(&self, state: &SessionState, states: datafusion::logical_expr::LogicalPlan) -> Result<RecordBatch> {
        let order = self.group_names().map(|name| ident(name).sort(true, false)).collect::<Vec<_>>();
        let sorted = LogicalPlanBuilder::from(self.finish(states)?).sort(order)?.build()?;
        let batches = collect(state, sorted).await?;
        Ok(arrow::compute::concat_batches(self.value_schema(), &batches)?)
    }

    /// Rows of the stream's schema, all in a few windows.
    fn rows(&self, seed: u64, negative: bool) -> RecordBatch {
        let mut random = SplitMix(seed);
        let step_us = self.window().step_us();
        let stream = self.stream();
        let columns = stream.row_schema().fields().iter().enumerate().map(|(i, field)| {
            let nullable = field.is_nullable();
            if i == stream.event_time {
                let times = (0..ROWS).map(|_| match random.below(8) {
                    0 => *TIMESTAMPS_US.start(),
                    1 => *TIMESTAMPS_US.end(),
                    _ => (random.below(3) as i64 - 1) * step_us + random.below(step_us.unsigned_abs()) as i64,
                });
                return Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")) as ArrayRef;
            }
            values(field.data_type(), nullable, negative, &mut random)
        });
        let columns = columns.collect();
        RecordBatch::try_new(Arc::clone(stream.row_schema()), columns)
            .unwrap_or_else(|_| RecordBatch::new_empty(Arc::clone(stream.row_schema())))
    }
}

/// A column of few, extreme values.
fn values(data_type: &DataType, nullable: bool, negative: bool, random: &mut SplitMix) -> ArrayRef {
    let mut pick = |choices: u64| (!nullable || random.below(6) > 0).then(|| random.below(choices) as usize);
    let picks: Vec<Option<usize>> = (0..ROWS).map(|_| pick(5)).collect();
    let (int, bigint) = if negative { (i32::MIN, i64::MIN) } else { (i32::MAX, i64::MAX) };
    match data_type {
        DataType::Boolean => Arc::new(picks.iter().map(|pick| pick.map(|i| i % 2 == 0)).collect::<BooleanArray>()),
        DataType::Int32 => Arc::new(picks.iter().map(|pick| pick.map(|i| [0, 1, -7, int, int][i])).collect::<Int32Array>()),
        DataType::Int64 => Arc::new(picks.iter().map(|pick| pick.map(|i| [0, 1, -7, bigint, bigint][i])).collect::<Int64Array>()),
        DataType::Float64 => {
            Arc::new(picks.iter().map(|pick| pick.map(|i| [0.0, 1.5, -7.25, 1e9, -0.0][i])).collect::<Float64Array>())
        }
        DataType::Decimal128(precision, _) => {
            let largest = (10_i128.pow(u32::from((*precision).min(37))) - 1) * if negative { -1 } else { 1 };
            let array = picks.iter().map(|pick| pick.map(|i| [0, 1, -7, largest, largest][i])).collect::<Decimal128Array>();
            Arc::new(array.with_data_type(data_type.clone()))
        }
        DataType::Date32 => {
            Arc::new(picks.iter().map(|pick| pick.map(|i| [0, 1, -7, 2_932_896, -719_162][i])).collect::<Date32Array>())
        }
        DataType::Timestamp(..) => {
            let array = picks.iter().map(|pick| pick.map(|i| [0, 1, -7, *TIMESTAMPS_US.end(), *TIMESTAMPS_US.start()][i]));
            Arc::new(array.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
        _ => Arc::new(picks.iter().map(|pick| pick.map(|i| ["", "a", "Ä ☃", "/index.html", "42"][i])).collect::<StringArray>()),
    }
}

/// The first cell in which two results differ, floating-point numbers by more than 1e-9 of the larger.
fn first_difference(left: &RecordBatch, right: &RecordBatch) -> Option<String> {
    if left.num_rows() != right.num_rows() {
        return Some(format!("{} groups and {} groups", left.num_rows(), right.num_rows()));
    }
    for (index, field) in left.schema().fields().iter().enumerate() {
        for row in 0..left.num_rows() {
            let cell = |batch: &RecordBatch| ScalarValue::try_from_array(batch.column(index), row).unwrap_or(ScalarValue::Null);
            let (a, b) = (cell(left), cell(right));
            let equal = match (&a, &b) {
                (ScalarValue::Float64(Some(a)), ScalarValue::Float64(Some(b))) => nearly_equal(*a, *b),
                _ => a == b,
            };
            if !equal {
                return Some(format!("{} is {a} and {b}", field.name()));
            }
        }
    }
    None
}

/// Whether two floating-point results agree up to the order in which they were added up.
#[must_use]
pub fn nearly_equal(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
}

/// Steele, Lea and Flood's SplitMix64: enough to vary rows, and the same everywhere.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

//! The aggregates that SQLite lacks: exact sums, and the ranges that an approximate answer may lie in.

use rusqlite::{
    Connection, Result,
    functions::{Aggregate, Context, FunctionFlags},
};

/// Exact integer sums, in 128 bits, as text.
struct ExactSum;

impl Aggregate<Option<i128>, Option<String>> for ExactSum {
    fn init(&self, _: &mut Context<'_>) -> Result<Option<i128>> {
        Ok(None)
    }

    fn step(&self, context: &mut Context<'_>, sum: &mut Option<i128>) -> Result<()> {
        if let Some(value) = context.get::<Option<i64>>(0)? {
            *sum = Some(sum.unwrap_or_default() + i128::from(value));
        }
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<Option<i128>>) -> Result<Option<String>> {
        Ok(sum.flatten().map(|sum| sum.to_string()))
    }
}

/// A range, as the text `low high`, of all values and the second argument.
struct RangeOf(fn(&mut [f64], f64) -> (f64, f64));

impl Aggregate<(Vec<f64>, f64), Option<String>> for RangeOf {
    fn init(&self, _: &mut Context<'_>) -> Result<(Vec<f64>, f64)> {
        Ok((Vec::new(), 0.0))
    }

    fn step(&self, context: &mut Context<'_>, (values, argument): &mut (Vec<f64>, f64)) -> Result<()> {
        values.extend(context.get::<Option<f64>>(0)?);
        *argument = context.get(1)?;
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, state: Option<(Vec<f64>, f64)>) -> Result<Option<String>> {
        let Some((mut values, argument)) = state.filter(|(values, _)| !values.is_empty()) else { return Ok(None) };
        let (low, high) = (self.0)(&mut values, argument);
        Ok(Some(format!("{low:e} {high:e}")))
    }
}

/// The sum, divided by the number of values to the power `argument` (0: sum, 1: mean), within 1e-9 of the magnitudes' sum.
fn sum_range(values: &mut [f64], argument: f64) -> (f64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "a count of test events")]
    let divisor = (values.len() as f64).powf(argument);
    values.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let (sum, magnitude) = values.iter().fold((0.0, 0.0), |(sum, magnitude), value| (sum + value, magnitude + value.abs()));
    let tolerance = 1e-9 * magnitude;
    ((sum - tolerance) / divisor, (sum + tolerance) / divisor)
}

/// The values at rank ± 0.12 √(rank (1 - rank)), one event further to either side, and a relative 1e-9 for the way there and back
/// through `f64`. A t-digest's error has this form: it is largest in the middle, where values that pile up make it as large as 0.06.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "ranks of test events")]
fn percentile_range(values: &mut [f64], rank: f64) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    let error = 0.12 * (rank * (1.0 - rank)).sqrt();
    let low = ((rank - error) * last as f64 - 1.0).floor().max(0.0) as usize;
    let high = ((rank + error) * last as f64 + 1.0).ceil() as usize;
    let (low, high) = (values[low.min(last)], values[high.min(last)]);
    (low - low.abs() * 1e-9, high + high.abs() * 1e-9)
}

/// A database in memory with `exact_sum(x)`, `sum_range(x, 0 or 1)` and `percentile_range(x, rank)`.
pub(super) fn open() -> Result<Connection> {
    let database = Connection::open_in_memory()?;
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    database.create_aggregate_function("exact_sum", 1, flags, ExactSum)?;
    database.create_aggregate_function("sum_range", 2, flags, RangeOf(sum_range))?;
    database.create_aggregate_function("percentile_range", 2, flags, RangeOf(percentile_range))?;
    Ok(database)
}

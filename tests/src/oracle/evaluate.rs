//! The view's SQL over the kept events, in SQLite.

use rusqlite::{Result, params_from_iter, types::Value};

use super::{ColumnKind, Expected, GroupKey, Measure, OracleView, Row, Table, sqlite};

/// The rows that the view must have over exactly these events.
///
/// # Errors
/// Whatever SQLite reports, which is a mistake in the view's description.
pub fn evaluate(view: &OracleView, rows: &[Row]) -> Result<Table> {
    let mut database = sqlite::open()?;
    let names: Vec<_> = view.stream.columns.iter().map(|(name, ..)| format!("\"{name}\"")).collect();
    database.execute_batch(&format!("CREATE TABLE events ({})", names.join(", ")))?;
    let transaction = database.transaction()?;
    let mut insert = transaction.prepare(&format!("INSERT INTO events VALUES ({})", vec!["?"; names.len()].join(", ")))?;
    for row in rows {
        insert.execute(params_from_iter(row))?;
    }
    drop(insert);
    let mut select = transaction.prepare(&sql(view))?;
    let groups = usize::from(view.window_us.is_some()) + view.dimensions.len();
    let mut found = select.query([])?;
    let mut table = Table::new();
    while let Some(row) = found.next()? {
        let mut key = GroupKey::new();
        for index in 0..groups {
            let dimension = (index + view.dimensions.len()).checked_sub(groups);
            let kind = dimension.map_or(ColumnKind::BigInt, |index| view.dimensions[index].1);
            key.push(text(kind, row.get(index)?));
        }
        let measures = view.measures.iter().enumerate();
        let values: Result<_> =
            measures.map(|(index, (_, measure, _))| Ok(expected(*measure, row.get(groups + index)?))).collect();
        table.insert(key, values?);
    }
    Ok(table)
}

/// `SELECT window, dimensions, measures FROM events WHERE … GROUP BY window, dimensions`.
fn sql(view: &OracleView) -> String {
    // Windows follow one another from 1970 on, before it too: SQLite's `%` takes the sign of its left side, so it is mended here.
    let time = view.stream.event_time;
    let window = view.window_us.map(|size| format!("{time} - (({time} % {size}) + {size}) % {size}"));
    let groups: Vec<_> = window.into_iter().chain(view.dimensions.iter().map(|(_, _, sql)| (*sql).to_owned())).collect();
    let measures = view.measures.iter().map(|(_, measure, x)| match measure {
        Measure::Count => format!("count({x})"),
        Measure::Sum(_) => format!("exact_sum({x})"),
        Measure::Min(_) => format!("min({x})"),
        Measure::Max(_) | Measure::BoolOr => format!("max({x})"),
        Measure::FloatSum => format!("sum_range({x}, 0)"),
        Measure::Average => format!("sum_range({x}, 1)"),
        Measure::Distinct => format!("count(DISTINCT {x})"),
        Measure::Percentile(rank) => format!("percentile_range({x}, {rank})"),
    });
    let columns: Vec<_> = groups.iter().cloned().chain(measures).collect();
    let group_by = if groups.is_empty() { String::new() } else { format!(" GROUP BY {}", groups.join(", ")) };
    format!("SELECT {} FROM events WHERE {}{group_by}", columns.join(", "), view.filter)
}

fn expected(measure: Measure, value: Value) -> Expected {
    let exact = |kind, value| text(kind, value).map_or(Expected::Null, Expected::Exact);
    match (measure, value) {
        (_, Value::Null) => Expected::Null,
        (Measure::Count, value) => exact(ColumnKind::BigInt, value),
        (Measure::Sum(scale), Value::Text(sum)) => Expected::Exact(with_point(&sum, scale)),
        (Measure::Min(kind) | Measure::Max(kind), value) => exact(kind, value),
        (Measure::BoolOr, value) => exact(ColumnKind::Boolean, value),
        (Measure::Distinct, Value::Integer(count)) => {
            #[expect(clippy::cast_precision_loss, reason = "a count of test events")]
            let (count, slack) = (count as f64, (count as f64 * 0.05).max(2.0));
            Expected::Between(count - slack, count + slack)
        }
        (measure, Value::Text(range)) => {
            let (low, high) = range.split_once(' ').expect("two numbers");
            let (low, high): (f64, f64) = (low.parse().expect("a number"), high.parse().expect("a number"));
            // The mean of DECIMALs is a DECIMAL itself, cut off behind six digits.
            let cut_off = if measure == Measure::Average { 1e-6 } else { 0.0 };
            Expected::Between(low - cut_off, high + cut_off)
        }
        (measure, value) => panic!("{measure:?} gave {value:?}"),
    }
}

/// A value as answers are compared by: numbers without trailing zeros, booleans as words, times in microseconds.
fn text(kind: ColumnKind, value: Value) -> Option<String> {
    Some(match (kind, value) {
        (_, Value::Null) => return None,
        (ColumnKind::Boolean, Value::Integer(value)) => (value != 0).to_string(),
        (ColumnKind::Decimal(_, scale), Value::Integer(value)) => with_point(&value.to_string(), scale),
        (_, Value::Integer(value)) => value.to_string(),
        (_, Value::Real(value)) => super::compare::canonical(&value.to_string()),
        (_, Value::Text(value)) => value,
        (kind, value) => panic!("{kind:?} is {value:?}"),
    })
}

/// `-1250` with scale 2 is `-12.5`.
fn with_point(digits: &str, scale: u32) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let scale = scale as usize;
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    super::compare::canonical(&format!("{sign}{whole}.{fraction}"))
}

//! Holding an answer against the rows that the oracle computed.

use std::collections::BTreeSet;

use chrono::DateTime;

use super::{ColumnKind, Expected, GroupKey, OracleView, Table};
use crate::answer::{Answer, plain};

/// The name of the column with a window's start.
const WINDOW_START: &str = "window_start";
/// The most differences that are told.
const DIFFERENCES_MAX: usize = 12;

/// Compares an answer that has all columns of the view with the rows that it must have.
///
/// # Errors
/// The differences in words.
pub fn compare(view: &OracleView, expected: &Table, answer: &Answer) -> Result<(), String> {
    let window = view.window_us.map(|_| (WINDOW_START, ColumnKind::Timestamp));
    let groups: Vec<_> = window.into_iter().chain(view.dimensions.iter().map(|(name, kind, _)| (*name, *kind))).collect();
    let names = groups.iter().map(|(name, _)| *name).chain(view.measures.iter().map(|(name, ..)| *name));
    let columns = names.map(|name| answer.column(name).ok_or(format!("the answer lacks the column {name}")));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let mut differences = Vec::new();
    let mut missing: BTreeSet<&GroupKey> = expected.keys().collect();
    for row in &answer.rows {
        let values: Vec<_> = columns.iter().map(|&column| plain(&row[column])).collect();
        let (keys, measures) = values.split_at(groups.len());
        let key: GroupKey =
            keys.iter().zip(&groups).map(|(text, (_, kind))| text.as_deref().map(|text| group(*kind, text))).collect();
        if !missing.remove(&key) {
            let kind = if expected.contains_key(&key) { "twice" } else { "unexpected" };
            differences.push(format!("{kind}: {key:?} {measures:?}"));
            continue;
        }
        for ((got, wanted), (name, ..)) in measures.iter().zip(&expected[&key]).zip(view.measures) {
            if !matches(wanted, got.as_deref()) {
                differences.push(format!("{key:?} {name}: got {got:?}, wanted {wanted:?}"));
            }
        }
    }
    differences.extend(missing.iter().map(|key| format!("missing: {key:?} {:?}", expected[*key])));
    if differences.is_empty() {
        return Ok(());
    }
    let total = differences.len();
    differences.truncate(DIFFERENCES_MAX);
    Err(format!(
        "{} has {} rows, not {}; {total} differences:\n  {}",
        view.name,
        answer.rows.len(),
        expected.len(),
        differences.join("\n  ")
    ))
}

fn group(kind: ColumnKind, text: &str) -> String {
    match kind {
        ColumnKind::Timestamp => DateTime::parse_from_rfc3339(text)
            .map_or_else(|error| format!("{text}: {error}"), |time| time.timestamp_micros().to_string()),
        ColumnKind::Text => text.to_owned(),
        _ => canonical(text),
    }
}

fn matches(expected: &Expected, got: Option<&str>) -> bool {
    match (expected, got) {
        (Expected::Null, got) => got.is_none(),
        (Expected::Exact(wanted), Some(got)) => {
            wanted == got || *wanted == canonical(got) || time_of(got).as_ref() == Some(wanted)
        }
        (Expected::Between(low, high), Some(got)) => got.parse().is_ok_and(|got: f64| *low <= got && got <= *high),
        (_, None) => false,
    }
}

fn time_of(text: &str) -> Option<String> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros().to_string())
}

/// Numbers in one spelling: no exponent, no trailing zeros, no negative zero. Anything else stays as it is.
pub(super) fn canonical(text: &str) -> String {
    if !text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return text.to_owned();
    }
    let plain = match text.parse::<f64>() {
        Ok(number) if text.contains(['e', 'E']) => number.to_string(),
        _ => text.to_owned(),
    };
    let trimmed = if plain.contains('.') { plain.trim_end_matches('0').trim_end_matches('.') } else { &plain };
    if matches!(trimmed, "-0" | "-") { "0".to_owned() } else { trimmed.to_owned() }
}

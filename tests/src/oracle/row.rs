//! An event's JSON text as a row for SQLite, by the plainest reading of the stream's declaration.

use std::collections::BTreeMap;

use chrono::DateTime;
use rusqlite::types::Value;
use serde_json::value::RawValue;

use super::OracleStream;

/// The column types that the tests' streams use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// VARCHAR.
    Text,
    /// INT.
    Int,
    /// BIGINT.
    BigInt,
    /// DOUBLE.
    Double,
    /// DECIMAL(precision, scale): kept in SQLite without its point.
    Decimal(u32, u32),
    /// BOOLEAN: 0 or 1.
    Boolean,
    /// JSON: kept as its text.
    Json,
    /// TIMESTAMP: microseconds.
    Timestamp,
}

/// The declared columns of one event, in order.
pub type Row = Vec<Value>;

/// The event's id and row; `None` where the text is no event of the stream.
pub(super) fn parse(stream: &OracleStream, text: &[u8]) -> Option<(Option<String>, Row)> {
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(text).ok()?;
    let id = fields.get(stream.id).map(|raw| raw.get().to_owned()).filter(|raw| raw != "null");
    let id = id.map(|raw| serde_json::from_str::<String>(&raw).unwrap_or(raw));
    let mut row = Row::with_capacity(stream.columns.len());
    for &(name, kind, not_null) in stream.columns {
        let raw = fields.get(name).map_or("null", |raw| raw.get());
        match (raw, not_null) {
            ("null", true) => return None,
            ("null", false) => row.push(Value::Null),
            _ => row.push(value(kind, raw)?),
        }
    }
    Some((id, row))
}

fn value(kind: ColumnKind, raw: &str) -> Option<Value> {
    Some(match kind {
        ColumnKind::Text => Value::Text(serde_json::from_str(raw).ok()?),
        ColumnKind::Int => Value::Integer(serde_json::from_str::<i32>(raw).ok()?.into()),
        ColumnKind::BigInt => Value::Integer(serde_json::from_str(raw).ok()?),
        // Not through serde_json, which may be off by the last bit.
        ColumnKind::Double => Value::Real(raw.parse().ok().filter(|value: &f64| value.is_finite())?),
        ColumnKind::Boolean => Value::Integer(serde_json::from_str::<bool>(raw).ok()?.into()),
        ColumnKind::Json => Value::Text(raw.to_owned()),
        ColumnKind::Timestamp => {
            let text: String = serde_json::from_str(raw).ok()?;
            Value::Integer(DateTime::parse_from_rfc3339(&text).ok()?.timestamp_micros())
        }
        ColumnKind::Decimal(precision, scale) => Value::Integer(unscaled(raw, precision, scale)?),
    })
}

/// `-12.5` with scale 2 is -1250; `None` where the number has more digits than the type.
fn unscaled(raw: &str, precision: u32, scale: u32) -> Option<i64> {
    let text = raw.trim_matches('"');
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let padding = (scale as usize).checked_sub(fraction.len())?;
    let number: i64 = format!("{whole}{fraction}{}", "0".repeat(padding)).parse().ok()?;
    (number.unsigned_abs() < 10_u64.pow(precision)).then_some(number)
}

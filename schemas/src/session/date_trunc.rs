//! `date_trunc` over the whole range of TIMESTAMP. DataFusion's reckons in nanoseconds and fails before 1677 and after 2262.

use std::sync::Arc;

use arrow::{
    array::{AsArray, PrimitiveArray},
    datatypes::TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::{
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF},
    scalar::ScalarValue,
};

use super::wrapped::{Around, wrapped};
use crate::stream::timestamp_type;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// Answers for TIMESTAMPs in microseconds and UTC.
#[derive(Debug, PartialEq, Eq, Hash)]
struct EveryTimestamp;

/// The function itself, or the one that takes every TIMESTAMP where it is `date_trunc`.
pub(super) fn widen(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    if function.name() == "date_trunc" { wrapped(function, EveryTimestamp) } else { function }
}

impl Around for EveryTimestamp {
    fn call(&self, inner: &ScalarUDF, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let unit = match args.args.as_slice() {
            [ColumnarValue::Scalar(ScalarValue::Utf8(Some(unit)) | ScalarValue::Utf8View(Some(unit))), time]
                if time.data_type() == timestamp_type() =>
            {
                Unit::parse(unit)
            }
            _ => None,
        };
        let Some(unit) = unit else { return inner.invoke_with_args(args) };
        let times = args.args[1].to_array(args.number_rows)?;
        let truncated: PrimitiveArray<TimestampMicrosecondType> =
            times.as_primitive::<TimestampMicrosecondType>().unary(|time_us| unit.truncate(time_us));
        Ok(ColumnarValue::Array(Arc::new(truncated.with_timezone("UTC"))))
    }
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    /// Of so many microseconds, counted from 1970-01-01 UTC.
    Fixed(i64),
    /// From Monday on.
    Week,
    /// So many months, counted from January.
    Months(u32),
}

impl Unit {
    fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "microsecond" => Self::Fixed(1),
            "millisecond" => Self::Fixed(1_000),
            "second" => Self::Fixed(SECOND_US),
            "minute" => Self::Fixed(60 * SECOND_US),
            "hour" => Self::Fixed(3_600 * SECOND_US),
            "day" => Self::Fixed(DAY_US),
            "week" => Self::Week,
            "month" => Self::Months(1),
            "quarter" => Self::Months(3),
            "year" => Self::Months(12),
            _ => return None,
        })
    }

    fn truncate(self, time_us: i64) -> i64 {
        match self {
            Self::Fixed(length_us) => time_us - time_us.rem_euclid(length_us),
            Self::Week => {
                // 1970-01-01 was a Thursday.
                let day = time_us.div_euclid(DAY_US);
                (day - (day + 3).rem_euclid(7)) * DAY_US
            }
            Self::Months(months) => {
                let date = DateTime::from_timestamp_micros(time_us).map(|time| time.date_naive());
                let first = date.and_then(|date| NaiveDate::from_ymd_opt(date.year(), date.month0() / months * months + 1, 1));
                // Every TIMESTAMP has a date: those of events reach from year 1 to 9999, chrono's much further.
                first.map_or(time_us, |first| first.signed_duration_since(NaiveDate::default()).num_days() * DAY_US)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncates_like_postgresql() {
        let cases = [
            ("2026-11-20T10:59:59.999999Z", "hour", "2026-11-20T10:00:00Z"),
            ("2026-11-20T10:59:59Z", "day", "2026-11-20T00:00:00Z"),
            ("2026-11-22T10:59:59Z", "week", "2026-11-16T00:00:00Z"),
            ("1969-12-31T23:59:59Z", "week", "1969-12-29T00:00:00Z"),
            ("2026-11-20T10:59:59Z", "month", "2026-11-01T00:00:00Z"),
            ("2026-11-20T10:59:59Z", "quarter", "2026-10-01T00:00:00Z"),
            ("0001-01-01T00:00:00Z", "year", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59Z", "year", "9999-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59Z", "minute", "9999-12-31T23:59:00Z"),
        ];
        let time_us = |text: &str| DateTime::parse_from_rfc3339(text).expect("a time").timestamp_micros();
        for (time, unit, expected) in cases {
            assert_eq!(Unit::parse(unit).expect("a unit").truncate(time_us(time)), time_us(expected), "{time} {unit}");
        }
    }
}

//! Times as the API writes and reads them: RFC 3339, UTC, with `Z`.

use chrono::{DateTime, SecondsFormat};
use serde_json::Value;

/// Milliseconds since 1970-01-01 UTC as text.
pub(crate) fn rfc3339_ms(time_ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(time_ms);
    time.map_or_else(|| time_ms.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// Microseconds since 1970-01-01 UTC as text.
pub(crate) fn rfc3339_us(time_us: i64) -> String {
    let time = DateTime::from_timestamp_micros(time_us);
    time.map_or_else(|| time_us.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// Replaces the members `…_at_ms` of an object by `…_at`, as text. What is null stays null.
pub(crate) fn with_times(mut value: Value) -> Value {
    if let Value::Object(members) = &mut value {
        let names: Vec<_> = members.keys().filter(|name| name.ends_with("_at_ms")).cloned().collect();
        for name in names {
            let time = members.remove(&name).and_then(|time| time.as_i64()).map(rfc3339_ms);
            members.insert(name.trim_end_matches("_ms").to_owned(), time.into());
        }
    }
    value
}

/// A text as microseconds since 1970-01-01 UTC; `None` where it is no RFC 3339 time with an offset.
pub(crate) fn parse_us(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        assert_eq!(rfc3339_ms(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339_us(1_700_000_000_000_001), "2023-11-14T22:13:20.000001Z");
        // No calendar here reaches that far: the number says more than nothing.
        assert_eq!(rfc3339_us(i64::MAX), i64::MAX.to_string());
        assert_eq!(parse_us("2023-11-14T23:13:20.000001+01:00"), Some(1_700_000_000_000_001));
        for broken in ["", "2023-11-14", "2023-11-14T22:13:20", "now", "2023-13-14T22:13:20Z"] {
            assert_eq!(parse_us(broken), None, "{broken}");
        }
    }
}

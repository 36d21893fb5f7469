//! When recomputes start by themselves.

use std::{fmt, str::FromStr};

use chrono::DateTime;
use croner::Cron;

use crate::error::BatchError;

/// An interval such as `1m`, or a cron expression in UTC. Starts that were missed are not made up for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    rule: Rule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// At every multiple of so many milliseconds since 1970-01-01 UTC.
    Every(i64),
    Cron(Box<Cron>),
}

/// The shortest interval, in milliseconds: each start appends a cut to every partition.
const INTERVAL_MS_MIN: i64 = 1_000;

impl Schedule {
    /// The first start after a moment, both in milliseconds since 1970-01-01 UTC; `None` where a cron expression names no further
    /// moment.
    #[must_use]
    pub fn next_after(&self, now_ms: i64) -> Option<i64> {
        match &self.rule {
            Rule::Every(interval_ms) => Some((now_ms.div_euclid(*interval_ms) + 1) * interval_ms),
            Rule::Cron(cron) => {
                let now = DateTime::from_timestamp_millis(now_ms)?;
                cron.find_next_occurrence(&now, false).ok().map(|next| next.timestamp_millis())
            }
        }
    }
}

impl FromStr for Schedule {
    type Err = BatchError;

    fn from_str(text: &str) -> Result<Self, BatchError> {
        let invalid = |detail: String| BatchError::InvalidSchedule { text: text.to_owned(), detail };
        let rule = match interval_ms(text) {
            Some(interval_ms) if interval_ms < INTERVAL_MS_MIN => return Err(invalid("the shortest interval is 1s".to_owned())),
            Some(interval_ms) => Rule::Every(interval_ms),
            None => Rule::Cron(Box::new(Cron::from_str(text).map_err(|error| invalid(error.to_string()))?)),
        };
        Ok(Self { text: text.to_owned(), rule })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `90s`, `15m`, `1h`, `1d`; `None` for anything else.
fn interval_ms(text: &str) -> Option<i64> {
    let unit_ms = match text.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<i64>().ok()?.checked_mul(unit_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_starts() {
        let ten = DateTime::parse_from_rfc3339("2026-11-20T10:00:00Z").expect("a time").timestamp_millis();
        let cases = [
            ("1m", 0, Some(60_000)),
            ("1m", 59_999, Some(60_000)),
            ("1m", 60_000, Some(120_000)),
            ("15s", -1, Some(0)),
            ("*/5 * * * *", ten, Some(ten + 300_000)),
            ("*/5 * * * *", ten + 1, Some(ten + 300_000)),
            ("30 4 * * *", ten, Some(ten + 18 * 3_600_000 + 30 * 60_000)),
        ];
        for (text, now_ms, expected) in cases {
            let schedule: Schedule = text.parse().expect("valid");
            assert_eq!(schedule.next_after(now_ms), expected, "{text} after {now_ms}");
            assert_eq!(schedule.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_no_schedule() {
        for text in ["", "m", "1 m", "-1m", "0m", "soon", "61 * * * *", "1.5h", "é"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }
}

//! Events to send, generated from a seed and nothing else.
//!
//! Late and early events, duplicates soon and epochs later, other events under an id that is taken, nulls, extreme values, skewed
//! keys; and events that break the stream's schema, each with what is wrong with it.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Map, Value, json};

/// 2026-03-29T00:59:00Z: a minute before clocks go forward in Europe.
const START_US: i64 = 1_774_745_940_000_000;
const SECOND_US: i64 = 1_000_000;

/// Event times at the edges of the calendar, of 1970 and of a change of the clocks.
const TIMES: &[&str] = &[
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "1969-12-31T23:59:59.999999Z",
    "1970-01-01T00:00:00Z",
    "1969-12-31T23:00:00Z",
    "2026-03-29T01:59:59.999999+01:00",
    "2026-03-29T03:00:00+02:00",
    "2026-10-25T02:30:00+02:00",
    "2026-10-25T02:30:00+01:00",
    "2024-02-29T23:59:59.5Z",
];
const TEXTS: &[&str] = &[
    "",
    " ",
    "NULL",
    "null",
    "Ünïcödé",
    "日本語",
    "🦀🦀",
    "a\u{0}b",
    "\u{202e}abc",
    "'; DROP TABLE x; --",
    "../..",
    "\"q\"\\",
    "{}",
];
const SMALLS: &[i32] = &[i32::MIN, -1, 0, 1, i32::MAX];
const BIGS: &[i64] = &[i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX, 9_007_199_254_740_993];
const LEVELS: &[f64] = &[0.0, -0.0, 1e300, -1e300, 5e-324, f64::EPSILON, 0.1, 1.5e-10, 123_456_789.123_456_79];
const AMOUNTS: &[&str] = &["9999999999.99", "-9999999999.99", "0.01", "-0.01", "0", "1.5"];

/// One event as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its JSON text, without a line break.
    pub text: String,
    /// Whether it is an event of the stream.
    pub valid: bool,
}

/// The generator of one run.
#[derive(Debug)]
pub struct Workload {
    random: StdRng,
    sent: Vec<Map<String, Value>>,
    now_us: i64,
}

impl Workload {
    /// The workload of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), sent: Vec::new(), now_us: START_US }
    }

    /// The next `count` lines, broken events among them.
    pub fn batch(&mut self, count: usize) -> Vec<Line> {
        (0..count).map(|_| if self.random.random_ratio(1, 25) { self.broken() } else { self.valid() }).collect()
    }

    /// The next `count` lines, each an event of the stream.
    pub fn valid_batch(&mut self, count: usize) -> Vec<Line> {
        (0..count).map(|_| self.valid()).collect()
    }

    fn valid(&mut self) -> Line {
        let event = match self.random.random_range(0..100) {
            0..12 if !self.sent.is_empty() => self.earlier(12),
            12..17 if !self.sent.is_empty() => self.earlier(usize::MAX),
            17..20 if !self.sent.is_empty() => self.under_a_taken_id(),
            _ => self.fresh(),
        };
        self.sent.push(event.clone());
        Line { text: Value::Object(event).to_string(), valid: true }
    }

    /// One of the last `among` events again.
    fn earlier(&mut self, among: usize) -> Map<String, Value> {
        let newest = self.sent.len() - 1;
        let back = self.random.random_range(0..among.min(self.sent.len()));
        self.sent[newest - back].clone()
    }

    /// Another event with the id, and the partition's key, of an earlier one: whichever the log has first is the one that counts.
    fn under_a_taken_id(&mut self) -> Map<String, Value> {
        let taken = self.earlier(40);
        let mut event = self.fresh();
        for field in ["event_id", "sensor"] {
            event.insert(field.to_owned(), taken[field].clone());
        }
        event
    }

    fn fresh(&mut self) -> Map<String, Value> {
        let id = format!("{:08x}-{}", self.random.random::<u32>(), self.sent.len());
        self.now_us += self.random.random_range(0..10 * SECOND_US);
        let extreme = self.random.random_ratio(1, 8);
        // The cube of a uniform number: a third of all events come from the first of twenty-seven sensors.
        let sensor = (self.random.random::<f64>().powi(3) * 27.0).floor();
        let mut event = Map::new();
        event.insert("event_id".into(), json!(id));
        event.insert("ts".into(), json!(self.time(extreme)));
        event.insert("sensor".into(), json!(format!("sensor-{sensor}")));
        let site = if extreme { self.text() } else { format!("site-{}", self.random.random_range(0..4)) };
        let small = if extreme { self.pick(SMALLS) } else { self.random.random_range(-50..1000) };
        let big = if extreme { self.pick(BIGS) } else { self.random.random_range(-1_000_000_000_000..1_000_000_000_000) };
        let level = if extreme { self.pick(LEVELS) } else { self.random.random_range(-100.0..100.0) };
        let amount = if extreme {
            self.pick(AMOUNTS).to_owned()
        } else {
            format!("{}.{:02}", self.random.random_range(0..5000), self.random.random_range(0..100))
        };
        let ok = self.random.random_bool(0.7);
        let detail = json!({"unit": "°C", "path": [1, {"deep": [null, true]}]});
        for (name, value) in [
            ("site", json!(site)),
            ("small", json!(small)),
            ("big", json!(big)),
            ("amount", json!(amount)),
            ("level", json!(level)),
            ("ok", json!(ok)),
            ("detail", detail),
        ] {
            match self.random.random_range(0..12) {
                0 => drop(event.insert(name.into(), Value::Null)),
                1 => {}
                _ => drop(event.insert(name.into(), value)),
            }
        }
        if self.random.random_ratio(1, 20) {
            event.insert("undeclared".into(), json!({"kept": self.text()}));
        }
        event
    }

    /// Mostly near now, often late by seconds, sometimes by days, rarely from the edge of the calendar.
    fn time(&mut self, extreme: bool) -> String {
        if extreme && self.random.random_ratio(1, 3) {
            return self.pick(TIMES).to_owned();
        }
        let late_us = match self.random.random_range(0..20) {
            0..12 => 0,
            12..17 => self.random.random_range(0..120 * SECOND_US),
            17..19 => self.random.random_range(0..3 * 86_400 * SECOND_US),
            _ => -self.random.random_range(0..600 * SECOND_US),
        };
        let time = chrono::DateTime::from_timestamp_micros(self.now_us - late_us).expect("a time in this century");
        time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
    }

    fn text(&mut self) -> String {
        if self.random.random_ratio(1, 12) { "long ".repeat(800) } else { self.pick(TEXTS).to_owned() }
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        *among.choose(&mut self.random).expect("a list with values")
    }

    /// An event that the stream does not take.
    fn broken(&mut self) -> Line {
        let mut event = self.fresh();
        let (field, value) = self.pick(&[
            ("ts", "29.03.2026"),
            ("ts", "2026-02-30T00:00:00Z"),
            ("ts", ""),
            ("small", "many"),
            ("ok", "perhaps"),
            ("amount", "1.234"),
        ]);
        let text = match self.random.random_range(0..8) {
            0 => r#"{"event_id": "unclosed"#.to_owned(),
            1 => "not json at all".to_owned(),
            2 => {
                event.remove("ts");
                Value::Object(event).to_string()
            }
            3 => {
                event.insert("sensor".into(), Value::Null);
                Value::Object(event).to_string()
            }
            4 => {
                event.insert("small".into(), json!(3_000_000_000_u32));
                Value::Object(event).to_string()
            }
            5 => {
                event.insert("sensor".into(), json!({"name": "nested"}));
                Value::Object(event).to_string()
            }
            _ => {
                event.insert(field.into(), json!(value));
                Value::Object(event).to_string()
            }
        };
        Line { text, valid: false }
    }
}

/// Lines as one NDJSON body.
#[must_use]
pub fn ndjson(lines: &[Line]) -> String {
    lines.iter().map(|line| line.text.clone() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        catalog::READINGS,
        oracle::{Kept, LogPartition, walk},
    };
    use riomar_schemas::{
        Offset,
        record::{Record, RecordBody},
    };

    fn partition(lines: &[Line]) -> LogPartition {
        let record = |(offset, line): (usize, &Line)| Record {
            offset: Offset(offset as u64),
            append_time_ms: 0,
            body: RecordBody::Event(line.text.clone().into()),
        };
        LogPartition { first_epoch: 0, records: lines.iter().enumerate().map(record).collect() }
    }

    #[test]
    fn the_seed_is_the_only_input() {
        assert_eq!(Workload::new(7).batch(200), Workload::new(7).batch(200));
        assert_ne!(Workload::new(7).batch(200), Workload::new(8).batch(200));
    }

    #[test]
    fn the_oracle_agrees_on_what_is_valid_and_meets_every_case() {
        let lines = Workload::new(1).batch(3000);
        let walked = walk(&READINGS, &partition(&lines), u64::MAX);
        for (line, (_, kept)) in lines.iter().zip(&walked) {
            assert_eq!(line.valid, *kept != Kept::Undecodable, "{}", line.text);
        }
        let kinds: HashSet<_> = walked.iter().map(|(_, kept)| std::mem::discriminant(kept)).collect();
        assert_eq!(kinds.len(), 3);
        for time in TIMES {
            assert!(lines.iter().any(|line| line.text.contains(time)), "{time} is never sent");
        }
    }
}

//! Plausible web traffic for the demo: a few pages and visitors get most of the hits, some events come late, some come twice and
//! some are broken. The same seed and the same moments give the same bytes.

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// What the traffic looks like. Shares are parts of 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Share of events whose event time lies in the past, by up to `late_max_ms`.
    pub late: f64,
    /// How late an event is at the most, in milliseconds.
    pub late_max_ms: i64,
    /// Share of events that repeat an earlier one, byte for byte.
    pub duplicates: f64,
    /// Share of events that break the stream's schema.
    pub broken: f64,
    /// Number of different visitors.
    pub visitors: usize,
}

/// How many events were generated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Generated {
    /// All of them.
    pub events: u64,
    /// Of these, late ones.
    pub late: u64,
    /// Of these, repeated ones.
    pub duplicates: u64,
    /// Of these, broken ones.
    pub broken: u64,
}

/// Path, its typical size in bytes.
const PAGES: [(&str, u32); 24] = [
    ("/", 14_200),
    ("/pricing", 18_900),
    ("/docs", 22_400),
    ("/docs/quick-start", 31_700),
    ("/blog", 19_300),
    ("/login", 6_100),
    ("/docs/sql", 44_800),
    ("/search", 9_600),
    ("/blog/exact-cuts", 38_200),
    ("/assets/app.js", 182_000),
    ("/assets/app.css", 41_000),
    ("/assets/logo.svg", 3_300),
    ("/docs/views", 36_500),
    ("/account", 12_700),
    ("/api/v1/session", 900),
    ("/blog/late-events", 33_900),
    ("/download", 11_800),
    ("/docs/deployment", 29_600),
    ("/about", 8_200),
    ("/careers", 10_400),
    ("/docs/changelog", 52_100),
    ("/contact", 5_400),
    ("/robots.txt", 180),
    ("/wp-login.php", 1_200),
];

/// How many of the newest events a duplicate may repeat. Small, so that the first one is still in the epochs that are searched.
const REMEMBERED: usize = 256;

/// The generator.
#[derive(Debug)]
pub struct Traffic {
    random: StdRng,
    shape: Shape,
    session: String,
    pages: Popularity,
    visitors: Popularity,
    newest: Vec<String>,
    generated: Generated,
}

impl Traffic {
    /// A generator. Event ids begin with `session`, so two sessions of one seed do not repeat each other's events.
    #[must_use]
    pub fn new(seed: u64, session: impl Into<String>, shape: Shape) -> Self {
        let (pages, visitors) = (Popularity::new(PAGES.len(), 1.1), Popularity::new(shape.visitors, 0.9));
        let random = StdRng::seed_from_u64(seed);
        Self { random, shape, session: session.into(), pages, visitors, newest: Vec::new(), generated: Generated::default() }
    }

    /// How many events were generated so far.
    #[must_use]
    pub fn generated(&self) -> Generated {
        self.generated
    }

    /// Appends one event, and a line feed, to `out`; `now_ms` is milliseconds since 1970-01-01 UTC.
    pub fn write_event(&mut self, now_ms: i64, out: &mut String) {
        self.generated.events += 1;
        let duplicate = self.random.random_bool(self.shape.duplicates);
        if duplicate && !self.newest.is_empty() {
            self.generated.duplicates += 1;
            let chosen = self.random.random_range(0..self.newest.len());
            out.push_str(&self.newest[chosen]);
        } else if self.random.random_bool(self.shape.broken) {
            self.generated.broken += 1;
            self.write_broken(now_ms, out);
        } else {
            let late_ms = if self.random.random_bool(self.shape.late) { self.lateness_ms() } else { 0 };
            self.generated.late += u64::from(late_ms > 0);
            let event = self.event(now_ms - late_ms);
            out.push_str(&event);
            self.remember(event);
        }
        out.push('\n');
    }

    /// Most late events are minutes late, a few are hours late.
    fn lateness_ms(&mut self) -> i64 {
        let share: f64 = self.random.random_range(0.0..1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "milliseconds of a few hours")]
        let late_ms = (share.powi(3) * self.shape.late_max_ms as f64) as i64;
        late_ms.max(1)
    }

    fn remember(&mut self, event: String) {
        if self.newest.len() < REMEMBERED {
            self.newest.push(event);
        } else {
            let oldest = usize::try_from(self.generated.events).unwrap_or_default() % REMEMBERED;
            self.newest[oldest] = event;
        }
    }

    fn event(&mut self, event_time_ms: i64) -> String {
        let (path, typical_bytes) = PAGES[self.pages.pick(&mut self.random)];
        let status = self.status(path);
        let bytes = match status {
            304 => 0,
            200 => u64::from(typical_bytes) * self.random.random_range(60..160) / 100,
            _ => self.random.random_range(180..1_400),
        };
        let visitor = self.visitors.pick(&mut self.random);
        let ts = timestamp(event_time_ms);
        let id = self.id();
        let mut event = String::with_capacity(160);
        // Writing to a string cannot fail.
        let _ = write!(
            event,
            r#"{{"event_id":"{id}","ts":"{ts}","path":"{path}","visitor":"visitor-{visitor}","status":{status},"bytes":{bytes}}}"#
        );
        event
    }

    fn status(&mut self, path: &str) -> u16 {
        if path == "/wp-login.php" {
            return 404;
        }
        match self.random.random_range(0..1_000) {
            0..=914 => 200,
            915..=969 => 304,
            970..=991 => 404,
            992..=996 => 403,
            _ => 500,
        }
    }

    fn write_broken(&mut self, now_ms: i64, out: &mut String) {
        let (id, ts) = (self.id(), timestamp(now_ms));
        let event = match self.random.random_range(0..5) {
            0 => format!(r#"{{"event_id":"{id}","ts":"{ts}","visitor":"visitor-1","status":200,"bytes":512}}"#),
            1 => format!(r#"{{"event_id":"{id}","ts":"yesterday, around noon","path":"/","visitor":"visitor-1"}}"#),
            2 => format!(r#"{{"event_id":"{id}","ts":"{ts}","path":"/","visitor":"visitor-1","status":"OK"}}"#),
            3 => format!(r#"{{"event_id":"{id}","ts":"{ts}","path":"/","#),
            _ => format!(r#"{{"event_id":null,"ts":"{ts}","path":"/docs","visitor":"visitor-1","status":200,"bytes":512}}"#),
        };
        out.push_str(&event);
    }

    fn id(&self) -> String {
        format!("{}-{:x}", self.session, self.generated.events)
    }
}

fn timestamp(milliseconds: i64) -> String {
    DateTime::from_timestamp_millis(milliseconds).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Ranks drawn by Zipf's law: rank *r* (from 1) with a weight of 1 / *r*^exponent.
#[derive(Debug)]
struct Popularity {
    cumulative: Vec<f64>,
}

impl Popularity {
    fn new(ranks: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        #[expect(clippy::cast_precision_loss, reason = "a rank is far below 2^52")]
        let cumulative = (1..=ranks.max(1)).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Self { cumulative: cumulative.collect() }
    }

    fn pick(&self, random: &mut StdRng) -> usize {
        let total = self.cumulative[self.cumulative.len() - 1];
        let drawn = random.random_range(0.0..total);
        self.cumulative.partition_point(|below| *below <= drawn).min(self.cumulative.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const NOW_MS: i64 = 1_800_000_000_000;

    fn shape() -> Shape {
        Shape { late: 0.05, late_max_ms: 3 * 3_600_000, duplicates: 0.02, broken: 0.01, visitors: 500 }
    }

    fn generate(seed: u64, shape: Shape, events: usize) -> (Vec<String>, Generated) {
        let mut traffic = Traffic::new(seed, "test", shape);
        let mut out = String::new();
        (0..events).for_each(|_| traffic.write_event(NOW_MS, &mut out));
        (out.lines().map(str::to_owned).collect(), traffic.generated())
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        assert_eq!(generate(7, shape(), 2_000), generate(7, shape(), 2_000));
        assert_ne!(generate(7, shape(), 2_000).0, generate(8, shape(), 2_000).0);
    }

    #[test]
    fn two_sessions_share_no_event_id() {
        let ids = |session: &str| {
            let (mut traffic, mut out) = (Traffic::new(1, session, shape()), String::new());
            (0..500).for_each(|_| traffic.write_event(NOW_MS, &mut out));
            out
        };
        let (first, second) = (ids("a"), ids("b"));
        assert!(first.lines().any(|line| line.contains(r#""event_id":"a-1""#)), "{first}");
        assert!(!second.contains(r#""event_id":"a-"#));
    }

    #[test]
    fn shares_are_near_what_was_asked_for() {
        let (lines, generated) = generate(3, shape(), 50_000);
        assert_eq!(lines.len() as u64, generated.events);
        for (what, count, expected) in
            [("late", generated.late, 2_425), ("duplicates", generated.duplicates, 1_000), ("broken", generated.broken, 490)]
        {
            assert!(count.abs_diff(expected) < expected / 5, "{what}: {count}, expected about {expected}");
        }
    }

    #[test]
    fn without_faults_every_event_is_whole_on_time_and_unique() {
        let (lines, generated) = generate(4, Shape { late: 0.0, duplicates: 0.0, broken: 0.0, ..shape() }, 5_000);
        assert_eq!(generated, Generated { events: 5_000, ..Generated::default() });
        let ids: std::collections::BTreeSet<String> = lines
            .iter()
            .map(|line| {
                let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
                assert_eq!(event["ts"], "2027-01-15T08:00:00.000Z");
                assert!(
                    event["path"].is_string()
                        && event["visitor"].is_string()
                        && event["status"].is_u64()
                        && event["bytes"].is_u64()
                );
                event["event_id"].to_string()
            })
            .collect();
        assert_eq!(ids.len(), 5_000);
    }

    #[test]
    fn a_few_pages_get_most_of_the_hits() {
        let (lines, _) = generate(5, Shape { broken: 0.0, ..shape() }, 20_000);
        let mut hits: BTreeMap<String, u32> = BTreeMap::new();
        for line in &lines {
            let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            *hits.entry(event["path"].as_str().expect("path").to_owned()).or_default() += 1;
        }
        assert_eq!(hits.len(), PAGES.len(), "every page is seen");
        assert!(hits["/"] > 10 * hits["/contact"], "{hits:?}");
    }

    #[test]
    fn late_events_stay_within_the_maximum() {
        let (lines, generated) = generate(6, Shape { late: 1.0, duplicates: 0.0, broken: 0.0, ..shape() }, 2_000);
        assert_eq!(generated.late, 2_000);
        let oldest = lines.iter().map(|line| line.split("\"ts\":\"").nth(1).expect("ts")[..24].to_owned()).min().expect("lines");
        assert!(oldest.as_str() >= "2027-01-15T05:00:00.000Z", "{oldest}");
        assert!(oldest.as_str() < "2027-01-15T05:30:00.000Z", "the maximum is nearly reached: {oldest}");
    }
}

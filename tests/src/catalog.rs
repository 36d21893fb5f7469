//! The stream and the views that most scenarios use: as Riomar reads them, and as the oracle does.

use crate::oracle::{
    ColumnKind::{BigInt, Boolean, Decimal, Double, Int, Json, Text, Timestamp},
    Measure, OracleStream, OracleView,
};

/// The definitions, as a user writes them.
pub const SQL: &str = "
CREATE TABLE readings (
  event_id VARCHAR NOT NULL, ts TIMESTAMP NOT NULL, sensor VARCHAR NOT NULL, site VARCHAR,
  small INT, big BIGINT, amount DECIMAL(12, 2), level DOUBLE, ok BOOLEAN, detail JSON
) WITH (event_time = 'ts', dedup_by = 'event_id', dedup_epochs = 2, partition_by = 'sensor', partitions = 3);

CREATE MATERIALIZED VIEW readings_by_minute AS
SELECT window_start, sensor, count(*) AS events, count(site) AS sited, sum(small) AS small_sum, sum(big) AS big_sum,
       sum(amount) AS amount_sum, min(big) AS big_min, max(big) AS big_max, avg(small) AS small_mean, sum(level) AS level_sum,
       bool_or(ok) AS any_ok
FROM TUMBLE(readings, ts, INTERVAL '1 minute')
GROUP BY window_start, sensor;

CREATE MATERIALIZED VIEW sites_by_hour AS
SELECT window_start, site, ok, count(*) AS events, approx_distinct(sensor) AS sensors,
       approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY small) AS small_p95,
       min(level) AS level_min, max(level) AS level_max, min(sensor) AS sensor_min
FROM TUMBLE(readings, ts, INTERVAL '1 hour')
GROUP BY window_start, site, ok;

CREATE MATERIALIZED VIEW positive_by_day AS
SELECT window_start, count(*) AS events, min(ts) AS first_ts, max(ts) AS last_ts, max(site) AS site_max, avg(amount) AS amount_mean,
       approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY level) AS level_median
FROM TUMBLE(readings, ts, INTERVAL '1 day')
WHERE small >= 0
GROUP BY window_start;
";

/// Partitions of [`READINGS`].
pub const PARTITIONS: usize = 3;
const MINUTE_US: i64 = 60_000_000;

/// The stream.
pub const READINGS: OracleStream = OracleStream {
    name: "readings",
    columns: &[
        ("event_id", Text, true),
        ("ts", Timestamp, true),
        ("sensor", Text, true),
        ("site", Text, false),
        ("small", Int, false),
        ("big", BigInt, false),
        ("amount", Decimal(12, 2), false),
        ("level", Double, false),
        ("ok", Boolean, false),
        ("detail", Json, false),
    ],
    id: "event_id",
    event_time: "ts",
    dedup_epochs: 2,
};

/// Integers, decimals, floats and booleans by a key with few values.
pub const BY_MINUTE: OracleView = OracleView {
    name: "readings_by_minute",
    stream: &READINGS,
    window_us: Some(MINUTE_US),
    dimensions: &[("sensor", Text, "sensor")],
    filter: "1",
    measures: &[
        ("events", Measure::Count, "*"),
        ("sited", Measure::Count, "site"),
        ("small_sum", Measure::Sum(0), "small"),
        ("big_sum", Measure::Sum(0), "big"),
        ("amount_sum", Measure::Sum(2), "amount"),
        ("big_min", Measure::Min(BigInt), "big"),
        ("big_max", Measure::Max(BigInt), "big"),
        ("small_mean", Measure::Average, "small"),
        ("level_sum", Measure::FloatSum, "level"),
        ("any_ok", Measure::BoolOr, "ok"),
    ],
};

/// Dimensions that may be null, and sketches.
pub const SITES_BY_HOUR: OracleView = OracleView {
    name: "sites_by_hour",
    stream: &READINGS,
    window_us: Some(60 * MINUTE_US),
    dimensions: &[("site", Text, "site"), ("ok", Boolean, "ok")],
    filter: "1",
    measures: &[
        ("events", Measure::Count, "*"),
        ("sensors", Measure::Distinct, "sensor"),
        ("small_p95", Measure::Percentile(0.95), "small"),
        ("level_min", Measure::Min(Double), "level"),
        ("level_max", Measure::Max(Double), "level"),
        ("sensor_min", Measure::Min(Text), "sensor"),
    ],
};

/// No dimension, and a filter.
pub const POSITIVE_BY_DAY: OracleView = OracleView {
    name: "positive_by_day",
    stream: &READINGS,
    window_us: Some(24 * 60 * MINUTE_US),
    dimensions: &[],
    filter: "small >= 0",
    measures: &[
        ("events", Measure::Count, "*"),
        ("first_ts", Measure::Min(Timestamp), "ts"),
        ("last_ts", Measure::Max(Timestamp), "ts"),
        ("site_max", Measure::Max(Text), "site"),
        ("amount_mean", Measure::Average, "amount / 100.0"),
        ("level_median", Measure::Percentile(0.5), "level"),
    ],
};

/// All views of [`SQL`].
pub const VIEWS: &[&OracleView] = &[&BY_MINUTE, &SITES_BY_HOUR, &POSITIVE_BY_DAY];

/// A roll-up, as a query of a view with `merge()` and as the view it must equal.
#[derive(Debug, Clone, Copy)]
pub struct RollUp {
    /// The query.
    pub sql: &'static str,
    /// The view whose receipt the answer brings.
    pub of: &'static str,
    /// What it must equal.
    pub equals: OracleView,
}

/// Roll-ups that leave out windows and dimensions.
pub const ROLL_UPS: &[RollUp] = &[
    RollUp {
        sql: "SELECT sensor, merge(events) AS events, merge(big_sum) AS big_sum, merge(small_mean) AS small_mean \
              FROM readings_by_minute GROUP BY sensor",
        of: "readings_by_minute",
        equals: OracleView {
            window_us: None,
            measures: &[
                ("events", Measure::Count, "*"),
                ("big_sum", Measure::Sum(0), "big"),
                ("small_mean", Measure::Average, "small"),
            ],
            ..BY_MINUTE
        },
    },
    RollUp {
        sql: "SELECT ok, merge(sensors) AS sensors, merge(small_p95) AS small_p95 FROM sites_by_hour GROUP BY ok",
        of: "sites_by_hour",
        equals: OracleView {
            window_us: None,
            dimensions: &[("ok", Boolean, "ok")],
            measures: &[("sensors", Measure::Distinct, "sensor"), ("small_p95", Measure::Percentile(0.95), "small")],
            ..SITES_BY_HOUR
        },
    },
];

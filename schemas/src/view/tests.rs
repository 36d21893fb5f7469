//! Views through the catalog: what compiles, what is refused, and what compiled views compute.

use std::sync::Arc;

use arrow::{record_batch::RecordBatch, util::pretty::pretty_format_batches};
use datafusion::{execution::runtime_env::RuntimeEnv, logical_expr::LogicalPlanBuilder, prelude::ident};

use super::{Grain, View};
use crate::{
    Catalog, Epoch, EventDecoder, Offset, PartitionId,
    decode::RowPosition,
    session::{collect, scan_batches, session_state},
    state_codec,
};

const STREAM: &str = "CREATE TABLE visits (event_id VARCHAR NOT NULL, ts TIMESTAMP NOT NULL, path VARCHAR, visitor VARCHAR,
  status INT, bytes BIGINT, price DECIMAL(10,2), score DOUBLE, day DATE, wide DECIMAL(29,0)) WITH (event_time = 'ts');";

fn catalog(view: &str) -> Result<Catalog, String> {
    Catalog::parse([("visits.sql", STREAM), ("view.sql", view)])
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

fn view(select: &str) -> Arc<View> {
    let catalog = catalog(&format!("CREATE MATERIALIZED VIEW v AS {select};")).expect("a valid view");
    Arc::clone(catalog.view("v").expect("declared"))
}

#[test]
fn refuses_what_is_no_view() {
    let from = "FROM TUMBLE(visits, ts, INTERVAL '1 minute')";
    let cases: Vec<(String, &str)> = vec![
        (format!("SELECT window_start, array_agg(path) AS p {from} GROUP BY window_start"), "array_agg(…) has no bounded state"),
        (format!("SELECT window_start, count(DISTINCT path) AS p {from} GROUP BY window_start"), "use approx_distinct"),
        (format!("SELECT window_start, sum(wide) AS p {from} GROUP BY window_start"), "more than 28 digits"),
        (format!("SELECT window_start, first_value(path) AS p {from} GROUP BY window_start"), "without an order"),
        (format!("SELECT path, count(*) AS n {from} GROUP BY path"), "groups by window_start"),
        (format!("SELECT window_start, count(*) AS n {from} GROUP BY window_start, path"), "grouped by but not selected"),
        (format!("SELECT window_start, score, count(*) AS n {from} GROUP BY window_start, score"), "cannot group by DOUBLE"),
        (format!("SELECT window_start, count(*) {from} GROUP BY window_start"), "name every column of the SELECT with AS"),
        (format!("SELECT window_start, count(*) AS n {from} GROUP BY window_start HAVING count(*) > 1"), "no HAVING"),
        (format!("SELECT window_start, count(*) AS n {from} GROUP BY window_start ORDER BY 1"), "no ORDER BY"),
        (format!("SELECT window_start, count(*) AS n {from} GROUP BY window_start LIMIT 3"), "no LIMIT"),
        (format!("SELECT window_start, max(bytes + random()) AS n {from} GROUP BY window_start"), "another value each time"),
        (format!("SELECT window_start, max(_epoch) AS n {from} GROUP BY window_start"), "cannot use _epoch"),
        (format!("SELECT window_start, nothing, count(*) AS n {from} GROUP BY window_start, nothing"), "nothing"),
        (format!("SELECT window_start, count(*) AS n, count(*) AS n {from} GROUP BY window_start"), "n"),
        (format!("SELECT window_start {from} GROUP BY window_start"), "0 measures"),
        ("SELECT window_start, count(*) AS n FROM visits GROUP BY window_start".into(), "through a window"),
        (
            "SELECT window_start, count(*) AS n FROM TUMBLE(nowhere, ts, INTERVAL '1 minute') GROUP BY window_start".into(),
            "no stream 'nowhere'",
        ),
        (
            "SELECT window_start, count(*) AS n FROM TUMBLE(visits, day, INTERVAL '1 minute') GROUP BY window_start".into(),
            "event time, which is 'ts'",
        ),
        (
            "SELECT window_start, count(*) AS n FROM TUMBLE(visits, ts, INTERVAL '1 month') GROUP BY window_start".into(),
            "differ in length",
        ),
        (
            "SELECT window_start, count(*) AS n FROM TUMBLE(visits, ts, INTERVAL '0 minutes') GROUP BY window_start".into(),
            "at least one microsecond",
        ),
        (
            "SELECT window_start, count(*) AS n FROM HOP(visits, ts, INTERVAL '1 minute') GROUP BY window_start".into(),
            "not supported yet",
        ),
        (format!("SELECT window_start, count(*) AS n {from} JOIN visits ON true GROUP BY window_start"), "no joins"),
    ];
    for (select, expected) in cases {
        let error = catalog(&format!("CREATE MATERIALIZED VIEW v AS {select};")).expect_err(&select);
        assert!(error.contains(expected), "{select}\n  gives: {error}\n  expected: {expected}");
        assert!(error.starts_with("view.sql:1:"), "{error}");
    }
}

/// The window, as it stands on a line of its own.
const WINDOW: &str = "FROM TUMBLE(visits, ts, INTERVAL '1 minute')";

#[test]
fn errors_stand_where_the_mistake_is() {
    // What stands on the second line, on the third line between FROM and GROUP BY window_start, behind it, and the error.
    for (items, filter, groups, expected) in [
        ("sum(bytess) AS n", "", "", "2:5: there is no column 'bytess': did you mean 'bytes'?"),
        ("sum(v.bytes) AS n", "", "", "2:5: there is no column 'v.bytes': did you mean 'visits.bytes'?"),
        ("count(*) AS n", "WHERE nothing", "", "3:52: there is no column 'nothing': there are event_id, ts, path,"),
        ("count(*) AS n, summ(bytes) AS s", "", "", "2:16: Invalid function 'summ'. Did you mean 'sum'?"),
        ("count(*) AS n, sum(path) AS s", "", "", "2:16: sum needs a number, not VARCHAR"),
        ("count(*) AS n, sum(bytes) / count(*) + path AS m", "", "", "2:40: Cannot coerce arithmetic expression DECIMAL(38, 4)"),
        ("path, count(*) AS n", "", "", "2:1: column \"visits.path\" must appear in the GROUP BY clause"),
        (
            "count(*) AS n",
            "WHERE path > 5 + ts",
            "",
            "3:52: Cannot coerce arithmetic expression BIGINT + TIMESTAMP to valid types",
        ),
        ("count(*) AS n", "WHERE bytes > random()", "", "3:52: random() gives another value each time"),
        ("count(*) AS n, max(bytes + random()) AS m", "", "", "2:16: random() gives another value each time"),
        ("max((SELECT 1)) AS m", "", "", "2:1: a view has no subqueries"),
        ("count(*) AS n, array_agg(path) AS p", "", "", "2:16: array_agg(…) has no bounded state"),
        ("score, count(*) AS n", "", ", score", "2:1: a view cannot group by DOUBLE"),
        ("path, count(*) AS n", "", ", path, visitor", "3:76: 'visitor' is grouped by but not selected"),
        ("path AS p, lower(day + 1) AS d, count(*) AS n", "", ", 2, p", "2:12: Function 'lower' requires String"),
        ("count(*) AS n, sum(bytes) AS n", "", "", "2:30: the column 'n' is there twice"),
        ("count(*) AS n, count(*)", "", "", "2:16: 'count(*)' is not a valid name"),
    ] {
        let sql = format!(
            "CREATE MATERIALIZED VIEW v AS SELECT window_start,\n{items}\n{WINDOW} {filter} GROUP BY window_start{groups}"
        );
        let error = catalog(&sql).expect_err(&sql);
        assert!(error.starts_with(&format!("view.sql:{expected}")), "{sql}\n  gives: {error}\n  expected: {expected}");
    }
}

const EVERYTHING: &str = "SELECT window_start, lower(path) AS page, day, price, date_trunc('week', ts) AS week, count(*) AS n, count(bytes) AS with_bytes, sum(bytes) AS bytes,
  sum(price) AS revenue, avg(score) AS score, sum(bytes) / count(*) AS mean_bytes, min(path) AS first_path, max(day) AS last_day,
  stddev(score) AS spread, var_pop(score) AS variance, bool_or(status >= 500) AS failed, bit_xor(status) AS mix, corr(score, bytes) AS relation,
  approx_distinct(visitor) AS visitors, approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY bytes) AS p95,
  first_value(visitor ORDER BY ts) AS entry, last_value(visitor ORDER BY ts DESC) AS again,
  count(*) FILTER (WHERE status >= 400) AS errors, min(ts) AS earliest
  FROM TUMBLE(visits, ts, INTERVAL '1 hour') t WHERE t.status IS NULL OR status <> 1 GROUP BY window_start, lower(path), day, price, date_trunc('week', ts)";

#[tokio::test]
async fn parts_add_up_to_the_whole() {
    for seed in [1, 0xfeed, 0x5249_4f4d_4152, u64::MAX] {
        view(EVERYTHING).check_homomorphism(seed).await.unwrap_or_else(|problem| panic!("seed {seed}: {problem:?}"));
    }
}

#[tokio::test]
async fn refuses_a_view_that_fails_on_some_event() {
    let dividing =
        view("SELECT window_start, sum(bytes / status) AS n FROM TUMBLE(visits, ts, INTERVAL '1 minute') GROUP BY window_start");
    let problem = dividing.check_homomorphism(7).await.expect_err("status may be 0");
    assert!(problem.message.contains("fails on some events"), "{problem:?}");
}

fn rows(view: &View, events: &[&str]) -> RecordBatch {
    let mut decoder = EventDecoder::new(Arc::clone(view.stream()));
    for (i, event) in events.iter().enumerate() {
        decoder.decode(event.as_bytes()).expect("a valid event");
        let (offset, epoch) = (Offset(i as u64), Epoch(i as u64 / 2));
        decoder.keep(RowPosition { partition: PartitionId(0), offset, epoch, append_time_ms: 0 });
    }
    decoder.finish()
}

const EVENTS: [&str; 4] = [
    r#"{"event_id":"a","ts":"2026-11-20T10:00:59.999Z","path":"/x","visitor":"u","bytes":9223372036854775807,"price":"1.10","status":200}"#,
    r#"{"event_id":"b","ts":"2026-11-20T10:59:00Z","path":"/X","visitor":"v","bytes":9223372036854775807,"price":2.20,"status":500}"#,
    r#"{"event_id":"c","ts":"1969-12-31T23:59:59Z","path":null,"visitor":"w","status":404}"#,
    r#"{"event_id":"d","ts":"2026-11-20T10:00:00Z","path":"/x","visitor":"u","bytes":-1,"score":0.5}"#,
];

const SMALL: &str = "SELECT window_start, lower(path) AS page, count(*) AS n, sum(bytes) AS bytes, sum(price) AS revenue, \
  approx_distinct(visitor) AS visitors, last_value(visitor ORDER BY ts) AS latest, sum(bytes) / count(*) AS mean \
  FROM TUMBLE(visits, ts, INTERVAL '1 hour') GROUP BY window_start, lower(path)";

#[tokio::test]
async fn folds_encodes_combines_and_finishes() {
    let view = view(SMALL);
    let state = session_state(Arc::new(RuntimeEnv::default()), 2);
    let rows = scan_batches(view.stream().row_schema(), vec![rows(&view, &EVENTS)]).expect("rows");
    let by_epoch = collect(&state, view.fold(rows, Grain::Epoch).expect("fold")).await.expect("states");
    let mut decoded = Vec::new();
    for batch in &by_epoch {
        let encoded = state_codec::encode(&view, batch).expect("encoded");
        let parts = encoded.iter().map(|state| (state.epoch, state.key.as_str(), state.state.as_slice()));
        decoded.push(state_codec::decode(&view, parts).expect("decoded"));
    }
    assert_eq!(by_epoch, decoded, "states survive their encoding");
    let states = LogicalPlanBuilder::from(scan_batches(view.epoch_state_schema(), decoded).expect("states"));
    let columns = view.state_schema().fields().iter().map(|field| ident(field.name())).collect::<Vec<_>>();
    let combined = view.combine(states.project(columns).expect("columns").build().expect("plan"), Grain::View).expect("combine");
    let values = LogicalPlanBuilder::from(view.finish(combined).expect("finish"));
    let sorted = values.sort(vec![ident("window_start").sort(true, true)]).expect("sort").build().expect("plan");
    let values = collect(&state, sorted).await.expect("values");
    let expected = "\
+----------------------+------+---+----------------------+---------+----------+--------+---------------------------+
| window_start         | page | n | bytes                | revenue | visitors | latest | mean                      |
+----------------------+------+---+----------------------+---------+----------+--------+---------------------------+
| 1969-12-31T23:00:00Z |      | 1 |                      |         | 1        | w      |                           |
| 2026-11-20T10:00:00Z | /x   | 3 | 18446744073709551613 | 3.30    | 2        | v      | 6148914691236517204.3333  |
+----------------------+------+---+----------------------+---------+----------+--------+---------------------------+";
    let printed = pretty_format_batches(&values).expect("printable").to_string();
    let cells =
        |text: &str| text.split('|').map(str::trim).filter(|cell| !cell.starts_with('+')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(cells(&printed), cells(expected), "{printed}");
}

#[test]
fn a_fingerprint_is_about_meaning() {
    let base = view(SMALL);
    assert_eq!(base.fingerprint(), view(&SMALL.replace("  ", "\n\n   ")).fingerprint());
    assert_ne!(base.fingerprint(), view(&SMALL.replace("1 hour", "2 hours")).fingerprint());
    assert_ne!(base.fingerprint(), view(&SMALL.replace("sum(price)", "max(price)")).fingerprint());
    assert_eq!(base.fingerprint().len(), 16);
}

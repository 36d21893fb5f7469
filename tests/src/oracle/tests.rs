//! The oracle on cases that are worked out by hand.

use riomar_schemas::{
    Epoch, Offset,
    record::{Record, RecordBody},
};
use serde_json::json;

use super::{
    ColumnKind::{BigInt, Decimal, Double, Text, Timestamp},
    *,
};
use crate::answer::Answer;

const STREAM: OracleStream = OracleStream {
    name: "s",
    columns: &[
        ("id", Text, true),
        ("ts", Timestamp, true),
        ("n", BigInt, false),
        ("m", Decimal(6, 2), false),
        ("x", Double, false),
    ],
    id: "id",
    event_time: "ts",
    dedup_epochs: 1,
};
const VIEW: OracleView = OracleView {
    name: "v",
    stream: &STREAM,
    window_us: Some(10_000_000),
    dimensions: &[],
    filter: "1",
    measures: &[
        ("events", Measure::Count, "*"),
        ("n_sum", Measure::Sum(0), "n"),
        ("m_sum", Measure::Sum(2), "m"),
        ("x_mean", Measure::Average, "x"),
        ("ids", Measure::Distinct, "id"),
        ("x_median", Measure::Percentile(0.5), "x"),
    ],
};

fn log(bodies: Vec<RecordBody>) -> LogPartition {
    let records = (0..).zip(bodies).map(|(offset, body)| Record { offset: Offset(offset), append_time_ms: 0, body }).collect();
    LogPartition { first_epoch: 0, records }
}

fn event(id: &str, fields: &str) -> RecordBody {
    RecordBody::Event(format!(r#"{{"id":"{id}","ts":"1969-12-31T23:59:59Z"{fields}}}"#).into())
}

fn outcomes(bodies: Vec<RecordBody>) -> String {
    let letter = |(_, kept): (u64, Kept)| match kept {
        Kept::Kept(epoch, _) => epoch.to_string(),
        Kept::Duplicate => "d".to_owned(),
        Kept::Undecodable => "u".to_owned(),
    };
    walk(&STREAM, &log(bodies), u64::MAX).into_iter().map(letter).collect::<Vec<_>>().join(" ")
}

#[test]
fn an_id_is_remembered_for_one_closed_epoch_and_old_cuts_change_nothing() {
    let cut = |number| RecordBody::Cut(Epoch(number));
    let a = || event("a", "");
    assert_eq!(outcomes(vec![a(), a(), cut(1), a(), cut(2), a(), cut(1), cut(2), a()]), "0 d d 2 d");
    assert_eq!(outcomes(vec![a(), cut(1), a(), cut(2), a(), cut(3), a()]), "0 d 2 d");
    assert_eq!(outcomes(vec![cut(5), a(), cut(4), a(), event("b", r#","n":"five""#), RecordBody::Event("{".into())]), "5 d u u");
}

#[test]
fn windows_before_1970_sums_beyond_64_bits_and_nulls() {
    let partition = log(vec![
        event("a", r#","n":9223372036854775807,"m":"-0.05","x":1.0"#),
        event("b", r#","n":9223372036854775807,"m":1.2,"x":3.0"#),
        event("c", ""),
    ]);
    let table = evaluate(&VIEW, &kept(&STREAM, &[partition], &[3])).expect("valid SQL");
    let (key, row) = table.first_key_value().expect("one row");
    assert_eq!((table.len(), key.as_slice()), (1, [Some("-10000000".to_owned())].as_slice()));
    let exact = |text: &str| Expected::Exact(text.to_owned());
    assert_eq!(row[..3], [exact("3"), exact("18446744073709551614"), exact("1.15")]);
    assert!(matches!(row[3], Expected::Between(low, high) if low < 2.0 && 2.0 < high && high - low < 1e-5), "{:?}", row[3]);
    assert_eq!(row[4], Expected::Between(1.0, 5.0));
    assert!(matches!(row[5], Expected::Between(low, high) if low < 1.0 && 3.0 < high), "{:?}", row[5]);
}

#[test]
fn only_the_right_answer_passes() {
    let partition = log(vec![event("a", r#","n":1,"m":1.5,"x":2.0"#)]);
    let table = evaluate(&VIEW, &kept(&STREAM, &[partition], &[1])).expect("valid SQL");
    let right = json!(["1969-12-31T23:59:50Z", 1, 1, "1.50", 2.0, 1, 2.0]);
    let compare_rows = |rows: serde_json::Value| {
        let columns = ["window_start", "events", "n_sum", "m_sum", "x_mean", "ids", "x_median"];
        let columns: Vec<_> = columns.iter().map(|name| json!({"name": name, "type": ""})).collect();
        let body = json!({"columns": columns, "rows": rows, "receipt": {"degraded": []}}).to_string();
        compare(&VIEW, &table, &serde_json::from_str::<Answer>(&body).expect("an answer"))
    };
    compare_rows(json!([right])).expect("equal");
    for (index, wrong) in
        [json!("1970-01-01T00:00:00Z"), json!(2), json!(0), json!("1.51"), json!(2.1), json!(4), json!(null)].iter().enumerate()
    {
        let mut row = right.clone();
        row[index] = wrong.clone();
        compare_rows(json!([row])).expect_err("one value is wrong");
    }
    compare_rows(json!([])).expect_err("a row is missing");
    compare_rows(json!([right, right])).expect_err("a row is there twice");
}

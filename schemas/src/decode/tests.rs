//! The decoder, through its front door: event in, row or violation out.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
    json::{WriterBuilder, writer::LineDelimited},
};
use proptest::{collection, option, prelude::*};
use serde_json::{Map, Value, json};

use super::*;
use crate::{
    Catalog,
    decode::violation::{DUPLICATE_FIELD, INVALID_DATE, INVALID_TIMESTAMP, OUT_OF_RANGE, TOO_MANY_FIELDS, TYPE_MISMATCH},
    limits::EVENT_KEYS_MAX,
};

const COLUMNS: &str =
    "id VARCHAR, ts TIMESTAMP NOT NULL, v VARCHAR, b BOOLEAN, i INT, l BIGINT, d DOUBLE, m DECIMAL(9,2), t TIMESTAMP,
    day DATE, j JSON, k VARCHAR NOT NULL";

fn stream(options: &str) -> Arc<Stream> {
    let sql = format!("CREATE TABLE s ({COLUMNS}) WITH (event_time = 'ts', partitions = 1000{options})");
    let catalog = Catalog::parse([("s.sql", sql.as_str())]).expect("valid");
    Arc::clone(catalog.stream("s").expect("declared"))
}

fn decoder() -> EventDecoder {
    EventDecoder::new(stream(", dedup_by = 'id'"))
}

fn at(offset: u64) -> RowPosition {
    RowPosition { partition: PartitionId(3), offset: Offset(offset), epoch: Epoch(7), append_time_ms: 1_500 }
}

/// The violation of an event that is valid but for `fields`.
fn violation(fields: &str) -> Violation {
    decoder().decode(format!(r#"{{"ts":0,"k":"",{fields}}}"#).as_bytes()).expect_err(fields)
}

/// The rows as JSON, nulls left out.
fn rows(batch: &RecordBatch) -> Vec<Value> {
    let mut writer = WriterBuilder::new().build::<_, LineDelimited>(Vec::new());
    writer.write(batch).expect("JSON");
    writer.finish().expect("JSON");
    let text = String::from_utf8(writer.into_inner()).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn every_type_is_decoded() {
    let mut decoder = decoder();
    let event = r#" { "k" : "x\n\u00e9\ud83d\ude00\u0000" , "ts":"2026-11-20T11:00:00.123456789+01:00", "v":"päth", "b":true,
        "i":-2147483648, "l":9223372036854775807, "d":1.5e2, "m":"-1234567.8", "t":-1, "day":"2024-02-29",
        "j":{ "a" : [ 1.50, " x" ] }, "id":"e1" } "#;
    let decoded = decoder.decode(event.as_bytes()).expect("valid");
    assert_eq!(decoded.event_time_us, 1_795_168_800_123_456);
    decoder.keep(at(5));
    decoder.decode(br#"{"ts":0,"k":"","m":0.10,"j":null,"v":null}"#).expect("valid");
    decoder.keep(at(6));
    assert_eq!(decoder.rows(), 2);
    let batch = decoder.finish();
    assert_eq!(decoder.rows(), 0);
    let position = json!({"_partition": 3, "_epoch": 7, "_append_time": "1970-01-01T00:00:01.500Z"});
    let with_position = |mut row: Value, offset: u64| {
        row.as_object_mut().expect("object").extend(position.as_object().expect("object").clone());
        row["_offset"] = json!(offset);
        row
    };
    let first = json!({"id": "e1", "ts": "2026-11-20T10:00:00.123456Z", "v": "päth", "b": true, "i": i32::MIN, "l": i64::MAX,
        "d": 150.0, "t": "1969-12-31T23:59:59.999Z", "day": "2024-02-29", "j": r#"{"a":[1.50," x"]}"#, "k": "x\né😀\0"});
    let second = json!({"ts": "1970-01-01T00:00:00Z", "k": ""});
    let mut found = rows(&batch);
    for row in &mut found {
        row.as_object_mut().expect("object").remove("m");
    }
    assert_eq!(found, [with_position(first, 5), with_position(second, 6)]);
    let decimals = batch.column_by_name("m").expect("m").as_primitive::<Decimal128Type>();
    assert_eq!(decimals.values().to_vec(), [-123_456_780, 10]);
    assert_eq!(decoder.finish().num_rows(), 0);
}

#[test]
fn values_are_refused_with_a_code_and_a_pointer() {
    for (fields, code, pointer) in [
        (r#""v":5"#, TYPE_MISMATCH, "/v"),
        (r#""v":{"a":1}"#, TYPE_MISMATCH, "/v"),
        (r#""b":"true""#, TYPE_MISMATCH, "/b"),
        (r#""b":1"#, TYPE_MISMATCH, "/b"),
        (r#""i":"5""#, TYPE_MISMATCH, "/i"),
        (r#""i":5.0"#, TYPE_MISMATCH, "/i"),
        (r#""i":1e3"#, TYPE_MISMATCH, "/i"),
        (r#""i":2147483648"#, OUT_OF_RANGE, "/i"),
        (r#""i":-2147483649"#, OUT_OF_RANGE, "/i"),
        (r#""l":9223372036854775808"#, OUT_OF_RANGE, "/l"),
        (r#""l":true"#, TYPE_MISMATCH, "/l"),
        (r#""d":"1.0""#, TYPE_MISMATCH, "/d"),
        (r#""d":1e400"#, OUT_OF_RANGE, "/d"),
        (r#""m":1.234"#, OUT_OF_RANGE, "/m"),
        (r#""m":12345678"#, OUT_OF_RANGE, "/m"),
        (r#""m":"1,5""#, TYPE_MISMATCH, "/m"),
        (r#""m":"""#, TYPE_MISMATCH, "/m"),
        (r#""m":[1]"#, TYPE_MISMATCH, "/m"),
        (r#""t":"2026-11-20""#, INVALID_TIMESTAMP, "/t"),
        (r#""t":1.5"#, TYPE_MISMATCH, "/t"),
        (r#""t":true"#, TYPE_MISMATCH, "/t"),
        (r#""t":253402300800000"#, OUT_OF_RANGE, "/t"),
        (r#""t":"0000-01-01T00:00:00Z""#, OUT_OF_RANGE, "/t"),
        (r#""t":99999999999999999999"#, OUT_OF_RANGE, "/t"),
        (r#""day":"20240229""#, INVALID_DATE, "/day"),
        (r#""day":20240229"#, TYPE_MISMATCH, "/day"),
        (r#""v":"a","v":"a""#, DUPLICATE_FIELD, "/v"),
        (r#""v":null,"v":"a""#, DUPLICATE_FIELD, "/v"),
        (r#""v":"a","\u0076":"a""#, DUPLICATE_FIELD, "/v"),
        (r#""x/~é\"":1,"y":2,"x/~é\"":3"#, DUPLICATE_FIELD, "/x~1~0é\""),
        (r#""x":1,"\u0078":3"#, DUPLICATE_FIELD, "/x"),
        (r#""v":"\ud800""#, INVALID_JSON, "/v"),
        (r#""j":["\udc00"]"#, INVALID_JSON, "/j"),
        (r#""x":{"a":"\ud800\ud800"}"#, INVALID_JSON, "/x"),
        (r#""\ud800":1"#, INVALID_JSON, ""),
    ] {
        let found = violation(fields);
        assert_eq!((found.code.as_str(), found.pointer.as_str()), (code, pointer), "{fields}: {found}");
    }
}

#[test]
fn events_are_refused_with_a_code() {
    let fields =
        |count: usize| format!(r#"{{"ts":0,"k":""{}}}"#, (2..count).map(|i| format!(r#","f{i}":0"#)).collect::<String>());
    let nested = |levels: usize| format!(r#"{{"ts":0,"k":"","x":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
    let sized = |bytes: usize| format!(r#"{{"ts":0,"k":"{}"}}"#, "a".repeat(bytes - r#"{"ts":0,"k":""}"#.len()));
    for accepted in [fields(EVENT_KEYS_MAX), nested(EVENT_DEPTH_MAX), sized(EVENT_BYTES_MAX), fields(2)] {
        decoder().decode(accepted.as_bytes()).expect("within the limits");
    }
    let deep = "[".repeat(100_000);
    for (event, code, pointer) in [
        ("", INVALID_JSON, ""),
        ("{", INVALID_JSON, ""),
        (r#"{"ts":0,"k":""} x"#, INVALID_JSON, ""),
        (r#"{"ts":0,"k":"",}"#, INVALID_JSON, ""),
        (r#"{"ts":0,"k":"","x":01}"#, INVALID_JSON, ""),
        (r#"{"ts":0,"k":"","x":NaN}"#, INVALID_JSON, ""),
        ("{\"ts\":0,\"k\":\"a\tb\"}", INVALID_JSON, ""),
        ("\u{feff}{}", INVALID_JSON, ""),
        ("[1", INVALID_JSON, ""),
        (" [1]", NOT_AN_OBJECT, ""),
        ("null", NOT_AN_OBJECT, ""),
        ("\"a\"", NOT_AN_OBJECT, ""),
        ("{}", MISSING_FIELD, "/ts"),
        (r#"{"ts":null,"k":""}"#, MISSING_FIELD, "/ts"),
        (r#"{"ts":0}"#, MISSING_FIELD, "/k"),
        (&fields(EVENT_KEYS_MAX + 1), TOO_MANY_FIELDS, ""),
        (&nested(EVENT_DEPTH_MAX + 1), TOO_DEEP, ""),
        (&deep, TOO_DEEP, ""),
        (&deep.replace('[', r#"{"a":"#), TOO_DEEP, ""),
        (&sized(EVENT_BYTES_MAX + 1), EVENT_TOO_LARGE, ""),
    ] {
        let found = decoder().decode(event.as_bytes()).expect_err(code);
        assert_eq!((found.code.as_str(), found.pointer.as_str()), (code, pointer), "{found}");
    }
    let not_utf8 = decoder().decode(b"{\"k\":\"\xff\"}").expect_err("not UTF-8");
    assert_eq!((not_utf8.code.as_str(), not_utf8.detail.as_str()), (INVALID_UTF8, "the bytes from index 6 on are not UTF-8"));
    let syntax = decoder().decode(b"{\n  \"k\" 5}").expect_err("no colon");
    assert_eq!(syntax.detail, "expected `:` at line 2 column 7");
    assert_eq!(violation(r#""v":12"#).to_string(), "type_mismatch at '/v': expected a string and found the number 12");
    let long_name = "n".repeat(100_000);
    assert!(violation(&format!(r#""{long_name}":1,"{long_name}":2"#)).to_string().len() < 500);
    assert!(violation(&format!(r#""b":"{long_name}""#)).to_string().len() < 500);
}

#[test]
fn undeclared_fields_are_kept_as_they_came() {
    let mut decoder = decoder();
    let event =
        r#"{"z":1.10, "ts":0, "a\"":{ "b" : [ null , 1e400, 12345678901234567890.0 ] }, "k":"", "\u00e9":"\u0041" ,"_offset":9}"#;
    for event in [event, r#"{"ts":0,"k":""}"#] {
        decoder.decode(event.as_bytes()).expect("valid");
        decoder.keep(at(0));
    }
    let batch = decoder.finish();
    let extra = batch.column_by_name(crate::stream::EXTRA).expect("extra").as_string::<i32>();
    assert_eq!(extra.value(0), r#"{"z":1.10,"a\"":{"b":[null,1e400,12345678901234567890.0]},"é":"\u0041","_offset":9}"#);
    assert!(extra.is_null(1));
}

#[test]
fn an_event_that_is_not_kept_leaves_no_trace() {
    let mut decoder = decoder();
    decoder.decode(br#"{"ts":1,"k":"a","v":"left","x":1}"#).expect("valid");
    decoder.decode(br#"{"ts":1,"k":"a","v":"left","x":1,"b":2}"#).expect_err("a number for a boolean");
    decoder.decode(br#"{"ts":2,"k":"b"}"#).expect("valid");
    decoder.keep(at(0));
    let row = json!({"ts": "1970-01-01T00:00:00.002Z", "k": "b", "_partition": 3, "_offset": 0, "_epoch": 7,
        "_append_time": "1970-01-01T00:00:01.500Z"});
    assert_eq!(rows(&decoder.finish()), [row]);
}

#[test]
#[should_panic(expected = "an event is kept once, after it was accepted")]
fn a_refused_event_cannot_be_kept() {
    let mut decoder = decoder();
    decoder.decode(br#"{"ts":1,"k":"a"}"#).expect("valid");
    decoder.decode(b"{}").expect_err("no time");
    decoder.keep(at(0));
}

/// These numbers may never change: see the documentation of the module `key`.
#[test]
fn partitions_and_digests_are_the_same_for_ever() {
    let decode = |options: &str, event: &str| EventDecoder::new(stream(options)).decode(event.as_bytes()).expect("valid");
    // BLAKE3 of "abc" begins with 64 37 b3 ac 38 46 51 33 ff b6 3b 75 27 3a 8d b5: 0x33514638acb33764 modulo 1,000 is 44.
    let abc = decode(", dedup_by = 'id'", r#"{"ts":0,"k":"x","id":"abc"}"#);
    assert_eq!(abc.partition, PartitionId(44));
    assert_eq!(abc.id, Some([0x64, 0x37, 0xb3, 0xac, 0x38, 0x46, 0x51, 0x33, 0xff, 0xb6, 0x3b, 0x75, 0x27, 0x3a, 0x8d, 0xb5]));
    // The column says who sent the event; the id only whether it came before.
    let by_column = decode(", dedup_by = 'id', partition_by = 'k'", r#"{"ts":0,"id":"x","k":"abc"}"#);
    assert_eq!(by_column.partition, abc.partition);
    assert_ne!(by_column.id, abc.id);
    // A null key gives way to the id, and a null id to the text of the event.
    let by_id = decode(", dedup_by = 'id', partition_by = 'v'", r#"{"ts":0,"k":"x","id":"abc"}"#);
    assert_eq!((by_id.partition, by_id.id), (abc.partition, abc.id));
    let text = r#"{"ts":0,"k":"x"}"#;
    let by_text = decode(", dedup_by = 'id', partition_by = 'v'", text);
    assert_eq!((by_text.partition, by_text.id), (KeyHash::of_text(text).partition(1_000), None));
    assert_eq!(by_text.partition, PartitionId(595));
    assert_eq!(decode("", text).partition, by_text.partition);
    // INT and BIGINT hash alike.
    for column in ["i", "l"] {
        let by_integer = decode(&format!(", dedup_by = '{column}'"), &format!(r#"{{"ts":0,"k":"x","{column}":-5}}"#));
        assert_eq!((by_integer.partition, by_integer.id), (PartitionId(972), Some(KeyHash::of_integer(-5).digest())));
    }
}

#[test]
fn ids_read_back_have_the_same_digests() {
    for (column, values) in [("id", [r#""a""#, r#""\u0061b""#]), ("i", ["5", "-2147483648"]), ("l", ["5", "9223372036854775807"])]
    {
        let stream = stream(&format!(", dedup_by = '{column}'"));
        let mut decoder = EventDecoder::new(Arc::clone(&stream));
        let mut digests = Vec::new();
        for value in [values[0], "null", values[1]] {
            digests.push(decoder.decode(format!(r#"{{"ts":0,"k":"","{column}":{value}}}"#).as_bytes()).expect("valid").id);
            decoder.keep(at(0));
        }
        assert!(digests[0].is_some() && digests[1].is_none() && digests[2].is_some() && digests[0] != digests[2]);
        let ids = Arc::clone(decoder.finish().column_by_name(column).expect("declared"));
        let mut layouts: Vec<ArrayRef> = vec![Arc::clone(&ids)];
        if column == "id" {
            layouts.push(cast(&ids, &DataType::Utf8View).expect("a view"));
            layouts.push(cast(&ids, &DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into())).expect("a dictionary"));
        }
        for ids in layouts {
            assert_eq!(id_digests(&stream, &ids), digests, "{column} as {}", ids.data_type());
        }
        assert_eq!(id_digests(&self::stream(""), &ids), [None; 3]);
    }
}

/// Any JSON value of a few levels.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            collection::vec((any::<String>(), inner), 0..5).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The declared fields of a valid event, nulls and absent ones among them, and undeclared ones.
fn any_fields() -> impl Strategy<Value = (Map<String, Value>, Map<String, Value>)> {
    let optional = |name: &'static str, value: BoxedStrategy<Value>| {
        option::of(option::of(value)).prop_map(move |field| field.map(|value| (name.to_owned(), value.unwrap_or_default())))
    };
    let times = (*time::TIMESTAMPS_US.start() / 1_000..=*time::TIMESTAMPS_US.end() / 1_000).prop_map(Value::from);
    let declared = (
        (times.clone(), any::<String>()),
        optional("id", any::<String>().prop_map(Value::from).boxed()),
        optional("v", any::<String>().prop_map(Value::from).boxed()),
        optional("b", any::<bool>().prop_map(Value::from).boxed()),
        optional("i", any::<i32>().prop_map(Value::from).boxed()),
        optional("l", any::<i64>().prop_map(Value::from).boxed()),
        optional("d", any::<f64>().prop_filter("finite", |d| d.is_finite()).prop_map(Value::from).boxed()),
        optional("m", (-999_999_999_i64..=999_999_999).prop_map(|m| decimal_text(m).into()).boxed()),
        optional("t", times.boxed()),
        optional("j", any_json().boxed()),
    );
    let extra = collection::vec(("[^a-z]{0,9}", any_json()), 0..5).prop_map(|fields| fields.into_iter().collect());
    (declared, extra).prop_map(|(((ts, k), f1, f2, f3, f4, f5, f6, f7, f8, f9), extra)| {
        let required = [("ts".to_owned(), ts), ("k".to_owned(), k.into())];
        (required.into_iter().chain([f1, f2, f3, f4, f5, f6, f7, f8, f9].into_iter().flatten()).collect(), extra)
    })
}

fn decimal_text(hundredths: i64) -> String {
    format!("{}{}.{:02}", if hundredths < 0 { "-" } else { "" }, hundredths.abs() / 100, hundredths.abs() % 100)
}

/// A byte to put in, most often one that means something in JSON.
fn any_edit() -> impl Strategy<Value = Option<u8>> {
    option::of(prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\ud8e0.-\n"[..])])
}

/// What the first row of a column holds, in the form that the event had.
fn value(batch: &RecordBatch, name: &str) -> Value {
    let column = batch.column_by_name(name).expect("declared");
    if column.is_null(0) {
        return Value::Null;
    }
    match name {
        "b" => column.as_boolean().value(0).into(),
        "i" => column.as_primitive::<Int32Type>().value(0).into(),
        "l" => column.as_primitive::<Int64Type>().value(0).into(),
        "d" => column.as_primitive::<Float64Type>().value(0).into(),
        "m" => decimal_text(i64::try_from(column.as_primitive::<Decimal128Type>().value(0)).expect("9 digits")).into(),
        "ts" | "t" => (column.as_primitive::<TimestampMicrosecondType>().value(0) / 1_000).into(),
        "day" => column.as_primitive::<Date32Type>().value(0).into(),
        _ => column.as_string::<i32>().value(0).into(),
    }
}

proptest! {
    #[test]
    fn any_valid_event_round_trips((declared, extra) in any_fields(), pretty in any::<bool>()) {
        let event: Map<_, _> = extra.clone().into_iter().chain(declared.clone()).collect();
        let text = if pretty { serde_json::to_string_pretty(&event) } else { serde_json::to_string(&event) }.expect("JSON");
        let mut decoder = decoder();
        decoder.decode(text.as_bytes()).map_err(|violation| TestCaseError::fail(format!("{violation}: {text}")))?;
        decoder.keep(at(0));
        let batch = decoder.finish();
        for column in ["id", "ts", "v", "b", "i", "l", "d", "m", "t", "day", "k"] {
            prop_assert_eq!(value(&batch, column), declared.get(column).cloned().unwrap_or_default(), "{}", column);
        }
        let json = declared.get("j").filter(|json| !json.is_null()).map(ToString::to_string);
        prop_assert_eq!(value(&batch, "j"), Value::from(json));
        let extra = (!extra.is_empty()).then(|| Value::Object(extra).to_string());
        prop_assert_eq!(value(&batch, crate::stream::EXTRA), Value::from(extra));
    }

    /// Whatever the bytes: no panic, and the same opinion of what is JSON as `serde_json` has.
    #[test]
    fn any_bytes_are_decoded_or_refused(
        (declared, extra) in any_fields(),
        edits in collection::vec((any::<prop::sample::Index>(), any_edit(), 0..3_usize), 0..6),
    ) {
        let event: Map<_, _> = extra.into_iter().chain(declared).collect();
        let mut bytes = serde_json::to_vec(&event).expect("JSON");
        for (place, byte, removed) in edits {
            let at = place.index(bytes.len() + 1);
            bytes.splice(at..(at + removed).min(bytes.len()), byte);
        }
        let mut decoder = decoder();
        let decoded = decoder.decode(&bytes);
        if decoded.is_ok() {
            decoder.keep(at(0));
            prop_assert_eq!(decoder.finish().num_rows(), 1);
        }
        // Numbers beyond a double are JSON; `serde_json::Value` alone cannot hold them.
        match (serde_json::from_slice::<Value>(&bytes), decoded) {
            (Ok(_), Err(violation)) => {
                prop_assert!(!matches!(violation.code.as_str(), INVALID_JSON | INVALID_UTF8), "{}", violation);
            }
            (Err(error), Ok(_)) => prop_assert!(error.to_string().starts_with("number out of range"), "{}", error),
            _ => {}
        }
    }
}

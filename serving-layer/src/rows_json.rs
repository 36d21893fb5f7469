//! Values of an answer as text: JSON rows, and the cells that CSV quotes in its own way.
//!
//! Times are UTC in RFC 3339 with `Z`; 64-bit integers and decimals are JSON numbers with every digit; what JSON has no number
//! for, `NaN` and the infinities, is the text `"NaN"`, `"Infinity"` or `"-Infinity"`; binary values are hexadecimal text; columns
//! of nested JSON are text, as they are in SQL.

use std::fmt::{Display, Write};

use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, GenericListArray, OffsetSizeTrait, PrimitiveArray,
        temporal_conversions::{as_date, as_datetime},
        types::{
            ArrowTemporalType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType,
            Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
            TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
            UInt64Type,
        },
    },
    compute::cast,
    datatypes::{DataType, TimeUnit},
    record_batch::RecordBatch,
    util::display::array_value_to_string,
};
use chrono::SecondsFormat;

/// What a cell's text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// There is no value, and no text was written.
    Null,
    /// JSON as it stands: a number, `true`, an array, an object.
    Bare,
    /// Text that JSON puts between quotes.
    Text,
}

/// Appends one row's value to a text and says what it is.
pub(crate) type CellWriter = Box<dyn Fn(usize, &mut String) -> Cell + Send>;

/// The writers of a batch's columns.
pub(crate) fn cell_writers(batch: &RecordBatch) -> Vec<CellWriter> {
    batch.columns().iter().map(cell_writer).collect()
}

/// Writes rows as JSON: arrays, or objects with the columns' names.
pub(crate) struct RowWriter {
    cells: Vec<CellWriter>,
    /// The columns' names as JSON with a colon behind; empty for rows that are arrays.
    keys: Vec<String>,
    scratch: String,
}

impl RowWriter {
    /// Rows as arrays.
    pub(crate) fn arrays(batch: &RecordBatch) -> Self {
        Self { cells: cell_writers(batch), keys: Vec::new(), scratch: String::new() }
    }

    /// Rows as objects.
    pub(crate) fn objects(batch: &RecordBatch) -> Self {
        let key = |name: &String| {
            let mut key = String::new();
            push_json_text(&mut key, name);
            key + ":"
        };
        let keys = batch.schema().fields().iter().map(|field| key(field.name())).collect();
        Self { cells: cell_writers(batch), keys, scratch: String::new() }
    }

    /// Appends one row.
    pub(crate) fn write(&mut self, row: usize, out: &mut String) {
        let is_object = !self.keys.is_empty();
        out.push(if is_object { '{' } else { '[' });
        for (place, cell) in self.cells.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            if is_object {
                out.push_str(&self.keys[place]);
            }
            push_json_cell(cell, row, &mut self.scratch, out);
        }
        out.push(if is_object { '}' } else { ']' });
    }
}

fn push_json_cell(cell: &CellWriter, row: usize, scratch: &mut String, out: &mut String) {
    scratch.clear();
    match cell(row, scratch) {
        Cell::Null => out.push_str("null"),
        Cell::Bare => out.push_str(scratch),
        Cell::Text => push_json_text(out, scratch),
    }
}

/// Appends a text as a JSON string.
pub(crate) fn push_json_text(out: &mut String, text: &str) {
    out.push('"');
    let mut begin = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[begin..at]);
        begin = at + 1;
        match escape {
            "" => push(out, format_args!("\\u{byte:04x}")),
            escape => out.push_str(escape),
        }
    }
    out.push_str(&text[begin..]);
    out.push('"');
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = out.write_fmt(text);
}

fn cell_writer(array: &ArrayRef) -> CellWriter {
    match array.data_type() {
        DataType::Null => Box::new(|_, _| Cell::Null),
        DataType::Boolean => {
            let array = array.as_boolean().clone();
            nullable(&array.clone(), move |row, out| bare(out, array.value(row)))
        }
        DataType::Int8 => displayed::<Int8Type>(array),
        DataType::Int16 => displayed::<Int16Type>(array),
        DataType::Int32 => displayed::<Int32Type>(array),
        DataType::Int64 => displayed::<Int64Type>(array),
        DataType::UInt8 => displayed::<UInt8Type>(array),
        DataType::UInt16 => displayed::<UInt16Type>(array),
        DataType::UInt32 => displayed::<UInt32Type>(array),
        DataType::UInt64 => displayed::<UInt64Type>(array),
        DataType::Float16 => floating::<Float16Type>(array, |value| (f64::from(value), value.to_string())),
        DataType::Float32 => floating::<Float32Type>(array, |value| (f64::from(value), format!("{value:?}"))),
        DataType::Float64 => floating::<Float64Type>(array, |value| (value, format!("{value:?}"))),
        DataType::Decimal32(..) => decimal::<Decimal32Type>(array),
        DataType::Decimal64(..) => decimal::<Decimal64Type>(array),
        DataType::Decimal128(..) => decimal::<Decimal128Type>(array),
        DataType::Decimal256(..) => decimal::<Decimal256Type>(array),
        DataType::Timestamp(TimeUnit::Second, _) => timestamp::<TimestampSecondType>(array),
        DataType::Timestamp(TimeUnit::Millisecond, _) => timestamp::<TimestampMillisecondType>(array),
        DataType::Timestamp(TimeUnit::Microsecond, _) => timestamp::<TimestampMicrosecondType>(array),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => timestamp::<TimestampNanosecondType>(array),
        DataType::Date32 => date::<Date32Type>(array),
        DataType::Date64 => date::<Date64Type>(array),
        DataType::Utf8 => {
            let array = array.as_string::<i32>().clone();
            nullable(&array.clone(), move |row, out| text(out, array.value(row)))
        }
        DataType::Utf8View => {
            let array = array.as_string_view().clone();
            nullable(&array.clone(), move |row, out| text(out, array.value(row)))
        }
        DataType::List(_) => list(array.as_list::<i32>()),
        DataType::LargeList(_) => list(array.as_list::<i64>()),
        DataType::Struct(_) => structure(array),
        DataType::LargeUtf8 | DataType::Dictionary(..) => {
            let plain = match array.data_type() {
                DataType::Dictionary(_, value) => value.as_ref(),
                _ => &DataType::Utf8View,
            };
            cast(array, plain).map_or_else(|_| formatted(array), |plain| cell_writer(&plain))
        }
        _ => formatted(array),
    }
}

fn bare(out: &mut String, value: impl Display) -> Cell {
    push(out, format_args!("{value}"));
    Cell::Bare
}

fn text(out: &mut String, value: impl Display) -> Cell {
    push(out, format_args!("{value}"));
    Cell::Text
}

fn nullable(array: &dyn Array, write: impl Fn(usize, &mut String) -> Cell + Send + 'static) -> CellWriter {
    let nulls = array.nulls().cloned();
    Box::new(move |row, out| match nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
        true => Cell::Null,
        false => write(row, out),
    })
}

fn primitive<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    write: impl Fn(T::Native, &mut String) -> Cell + Send + 'static,
) -> CellWriter {
    let array: PrimitiveArray<T> = array.as_primitive::<T>().clone();
    nullable(&array.clone(), move |row, out| write(array.value(row), out))
}

fn displayed<T: ArrowPrimitiveType>(array: &ArrayRef) -> CellWriter
where
    T::Native: Display,
{
    primitive::<T>(array, |value, out| bare(out, value))
}

/// `parts` gives the value and its shortest text that reads back as the same value.
fn floating<T: ArrowPrimitiveType>(array: &ArrayRef, parts: fn(T::Native) -> (f64, String)) -> CellWriter {
    primitive::<T>(array, move |value, out| match parts(value) {
        (value, digits) if value.is_finite() => bare(out, digits),
        (value, _) if value.is_nan() => text(out, "NaN"),
        (value, _) => text(out, if value > 0.0 { "Infinity" } else { "-Infinity" }),
    })
}

fn decimal<T: DecimalType + ArrowPrimitiveType>(array: &ArrayRef) -> CellWriter {
    let (precision, scale) = match array.data_type() {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => (*precision, *scale),
        _ => return formatted(array),
    };
    primitive::<T>(array, move |value, out| bare(out, T::format_decimal(value, precision, scale)))
}

fn timestamp<T: ArrowTemporalType + ArrowPrimitiveType>(array: &ArrayRef) -> CellWriter
where
    i64: From<T::Native>,
{
    primitive::<T>(array, |value, out| match as_datetime::<T>(value.into()) {
        Some(time) => text(out, time.and_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        // Further away than any calendar here reaches: the number since 1970, which says more than null.
        None => text(out, i64::from(value)),
    })
}

fn date<T: ArrowTemporalType + ArrowPrimitiveType>(array: &ArrayRef) -> CellWriter
where
    i64: From<T::Native>,
{
    primitive::<T>(array, |value, out| match as_date::<T>(value.into()) {
        Some(date) => text(out, date),
        None => text(out, i64::from(value)),
    })
}

fn list<O: OffsetSizeTrait>(array: &GenericListArray<O>) -> CellWriter {
    let element = cell_writer(array.values());
    let offsets = array.offsets().clone();
    nullable(array, move |row, out| {
        let mut scratch = String::new();
        out.push('[');
        for (place, at) in (offsets[row].as_usize()..offsets[row + 1].as_usize()).enumerate() {
            if place > 0 {
                out.push(',');
            }
            push_json_cell(&element, at, &mut scratch, out);
        }
        out.push(']');
        Cell::Bare
    })
}

fn structure(array: &ArrayRef) -> CellWriter {
    let array = array.as_struct();
    let fields: Vec<(String, CellWriter)> =
        array.fields().iter().zip(array.columns()).map(|(field, column)| (field.name().clone(), cell_writer(column))).collect();
    nullable(array, move |row, out| {
        let mut scratch = String::new();
        out.push('{');
        for (place, (name, cell)) in fields.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            push_json_text(out, name);
            out.push(':');
            push_json_cell(cell, row, &mut scratch, out);
        }
        out.push('}');
        Cell::Bare
    })
}

/// Types that queries seldom return (times of day, intervals, binary, maps): Arrow's own text for them.
fn formatted(array: &ArrayRef) -> CellWriter {
    let array = ArrayRef::clone(array);
    nullable(&array.clone(), move |row, out| match array_value_to_string(&array, row) {
        Ok(value) => text(out, value),
        Err(error) => text(out, format_args!("({error})")),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int64Array,
        ListArray, StringArray, StructArray, TimestampMicrosecondArray, TimestampSecondArray, UInt64Array,
    };

    use super::*;

    fn check(array: impl Array + 'static, expected: &[&str]) {
        let array: ArrayRef = Arc::new(array);
        let writer = cell_writer(&array);
        let (mut found, mut scratch) = (Vec::new(), String::new());
        for row in 0..array.len() {
            let mut out = String::new();
            push_json_cell(&writer, row, &mut scratch, &mut out);
            serde_json::from_str::<serde_json::Value>(&out).expect("JSON");
            found.push(out);
        }
        assert_eq!(found, expected, "{:?}", array.data_type());
    }

    #[test]
    fn numbers_keep_every_digit() {
        check(
            Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None]),
            &["-9223372036854775808", "9223372036854775807", "null"],
        );
        check(UInt64Array::from(vec![u64::MAX]), &["18446744073709551615"]);
        let decimals = Decimal128Array::from(vec![Some(-5), Some(12345), Some(10_i128.pow(37))]);
        let expected = ["-0.05", "123.45", "100000000000000000000000000000000000.00"];
        check(decimals.with_precision_and_scale(38, 2).expect("fits"), &expected);
        check(
            Float64Array::from(vec![0.1 + 0.2, 1.0, 1e300, -0.0, 5e-324]),
            &["0.30000000000000004", "1.0", "1e300", "-0.0", "5e-324"],
        );
        check(Float32Array::from(vec![0.1]), &["0.1"]);
        check(
            Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
            &["\"NaN\"", "\"Infinity\"", "\"-Infinity\""],
        );
    }

    #[test]
    fn times_are_utc() {
        let times = TimestampMicrosecondArray::from(vec![0, 1_700_000_000_123_456, -1, i64::MAX]).with_timezone("+02:00");
        let expected = ["\"1970-01-01T00:00:00Z\"", "\"2023-11-14T22:13:20.123456Z\"", "\"1969-12-31T23:59:59.999999Z\""];
        check(times.slice(0, 3), &expected);
        check(TimestampSecondArray::from(vec![1, i64::MAX]), &["\"1970-01-01T00:00:01Z\"", "\"9223372036854775807\""]);
        check(Date32Array::from(vec![19_000, -1]), &["\"2022-01-08\"", "\"1969-12-31\""]);
    }

    #[test]
    fn texts_are_escaped() {
        let hostile = "a\"b\\c\n\r\t\u{1}\u{7f}ü\u{2028}😀</script>";
        let mut out = String::new();
        push_json_text(&mut out, hostile);
        assert_eq!(serde_json::from_str::<String>(&out).expect("JSON"), hostile);
        check(BooleanArray::from(vec![Some(true), None]), &["true", "null"]);
        check(BinaryArray::from(vec![&b"\x00\xff"[..]]), &["\"00ff\""]);
        check(DictionaryArray::<Int32Type>::from_iter([Some("x"), None]), &["\"x\"", "null"]);
    }

    #[test]
    fn nested_values() {
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        check(lists.clone(), &["[1,null]", "null", "[]"]);
        check(lists.slice(2, 1), &["[]"]);
        let field = |name: &str, kind: DataType| Arc::new(arrow::datatypes::Field::new(name, kind, true));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
        check(StructArray::from(vec![(field("a\"", DataType::Utf8), text)]), &["{\"a\\\"\":\"x\"}"]);
    }
}

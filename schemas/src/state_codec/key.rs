//! Group keys: the group columns of a view as a JSON array.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Date32Type, Decimal128Type, FieldRef, Int32Type, Int64Type, TimestampMicrosecondType},
};
use chrono::{DateTime, FixedOffset, NaiveDate, SecondsFormat};
use datafusion::{common::exec_err, error::Result, scalar::ScalarValue};
use serde_json::Value;

use super::to_array;

/// Says why a column of this type cannot be grouped by, if it cannot.
pub(crate) fn check_type(data_type: &DataType) -> std::result::Result<(), String> {
    match data_type {
        DataType::Utf8
        | DataType::Boolean
        | DataType::Int32
        | DataType::Int64
        | DataType::Decimal128(..)
        | DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some(_))
        | DataType::Date32 => Ok(()),
        DataType::Float64 => Err("a view cannot group by DOUBLE: equal numbers may differ in their last bit".to_owned()),
        other => Err(format!("a view cannot group by {other}")),
    }
}

/// Writes the keys of a batch.
pub(super) struct Writer {
    columns: Vec<ArrayRef>,
}

impl Writer {
    pub(super) fn new(columns: &[ArrayRef]) -> Result<Self> {
        match columns.iter().find_map(|column| check_type(column.data_type()).err()) {
            Some(message) => exec_err!("{message}"),
            None => Ok(Self { columns: columns.to_vec() }),
        }
    }

    pub(super) fn key(&self, row: usize) -> String {
        let mut key = String::with_capacity(48);
        for (i, column) in self.columns.iter().enumerate() {
            key.push(if i == 0 { '[' } else { ',' });
            key.push_str(&value(column, row).to_string());
        }
        key.push(']');
        key
    }
}

fn value(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        // Text, because a JSON number is read back as a double.
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value_as_string(row).into(),
        DataType::Date32 => {
            let day = column.as_primitive::<Date32Type>().value_as_date(row);
            day.map_or(Value::Null, |day| day.to_string().into())
        }
        _ => {
            let time = DateTime::from_timestamp_micros(column.as_primitive::<TimestampMicrosecondType>().value(row));
            time.map_or(Value::Null, |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true).into())
        }
    }
}

/// Reads keys into columns.
pub(super) struct Reader {
    types: Vec<DataType>,
    columns: Vec<Vec<ScalarValue>>,
}

impl Reader {
    pub(super) fn new(fields: &[FieldRef]) -> Self {
        let types: Vec<_> = fields.iter().map(|field| field.data_type().clone()).collect();
        Self { columns: vec![Vec::new(); types.len()], types }
    }

    pub(super) fn read(&mut self, key: &str) -> Result<()> {
        let Ok(Value::Array(values)) = serde_json::from_str(key) else { return exec_err!("'{key}' is no group key") };
        if values.len() != self.types.len() {
            return exec_err!("'{key}' is no group key of this view");
        }
        for ((value, data_type), column) in values.into_iter().zip(&self.types).zip(&mut self.columns) {
            match scalar(&value, data_type) {
                Some(scalar) => column.push(scalar),
                None => return exec_err!("'{value}' in group key '{key}' is no {data_type}"),
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Vec<ArrayRef>> {
        self.columns.into_iter().zip(&self.types).map(|(values, data_type)| to_array(values, data_type)).collect()
    }
}

fn scalar(value: &Value, data_type: &DataType) -> Option<ScalarValue> {
    if value.is_null() {
        return ScalarValue::try_from(data_type).ok();
    }
    Some(match data_type {
        DataType::Utf8 => ScalarValue::Utf8(Some(value.as_str()?.to_owned())),
        DataType::Boolean => ScalarValue::Boolean(Some(value.as_bool()?)),
        DataType::Int32 => ScalarValue::Int32(Some(i32::try_from(value.as_i64()?).ok()?)),
        DataType::Int64 => ScalarValue::Int64(Some(value.as_i64()?)),
        DataType::Decimal128(..) => ScalarValue::try_from_string(value.as_str()?.to_owned(), data_type).ok()?,
        DataType::Date32 => {
            let days = value.as_str()?.parse::<NaiveDate>().ok()?.signed_duration_since(NaiveDate::default()).num_days();
            ScalarValue::Date32(Some(i32::try_from(days).ok()?))
        }
        DataType::Timestamp(_, zone) => {
            // Unlike `parse_from_rfc3339`, this reads the years outside 0 to 9999 that a window's bounds may lie in.
            let time = value.as_str()?.parse::<DateTime<FixedOffset>>().ok()?.timestamp_micros();
            ScalarValue::TimestampMicrosecond(Some(time), zone.as_ref().map(Arc::clone))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;

    use super::*;
    use crate::stream::timestamp_type;

    #[test]
    fn times_beyond_the_calendar_of_rfc_3339_round_trip() {
        // The ends of the times that events may have, and the bounds of windows around them.
        let times_us =
            [-62_135_596_800_000_000, -62_200_000_000_000_000, 253_402_300_799_999_999, 253_402_300_800_000_000, -1, 0];
        let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times_us.to_vec()).with_timezone("UTC"));
        let writer = Writer::new(&[Arc::clone(&column)]).expect("a key column");
        let field = Arc::new(arrow::datatypes::Field::new("t", timestamp_type(), false));
        let mut reader = Reader::new(&[field]);
        for row in 0..times_us.len() {
            reader.read(&writer.key(row)).expect("a key");
        }
        assert_eq!(&reader.finish().expect("columns")[0], &column);
    }
}

//! One event's values, held until it is known whether the event is kept; and the columns they are then added to.

use std::ops::Range;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};

use super::{
    json,
    key::KeyHash,
    number::{self, Decimal},
    time,
    violation::{Fault, INVALID_JSON, OUT_OF_RANGE, TYPE_MISMATCH, excerpt},
};
use crate::stream::{Column, ColumnType, timestamp_type};

/// The value of one column.
#[derive(Debug, Clone)]
pub(super) enum Slot {
    /// The event has not brought the field so far.
    Absent,
    Null,
    Boolean(bool),
    /// INT; BIGINT; microseconds of a TIMESTAMP; days of a DATE.
    Integer(i64),
    Double(f64),
    Decimal(i128),
    /// VARCHAR and JSON: a range of [`Row::text`].
    Text(Range<usize>),
}

/// The values of one event. Its memory is used again for the next one.
#[derive(Debug, Default)]
pub(super) struct Row {
    slots: Vec<Slot>,
    text: String,
    /// The undeclared fields as members of a JSON object, without its braces at the ends.
    extra: String,
    /// Where the names of the undeclared fields stand in `extra`, with their quotes.
    extra_names: Vec<Range<usize>>,
}

impl Row {
    /// Forgets the event before.
    pub fn clear(&mut self, columns: usize) {
        self.slots.clear();
        self.slots.resize(columns, Slot::Absent);
        self.text.clear();
        self.extra.clear();
        self.extra_names.clear();
    }

    /// The value of a column.
    pub fn slot(&self, column: usize) -> &Slot {
        &self.slots[column]
    }

    /// Sets a column to null.
    pub fn set_null(&mut self, column: usize) {
        self.slots[column] = Slot::Null;
    }

    /// Decodes the text of a valid JSON value that is not null into a column.
    pub fn set(&mut self, index: usize, column: &Column, json: &str) -> Result<(), Fault> {
        let mismatch = || mismatch(column.column_type, json);
        self.slots[index] = match column.column_type {
            ColumnType::Varchar => {
                let content = content(json)?.ok_or_else(mismatch)?;
                self.append_text(|text| text.push_str(&content))
            }
            ColumnType::Json => {
                refuse_lone_surrogate(json)?;
                self.append_text(|text| json::append_compact(json, text))
            }
            ColumnType::Boolean => match json {
                "true" => Slot::Boolean(true),
                "false" => Slot::Boolean(false),
                _ => return Err(mismatch()),
            },
            ColumnType::Int if number::is_number(json) => match number::integer(json)? {
                value if i32::try_from(value).is_ok() => Slot::Integer(value),
                value => return Err(Fault::new(OUT_OF_RANGE, format!("{value} is not a 32-bit integer"))),
            },
            ColumnType::BigInt if number::is_number(json) => Slot::Integer(number::integer(json)?),
            ColumnType::Double if number::is_number(json) => Slot::Double(number::double(json)?),
            ColumnType::Timestamp if number::is_number(json) => {
                Slot::Integer(time::timestamp_of_milliseconds_us(number::integer(json)?)?)
            }
            ColumnType::Timestamp => Slot::Integer(time::timestamp_us(&content(json)?.ok_or_else(mismatch)?)?),
            ColumnType::Date => Slot::Integer(i64::from(time::date_days(&content(json)?.ok_or_else(mismatch)?)?)),
            ColumnType::Decimal { precision, scale } => {
                let content = content(json)?;
                let decimal = Decimal::read(content.as_deref().unwrap_or(json)).ok_or_else(mismatch)?;
                Slot::Decimal(decimal.scaled(precision, scale)?)
            }
            ColumnType::Int | ColumnType::BigInt | ColumnType::Double => return Err(mismatch()),
        };
        Ok(())
    }

    fn append_text(&mut self, append: impl FnOnce(&mut String)) -> Slot {
        let start = self.text.len();
        append(&mut self.text);
        Slot::Text(start..self.text.len())
    }

    /// Begins an undeclared field; [`Self::set_extra`] brings its value.
    pub fn begin_extra(&mut self, name: &str) {
        self.extra.push(if self.extra.is_empty() { '{' } else { ',' });
        let start = self.extra.len();
        json::append_string(name, &mut self.extra);
        self.extra_names.push(start..self.extra.len());
        self.extra.push(':');
    }

    /// The value of the undeclared field that was begun last, a valid JSON text.
    pub fn set_extra(&mut self, json: &str) -> Result<(), Fault> {
        refuse_lone_surrogate(json)?;
        json::append_compact(json, &mut self.extra);
        Ok(())
    }

    /// The name of the undeclared field that was begun last.
    pub fn last_extra_name(&self) -> String {
        self.extra_names.last().map(|name| self.extra_name(name)).unwrap_or_default()
    }

    /// Ends the undeclared fields; the name of one that stands there twice, if there is such.
    pub fn end_extra(&mut self) -> Option<String> {
        if self.extra.is_empty() {
            return None;
        }
        self.extra.push('}');
        let text = |name: &Range<usize>| &self.extra[name.clone()];
        // A name has one form as a JSON string here, so equal names are equal texts.
        self.extra_names.sort_unstable_by(|left, right| text(left).cmp(text(right)));
        let twice = self.extra_names.windows(2).find(|pair| text(&pair[0]) == text(&pair[1]));
        twice.map(|pair| self.extra_name(&pair[0]))
    }

    fn extra_name(&self, name: &Range<usize>) -> String {
        json::string_content(&self.extra[name.clone()]).unwrap_or_default().into_owned()
    }

    /// The hash of a column's value; `None` where it is null.
    pub fn key(&self, column: usize) -> Option<KeyHash> {
        match &self.slots[column] {
            Slot::Text(range) => Some(KeyHash::of_text(&self.text[range.clone()])),
            Slot::Integer(value) => Some(KeyHash::of_integer(*value)),
            _ => None,
        }
    }

    /// The undeclared fields as a JSON object.
    pub fn extra(&self) -> Option<&str> {
        (!self.extra.is_empty()).then_some(self.extra.as_str())
    }

    /// Appends the values to the builders of the declared columns.
    pub fn append_to(&self, builders: &mut [ColumnBuilder]) {
        for (slot, builder) in self.slots.iter().zip(builders) {
            builder.append(slot, &self.text);
        }
    }
}

fn content(json: &str) -> Result<Option<std::borrow::Cow<'_, str>>, Fault> {
    refuse_lone_surrogate(json)?;
    Ok(json::string_content(json))
}

fn refuse_lone_surrogate(json: &str) -> Result<(), Fault> {
    match json::lone_surrogate(json) {
        None => Ok(()),
        Some(at) => Err(Fault::new(INVALID_JSON, format!("lone surrogate escape at {} of the value", json::place(json, at)))),
    }
}

fn mismatch(expected: ColumnType, json: &str) -> Fault {
    let expected = match expected {
        ColumnType::Varchar | ColumnType::Json => "a string",
        ColumnType::Boolean => "true or false",
        ColumnType::Int | ColumnType::BigInt => "an integer",
        ColumnType::Double => "a number",
        ColumnType::Decimal { .. } => "a number, or a string of digits,",
        ColumnType::Timestamp => "an RFC 3339 string or integer milliseconds",
        ColumnType::Date => "a string YYYY-MM-DD",
    };
    let found = match json.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "the string",
        Some(b't' | b'f') => "the boolean",
        _ => "the number",
    };
    let shown = if matches!(found, "an object" | "an array") { String::new() } else { format!(" {}", excerpt(json)) };
    Fault::new(TYPE_MISMATCH, format!("expected {expected} and found {found}{shown}"))
}

/// The values of one column.
#[derive(Debug)]
pub(super) enum ColumnBuilder {
    Text(StringBuilder),
    Boolean(BooleanBuilder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
}

impl ColumnBuilder {
    /// An empty builder of arrays of [`ColumnType::arrow_type`].
    pub fn new(column_type: ColumnType) -> Self {
        match column_type {
            ColumnType::Varchar | ColumnType::Json => Self::Text(StringBuilder::new()),
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::new()),
            ColumnType::Int => Self::Int(Int32Builder::new()),
            ColumnType::BigInt => Self::BigInt(Int64Builder::new()),
            ColumnType::Double => Self::Double(Float64Builder::new()),
            ColumnType::Decimal { .. } => Self::Decimal(Decimal128Builder::new().with_data_type(column_type.arrow_type())),
            ColumnType::Timestamp => Self::Timestamp(timestamps()),
            ColumnType::Date => Self::Date(Date32Builder::new()),
        }
    }

    fn append(&mut self, slot: &Slot, text: &str) {
        match (self, slot) {
            (Self::Text(builder), Slot::Text(range)) => builder.append_value(&text[range.clone()]),
            (Self::Text(builder), _) => builder.append_null(),
            (Self::Boolean(builder), slot) => {
                builder.append_option(if let Slot::Boolean(value) = slot { Some(*value) } else { None })
            }
            (Self::Int(builder), slot) => builder.append_option(narrow(slot)),
            (Self::BigInt(builder), slot) => builder.append_option(integer(slot)),
            (Self::Double(builder), slot) => {
                builder.append_option(if let Slot::Double(value) = slot { Some(*value) } else { None })
            }
            (Self::Decimal(builder), slot) => {
                builder.append_option(if let Slot::Decimal(value) = slot { Some(*value) } else { None })
            }
            (Self::Timestamp(builder), slot) => builder.append_option(integer(slot)),
            (Self::Date(builder), slot) => builder.append_option(narrow(slot)),
        }
    }

    /// Takes the array and starts an empty one.
    pub fn finish(&mut self) -> ArrayRef {
        use arrow::array::ArrayBuilder;
        match self {
            Self::Text(builder) => ArrayBuilder::finish(builder),
            Self::Boolean(builder) => ArrayBuilder::finish(builder),
            Self::Int(builder) => ArrayBuilder::finish(builder),
            Self::BigInt(builder) => ArrayBuilder::finish(builder),
            Self::Double(builder) => ArrayBuilder::finish(builder),
            Self::Decimal(builder) => ArrayBuilder::finish(builder),
            Self::Timestamp(builder) => ArrayBuilder::finish(builder),
            Self::Date(builder) => ArrayBuilder::finish(builder),
        }
    }
}

/// An empty builder of [`timestamp_type`].
pub(super) fn timestamps() -> TimestampMicrosecondBuilder {
    TimestampMicrosecondBuilder::new().with_data_type(timestamp_type())
}

fn integer(slot: &Slot) -> Option<i64> {
    if let Slot::Integer(value) = slot { Some(*value) } else { None }
}

fn narrow(slot: &Slot) -> Option<i32> {
    integer(slot).map(|value| i32::try_from(value).expect("INT was checked, and the days of year 9999 have 22 bits"))
}

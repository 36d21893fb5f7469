//! One field of a state.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, Decimal128Array, Float64Array,
        Float64Builder, Int64Array, PrimitiveBuilder, StringArray, StringBuilder, UInt64Array,
    },
    compute::cast,
    datatypes::{DataType, Decimal128Type, Int64Type, UInt64Type},
};
use datafusion::{common::exec_err, error::Result};

/// How a type is written; several types share a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Boolean,
    /// Integers, dates and times, through BIGINT.
    Signed,
    Unsigned,
    Double,
    Decimal,
    Text,
    Bytes,
}

fn form(data_type: &DataType) -> Option<Form> {
    Some(match data_type {
        DataType::Boolean => Form::Boolean,
        DataType::Int32 | DataType::Int64 | DataType::Timestamp(..) | DataType::Date32 => Form::Signed,
        DataType::UInt64 => Form::Unsigned,
        DataType::Float64 => Form::Double,
        DataType::Decimal128(..) => Form::Decimal,
        DataType::Utf8 => Form::Text,
        DataType::Binary => Form::Bytes,
        _ => return None,
    })
}

/// Says why a state of this type cannot be kept, if it cannot.
pub(crate) fn check_type(state: &DataType) -> std::result::Result<(), String> {
    let DataType::Struct(fields) = state else { return Err(format!("a state is a Struct, not {state}")) };
    match fields.iter().find(|field| form(field.data_type()).is_none()) {
        Some(field) => Err(format!("a state of type {} has no bounded encoding", field.data_type())),
        None => Ok(()),
    }
}

/// Writes the values of a column.
pub(super) enum Writer {
    Boolean(BooleanArray),
    Signed(Int64Array),
    Unsigned(UInt64Array),
    Double(Float64Array),
    Decimal(Decimal128Array),
    Text(StringArray),
    Bytes(BinaryArray),
}

impl Writer {
    pub(super) fn new(column: &ArrayRef) -> Result<Self> {
        let Some(form) = form(column.data_type()) else { return exec_err!("no encoding for {}", column.data_type()) };
        Ok(match form {
            Form::Boolean => Self::Boolean(column.as_boolean().clone()),
            Form::Signed => Self::Signed(signed(column)?.as_primitive().clone()),
            Form::Unsigned => Self::Unsigned(column.as_primitive().clone()),
            Form::Double => Self::Double(column.as_primitive().clone()),
            Form::Decimal => Self::Decimal(column.as_primitive().clone()),
            Form::Text => Self::Text(column.as_string().clone()),
            Form::Bytes => Self::Bytes(column.as_binary().clone()),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Boolean(array) => array.is_null(row),
            Self::Signed(array) => array.is_null(row),
            Self::Unsigned(array) => array.is_null(row),
            Self::Double(array) => array.is_null(row),
            Self::Decimal(array) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::Bytes(array) => array.is_null(row),
        }
    }

    pub(super) fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.push(0);
            return;
        }
        out.push(1);
        match self {
            Self::Boolean(array) => out.push(u8::from(array.value(row))),
            Self::Signed(array) => write_varint(zigzag(i128::from(array.value(row))), out),
            Self::Unsigned(array) => write_varint(u128::from(array.value(row)), out),
            Self::Double(array) => out.extend(array.value(row).to_le_bytes()),
            Self::Decimal(array) => write_varint(zigzag(array.value(row)), out),
            Self::Text(array) => write_bytes(array.value(row).as_bytes(), out),
            Self::Bytes(array) => write_bytes(array.value(row), out),
        }
    }
}

/// INT, DATE and TIMESTAMP as BIGINT. (Dates cast through INT.)
fn signed(column: &ArrayRef) -> Result<ArrayRef> {
    let narrow = if *column.data_type() == DataType::Date32 { cast(column, &DataType::Int32)? } else { Arc::clone(column) };
    Ok(cast(&narrow, &DataType::Int64)?)
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_varint(bytes.len() as u128, out);
    out.extend(bytes);
}

fn zigzag(value: i128) -> u128 {
    ((value << 1) ^ (value >> 127)).cast_unsigned()
}

fn unzigzag(value: u128) -> i128 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

fn write_varint(mut value: u128, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads the values of a column.
pub(super) struct Reader {
    data_type: DataType,
    values: Values,
}

enum Values {
    Boolean(BooleanBuilder),
    Signed(PrimitiveBuilder<Int64Type>),
    Unsigned(PrimitiveBuilder<UInt64Type>),
    Double(Float64Builder),
    Decimal(PrimitiveBuilder<Decimal128Type>),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
}

impl Reader {
    pub(super) fn new(data_type: &DataType) -> Result<Self> {
        let Some(form) = form(data_type) else { return exec_err!("no encoding for {data_type}") };
        let values = match form {
            Form::Boolean => Values::Boolean(BooleanBuilder::new()),
            Form::Signed => Values::Signed(PrimitiveBuilder::new()),
            Form::Unsigned => Values::Unsigned(PrimitiveBuilder::new()),
            Form::Double => Values::Double(Float64Builder::new()),
            Form::Decimal => Values::Decimal(PrimitiveBuilder::new().with_data_type(data_type.clone())),
            Form::Text => Values::Text(StringBuilder::new()),
            Form::Bytes => Values::Bytes(BinaryBuilder::new()),
        };
        Ok(Self { data_type: data_type.clone(), values })
    }

    /// Takes one value off the front of `bytes`.
    pub(super) fn read(&mut self, bytes: &mut &[u8]) -> Result<()> {
        let present = match take(bytes, 1)? {
            [0] => false,
            [1] => true,
            _ => return exec_err!("a state's field begins with neither 0 nor 1"),
        };
        macro_rules! append {
            ($builder:expr, $value:expr) => {
                if present { $builder.append_value($value) } else { $builder.append_null() }
            };
        }
        match &mut self.values {
            Values::Boolean(builder) => append!(builder, take(bytes, 1)? == [1]),
            Values::Signed(builder) => append!(builder, narrow(unzigzag(read_varint(bytes)?))?),
            Values::Unsigned(builder) => append!(builder, narrow(read_varint(bytes)?)?),
            Values::Double(builder) => append!(builder, f64::from_le_bytes(take_8(bytes)?)),
            Values::Decimal(builder) => append!(builder, unzigzag(read_varint(bytes)?)),
            Values::Text(builder) => append!(builder, text(read_bytes(bytes)?)?),
            Values::Bytes(builder) => append!(builder, read_bytes(bytes)?),
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<ArrayRef> {
        let signed = |array: ArrayRef| {
            let narrow = if self.data_type == DataType::Date32 { cast(&array, &DataType::Int32)? } else { array };
            cast(&narrow, &self.data_type)
        };
        Ok(match self.values {
            Values::Boolean(mut builder) => Arc::new(builder.finish()),
            Values::Signed(mut builder) => signed(Arc::new(builder.finish()))?,
            Values::Unsigned(mut builder) => Arc::new(builder.finish()),
            Values::Double(mut builder) => Arc::new(builder.finish()),
            Values::Decimal(mut builder) => Arc::new(builder.finish()),
            Values::Text(mut builder) => Arc::new(builder.finish()),
            Values::Bytes(mut builder) => Arc::new(builder.finish()),
        })
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    match bytes.split_at_checked(count) {
        Some((taken, rest)) => {
            *bytes = rest;
            Ok(taken)
        }
        None => exec_err!("a state ends too early"),
    }
}

fn take_8(bytes: &mut &[u8]) -> Result<[u8; 8]> {
    let mut taken = [0; 8];
    taken.copy_from_slice(take(bytes, 8)?);
    Ok(taken)
}

fn read_varint(bytes: &mut &[u8]) -> Result<u128> {
    let mut value = 0u128;
    for shift in (0..128).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    exec_err!("a state holds a number that does not end")
}

fn read_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = narrow(read_varint(bytes)?)?;
    take(bytes, length)
}

fn narrow<T, N: TryFrom<T>>(value: T) -> Result<N> {
    N::try_from(value).or_else(|_| exec_err!("a state holds a number out of range"))
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).or_else(|_| exec_err!("a state holds text that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip() {
        for value in [0, 1, -1, 63, 64, -64, -65, i128::from(i64::MIN), i128::from(i64::MAX), i128::MIN, i128::MAX] {
            let mut bytes = Vec::new();
            write_varint(zigzag(value), &mut bytes);
            let mut rest = bytes.as_slice();
            assert_eq!(unzigzag(read_varint(&mut rest).expect("readable")), value);
            assert!(rest.is_empty());
        }
    }
}

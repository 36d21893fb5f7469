//! From an SQL type to a column type.

use datafusion::sql::sqlparser::{
    ast::{DataType, ExactNumberInfo, TimezoneInfo},
    tokenizer::Location,
};

use crate::{
    definition::Problem,
    stream::{ColumnType, DECIMAL_PRECISION_MAX},
};

const TYPES: &str = "types are VARCHAR, BOOLEAN, INT, BIGINT, DOUBLE, DECIMAL(p,s), TIMESTAMP, DATE and JSON";

/// A type that no column has.
pub(super) struct RefusedType {
    message: String,
    hint: &'static str,
}

impl RefusedType {
    /// The problem, at the place of the type.
    pub fn at(self, location: Location) -> Problem {
        Problem::at(location, self.message).hint(self.hint)
    }
}

/// The column type that an SQL type means.
pub(super) fn compile(data_type: &DataType) -> Result<ColumnType, RefusedType> {
    Ok(match data_type {
        DataType::Varchar(None) | DataType::Text | DataType::String(None) => ColumnType::Varchar,
        DataType::Boolean => ColumnType::Boolean,
        DataType::Int(None) | DataType::Integer(None) => ColumnType::Int,
        DataType::BigInt(None) => ColumnType::BigInt,
        DataType::Double(ExactNumberInfo::None) | DataType::DoublePrecision => ColumnType::Double,
        DataType::Timestamp(None, TimezoneInfo::None) => ColumnType::Timestamp,
        DataType::Date => ColumnType::Date,
        DataType::JSON => ColumnType::Json,
        DataType::Decimal(digits) | DataType::Numeric(digits) => decimal(*digits)?,
        other => return Err(RefusedType { message: format!("type {other} is not supported"), hint: instead_of(other) }),
    })
}

fn decimal(digits: ExactNumberInfo) -> Result<ColumnType, RefusedType> {
    let given = match digits {
        ExactNumberInfo::None => {
            let message = "DECIMAL needs its number of digits".to_owned();
            return Err(RefusedType { message, hint: "such as DECIMAL(18,2): 18 digits, 2 of them behind the point" });
        }
        ExactNumberInfo::Precision(precision) => (u8::try_from(precision), Ok(0)),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (u8::try_from(precision), u8::try_from(scale)),
    };
    match given {
        (Ok(precision), Ok(scale)) if (1..=DECIMAL_PRECISION_MAX).contains(&precision) && scale <= precision => {
            Ok(ColumnType::Decimal { precision, scale })
        }
        _ => Err(RefusedType {
            message: format!("DECIMAL{digits} is not supported"),
            hint: "it has 1 to 38 digits, and no more behind the point than in all",
        }),
    }
}

/// What to write in place of a type that is not supported.
fn instead_of(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Varchar(_)
        | DataType::Char(_)
        | DataType::Character(_)
        | DataType::CharacterVarying(_)
        | DataType::String(_)
        | DataType::Uuid => "use VARCHAR; its length is not limited",
        DataType::Bool => "use BOOLEAN",
        DataType::TinyInt(_) | DataType::SmallInt(_) | DataType::Int2(_) | DataType::Int4(_) => "use INT",
        DataType::Int8(_) => "use BIGINT",
        DataType::Float(_) | DataType::Real | DataType::Float4 | DataType::Float8 | DataType::Double(_) => "use DOUBLE",
        DataType::Dec(_) => "use DECIMAL",
        DataType::Timestamp(..) | DataType::TimestampNtz(_) | DataType::Datetime(_) => {
            "use TIMESTAMP; every moment is kept in UTC, to the microsecond"
        }
        DataType::JSONB | DataType::Array(_) | DataType::Struct(..) | DataType::Map(..) => "use JSON",
        _ => TYPES,
    }
}

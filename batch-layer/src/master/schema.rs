//! A stream's row schema in the words of Delta, and whether a changed stream still fits what has landed.

use arrow::datatypes::{DataType, Schema};
use riomar_schemas::Stream;
use serde::{Deserialize, Serialize};

use crate::error::BatchError;

/// A Delta schema of flat columns.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DeltaSchema {
    #[serde(rename = "type")]
    kind: String,
    fields: Vec<DeltaField>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DeltaField {
    name: String,
    #[serde(rename = "type")]
    delta_type: serde_json::Value,
    nullable: bool,
    metadata: serde_json::Map<String, serde_json::Value>,
}

/// The text of a table's schema.
pub(super) fn schema_text(schema: &Schema) -> String {
    let fields = schema.fields().iter().map(|field| DeltaField {
        name: field.name().clone(),
        delta_type: delta_type(field.data_type()).into(),
        nullable: field.is_nullable(),
        metadata: serde_json::Map::new(),
    });
    let schema = DeltaSchema { kind: "struct".to_owned(), fields: fields.collect() };
    serde_json::to_string(&schema).unwrap_or_default()
}

/// The types that [`riomar_schemas::stream::ColumnType::arrow_type`] gives.
fn delta_type(arrow_type: &DataType) -> String {
    match arrow_type {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "long".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Date32 => "date".to_owned(),
        _ => "string".to_owned(),
    }
}

/// Whether the table needs a new schema: `None` where it fits, the new text where columns that may be null were added.
///
/// # Errors
/// [`BatchError::SchemaChanged`] for every other change, [`BatchError::Damaged`] for a text that is no schema.
pub(super) fn evolve(stream: &Stream, stored: &str) -> Result<Option<String>, BatchError> {
    let wanted = schema_text(stream.row_schema());
    if wanted == stored {
        return Ok(None);
    }
    let parse = |text: &str| {
        serde_json::from_str::<DeltaSchema>(text)
            .map_err(|error| BatchError::damaged(format!("the master dataset's schema of {}", stream.name), error))
    };
    let (stored, new) = (parse(stored)?, parse(&wanted)?);
    let changed = |column: &DeltaField, detail: String| {
        Err(BatchError::SchemaChanged { stream: stream.name.clone(), column: column.name.clone(), detail })
    };
    for old in &stored.fields {
        match new.fields.iter().find(|field| field.name == old.name) {
            None => return changed(old, "has landed but is no longer declared".to_owned()),
            Some(field) if field.delta_type != old.delta_type => {
                return changed(old, format!("has landed as {} and is declared as {}", old.delta_type, field.delta_type));
            }
            Some(field) if old.nullable && !field.nullable => {
                return changed(old, "may be null in what has landed and is declared NOT NULL".to_owned());
            }
            Some(_) => {}
        }
    }
    for field in &new.fields {
        if !field.nullable && !stored.fields.iter().any(|old| old.name == field.name) {
            return changed(field, "is new and declared NOT NULL".to_owned());
        }
    }
    Ok((stored != new).then_some(wanted))
}

//! A stream's events as a JSON Schema (draft 2020-12).

use serde_json::{Map, Value, json};

use super::{Column, ColumnType, Stream};
use crate::{decode::time, limits::EVENT_KEYS_MAX};

/// The schema of one event.
pub(super) fn of(stream: &Stream) -> Value {
    let properties: Map<_, _> = stream.columns.iter().map(|column| (column.name.as_str().to_owned(), property(column))).collect();
    let required: Vec<_> = stream.columns.iter().filter(|column| column.not_null).map(|column| column.name.as_str()).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": stream.name.as_str(),
        "type": "object",
        "properties": properties,
        "required": required,
        "maxProperties": EVENT_KEYS_MAX,
        "additionalProperties": true,
    })
}

/// The schema of one field.
fn property(column: &Column) -> Value {
    let value = match column.column_type {
        ColumnType::Varchar => json!({"type": "string"}),
        ColumnType::Boolean => json!({"type": "boolean"}),
        ColumnType::Int => json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX}),
        ColumnType::BigInt => json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}),
        ColumnType::Double => json!({"type": "number"}),
        ColumnType::Decimal { precision, scale } => decimal(precision, scale),
        ColumnType::Timestamp => json!({
            "description": "RFC 3339 with an offset, or milliseconds since 1970-01-01 UTC",
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "integer", "minimum": time::TIMESTAMPS_US.start().div_euclid(1_000),
                    "maximum": time::TIMESTAMPS_US.end().div_euclid(1_000)},
            ],
        }),
        ColumnType::Date => json!({"type": "string", "format": "date"}),
        ColumnType::Json if column.not_null => json!({"not": {"type": "null"}}),
        ColumnType::Json => return json!(true),
    };
    if column.not_null { value } else { or_null(value) }
}

/// An exact number: JSON numbers, or their text for producers whose numbers are floating point.
fn decimal(precision: u8, scale: u8) -> Value {
    json!({
        "description": format!("at most {precision} digits, {scale} of them behind the point; kept exactly as written"),
        "anyOf": [
            {"type": "number"},
            {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?([eE][+-]?[0-9]+)?$"},
        ],
    })
}

/// The same schema, with `null` let in.
fn or_null(mut schema: Value) -> Value {
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.push(json!({"type": "null"}));
    } else if let Some(name) = schema.get_mut("type") {
        *name = json!([name.take(), "null"]);
    }
    schema
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::Catalog;

    #[test]
    fn every_type_and_null_has_its_schema() {
        let sql = "CREATE TABLE s (ts TIMESTAMP NOT NULL, v VARCHAR, b BOOLEAN NOT NULL, i INT, l BIGINT NOT NULL, d DOUBLE,
            m DECIMAL(9,2) NOT NULL, t TIMESTAMP, day DATE, j JSON, k JSON NOT NULL) WITH (event_time = 'ts')";
        let catalog = Catalog::parse([("s.sql", sql)]).expect("valid");
        let schema = catalog.stream("s").expect("declared").json_schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["required"], json!(["ts", "b", "l", "m", "k"]));
        assert_eq!(schema["additionalProperties"], true);
        let properties = &schema["properties"];
        assert_eq!(properties["v"], json!({"type": ["string", "null"]}));
        assert_eq!(properties["b"], json!({"type": "boolean"}));
        assert_eq!(
            properties["i"],
            json!({"type": ["integer", "null"], "minimum": -2_147_483_648_i64, "maximum": 2_147_483_647})
        );
        assert_eq!(properties["l"], json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}));
        assert_eq!(properties["d"], json!({"type": ["number", "null"]}));
        assert_eq!(properties["m"]["anyOf"][0], json!({"type": "number"}));
        assert_eq!(properties["ts"]["anyOf"][0], json!({"type": "string", "format": "date-time"}));
        assert_eq!(properties["ts"]["anyOf"][1]["minimum"], -62_135_596_800_000_i64);
        assert_eq!(properties["ts"]["anyOf"][1]["maximum"], 253_402_300_799_999_i64);
        assert_eq!(properties["t"]["anyOf"][2], json!({"type": "null"}));
        assert_eq!(properties["day"], json!({"type": ["string", "null"], "format": "date"}));
        assert_eq!(properties["j"], true);
        assert_eq!(properties["k"], json!({"not": {"type": "null"}}));
    }
}

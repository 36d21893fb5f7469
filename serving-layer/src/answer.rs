//! Answers over HTTP: JSON, NDJSON, CSV or an Arrow IPC stream, whichever the client asks for.
//!
//! The text of large answers is written while it is sent, a piece at a time.

use std::{collections::VecDeque, convert::Infallible};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef, TimeUnit},
    ipc::writer::StreamWriter,
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;

use crate::{
    problem::ApiError,
    query::Answer,
    rows_json::{Cell, CellWriter, RowWriter, cell_writers},
};

/// The header that carries the receipt of formats that have no place for it.
pub const RECEIPT: HeaderName = HeaderName::from_static("riomar-receipt");

/// Pieces of at least this size are sent.
const PIECE_BYTES: usize = 64 << 10;

/// The formats of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerFormat {
    /// One object: columns, rows, receipt.
    Json,
    /// One object a row.
    Ndjson,
    /// RFC 4180 with a header line; null is an empty field, an empty text is `""`.
    Csv,
    /// Arrow's IPC stream.
    Arrow,
}

/// Each format with its media type, the preferred one first.
const FORMATS: [(AnswerFormat, &str); 4] = [
    (AnswerFormat::Json, "application/json"),
    (AnswerFormat::Ndjson, "application/x-ndjson"),
    (AnswerFormat::Csv, "text/csv"),
    (AnswerFormat::Arrow, "application/vnd.apache.arrow.stream"),
];

impl AnswerFormat {
    /// The format that the `Accept` header likes best; JSON without one.
    ///
    /// # Errors
    /// [`ApiError::NotAcceptable`].
    pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Self, ApiError> {
        let accept: Vec<_> =
            headers.get_all(header::ACCEPT).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let accept = accept.join(",").to_ascii_lowercase();
        if accept.trim().is_empty() {
            return Ok(Self::Json);
        }
        let mut best: Option<(f32, Self)> = None;
        for (format, media_type) in FORMATS {
            let quality = quality(&accept, media_type);
            if quality > best.map_or(0.0, |(quality, _)| quality) {
                best = Some((quality, format));
            }
        }
        best.map(|(_, format)| format).ok_or_else(|| ApiError::NotAcceptable {
            accept: accept.chars().take(128).collect(),
            written: FORMATS.map(|(_, media_type)| media_type).join(", "),
        })
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            _ => FORMATS.iter().find(|(format, _)| *format == self).map_or("application/json", |(_, media_type)| media_type),
        }
    }
}

/// How much an `Accept` header likes a media type: the most specific range that fits counts (RFC 9110, 12.5.1).
fn quality(accept: &str, media_type: &str) -> f32 {
    let mut found = (0, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let rank = match name.strip_suffix("/*") {
            Some("*") => 1,
            Some(kind) if media_type.split('/').next() == Some(kind) => 2,
            None if name == media_type => 3,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        if rank > found.0 {
            found = (rank, quality);
        }
    }
    found.1
}

/// One column of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ColumnInfo {
    /// Its name.
    pub(crate) name: String,
    /// Its type as SQL names it.
    #[serde(rename = "type")]
    pub(crate) type_name: String,
}

/// The columns of a schema.
pub(crate) fn columns(schema: &SchemaRef) -> Vec<ColumnInfo> {
    let column = |name: &String, data_type: &DataType| ColumnInfo { name: name.clone(), type_name: type_name(data_type) };
    schema.fields().iter().map(|field| column(field.name(), field.data_type())).collect()
}

/// A type as SQL names it.
pub(crate) fn type_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Null => "NULL",
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => "SMALLINT",
        DataType::Int32 | DataType::UInt16 => "INT",
        DataType::Int64 | DataType::UInt32 => "BIGINT",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float16 | DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "BYTEA",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, _) => {
            "TIMESTAMP"
        }
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
        DataType::Dictionary(_, value) => return type_name(value),
        DataType::List(element) | DataType::LargeList(element) => return format!("{}[]", type_name(element.data_type())),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => return format!("DECIMAL({precision},{scale})"),
        other => return other.to_string(),
    };
    name.to_owned()
}

/// An answer as a response.
///
/// # Errors
/// [`ApiError::Internal`] where Arrow cannot write what it read.
pub(crate) fn respond(answer: Answer, format: AnswerFormat) -> Result<Response, ApiError> {
    let internal = |error: &dyn std::fmt::Display| ApiError::Internal(format!("writing an answer: {error}"));
    let receipt = serde_json::to_string(&answer.receipt).map_err(|error| internal(&error))?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if format != AnswerFormat::Json {
        headers.insert(RECEIPT, HeaderValue::from_str(&ascii(&receipt)).map_err(|error| internal(&error))?);
    }
    let body = match format {
        AnswerFormat::Arrow => Body::from(arrow_stream(&answer).map_err(|error| internal(&error))?),
        _ => {
            let text = AnswerText::new(answer, format, &receipt).map_err(|error| internal(&error))?;
            Body::from_stream(futures::stream::iter(text.map(Ok::<_, Infallible>)))
        }
    };
    Ok((headers, body).into_response())
}

/// JSON in ASCII, as a header needs it.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            text.extend(character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

fn arrow_stream(answer: &Answer) -> Result<Vec<u8>, arrow::error::ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), &answer.schema)?;
    for batch in &answer.batches {
        writer.write(batch)?;
    }
    writer.into_inner()
}

/// The text of an answer, written a piece at a time.
struct AnswerText {
    format: AnswerFormat,
    before: String,
    after: String,
    batches: VecDeque<RecordBatch>,
    /// The batch that is being written, and its next row.
    current: Option<(Rows, usize, usize)>,
    is_first_row: bool,
}

/// The writers of one batch's rows.
enum Rows {
    Json(RowWriter),
    Csv(Vec<CellWriter>),
}

impl AnswerText {
    fn new(answer: Answer, format: AnswerFormat, receipt: &str) -> Result<Self, serde_json::Error> {
        let columns = columns(&answer.schema);
        let (before, after) = match format {
            AnswerFormat::Json => {
                (format!("{{\"columns\":{},\"rows\":[", serde_json::to_string(&columns)?), format!("],\"receipt\":{receipt}}}"))
            }
            AnswerFormat::Csv => {
                let mut line = String::new();
                for (place, column) in columns.iter().enumerate() {
                    push_csv(&mut line, place, Cell::Text, &column.name);
                }
                (line + "\r\n", String::new())
            }
            AnswerFormat::Ndjson | AnswerFormat::Arrow => (String::new(), String::new()),
        };
        Ok(Self { format, before, after, batches: answer.batches.into(), current: None, is_first_row: true })
    }

    fn next_batch(&mut self) -> Option<()> {
        let batch = self.batches.pop_front()?;
        let rows = match self.format {
            AnswerFormat::Csv => Rows::Csv(cell_writers(&batch)),
            AnswerFormat::Ndjson => Rows::Json(RowWriter::objects(&batch)),
            AnswerFormat::Json | AnswerFormat::Arrow => Rows::Json(RowWriter::arrays(&batch)),
        };
        self.current = Some((rows, 0, batch.num_rows()));
        Some(())
    }

    /// Appends one row; `None` behind the last one.
    fn next_row(&mut self, out: &mut String) -> Option<()> {
        loop {
            match &mut self.current {
                Some((rows, next, end)) if *next < *end => {
                    if self.format == AnswerFormat::Json && !std::mem::take(&mut self.is_first_row) {
                        out.push(',');
                    }
                    match rows {
                        Rows::Json(writer) => writer.write(*next, out),
                        Rows::Csv(cells) => push_csv_row(cells, *next, out),
                    }
                    *next += 1;
                    match self.format {
                        AnswerFormat::Ndjson => out.push('\n'),
                        AnswerFormat::Csv => out.push_str("\r\n"),
                        AnswerFormat::Json | AnswerFormat::Arrow => {}
                    }
                    return Some(());
                }
                _ => self.next_batch()?,
            }
        }
    }
}

impl Iterator for AnswerText {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut piece = std::mem::take(&mut self.before);
        while piece.len() < PIECE_BYTES {
            if self.next_row(&mut piece).is_none() {
                piece.push_str(&std::mem::take(&mut self.after));
                break;
            }
        }
        (!piece.is_empty()).then(|| Bytes::from(piece))
    }
}

fn push_csv_row(cells: &[CellWriter], row: usize, out: &mut String) {
    let mut text = String::new();
    for (place, cell) in cells.iter().enumerate() {
        text.clear();
        let kind = cell(row, &mut text);
        push_csv(out, place, kind, &text);
    }
}

fn push_csv(out: &mut String, place: usize, kind: Cell, text: &str) {
    if place > 0 {
        out.push(',');
    }
    let needs_quotes = kind != Cell::Null && (text.is_empty() || text.contains(['"', ',', '\n', '\r']));
    if needs_quotes {
        out.push('"');
        out.push_str(&text.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(text);
    }
}

#[cfg(test)]
mod tests;

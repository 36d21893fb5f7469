//! CloudEvents 1.0 as JSON: the data is the event.
//!
//! Where the data lacks them, the envelope's `source` and `id` become the stream's `dedup_by` column and its `time` the event
//! time. Other attributes are not kept.
//!
//! The specification has producers keep `id` unique within a `source` only, so both make the event's id: `/shop#17`. A column of
//! integers cannot hold a source, and takes the `id` alone.

use std::{borrow::Cow, fmt};

use axum::http::HeaderMap;
use bytes::Bytes;
use riomar_schemas::{Stream, Violation, stream::ColumnType};
use serde::{
    Deserialize, Deserializer as _,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The attributes of a CloudEvent that Riomar looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    kind: Option<String>,
    time: Option<String>,
}

/// The envelope of the structured mode.
#[derive(Deserialize)]
struct Envelope<'a> {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    time: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_base64: Option<IgnoredAny>,
}

fn violation(code: &str, pointer: &str, detail: impl Into<String>) -> Violation {
    Violation { code: code.to_owned(), pointer: pointer.to_owned(), detail: detail.into() }
}

impl Attributes {
    /// The attributes that came as headers (binary mode); `None` where the request is no CloudEvent.
    pub(super) fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).map(|value| percent_decoded(value.as_bytes()));
        let specversion = text("ce-specversion")?;
        Some(Self {
            specversion: Some(specversion),
            id: text("ce-id"),
            source: text("ce-source"),
            kind: text("ce-type"),
            time: text("ce-time"),
        })
    }

    /// Whether what the specification requires is there.
    fn check(&self) -> Result<(), Violation> {
        match self.specversion.as_deref() {
            Some("1.0") => {}
            found => {
                let found = found.unwrap_or("nothing");
                return Err(violation("invalid_cloudevent", "/specversion", format!("expected 1.0, found {found}")));
            }
        }
        for (name, value) in [("id", &self.id), ("source", &self.source), ("type", &self.kind)] {
            if value.as_deref().is_none_or(str::is_empty) {
                return Err(violation("invalid_cloudevent", &format!("/{name}"), "a CloudEvent must have this attribute"));
            }
        }
        Ok(())
    }

    /// The event: the data, with what it lacks added.
    ///
    /// # Errors
    /// An attribute that is missing or of another version.
    pub(super) fn event(&self, stream: &Stream, data: &Bytes) -> Result<Bytes, Violation> {
        self.check()?;
        let mut added = Vec::new();
        let present = top_level_keys(data, &wanted(stream));
        let Some(present) = present else {
            // Not an object, or broken: the decoder says so better.
            return Ok(data.clone());
        };
        if let (Some(column), false) = (stream.dedup_by, present[0]) {
            added.push((column, self.event_id(stream.columns[column].column_type)));
        }
        if let (Some(time), false) = (&self.time, present[1]) {
            added.push((stream.event_time, time.clone()));
        }
        Ok(with_fields(stream, data, &added))
    }

    /// What tells this event from all others, in a column of this type. Different pairs of source and id never look the same: the
    /// source keeps no `#` of its own, so the first one ends it.
    fn event_id(&self, column_type: ColumnType) -> String {
        let id = self.id.as_deref().unwrap_or_default();
        match column_type {
            ColumnType::Varchar => {
                let source = self.source.as_deref().unwrap_or_default().replace('%', "%25").replace('#', "%23");
                format!("{source}#{id}")
            }
            _ => id.to_owned(),
        }
    }
}

/// The event in an envelope of the structured mode.
///
/// # Errors
/// An envelope that is broken or lacks something.
pub(super) fn unwrap(stream: &Stream, envelope: &Bytes) -> Result<Bytes, Violation> {
    let parsed: Envelope<'_> = serde_json::from_slice(envelope)
        .map_err(|error| violation("invalid_cloudevent", "", format!("no CloudEvents envelope: {error}")))?;
    let attributes = Attributes {
        specversion: parsed.specversion,
        id: parsed.id,
        source: parsed.source,
        kind: parsed.kind,
        time: parsed.time,
    };
    match parsed.data {
        Some(data) => attributes.event(stream, &envelope.slice_ref(data.get().as_bytes())),
        None if parsed.data_base64.is_some() => {
            Err(violation("invalid_cloudevent", "/data_base64", "send the event as JSON in 'data'"))
        }
        None => Err(violation("invalid_cloudevent", "/data", "the event is missing")),
    }
}

/// The columns that an envelope can fill: `dedup_by` and the event time.
fn wanted(stream: &Stream) -> [Option<&str>; 2] {
    let name = |column: usize| stream.columns[column].name.as_str();
    [stream.dedup_by.map(name), Some(name(stream.event_time))]
}

/// Which of the wanted keys an object has; `None` where the text is no JSON object.
fn top_level_keys(data: &[u8], wanted: &[Option<&str>; 2]) -> Option<[bool; 2]> {
    struct Keys<'w>(&'w [Option<&'w str>; 2]);

    impl<'de> Visitor<'de> for Keys<'_> {
        type Value = [bool; 2];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
            let mut found = [false; 2];
            while let Some((key, IgnoredAny)) = object.next_entry::<Key<'_>, IgnoredAny>()? {
                for (found, wanted) in found.iter_mut().zip(self.0) {
                    *found |= *wanted == Some(&*key.0);
                }
            }
            Ok(found)
        }
    }

    #[derive(Deserialize)]
    struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

    serde_json::Deserializer::from_slice(data).deserialize_map(Keys(wanted)).ok()
}

/// An object with fields added in front.
fn with_fields(stream: &Stream, object: &Bytes, added: &[(usize, String)]) -> Bytes {
    if added.is_empty() {
        return object.clone();
    }
    let rest = object.iter().position(|&byte| byte == b'{').map_or(&object[..], |brace| &object[brace + 1..]);
    let is_empty = rest.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
    let mut text = String::from("{");
    for (place, (column, value)) in added.iter().enumerate() {
        let column = &stream.columns[*column];
        text.push_str(if place > 0 { ",\"" } else { "\"" });
        text.push_str(column.name.as_str());
        text.push_str("\":");
        match column.column_type {
            ColumnType::Int | ColumnType::BigInt | ColumnType::Decimal { .. } if is_number(value) => text.push_str(value),
            _ => text.push_str(&serde_json::Value::from(value.as_str()).to_string()),
        }
    }
    if !is_empty {
        text.push(',');
    }
    let mut event = text.into_bytes();
    event.extend_from_slice(rest);
    Bytes::from(event)
}

/// Whether a text is a JSON number.
fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit() || first == '-') && serde_json::from_str::<&RawValue>(text).is_ok()
}

/// A header's value as CloudEvents' HTTP binding encodes it: percent-encoded UTF-8, perhaps between quotes.
fn percent_decoded(value: &[u8]) -> String {
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    let hex = |digit: Option<&u8>| digit.and_then(|&digit| char::from(digit).to_digit(16));
    let mut decoded = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        match (value[at], hex(value.get(at + 1)), hex(value.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

//! Why an event was not accepted: the codes, and how an offending value is shown.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The text is not JSON; the detail says where.
pub const INVALID_JSON: &str = "invalid_json";
/// The bytes are not UTF-8; the detail says where.
pub const INVALID_UTF8: &str = "invalid_utf8";
/// It is JSON, but not an object.
pub const NOT_AN_OBJECT: &str = "not_an_object";
/// It has more bytes than [`crate::limits::EVENT_BYTES_MAX`].
pub const EVENT_TOO_LARGE: &str = "event_too_large";
/// It is nested more deeply than [`crate::limits::EVENT_DEPTH_MAX`].
pub const TOO_DEEP: &str = "too_deep";
/// It has more fields than [`crate::limits::EVENT_KEYS_MAX`] on its top level.
pub const TOO_MANY_FIELDS: &str = "too_many_fields";
/// A field stands twice on its top level.
pub const DUPLICATE_FIELD: &str = "duplicate_field";
/// A NOT NULL column is absent or null.
pub const MISSING_FIELD: &str = "missing_field";
/// A value is of another kind than its column.
pub const TYPE_MISMATCH: &str = "type_mismatch";
/// A value is of the right kind, but its column cannot hold it.
pub const OUT_OF_RANGE: &str = "out_of_range";
/// A text is not an RFC 3339 timestamp with an offset.
pub const INVALID_TIMESTAMP: &str = "invalid_timestamp";
/// A text is not a date `YYYY-MM-DD`.
pub const INVALID_DATE: &str = "invalid_date";

/// A field name longer than this is cut short in the pointer of a [`Violation`], which is kept, sent and shown.
const POINTER_NAME_BYTES_MAX: usize = 256;
/// More of an offending value than this is not shown.
const EXCERPT_CHARACTERS_MAX: usize = 40;

/// Why an event was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code} at '{pointer}': {detail}")]
pub struct Violation {
    /// A stable code, such as `missing_field` or `type_mismatch`: one of the constants beside this type.
    pub code: String,
    /// The JSON pointer (RFC 6901) of the offending value; empty for the event itself.
    pub pointer: String,
    /// What was expected and what was found.
    pub detail: String,
}

impl Violation {
    /// A violation by the event as a whole.
    pub(super) fn of_event(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code: code.to_owned(), pointer: String::new(), detail: detail.into() }
    }

    /// A violation by the field of that name.
    pub(super) fn of_field(name: &str, fault: Fault) -> Self {
        Self { code: fault.code.to_owned(), pointer: pointer(name), detail: fault.detail }
    }
}

/// What is wrong with a value, without its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub code: &'static str,
    pub detail: String,
}

impl Fault {
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// The JSON pointer of a field on the top level.
fn pointer(name: &str) -> String {
    let shown = &name[..name.floor_char_boundary(POINTER_NAME_BYTES_MAX)];
    format!("/{}", shown.replace('~', "~0").replace('/', "~1"))
}

/// The beginning of a text, to show what was found.
pub(super) fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(EXCERPT_CHARACTERS_MAX) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

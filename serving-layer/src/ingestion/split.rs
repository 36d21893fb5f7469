//! Splitting a body into its events, without copying and without recursion.

use std::{fmt, ops::ControlFlow};

use bytes::Bytes;
use serde::{
    Deserializer as _,
    de::{DeserializeSeed, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::problem::ApiError;

/// One event's text and where it stands: its line, or its place in the array; counted from 1.
pub(super) type Piece = (u64, Bytes);

/// The mark that some programs put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A body without a byte order mark and without the white space around it.
pub(super) fn trimmed(body: &Bytes) -> Bytes {
    let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    body.slice_ref(trim(text))
}

/// The lines of a body that are not blank.
///
/// # Errors
/// [`ApiError::TooManyEvents`].
pub(super) fn lines(body: &Bytes, events_max: usize) -> Result<Vec<Piece>, ApiError> {
    let text: &[u8] = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let mut pieces = Vec::new();
    let mut begin = 0;
    let ends = memchr::memchr_iter(b'\n', text).chain((!text.is_empty()).then_some(text.len()));
    for (line, end) in (1..).zip(ends) {
        let event = trim(&text[begin..end]);
        begin = (end + 1).min(text.len());
        if event.is_empty() {
            continue;
        }
        if pieces.len() == events_max {
            return Err(ApiError::TooManyEvents { limit: events_max });
        }
        pieces.push((line, body.slice_ref(event)));
    }
    Ok(pieces)
}

/// The elements of a JSON array. An element is only searched for its end, which needs no recursion: how deep it may be nested is
/// for the decoder to say.
///
/// # Errors
/// [`ApiError::MalformedJson`], [`ApiError::TooManyEvents`].
pub(super) fn elements(body: &Bytes, events_max: usize) -> Result<Vec<Piece>, ApiError> {
    let mut found = Vec::new();
    let mut parser = serde_json::Deserializer::from_slice(body);
    let outcome = parser.deserialize_seq(Elements { found: &mut found, events_max }).map_err(malformed)?;
    if outcome.is_break() {
        return Err(ApiError::TooManyEvents { limit: events_max });
    }
    parser.end().map_err(malformed)?;
    Ok((1..).zip(found).map(|(place, element)| (place, body.slice_ref(element.get().as_bytes()))).collect())
}

/// Whether a body that begins like an object is one JSON value, rather than one a line.
pub(super) fn is_one_value(body: &[u8]) -> bool {
    let mut parser = serde_json::Deserializer::from_slice(body);
    let value = parser.deserialize_ignored_any(IgnoredAny);
    value.is_ok() && parser.end().is_ok()
}

fn malformed(error: serde_json::Error) -> ApiError {
    ApiError::MalformedJson(error.to_string())
}

/// JSON's white space, which is less than what Rust trims.
fn trim(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let Some(begin) = text.iter().position(|byte| !is_space(byte)) else { return &text[..0] };
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(begin, |last| last + 1);
    &text[begin..end]
}

/// Collects the raw texts of an array's elements, and stops behind the highest number allowed.
struct Elements<'f, 'de> {
    found: &'f mut Vec<&'de RawValue>,
    events_max: usize,
}

impl<'de> Visitor<'de> for Elements<'_, 'de> {
    type Value = ControlFlow<()>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        while let Some(element) = array.next_element_seed(RawElement)? {
            if self.found.len() == self.events_max {
                // The rest need not be looked at; skipping it keeps the parser's state whole.
                while array.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(ControlFlow::Break(()));
            }
            self.found.push(element);
        }
        Ok(ControlFlow::Continue(()))
    }
}

struct RawElement;

impl<'de> DeserializeSeed<'de> for RawElement {
    type Value = &'de RawValue;

    fn deserialize<D: serde::Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        serde::Deserialize::deserialize(parser)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pieces: Result<Vec<Piece>, ApiError>) -> Result<Vec<(u64, String)>, &'static str> {
        let text = |piece: Piece| (piece.0, String::from_utf8_lossy(&piece.1).into_owned());
        pieces.map(|pieces| pieces.into_iter().map(text).collect()).map_err(|error| error.kind().code)
    }

    fn check_lines(body: &'static str, expected: &[(u64, &str)]) {
        let expected = expected.iter().map(|(line, text)| (*line, (*text).to_owned())).collect();
        assert_eq!(texts(lines(&Bytes::from_static(body.as_bytes()), 10)), Ok(expected), "{body:?}");
    }

    fn check_elements(body: &'static str, expected: Result<&[(u64, &str)], &'static str>) {
        let expected = expected.map(|pieces| pieces.iter().map(|(place, text)| (*place, (*text).to_owned())).collect());
        assert_eq!(texts(elements(&Bytes::from_static(body.as_bytes()), 3)), expected, "{body:?}");
    }

    #[test]
    fn splits_lines() {
        check_lines("", &[]);
        check_lines("\n \r\n\t\n", &[]);
        check_lines("{}", &[(1, "{}")]);
        check_lines("{}\n", &[(1, "{}")]);
        check_lines("a\n\n b \r\nc", &[(1, "a"), (3, "b"), (4, "c")]);
        check_lines("\u{feff}a\nb", &[(1, "a"), (2, "b")]);
    }

    #[test]
    fn splits_arrays() {
        check_elements("[]", Ok(&[]));
        check_elements(r#"[{"a":[1,2]}, "],[" ,3]"#, Ok(&[(1, r#"{"a":[1,2]}"#), (2, r#""],[""#), (3, "3")]));
        for broken in ["[1", "[1,]", "[,1]", "[1 2]", "[1]]", "[1] x", "[{]", "[{\"a\":}]", "{}", "["] {
            check_elements(broken, Err("malformed_json"));
        }
        check_elements("[1,2,3,4]", Err("too_many_events"));
    }

    #[test]
    fn too_many_lines() {
        let body = Bytes::from_static(b"1\n2\n\n3");
        assert_eq!(lines(&body, 3).map(|pieces| pieces.len()).ok(), Some(3));
        assert_eq!(texts(lines(&body, 2)), Err("too_many_events"));
    }

    #[test]
    fn nothing_is_copied() {
        let body = Bytes::from("[{\"a\":1},{\"b\":2}]".to_owned());
        let range = body.as_ptr_range();
        for (_, piece) in elements(&body, 10).expect("an array") {
            assert!(range.contains(&piece.as_ptr()), "a copy");
        }
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(elements(&Bytes::from(deep.clone()), 10).expect("an array").len(), 1);
        assert!(is_one_value(deep.as_bytes()));
        let broken = Bytes::from(format!("[{}", "{\"a\":".repeat(100_000)));
        assert_eq!(texts(elements(&broken, 10)), Err("malformed_json"));
    }
}

//! JSON texts: their depth, their escapes, and their compact form.
//!
//! Everything here walks over bytes without recursion: how deeply an event is nested is its sender's choice.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// Whether a text opens more than `levels_max` objects and arrays inside one another. The text need not be JSON.
pub(super) fn is_deeper_than(text: &str, levels_max: usize) -> bool {
    let opening = text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    // Almost no event has more brackets in all than it may have levels, and counting is much faster than looking at strings.
    opening > levels_max && depth(text.as_bytes()) > levels_max
}

fn depth(text: &[u8]) -> usize {
    let (mut level, mut deepest) = (0_usize, 0);
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = string_end(text, at),
            b'{' | b'[' => {
                level += 1;
                deepest = deepest.max(level);
            }
            b'}' | b']' => level = level.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// The index of the quote that ends the string which begins at `start`; the text's length if it does not end.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    loop {
        match text.get(at) {
            Some(b'"') => return at,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return text.len(),
        }
    }
}

/// Appends a valid JSON text without the white space between its tokens; strings and numbers stay as they were written.
pub(super) fn append_compact(json: &str, to: &mut String) {
    let bytes = json.as_bytes();
    if !matches!(bytes.first(), Some(b'{' | b'[')) {
        to.push_str(json);
        return;
    }
    let (mut from, mut at) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b' ' | b'\t' | b'\n' | b'\r' => {
                to.push_str(&json[from..at]);
                from = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    to.push_str(&json[from..]);
}

/// Appends a text as a JSON string.
pub(super) fn append_string(text: &str, to: &mut String) {
    if text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        to.push_str(&serde_json::Value::from(text).to_string());
    } else {
        to.push('"');
        to.push_str(text);
        to.push('"');
    }
}

/// Where, in a valid JSON text, an escape stands for half of a character: JSON's grammar allows it, no text can hold it.
pub(super) fn lone_surrogate(json: &str) -> Option<usize> {
    let bytes = json.as_bytes();
    let mut at = 0;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == b'\\')?;
        match utf16_unit(bytes, at) {
            None => at += 2,
            Some(0xD800..=0xDBFF) if matches!(utf16_unit(bytes, at + 6), Some(0xDC00..=0xDFFF)) => at += 12,
            Some(0xD800..=0xDFFF) => return Some(at),
            Some(_) => at += 6,
        }
    }
}

/// The UTF-16 unit of the escape `\uXXXX` at `at`.
fn utf16_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The text that a valid JSON string without lone surrogates means; `None` for a value that is no string.
pub(super) fn string_content(json: &str) -> Option<Cow<'_, str>> {
    let inside = json.strip_prefix('"')?.strip_suffix('"')?;
    if inside.as_bytes().contains(&b'\\') { serde_json::from_str(json).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inside)) }
}

/// What is wrong with a text that is no JSON object: `Ok` when it is JSON of another kind.
pub(super) fn check(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<IgnoredAny>(text).map(|_| ())
}

/// Line and column, counted from 1, of a byte of a text, as `serde_json` counts them.
pub(super) fn place(text: &str, at: usize) -> String {
    let before = &text.as_bytes()[..at];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    format!("line {line} column {}", at - line_start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_strings() {
        for (text, expected) in [
            ("", 0),
            ("1", 0),
            ("{}", 1),
            (r#"{"a":[{}]}"#, 3),
            (r#"{"a":"[[[["}"#, 1),
            (r#"{"a":"\"[[[["}"#, 1),
            (r#"{"a":"\\"}[["#, 2),
            (r#"["[[["#, 1),
            ("]]]]{", 1),
            ("[],[],[]", 1),
        ] {
            assert_eq!(depth(text.as_bytes()), expected, "{text}");
            assert!(!is_deeper_than(text, expected) && (expected == 0 || is_deeper_than(text, expected - 1)), "{text}");
        }
        assert!(is_deeper_than(&"[".repeat(100_000), 32));
    }

    #[test]
    fn compacts() {
        for (text, expected) in [
            ("1.50e1", "1.50e1"),
            (r#"" a \" b ""#, r#"" a \" b ""#),
            ("[ 1 ,\t2\r\n]", "[1,2]"),
            (r#"{ "a b" : [ " \" ] " , 1.0 ] }"#, r#"{"a b":[" \" ] ",1.0]}"#),
            ("{ }", "{}"),
        ] {
            let mut compact = String::new();
            append_compact(text, &mut compact);
            assert_eq!(compact, expected);
        }
    }

    #[test]
    fn finds_lone_surrogates() {
        for (text, expected) in [
            (r#""abc""#, None),
            (r#""\u00e9\n\\u""#, None),
            (r#""\\ud800""#, None),
            (r#""\ud83d\ude00""#, None),
            (r#""a\ud83d""#, Some(2)),
            (r#""\ud83dx\ude00""#, Some(1)),
            (r#""\ude00""#, Some(1)),
            (r#""\ud83d\ud83d\ude00""#, Some(1)),
            (r#"["\ud83d\n"]"#, Some(2)),
        ] {
            assert_eq!(lone_surrogate(text), expected, "{text}");
        }
    }
}

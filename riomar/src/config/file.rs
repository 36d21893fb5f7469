//! Reading `riomar.toml`: which key stands on which line, and everything in it that is no key.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{
    keys::{self, Key},
    resolve::{Fault, Origin},
    setting::Notation,
};

/// A value that a file sets.
#[derive(Debug)]
pub struct Found {
    /// What it sets.
    pub key: &'static Key,
    /// The value as text.
    pub value: String,
    /// Where it stands.
    pub origin: Origin,
}

/// Finds the values of a file. What is wrong with it is added to `faults`; reading goes on behind it.
pub fn read(path: &Path, text: &str, faults: &mut Vec<Fault>) -> Vec<Found> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let place = |at: usize| Origin::File { path: path.to_owned(), line: line_of(text, at) };
    if !errors.is_empty() {
        // What a broken line was meant to set is not known, so no further conclusion is drawn from the file.
        faults.extend(errors.iter().map(|error| Fault {
            origin: Some(place(error.span().map_or(0, |span| span.start))),
            key: None,
            message: format!("this is not TOML: {}", error.message().trim()),
        }));
        return Vec::new();
    }
    let mut reader = Reader { place: &place, found: Vec::new(), faults };
    reader.table("", document.get_ref());
    reader.found
}

struct Reader<'a> {
    place: &'a dyn Fn(usize) -> Origin,
    found: Vec<Found>,
    faults: &'a mut Vec<Fault>,
}

impl Reader<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let full_name = format!("{prefix}{}", name.get_ref());
            let origin = (self.place)(name.span().start);
            match value.get_ref() {
                DeValue::Table(inner) if keys::KEYS.iter().any(|key| key.section() == full_name) => {
                    self.table(&format!("{full_name}."), inner);
                }
                value => match keys::KEYS.iter().find(|key| key.name == full_name) {
                    Some(key) => self.value(key, value, origin),
                    None => self.fault(origin, full_name.clone(), unknown(&full_name)),
                },
            }
        }
    }

    fn value(&mut self, key: &'static Key, value: &DeValue<'_>, origin: Origin) {
        let (text, expected) = match (key.notation, value) {
            (Notation::String, DeValue::String(text)) => (Some(text.to_string()), ""),
            (Notation::Integer, DeValue::Integer(number)) if number.radix() == 10 => (Some(number.as_str().to_owned()), ""),
            (Notation::String, _) => (None, "a string in quotation marks"),
            (Notation::Integer, _) => (None, "a whole number without quotation marks"),
        };
        match text {
            Some(value) => self.found.push(Found { key, value, origin }),
            None => self.fault(origin, key.name.to_owned(), format!("{} is given where {expected} belongs", value.type_str())),
        }
    }

    fn fault(&mut self, origin: Origin, key: String, message: String) {
        self.faults.push(Fault { origin: Some(origin), key: Some(key), message });
    }
}

/// What to say of a key that is none.
fn unknown(name: &str) -> String {
    if keys::NOT_IN_THIS_BUILD.iter().any(|prefix| name.starts_with(prefix)) {
        return "not supported by this build: remove it".to_owned();
    }
    let nearest = keys::KEYS.iter().map(|key| (distance(key.name, name), key.name)).min();
    match nearest {
        Some((distance, nearest)) if distance <= 3 => format!("there is no such key: did you mean '{nearest}'?"),
        _ => "there is no such key: riomar.toml in the source lists all of them".to_owned(),
    }
}

/// Number of single-character edits from `left` to `right` (Levenshtein).
pub(super) fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, character) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(character != *other);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

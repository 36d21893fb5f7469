//! Names of streams, views and columns.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest name a stream, a view or a column may have, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// The name of a stream or a view: `[a-z][a-z0-9_]*`, at most [`NAME_BYTES_MAX`] bytes.
///
/// Names become parts of object paths and store keys, so nothing else is let through: no user text reaches a path unchecked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a valid name: use a lower-case letter, then letters, digits or '_', {NAME_BYTES_MAX} bytes at the most")]
pub struct InvalidName {
    /// The text that was refused.
    pub text: String,
}

impl Name {
    /// Checks `text` and makes a name of it.
    ///
    /// # Errors
    /// [`InvalidName`] where the text breaks the rule above.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        let valid = text.len() <= NAME_BYTES_MAX
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if valid { Ok(Self(text)) } else { Err(InvalidName { text }) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses() {
        let longest = "a".repeat(NAME_BYTES_MAX);
        for good in ["a", "page_views", "v2", longest.as_str()] {
            assert_eq!(Name::new(good).expect("valid").as_str(), good);
        }
        let too_long = "a".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", "2a", "_a", "A", "a-b", "a/b", "../a", "a\0", "ä", "a b", "'; drop", too_long.as_str()] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
    }
}

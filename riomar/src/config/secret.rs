//! A value that shows nowhere.

use std::fmt;

use super::setting::{Notation, Setting};

/// What is shown in place of a secret.
const HIDDEN: &str = "***";

/// A text that is never printed; nothing for none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Option<String>);

impl Secret {
    /// The text, for whoever has to know it.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { HIDDEN } else { "none" })
    }
}

impl Setting for Secret {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self(None)),
            // What `config check` prints was pasted into a file.
            HIDDEN => Err(format!("{HIDDEN} only stands for a secret that is not shown: write the secret itself")),
            _ => Ok(Self(Some(text.to_owned()))),
        }
    }

    fn show(&self) -> String {
        self.0.as_ref().map_or_else(String::new, |_| HIDDEN.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_and_not_shown() {
        let secret = Secret::read("hunter2").expect("any text");
        assert_eq!(secret.text(), Some("hunter2"));
        assert_eq!((secret.show(), format!("{secret:?}")), (HIDDEN.to_owned(), HIDDEN.to_owned()));
        assert!(Secret::read(HIDDEN).is_err());
        let none = Secret::read("").expect("none");
        assert_eq!((none.text(), none.show()), (None, String::new()));
        assert_eq!(none, Secret::default());
    }
}

//! Errors in the users' SQL definitions, with the place they stand at.

use std::fmt;

use datafusion::sql::sqlparser::tokenizer::Location;

use crate::name::NAME_BYTES_MAX;

/// The longest name of a stream or a view, in bytes: what is derived from it is a [`crate::Name`] as well.
pub const DEFINED_NAME_BYTES_MAX: usize = 48;
/// What is added to a stream's name for the log of its quarantine; no definition's name may end in it.
pub const QUARANTINE_SUFFIX: &str = "__quarantine";

const _: () = assert!(DEFINED_NAME_BYTES_MAX + QUARANTINE_SUFFIX.len() <= NAME_BYTES_MAX);

/// A definition that was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct DefinitionError {
    /// The file it stands in.
    pub file: String,
    /// Line, counted from 1; 0 where the file as a whole is meant.
    pub line: u64,
    /// Column in characters, counted from 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
    /// What to do instead, where that can be said.
    pub hint: Option<String>,
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// What is wrong with a statement, and where in its file; the catalog adds the file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, counted from 1; 0 when the place is not known more closely than the statement.
    pub line: u64,
    /// Column in characters, counted from 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
    /// What to do instead.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem at a place that the SQL parser knows; an empty location means the statement.
    #[must_use]
    pub fn at(location: Location, message: impl Into<String>) -> Self {
        Self { line: location.line, column: location.column, message: message.into(), hint: None }
    }

    /// Says what to do instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same problem at `location`, where it has no place of its own.
    #[must_use]
    pub fn or_at(mut self, location: Location) -> Self {
        if self.line == 0 {
            (self.line, self.column) = (location.line, location.column);
        }
        self
    }

    /// The error in `file`, at `statement` where the problem has no place of its own.
    #[must_use]
    pub fn in_file(self, file: &str, statement: Location) -> DefinitionError {
        let Self { line, column, message, hint } = self.or_at(statement);
        DefinitionError { file: file.to_owned(), line, column, message, hint }
    }
}

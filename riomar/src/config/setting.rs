//! Types that a configuration value may have: each reads itself from text and writes itself back.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use riomar_batch_layer::schedule::Schedule;

use super::units::{ByteSize, Interval};

/// How a value is written in `riomar.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// A quoted string.
    String,
    /// A whole number.
    Integer,
}

/// A type of configuration value.
pub trait Setting: Sized {
    /// How it is written in `riomar.toml`.
    const NOTATION: Notation;

    /// Reads it from text.
    ///
    /// # Errors
    /// What was expected, in words.
    fn read(text: &str) -> Result<Self, String>;

    /// Writes it as [`Setting::read`] reads it.
    fn show(&self) -> String;
}

/// Nothing that can be configured makes sense as zero, and a limit of zero would lock everybody out.
fn not_zero<T>(value: T, zero: bool) -> Result<T, String> {
    if zero { Err("it must be greater than zero".to_owned()) } else { Ok(value) }
}

impl Setting for Interval {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        let interval: Self = text.parse().map_err(|error: super::units::UnitError| error.to_string())?;
        not_zero(interval, interval.duration().is_zero())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for ByteSize {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        let size: Self = text.parse().map_err(|error: super::units::UnitError| error.to_string())?;
        not_zero(size, size.bytes() == 0)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for u64 {
    const NOTATION: Notation = Notation::Integer;

    fn read(text: &str) -> Result<Self, String> {
        let number = text.replace('_', "").parse().map_err(|_| format!("'{text}' is not a whole number"))?;
        not_zero(number, number == 0)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for usize {
    const NOTATION: Notation = Notation::Integer;

    fn read(text: &str) -> Result<Self, String> {
        Self::try_from(u64::read(text)?).map_err(|_| format!("'{text}' is too large for this machine"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Setting for PathBuf {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a path may not be empty".to_owned()) } else { Ok(Self::from(text)) }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// A file that need not be there; nothing names none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OptionalPath(Option<PathBuf>);

impl OptionalPath {
    /// The file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

impl Setting for OptionalPath {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        Ok(Self((!text.is_empty()).then(|| PathBuf::from(text))))
    }

    fn show(&self) -> String {
        self.0.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

impl Setting for SocketAddr {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        let text = text.replace("localhost:", "127.0.0.1:");
        text.parse().map_err(|_| format!("'{text}' is not an address: write IP:PORT, such as 127.0.0.1:8080"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for Schedule {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: riomar_batch_layer::BatchError| error.to_string())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

//! Durations and sizes as they are written in a configuration: `"1m30s"`, `"16MiB"`. A bare number is refused: its unit would be a guess.

use std::{fmt, str::FromStr, time::Duration};

/// A length of time with millisecond precision: `"250ms"`, `"1m"`, `"1h30m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(Duration);

/// A number of bytes: `"512B"`, `"4MiB"` (1024 based), `"10MB"` (1000 based).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// Why a text is no duration or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("'{0}' is not a duration: write a number with ms, s, m, h or d, such as \"500ms\" or \"1h30m\"")]
    Interval(String),
    /// Not a size.
    #[error("'{0}' is not a size: write a whole number with B, KiB, MiB, GiB, kB, MB or GB, such as \"16MiB\"")]
    ByteSize(String),
}

/// Units of time in milliseconds, the largest first.
const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of size in bytes that a size is displayed in, the largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Units of size that are read but never written.
const DECIMAL_SIZE_UNITS: [(&str, u64); 3] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];

impl Interval {
    /// A number of milliseconds.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// A number of seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The same as a [`Duration`].
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// The same in milliseconds.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl ByteSize {
    /// A number of bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A number of mebibytes.
    #[must_use]
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as an index of memory.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Splits `"30s…"` into its number, its unit and what follows.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number = text[..digits].parse().ok()?;
    let text = text[digits..].trim_start();
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    Some((number, &text[..end], text[end..].trim_start()))
}

fn milliseconds(text: &str) -> Option<u64> {
    let (mut rest, mut sum, mut below) = (text.trim(), 0_u64, u64::MAX);
    while !rest.is_empty() {
        let (number, unit, tail) = number_and_unit(rest)?;
        let unit_ms = TIME_UNITS.iter().find(|(name, _)| *name == unit)?.1;
        // Larger units come first and none twice: "1m1h" is a slip, not a duration.
        if unit_ms >= below {
            return None;
        }
        sum = sum.checked_add(number.checked_mul(unit_ms)?)?;
        (rest, below) = (tail, unit_ms);
    }
    (below != u64::MAX).then_some(sum)
}

fn bytes(text: &str) -> Option<u64> {
    let (number, unit, rest) = number_and_unit(text.trim())?;
    let unit_bytes = SIZE_UNITS.iter().chain(&DECIMAL_SIZE_UNITS).find(|(name, _)| *name == unit)?.1;
    if rest.is_empty() { number.checked_mul(unit_bytes) } else { None }
}

impl FromStr for Interval {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        milliseconds(text).map(Self::from_millis).ok_or_else(|| UnitError::Interval(text.to_owned()))
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        bytes(text).map(Self).ok_or_else(|| UnitError::ByteSize(text.to_owned()))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, unit_ms) in TIME_UNITS {
            if rest >= unit_ms {
                write!(f, "{}{unit}", rest / unit_ms)?;
                rest %= unit_ms;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |(_, unit_bytes): &&(&str, u64)| self.0 >= *unit_bytes && self.0.is_multiple_of(*unit_bytes);
        let (unit, unit_bytes) = SIZE_UNITS.iter().find(exact).copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / unit_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_durations() {
        for (text, milliseconds, canonical) in [
            ("250ms", 250, "250ms"),
            ("90s", 90_000, "1m30s"),
            ("1m", 60_000, "1m"),
            ("1h 30m", 5_400_000, "1h30m"),
            ("2d", 172_800_000, "2d"),
            ("0s", 0, "0s"),
        ] {
            let interval: Interval = text.parse().expect(text);
            assert_eq!(interval, Interval::from_millis(milliseconds), "{text}");
            assert_eq!(interval.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(interval), "what is written can be read");
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in ["", "5", "m", "1 week", "1.5s", "-1s", "1m1h", "1s2s", "99999999999999999999s", "999999999999999d", "1s!"] {
            assert_eq!(text.parse::<Interval>(), Err(UnitError::Interval(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn reads_and_writes_sizes() {
        for (text, bytes, canonical) in [
            ("512B", 512, "512B"),
            ("16MiB", 16 << 20, "16MiB"),
            ("16 MiB", 16 << 20, "16MiB"),
            ("1536KiB", 1536 << 10, "1536KiB"),
            ("2048KiB", 2 << 20, "2MiB"),
            ("3GiB", 3 << 30, "3GiB"),
            ("10MB", 10_000_000, "10000000B"),
            ("0B", 0, "0B"),
        ] {
            let size: ByteSize = text.parse().expect(text);
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(size), "what is written can be read");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in ["", "5", "MiB", "1.5MiB", "-1B", "1mib", "1MiB2B", "99999999999999999999B", "99999999999GiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(UnitError::ByteSize(text.to_owned())), "{text}");
        }
    }
}

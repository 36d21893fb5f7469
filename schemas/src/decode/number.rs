//! Numbers, from the text of a JSON literal.

use super::violation::{Fault, OUT_OF_RANGE, TYPE_MISMATCH, excerpt};
use crate::stream::DECIMAL_PRECISION_MAX;

/// Whether a JSON value is a number.
pub(super) fn is_number(json: &str) -> bool {
    json.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// The integer that a JSON number without fraction and exponent means; a fault where it has one, or is too large.
pub(super) fn integer(json: &str) -> Result<i64, Fault> {
    if json.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        let detail = format!("expected an integer without fraction and exponent, found {}", excerpt(json));
        return Err(Fault::new(TYPE_MISMATCH, detail));
    }
    json.parse().map_err(|_| Fault::new(OUT_OF_RANGE, format!("{} is not a 64-bit integer", excerpt(json))))
}

/// The double nearest to a JSON number.
pub(super) fn double(json: &str) -> Result<f64, Fault> {
    match json.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(Fault::new(OUT_OF_RANGE, format!("{} is beyond every finite DOUBLE", excerpt(json)))),
    }
}

/// A decimal number as it is written: the digits without leading and trailing zeros, times a power of ten.
#[derive(Debug)]
pub(super) struct Decimal<'a> {
    text: &'a str,
    negative: bool,
    /// The digits before the point, and those behind it, zeros at the outer ends cut off.
    digits: (&'a str, &'a str),
    /// The value is the digits, read as an integer, times ten to this power.
    exponent: i64,
}

impl<'a> Decimal<'a> {
    /// Reads `[-]digits[.digits][e[±]digits]`.
    pub fn read(text: &'a str) -> Option<Self> {
        let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |unsigned| (true, unsigned));
        let (mantissa, power) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, power_of_ten(power)?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) if is_digits(fraction) => (whole, fraction),
            Some(_) => return None,
            None => (mantissa, ""),
        };
        if !is_digits(whole) {
            return None;
        }
        let mut whole = whole.trim_start_matches('0');
        let mut fraction = fraction.trim_end_matches('0');
        let exponent = if fraction.is_empty() {
            let digits = whole.len();
            whole = whole.trim_end_matches('0');
            power.saturating_add(length(digits - whole.len()))
        } else {
            power.saturating_sub(length(fraction.len()))
        };
        if whole.is_empty() {
            fraction = fraction.trim_start_matches('0');
        }
        Some(Self { text, negative, digits: (whole, fraction), exponent })
    }

    /// The value times ten to the power of `scale`, if it is an integer of at most `precision` digits.
    pub fn scaled(&self, precision: u8, scale: u8) -> Result<i128, Fault> {
        let (whole, fraction) = self.digits;
        let digits = whole.len() + fraction.len();
        if digits == 0 {
            return Ok(0);
        }
        let shift = self.exponent.saturating_add(i64::from(scale));
        let refused = |what: String| Err(Fault::new(OUT_OF_RANGE, format!("{} has more than {what}", excerpt(self.text))));
        if shift < 0 {
            return refused(format!("{scale} digits behind the point"));
        }
        let Some(power) = u32::try_from(shift).ok().filter(|power| length(digits) + i64::from(*power) <= i64::from(precision))
        else {
            return refused(format!("{} digits before the point", precision - scale));
        };
        debug_assert!(precision <= DECIMAL_PRECISION_MAX, "10^38 is below 2^127, so nothing below overflows");
        let magnitude = whole.bytes().chain(fraction.bytes()).fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
        let magnitude = magnitude * 10_i128.pow(power);
        Ok(if self.negative { -magnitude } else { magnitude })
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The power behind `e`; one that no integer holds is as good as the largest.
fn power_of_ten(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = is_digits(digits).then(|| digits.parse().unwrap_or(i64::MAX))?;
    Some(if negative { -magnitude } else { magnitude })
}

fn length(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(OUT_OF_RANGE)),
            ("5.0", Err(TYPE_MISMATCH)),
            ("1e3", Err(TYPE_MISMATCH)),
            ("1E3", Err(TYPE_MISMATCH)),
        ] {
            assert_eq!(integer(text).map_err(|fault| fault.code), expected, "{text}");
        }
    }

    #[test]
    fn doubles_are_the_nearest() {
        // These three are off by one unit in fast, inexact parsers.
        for (text, expected) in [
            ("5.0e-324", 5.0e-324),
            ("9007199254740993", 9_007_199_254_740_992.0),
            ("0.000001", 1e-6),
            ("-0.0", -0.0),
            ("1e-400", 0.0),
        ] {
            assert_eq!(double(text).map(f64::to_bits).map_err(|fault| fault.code), Ok(f64::to_bits(expected)), "{text}");
        }
        assert_eq!(double("1e400").map_err(|fault| fault.code), Err(OUT_OF_RANGE));
        assert_eq!(double("-1e400").map_err(|fault| fault.code), Err(OUT_OF_RANGE));
    }

    #[test]
    fn decimals_are_exact() {
        let many_nines = "9".repeat(38);
        let too_many = "9".repeat(39);
        for (text, precision, scale, expected) in [
            ("0", 5, 2, Some(Ok(0))),
            ("-0.00", 5, 2, Some(Ok(0))),
            ("12.34", 5, 2, Some(Ok(1234))),
            ("-12.3", 5, 2, Some(Ok(-1230))),
            ("12.340", 5, 2, Some(Ok(1234))),
            ("12.345", 5, 2, Some(Err(OUT_OF_RANGE))),
            ("999.99", 5, 2, Some(Ok(99_999))),
            ("1000", 5, 2, Some(Err(OUT_OF_RANGE))),
            ("1.234e1", 5, 2, Some(Ok(1234))),
            ("1234e-2", 5, 2, Some(Ok(1234))),
            ("100e-2", 5, 2, Some(Ok(100))),
            ("0.001e3", 5, 2, Some(Ok(100))),
            ("0.1", 38, 38, Some(Ok(10_i128.pow(37)))),
            (many_nines.as_str(), 38, 0, Some(Ok(10_i128.pow(38) - 1))),
            (too_many.as_str(), 38, 0, Some(Err(OUT_OF_RANGE))),
            ("1e99999999999999999999", 38, 0, Some(Err(OUT_OF_RANGE))),
            ("1e-99999999999999999999", 38, 0, Some(Err(OUT_OF_RANGE))),
            ("0e99999999999999999999", 38, 0, Some(Ok(0))),
            ("0012.50", 5, 2, Some(Ok(1250))),
            ("100200300", 9, 0, Some(Ok(100_200_300))),
            ("10.0203", 9, 4, Some(Ok(100_203))),
            ("0.1234567890123456789", 20, 19, Some(Ok(1_234_567_890_123_456_789))),
            ("", 5, 2, None),
            ("-", 5, 2, None),
            (".5", 5, 2, None),
            ("5.", 5, 2, None),
            ("+5", 5, 2, None),
            ("5e", 5, 2, None),
            ("5e+", 5, 2, None),
            ("1 2", 5, 2, None),
            ("NaN", 5, 2, None),
            ("٣", 5, 2, None),
        ] {
            let found = Decimal::read(text).map(|decimal| decimal.scaled(precision, scale).map_err(|fault| fault.code));
            assert_eq!(found, expected, "{text}");
        }
    }
}

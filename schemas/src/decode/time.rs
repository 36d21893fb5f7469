//! Timestamps and dates.

use std::ops::RangeInclusive;

use chrono::{Datelike, NaiveDate};

use super::violation::{Fault, INVALID_DATE, INVALID_TIMESTAMP, OUT_OF_RANGE, excerpt};

/// The timestamps there are, years 0001 to 9999, in microseconds since 1970-01-01 UTC.
pub(crate) const TIMESTAMPS_US: RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// `NaiveDate::num_days_from_ce` of 1970-01-01.
const EPOCH_DAY: i32 = 719_163;
const SECONDS_A_DAY: i64 = 86_400;
const MICROSECONDS_A_SECOND: i64 = 1_000_000;

/// The microseconds since 1970-01-01 UTC that an RFC 3339 text with an offset means.
///
/// Digits finer than a microsecond are cut off, which is towards the past before 1970 too. A leap second is the first second of
/// the next day, as in POSIX time.
pub(super) fn timestamp_us(text: &str) -> Result<i64, Fault> {
    let Some(time_us) = rfc_3339_us(text.as_bytes()) else {
        let detail = format!("expected RFC 3339 with an offset, such as 2026-01-31T12:00:00.5Z, found {}", excerpt(text));
        return Err(Fault::new(INVALID_TIMESTAMP, detail));
    };
    in_range(time_us, text)
}

/// The microseconds since 1970-01-01 UTC of `milliseconds`.
pub(super) fn timestamp_of_milliseconds_us(milliseconds: i64) -> Result<i64, Fault> {
    let text = || milliseconds.to_string();
    match milliseconds.checked_mul(1_000) {
        Some(time_us) => in_range(time_us, &text()),
        None => Err(out_of_range(&text())),
    }
}

/// The days since 1970-01-01 that a text `YYYY-MM-DD` means.
pub(super) fn date_days(text: &str) -> Result<i32, Fault> {
    match civil_days(text.as_bytes()) {
        Some(days) if TIMESTAMPS_US.contains(&(i64::from(days) * SECONDS_A_DAY * MICROSECONDS_A_SECOND)) => Ok(days),
        Some(_) => Err(out_of_range(text)),
        None => Err(Fault::new(INVALID_DATE, format!("expected YYYY-MM-DD, found {}", excerpt(text)))),
    }
}

fn in_range(time_us: i64, text: &str) -> Result<i64, Fault> {
    if TIMESTAMPS_US.contains(&time_us) { Ok(time_us) } else { Err(out_of_range(text)) }
}

fn out_of_range(text: &str) -> Fault {
    Fault::new(OUT_OF_RANGE, format!("{} is outside the years 0001 to 9999", excerpt(text)))
}

fn rfc_3339_us(text: &[u8]) -> Option<i64> {
    let (date, time) = text.split_at_checked(10)?;
    let days = i64::from(civil_days(date)?);
    let [b'T' | b't' | b' ', h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = time else { return None };
    let (hour, minute, second) = (two(*h1, *h2, 23)?, two(*m1, *m2, 59)?, two(*s1, *s2, 60)?);
    let (fraction_us, zone) = fraction_us(rest)?;
    let offset_seconds = match zone {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let offset = two(*h1, *h2, 23)? * 3_600 + two(*m1, *m2, 59)? * 60;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    let seconds = days * SECONDS_A_DAY + hour * 3_600 + minute * 60 + second - offset_seconds;
    // Leap seconds are inserted at the end of a day in UTC and nowhere else.
    if second == 60 && seconds.rem_euclid(SECONDS_A_DAY) != 0 {
        return None;
    }
    Some(seconds * MICROSECONDS_A_SECOND + fraction_us)
}

/// The fraction of a second at the head of `text`, if there is one, and what stands behind it.
fn fraction_us(text: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.', digits @ ..] = text else { return Some((0, text)) };
    let length = digits.iter().take_while(|digit| digit.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let (digits, rest) = digits.split_at(length);
    let kept = digits.iter().chain(std::iter::repeat(&b'0')).take(6);
    Some((kept.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')), rest))
}

fn civil_days(text: &[u8]) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = two(*y1, *y2, 99)? * 100 + two(*y3, *y4, 99)?;
    let number = |value: i64| u32::try_from(value).ok();
    let (month, day) = (number(two(*m1, *m2, 12)?)?, number(two(*d1, *d2, 31)?)?);
    Some(NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?.num_days_from_ce() - EPOCH_DAY)
}

/// Two digits, if they are digits and not above `max`.
fn two(tens: u8, ones: u8, max: i64) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    let value = i64::from(tens) * 10 + i64::from(ones);
    (tens <= 9 && ones <= 9 && value <= max).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Ok(0)),
            ("1970-01-01t00:00:00z", Ok(0)),
            ("1970-01-01 00:00:00+00:00", Ok(0)),
            ("1970-01-01T01:30:00+01:30", Ok(0)),
            ("1969-12-31T22:30:00-01:30", Ok(0)),
            ("2026-11-20T10:00:00.123456Z", Ok(1_795_168_800_123_456)),
            ("2026-11-20T10:00:00.1234569Z", Ok(1_795_168_800_123_456)),
            ("2026-11-20T10:00:00.5Z", Ok(1_795_168_800_500_000)),
            ("1969-12-31T23:59:59.9999999Z", Ok(-1)),
            ("1969-12-31T23:59:59.0000009Z", Ok(-1_000_000)),
            ("2016-12-31T23:59:60Z", Ok(1_483_228_800_000_000)),
            ("2017-01-01T00:59:60+01:00", Ok(1_483_228_800_000_000)),
            ("0001-01-01T00:00:00Z", Ok(*TIMESTAMPS_US.start())),
            ("9999-12-31T23:59:59.999999999Z", Ok(*TIMESTAMPS_US.end())),
            ("0000-12-31T23:59:59Z", Err(OUT_OF_RANGE)),
            ("0001-01-01T00:00:00+00:01", Err(OUT_OF_RANGE)),
            ("9999-12-31T23:59:59-00:01", Err(OUT_OF_RANGE)),
            ("2016-12-31T12:00:60Z", Err(INVALID_TIMESTAMP)),
            ("2026-02-29T00:00:00Z", Err(INVALID_TIMESTAMP)),
            ("2026-11-20T24:00:00Z", Err(INVALID_TIMESTAMP)),
            ("2026-11-20T10:00:00", Err(INVALID_TIMESTAMP)),
            ("2026-11-20T10:00:00.Z", Err(INVALID_TIMESTAMP)),
            ("2026-11-20T10:00Z", Err(INVALID_TIMESTAMP)),
            ("2026-11-20T10:00:00+0100", Err(INVALID_TIMESTAMP)),
            ("2026-11-20T10:00:00+01:60", Err(INVALID_TIMESTAMP)),
            ("2026-11-20T10:00:00ZZ", Err(INVALID_TIMESTAMP)),
            ("+2026-11-20T10:00:00Z", Err(INVALID_TIMESTAMP)),
            ("2026-1é-20T10:00:00Z", Err(INVALID_TIMESTAMP)),
            ("2026-11-20", Err(INVALID_TIMESTAMP)),
            ("", Err(INVALID_TIMESTAMP)),
        ] {
            assert_eq!(timestamp_us(text).map_err(|fault| fault.code), expected, "{text}");
        }
        assert_eq!(timestamp_of_milliseconds_us(-1), Ok(-1_000));
        for outside in [253_402_300_800_000, -62_135_596_800_001, i64::MAX, i64::MIN] {
            assert_eq!(timestamp_of_milliseconds_us(outside).map_err(|fault| fault.code), Err(OUT_OF_RANGE));
        }
    }

    #[test]
    fn dates() {
        for (text, expected) in [
            ("1970-01-01", Ok(0)),
            ("1969-12-31", Ok(-1)),
            ("2024-02-29", Ok(19_782)),
            ("0001-01-01", Ok(-719_162)),
            ("9999-12-31", Ok(2_932_896)),
            ("0000-12-31", Err(OUT_OF_RANGE)),
            ("2023-02-29", Err(INVALID_DATE)),
            ("2023-2-01", Err(INVALID_DATE)),
            ("2023-00-01", Err(INVALID_DATE)),
            ("2023-01-00", Err(INVALID_DATE)),
            ("2023/01/01", Err(INVALID_DATE)),
            ("2023-01-01T00:00:00Z", Err(INVALID_DATE)),
        ] {
            assert_eq!(date_days(text).map_err(|fault| fault.code), expected, "{text}");
        }
    }
}

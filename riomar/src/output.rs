//! Writing for people: tables, numbers, ages, and text that came from events.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
};

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

/// A line below the headings, and space between the columns: nothing else to read around.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Writes to the standard output and flushes it.
///
/// # Errors
/// Whatever writing reports; [`io::ErrorKind::BrokenPipe`] where the reader, such as `head`, has gone.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes one line to the standard error, which holds what is not the answer itself. Where nobody reads it, nothing is lost.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A table with these headings; columns in `numbers` are aligned to the right.
pub fn table(headings: &[&str], numbers: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let cell = |(index, text): (usize, String)| {
        let alignment = if numbers.contains(&index) { CellAlignment::Right } else { CellAlignment::Left };
        Cell::new(text).set_alignment(alignment)
    };
    let mut table = Table::new();
    table.load_style(STYLE);
    // On a terminal a long cell is folded within its column; in a file a row stays a line.
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(console::Term::stdout().size().1);
    }
    table.set_header(headings.iter().map(ToString::to_string).enumerate().map(cell));
    for row in rows {
        table.add_row(row.into_iter().enumerate().map(cell).collect::<Vec<_>>());
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A number with its digits in groups of three: `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes for people: `1.4 MiB`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "shown with one digit behind the point")]
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A length of time for people: `340 ms`, `4.2 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "shown with one digit behind the point")]
pub fn duration_ms(milliseconds: i64) -> String {
    let seconds = milliseconds / 1_000;
    match milliseconds {
        ..=999 => format!("{milliseconds} ms"),
        1_000..=59_999 => format!("{:.1} s", milliseconds as f64 / 1_000.0),
        60_000..=3_599_999 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600_000..=86_399_999 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Text that came from elsewhere, safe to show on a terminal: control characters, which could move the cursor or hide text, are
/// written as escapes.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        // Direction marks may make a line read as something else than it is.
        let misleading = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || misleading {
            // Writing to a string cannot fail.
            let _ = write!(safe, "{}", character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// At most `width` characters, the last one `…` where something was cut off.
#[must_use]
pub fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345, "12,345"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn sizes_and_durations_read_well() {
        for (count, text) in [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (1 << 50, "1024.0 TiB")] {
            assert_eq!(bytes(count), text);
        }
        for (milliseconds, text) in [
            (0, "0 ms"),
            (340, "340 ms"),
            (4_200, "4.2 s"),
            (185_000, "3 min 5 s"),
            (7_800_000, "2 h 10 min"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(duration_ms(milliseconds), text);
        }
    }

    #[test]
    fn a_hostile_event_cannot_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\nc\u{202e}"), "a\\u{1b}[2Jb\\r\\nc\\u{202e}");
        assert_eq!(printable("Grüße 漢字 🙂"), "Grüße 漢字 🙂");
    }

    #[test]
    fn long_text_is_shortened_by_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
    }

    #[test]
    fn a_table_has_its_numbers_on_the_right() {
        let text =
            table(&["path", "hits"], &[1], [vec!["/".to_owned(), "7".to_owned()], vec!["/docs".to_owned(), "1234".to_owned()]]);
        assert!(text.lines().any(|line| line.ends_with("   7")), "{text}");
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
    }
}

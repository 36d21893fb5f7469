//! What the demo shows: a table that is drawn anew in place, or one line where there is no terminal.

use std::fmt::Write as _;

use super::{STREAM, VIEW};
use crate::{command::status::Account, command::status::lateness_ms, output};

/// One minute of the view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Minute {
    /// The start of the window, as the platform writes it.
    pub window_start: String,
    /// Hits in the batch view and in the realtime view, where the platform tells them apart.
    pub parts: Option<(u64, u64)>,
    /// Hits, merged.
    pub hits: u64,
    /// Distinct visitors, merged; approximate.
    pub visitors: u64,
    /// Bytes, merged.
    pub bytes: u64,
}

/// Everything that is shown at one moment.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// Where the platform is.
    pub url: String,
    /// How long the demo has been running, in milliseconds.
    pub running_ms: i64,
    /// The latest minutes, the newest first.
    pub minutes: Vec<Minute>,
    /// The generation and the cut of the answer; the age of the generation is not in the receipt.
    pub generation: u64,
    /// The cut that the generation ends at.
    pub cut: u64,
    /// What the answer lacks, in words.
    pub degraded: Vec<String>,
    /// The median time from acknowledgement to visibility, in milliseconds.
    pub fresh_ms: Option<i64>,
    /// The stream's account, once it is known.
    pub account: Option<Account>,
    /// What went wrong last, while it does.
    pub trouble: Option<String>,
}

impl Frame {
    /// The frame as a table, for a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{VIEW} at {}, running for {}\n\n", self.url, output::duration_ms(self.running_ms));
        let with_parts = self.minutes.iter().any(|minute| minute.parts.is_some());
        let headings: &[&str] = match with_parts {
            true => &["minute (UTC)", "batch", "realtime", "merged hits", "visitors", "bytes"],
            false => &["minute (UTC)", "merged hits", "visitors", "bytes"],
        };
        let row = |minute: &Minute| {
            let mut row = vec![clock_time(&minute.window_start)];
            if with_parts {
                let (batch, realtime) = minute
                    .parts
                    .map_or_else(Default::default, |(batch, realtime)| (output::grouped(batch), output::grouped(realtime)));
                row.extend([batch, realtime]);
            }
            row.extend([
                output::grouped(minute.hits),
                format!("~{}", output::grouped(minute.visitors)),
                output::bytes(minute.bytes),
            ]);
            row
        };
        let numbers: Vec<usize> = (1..headings.len()).collect();
        text.push_str(&output::table(headings, &numbers, self.minutes.iter().map(row)));
        // Writing to a string cannot fail.
        let [received, accepted] = self.account();
        let _ = write!(text, "\n{}\n{received}\n{accepted}\n", self.freshness());
        for line in self.degraded.iter().chain(&self.trouble) {
            let _ = writeln!(text, "! {}", output::printable(line));
        }
        text
    }

    /// The frame as one line, for files and pipes.
    #[must_use]
    pub fn line(&self) -> String {
        let newest = self
            .minutes
            .first()
            .map(|minute| format!("{} {} hits", clock_time(&minute.window_start), output::grouped(minute.hits)));
        let troubles: String =
            self.degraded.iter().chain(&self.trouble).map(|line| format!("; ! {}", output::printable(line))).collect();
        let running = output::duration_ms(self.running_ms);
        format!(
            "{running}: {}; {}; {}{troubles}\n",
            newest.unwrap_or_else(|| "no hits yet".to_owned()),
            self.freshness(),
            self.account().join("; ")
        )
    }

    fn freshness(&self) -> String {
        let fresh = match self.fresh_ms {
            Some(fresh_ms) => format!("acknowledged events are visible after {}", output::duration_ms(fresh_ms)),
            None => "freshness not measured yet".to_owned(),
        };
        match self.generation {
            0 => format!("no generation yet: all of it realtime; {fresh}"),
            generation => format!("generation {generation}, cut {}; {fresh}", self.cut),
        }
    }

    /// The account: what was received, and what became of what was accepted.
    fn account(&self) -> [String; 2] {
        let Some(account) = &self.account else { return [format!("{STREAM}: no account yet"), String::new()] };
        let number = output::grouped;
        let late = match account.late.count {
            0 => String::new(),
            count => format!("; {} of them late, by up to {}", number(count), output::duration_ms(lateness_ms(&account.late))),
        };
        let check = if account.adds_up { "" } else { "; DOES NOT ADD UP" };
        let received = format!(
            "{STREAM}: {} received = {} accepted + {} quarantined + {} rejected",
            number(account.received),
            number(account.accepted),
            number(account.quarantined),
            number(account.rejected),
        );
        let accepted = format!(
            "{} accepted = {} landed + {} duplicates + {} in flight{late}{check}",
            number(account.accepted),
            number(account.landed),
            number(account.duplicates),
            number(account.in_flight),
        );
        [received, accepted]
    }
}

/// `2026-11-20T10:04:00Z` as `10:04`.
fn clock_time(timestamp: &str) -> String {
    timestamp.get(11..16).unwrap_or(timestamp).to_owned()
}

/// Draws frames one over the other.
#[derive(Debug, Default)]
pub struct Screen {
    drawn_lines: usize,
}

impl Screen {
    /// What to write so that `text` takes the place of what was drawn before. `width` is the terminal's: longer lines are cut, since a
    /// line that wraps would be two when the cursor goes back.
    #[must_use]
    pub fn redraw(&mut self, text: &str, width: usize) -> String {
        let mut drawing = String::new();
        if self.drawn_lines > 0 {
            // Up to the first line, and everything below it is cleared.
            let _ = write!(drawing, "\x1b[{}A\x1b[J", self.drawn_lines);
        }
        let mut lines = 0;
        for line in text.lines() {
            drawing.push_str(&output::shortened(line, width));
            drawing.push('\n');
            lines += 1;
        }
        self.drawn_lines = lines;
        drawing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        let minute =
            |hits, parts| Minute { window_start: "2026-11-20T10:04:00Z".to_owned(), parts, hits, visitors: 402, bytes: 3 << 20 };
        let account = Account {
            received: 1_234,
            accepted: 1_200,
            quarantined: 34,
            landed: 1_100,
            duplicates: 40,
            in_flight: 60,
            adds_up: true,
            ..Account::default()
        };
        Frame {
            url: "http://x".to_owned(),
            running_ms: 42_000,
            minutes: vec![minute(1_215, Some((1_203, 12)))],
            generation: 3,
            cut: 4,
            fresh_ms: Some(180),
            account: Some(account),
            ..Frame::default()
        }
    }

    #[test]
    fn a_frame_shows_both_parts_the_merge_and_the_account() {
        let table = frame().table();
        for expected in [
            "batch",
            "realtime",
            "10:04",
            "1,203",
            "12",
            "1,215",
            "~402",
            "3.0 MiB",
            "generation 3, cut 4",
            "180 ms",
            "1,234 received = 1,200 accepted + 34 quarantined",
        ] {
            assert!(table.contains(expected), "{expected} in\n{table}");
        }
        assert!(!table.contains("DOES NOT ADD UP"));
    }

    #[test]
    fn without_parts_only_the_merge_is_shown() {
        let mut frame = frame();
        frame.minutes[0].parts = None;
        frame.account.iter_mut().for_each(|account| account.adds_up = false);
        frame.trouble = Some("sending fails".to_owned());
        let table = frame.table();
        assert!(!table.contains("realtime") && table.contains("merged hits"), "{table}");
        assert!(table.contains("DOES NOT ADD UP") && table.contains("! sending fails"), "{table}");
    }

    #[test]
    fn without_a_terminal_a_frame_is_one_line() {
        let line = frame().line();
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.contains("10:04 1,215 hits") && line.contains("generation 3"), "{line}");
        assert!(Frame::default().line().contains("no hits yet"));
    }

    #[test]
    fn a_drawing_takes_the_place_of_the_one_before() {
        let mut screen = Screen::default();
        assert_eq!(screen.redraw("a\nb\n", 80), "a\nb\n");
        assert_eq!(screen.redraw("c\n", 80), "\x1b[2A\x1b[Jc\n");
        assert_eq!(screen.redraw("abcdef\n", 4), "\x1b[1A\x1b[Jabc…\n");
    }
}

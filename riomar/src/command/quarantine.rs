//! `riomar quarantine STREAM`: the events that were not accepted, with the reason.

use clap::Args;
use serde::Deserialize;

use super::{CommandError, Outcome};
use crate::{cli::ClientArgs, output};

/// Characters of a raw event and of a reason that are shown; `--json` has all of it.
const SHOWN_WIDTH: usize = 60;

/// Arguments of `quarantine`.
#[derive(Debug, Args)]
pub struct QuarantineArgs {
    /// The stream
    pub stream: String,
    /// Entries to show, the oldest first
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub limit: u64,
    /// Begin behind the entry with this offset
    #[arg(long, value_name = "OFFSET")]
    pub after: Option<u64>,
    /// Where the platform is, and how to print.
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Deserialize)]
struct Page {
    entries: Vec<Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    offset: u64,
    received_at: String,
    kind: String,
    events: u64,
    code: String,
    pointer: String,
    detail: String,
    raw: Option<String>,
    raw_base64: Option<String>,
}

/// Runs `quarantine`.
///
/// # Errors
/// A stream that does not exist, or a platform that does not answer.
pub async fn run(args: QuarantineArgs) -> Result<Outcome, CommandError> {
    let (limit, after) = (args.limit.to_string(), args.after.map(|offset| offset.to_string()));
    let mut query = vec![("limit", limit.as_str())];
    query.extend(after.as_deref().map(|offset| ("after", offset)));
    let answer = args.client.client()?.get(&["v1", "streams", &args.stream, "quarantine"], &query).await?;
    let page: Page = answer.read()?;
    if args.client.json {
        output::print(&format!("{}\n", answer.text.trim_end()))?;
        return Ok(Outcome::Done);
    }
    if page.entries.is_empty() {
        output::print(&format!(
            "nothing of {} is in quarantine{}\n",
            args.stream,
            if args.after.is_some() { " behind that" } else { "" }
        ))?;
        return Ok(Outcome::Done);
    }
    let headings = ["offset", "received", "events", "code", "at", "what is wrong", "event"];
    output::print(&output::table(&headings, &[0, 2], page.entries.iter().map(Entry::row)))?;
    if let Some(last) = page.entries.last().filter(|_| page.entries.len() as u64 == args.limit) {
        output::note(&format!("more: riomar quarantine {} --after {}", args.stream, last.offset));
    }
    Ok(Outcome::Done)
}

impl Entry {
    fn row(&self) -> Vec<String> {
        let shown = |text: &str| output::shortened(&output::printable(text), SHOWN_WIDTH);
        let event = match (&self.raw, &self.raw_base64) {
            (Some(raw), _) => shown(raw),
            (None, Some(base64)) => format!("base64:{}", shown(base64)),
            (None, None) => format!("({}, not kept)", shown(&self.kind)),
        };
        let (events, offset) = (output::grouped(self.events), self.offset.to_string());
        vec![offset, self.received_at.clone(), events, shown(&self.code), shown(&self.pointer), shown(&self.detail), event]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_shows_its_reason_and_its_event_without_driving_the_terminal() {
        let text = r#"{"entries":[
            {"offset":7,"received_at":"2026-11-20T10:00:00.000Z","kind":"quarantined","events":1,"code":"type_mismatch","pointer":"/ts",
             "detail":"expected a timestamp","raw":"{\"ts\":\"\u001b[2J\"}"},
            {"offset":8,"received_at":"2026-11-20T10:00:01.000Z","kind":"rejected","events":12,"code":"too_large","pointer":"","detail":"too large"}],
            "next":null}"#;
        let page: Page = serde_json::from_str(text).expect("page");
        assert_eq!(
            page.entries[0].row(),
            ["7", "2026-11-20T10:00:00.000Z", "1", "type_mismatch", "/ts", "expected a timestamp", "{\"ts\":\"\\u{1b}[2J\"}"]
        );
        assert_eq!(page.entries[1].row()[6], "(rejected, not kept)");
    }
}

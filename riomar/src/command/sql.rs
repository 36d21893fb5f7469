//! `riomar sql "…"`: runs a query. Rows go to the standard output, the receipt to the standard error.

use std::io::Read;

use clap::Args;
use riomar_schemas::Receipt;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{CommandError, Outcome};
use crate::{cli::ClientArgs, output};

/// Arguments of `sql`.
#[derive(Debug, Args)]
pub struct SqlArgs {
    /// The query; - reads it from the standard input
    #[arg(value_name = "SQL")]
    pub sql: String,
    /// Where the platform is, and how to print.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// An answer. Cells keep their text, so that no digit of a number is lost.
#[derive(Debug, Deserialize)]
pub struct Rows<'a> {
    columns: Vec<Column>,
    #[serde(borrow)]
    rows: Vec<Vec<&'a RawValue>>,
    receipt: Receipt,
}

#[derive(Debug, Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    column_type: String,
}

/// Runs `sql`.
///
/// # Errors
/// A query that the platform refuses, or a platform that does not answer.
pub async fn run(args: SqlArgs) -> Result<Outcome, CommandError> {
    let sql = match args.sql.as_str() {
        "-" => standard_input()?,
        sql => sql.to_owned(),
    };
    let answer = args.client.client()?.sql(&sql).await?;
    let rows: Rows<'_> = answer.read()?;
    if args.client.json {
        output::print(&format!("{}\n", answer.text.trim_end()))?;
        return Ok(Outcome::Done);
    }
    output::print(&rows.table())?;
    output::note(&receipt_lines(&rows.receipt));
    Ok(Outcome::Done)
}

fn standard_input() -> Result<String, CommandError> {
    let mut sql = String::new();
    std::io::stdin()
        .read_to_string(&mut sql)
        .map_err(|error| CommandError::Other(format!("reading the query failed: {error}")))?;
    Ok(sql)
}

impl Rows<'_> {
    /// The rows as a table for people.
    fn table(&self) -> String {
        let headings: Vec<String> = self.columns.iter().map(|column| output::printable(&column.name)).collect();
        let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
        let numbers: Vec<usize> =
            (0..).zip(&self.columns).filter(|(_, column)| column.is_number()).map(|(index, _)| index).collect();
        let rows = self.rows.iter().map(|row| row.iter().map(|cell| cell_text(cell)).collect());
        let count = self.rows.len();
        let noun = if count == 1 { "row" } else { "rows" };
        format!("{}({} {noun})\n", output::table(&headings, &numbers, rows), output::grouped(count as u64))
    }
}

impl Column {
    fn is_number(&self) -> bool {
        let name = self.column_type.to_lowercase();
        ["int", "float", "decimal", "double", "real", "numeric"].iter().any(|number| name.contains(number))
            && !name.contains("interval")
    }
}

/// A cell as people read it: text without its quotation marks, everything else as it came.
fn cell_text(cell: &RawValue) -> String {
    let text = match cell.get() {
        "null" => String::new(),
        quoted if quoted.starts_with('"') => serde_json::from_str(quoted).unwrap_or_else(|_| quoted.to_owned()),
        other => other.to_owned(),
    };
    output::printable(&text)
}

/// What an answer contains, one line for each view and stream it read, and one for each thing it lacks.
pub fn receipt_lines(receipt: &Receipt) -> String {
    let mut lines = Vec::new();
    let through = |positions: &mut dyn Iterator<Item = String>| positions.collect::<Vec<_>>().join(" ");
    for (name, view) in &receipt.views {
        let positions = through(&mut view.through.iter().map(|(partition, offset)| format!("{partition}:{offset}")));
        let watermark = view.watermark.as_deref().map(|time| format!("; watermark {time}")).unwrap_or_default();
        let stream = &view.stream;
        lines.push(format!(
            "{name}: generation {}, cut {}; every event of {stream} before {positions}{watermark}",
            view.generation, view.cut
        ));
    }
    for (name, stream) in &receipt.streams {
        let positions = through(&mut stream.through.iter().map(|(partition, offset)| format!("{partition}:{offset}")));
        lines.push(format!("{name}: master dataset version {}; every event before {positions}", stream.version));
    }
    for lack in &receipt.degraded {
        let partitions = lack.partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let place = if partitions.is_empty() { String::new() } else { format!(" partitions {partitions}") };
        lines.push(format!("degraded: {} {}{place}: {}", lack.code, lack.view, output::printable(&lack.detail)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"columns":[{"name":"path","type":"VARCHAR"},{"name":"hits","type":"BIGINT"},{"name":"share","type":"DECIMAL(38,20)"}],
        "rows":[["/a\u001b[2J",9223372036854775807,0.12345678901234567890],[null,-1,null]],
        "receipt":{"views":{"traffic_by_minute":{"stream":"page_views","generation":41,"cut":42,"through":{"0":1234,"1":1180},
        "watermark":"2026-11-20T10:00:00Z"}},"degraded":[{"code":"realtime_rebuilding","view":"traffic_by_minute","partitions":[1],"detail":"answers end at the cut"}]}}"#;

    #[test]
    fn numbers_keep_every_digit_and_text_cannot_drive_the_terminal() {
        let rows: Rows<'_> = serde_json::from_str(ANSWER).expect("answer");
        let table = rows.table();
        for expected in ["9223372036854775807", "0.12345678901234567890", "/a\\u{1b}[2J", "(2 rows)"] {
            assert!(table.contains(expected), "{expected} in {table}");
        }
    }

    #[test]
    fn the_receipt_says_what_the_answer_contains_and_lacks() {
        let rows: Rows<'_> = serde_json::from_str(ANSWER).expect("answer");
        let lines = receipt_lines(&rows.receipt);
        let expected = "traffic_by_minute: generation 41, cut 42; every event of page_views before 0:1234 1:1180; watermark 2026-11-20T10:00:00Z\n\
                        degraded: realtime_rebuilding traffic_by_minute partitions 1: answers end at the cut";
        assert_eq!(lines, expected);
    }
}

//! `riomar send STREAM FILE|-`: sends events, one JSON object a line.

use std::{os::fd::AsFd, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use riomar_event_log::Clock;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};

use super::{CommandError, Outcome, interrupted};
use crate::{
    cli::ClientArgs,
    client::{
        Client, LineError,
        send::{Progress, SendError, Sender, Totals},
    },
    config::Interval,
    output,
};

/// How many events that were not accepted are explained; the others are only counted.
const ERRORS_SHOWN: usize = 10;
/// The same with `--json`.
const ERRORS_LISTED: usize = 100;
/// Bytes read from the input at a time.
const READ_BYTES: usize = 256 << 10;

/// Arguments of `send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// The stream
    pub stream: String,
    /// The file, one JSON object a line; - for the standard input. A line longer than 4 MiB is not sent and counts as rejected
    pub file: PathBuf,
    /// How long a request is tried again while the platform cannot be reached or is overloaded
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    pub retry_for: Interval,
    /// Where the platform is, and how to print.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// The part of a stream's definition that tells whether events may be sent twice.
#[derive(Debug, Deserialize)]
struct Definition {
    dedup_by: Option<String>,
}

/// What to say of sending the same file again, as far as the platform can be asked. A stream that does not exist ends the matter
/// before the file is read.
async fn sending_again(client: &Client, stream: &str) -> Result<Option<String>, CommandError> {
    let definition: Definition = match client.read(&["v1", "streams", stream]).await {
        Ok(definition) => definition,
        // Sending tries again for as long as it was asked to; asking need not.
        Err(error) if error.retry().is_some() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(match definition.dedup_by {
        Some(id) => format!("Sending the same file again is safe: duplicates are recognised by {id}"),
        None => format!("Do not just send the file again: {stream} declares no dedup_by, and what has arrived would count twice"),
    }))
}

type Input = Pin<Box<dyn AsyncBufRead + Send>>;

/// What sending came to so far.
#[derive(Debug, Default)]
struct Sent {
    totals: Totals,
    bytes: u64,
    elapsed_ms: i64,
    /// Why the first events were not accepted.
    errors: Vec<LineError>,
    /// What to say of sending the same file again.
    again: Option<String>,
}

/// Runs `send`. With `--json`, whatever happens is told in the one document on the standard output.
///
/// # Errors
/// A file that cannot be read, or a platform that refuses or does not answer.
pub async fn run(args: SendArgs, clock: Arc<dyn Clock>) -> Result<Outcome, CommandError> {
    let mut sent = Sent::default();
    let ended = send(&args, clock, &mut sent).await;
    if args.client.json {
        output::print(&format!("{}\n", document(&args, &sent, &ended)))?;
        let done = matches!(ended, Ok(Some(()))) && sent.totals.all_accepted();
        return Ok(if done { Outcome::Done } else { Outcome::Incomplete });
    }
    if matches!(ended, Ok(_) | Err(CommandError::Send(_))) {
        output::print(&summary(&sent))?;
    }
    match ended {
        Ok(Some(())) if sent.totals.all_accepted() => Ok(Outcome::Done),
        Ok(Some(())) => {
            output::note(&format!("see why: riomar quarantine {}", args.stream));
            Ok(Outcome::Incomplete)
        }
        Ok(None) => {
            output::note(&format!("interrupted. {}", sent.again.unwrap_or_default()));
            Ok(Outcome::Incomplete)
        }
        Err(error) => {
            if matches!(error, CommandError::Send(_)) {
                output::note(&format!("not everything was sent. {}", sent.again.unwrap_or_default()));
            }
            Err(error)
        }
    }
}

/// Sends the file; `None` where it was interrupted.
async fn send(args: &SendArgs, clock: Arc<dyn Clock>, sent: &mut Sent) -> Result<Option<()>, CommandError> {
    let (mut input, size) = open(&args.file).await?;
    refuse_other_formats(&mut input, args).await?;
    let client = args.client.client()?;
    sent.again = sending_again(&client, &args.stream).await?;
    let sender = Sender { client, clock: Arc::clone(&clock), retry_for: args.retry_for.duration() };
    let bar = progress_bar(size);
    let started_ms = clock.now_ms();
    let kept = if args.client.json { ERRORS_LISTED } else { ERRORS_SHOWN };
    let sending = sender.send(&args.stream, input, |progress: Progress<'_>| {
        sent.totals = progress.totals.clone();
        sent.bytes += progress.bytes;
        bar.set_position(sent.bytes);
        bar.set_message(format!("{} events", output::grouped(sent.totals.received)));
        for error in progress.errors.iter().take(kept - sent.errors.len()) {
            if !args.client.json {
                bar.suspend(|| explain(error));
            }
            sent.errors.push(error.clone());
        }
    });
    let ended = tokio::select! {
        result = sending => Some(result),
        () = interrupted() => None,
    };
    bar.finish_and_clear();
    sent.elapsed_ms = clock.now_ms() - started_ms;
    Ok(ended.transpose()?.map(drop))
}

async fn open(file: &PathBuf) -> Result<(Input, Option<u64>), CommandError> {
    if file.as_os_str() == "-" {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned();
        let stdin = stdin.map_err(|error| CommandError::Other(format!("the standard input cannot be read: {error}")))?;
        return Ok((Box::pin(BufReader::with_capacity(READ_BYTES, tokio::fs::File::from_std(stdin.into()))), None));
    }
    let failed = |error: std::io::Error| CommandError::Other(format!("{} cannot be read: {error}", file.display()));
    let opened = tokio::fs::File::open(file).await.map_err(failed)?;
    let metadata = opened.metadata().await.map_err(failed)?;
    if metadata.is_dir() {
        return Err(CommandError::Other(format!("{} is a directory: name a file", file.display())));
    }
    // A pipe has no length.
    let size = metadata.is_file().then_some(metadata.len());
    Ok((Box::pin(BufReader::with_capacity(READ_BYTES, opened)), size))
}

/// Every line of a file in another format would end up in quarantine; that is never what was meant.
async fn refuse_other_formats(input: &mut Input, args: &SendArgs) -> Result<(), CommandError> {
    let beginning = input.fill_buf().await.map_err(|error| CommandError::Other(format!("reading failed: {error}")))?;
    let (file, stream) = (args.file.display(), &args.stream);
    let advice = match beginning {
        [0x1f, 0x8b, ..] => format!("{file} is compressed: gunzip -c {file} | riomar send {stream} -"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => format!("{file} is compressed: zstd -dc {file} | riomar send {stream} -"),
        [b'P', b'A', b'R', b'1', ..] => format!("{file} is a Parquet file: send one JSON object a line"),
        text if text.trim_ascii_start().starts_with(b"[") => {
            format!("{file} is a JSON array: jq -c '.[]' {file} | riomar send {stream} -")
        }
        _ => return Ok(()),
    };
    Err(CommandError::Other(advice))
}

fn progress_bar(size: Option<u64>) -> ProgressBar {
    // Drawn on the standard error, and hidden where that is no terminal.
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {msg}  eta {eta}"),
        None => (ProgressBar::no_length(), "{spinner} {bytes}  {bytes_per_sec}  {msg}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn explain(error: &LineError) {
    let (pointer, detail) = (output::printable(&error.pointer), output::printable(&error.detail));
    let place = if pointer.is_empty() { String::new() } else { format!(" at '{pointer}'") };
    output::note(&format!("line {}: {}{place}: {}", error.line, output::printable(&error.code), output::shortened(&detail, 200)));
}

/// Events in a second.
fn pace(sent: &Sent) -> u64 {
    sent.totals.received.saturating_mul(1_000) / sent.elapsed_ms.max(1).unsigned_abs()
}

/// What is told with `--json`.
fn document(args: &SendArgs, sent: &Sent, ended: &Result<Option<()>, CommandError>) -> Value {
    let totals = &sent.totals;
    let error = match ended {
        Ok(Some(())) => Value::Null,
        Ok(None) => json!({"code": "interrupted", "detail": "sending was interrupted"}),
        Err(error) => json!({"code": code(error), "detail": error.to_string()}),
    };
    json!({
        "stream": args.stream, "received": totals.received, "accepted": totals.accepted, "quarantined": totals.quarantined,
        "rejected": totals.rejected, "bytes": sent.bytes, "elapsed_ms": sent.elapsed_ms, "events_per_second": pace(sent),
        "errors": sent.errors, "error": error,
    })
}

fn code(error: &CommandError) -> &str {
    match error {
        CommandError::Client(error) | CommandError::Send(SendError::Platform(error)) => error.code(),
        _ => "input",
    }
}

/// What is told to people.
fn summary(sent: &Sent) -> String {
    let totals = &sent.totals;
    format!(
        "received {}: {} accepted, {} quarantined, {} rejected\n{} in {}: {} events/s\n",
        output::grouped(totals.received),
        output::grouped(totals.accepted),
        output::grouped(totals.quarantined),
        output::grouped(totals.rejected),
        HumanBytes(sent.bytes),
        output::duration_ms(sent.elapsed_ms.max(1)),
        output::grouped(pace(sent)),
    )
}

//! `riomar send STREAM FILE|-`: sends events, one JSON object a line.

use std::{os::fd::AsFd, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use riomar_event_log::Clock;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};

use super::{CommandError, Outcome, interrupted};
use crate::{
    cli::ClientArgs,
    client::{
        Client, LineError,
        send::{Progress, Sender, Totals},
    },
    config::Interval,
    output,
};

/// How many events that were not accepted are explained; the others are only counted.
const ERRORS_SHOWN: usize = 10;
/// Bytes read from the input at a time.
const READ_BYTES: usize = 256 << 10;

/// Arguments of `send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// The stream
    pub stream: String,
    /// The file, one JSON object a line; - for the standard input
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

/// Runs `send`.
///
/// # Errors
/// A file that cannot be read, or a platform that refuses or does not answer.
pub async fn run(args: SendArgs, clock: Arc<dyn Clock>) -> Result<Outcome, CommandError> {
    let (mut input, size) = open(&args.file).await?;
    refuse_other_formats(&mut input, &args).await?;
    let client = args.client.client()?;
    let safe = sending_again(&client, &args.stream).await?;
    let sender = Sender { client, clock: Arc::clone(&clock), retry_for: args.retry_for.duration() };
    let bar = progress_bar(size);
    let started_ms = clock.now_ms();
    let (mut totals, mut bytes, mut shown) = (Totals::default(), 0_u64, 0_usize);
    let sending = sender.send(&args.stream, input, |progress: Progress<'_>| {
        totals = progress.totals.clone();
        bytes += progress.bytes;
        bar.set_position(bytes);
        bar.set_message(format!("{} events", output::grouped(totals.received)));
        let room = ERRORS_SHOWN.saturating_sub(shown);
        progress.errors.iter().take(room).for_each(|error| bar.suspend(|| explain(error)));
        shown += progress.errors.len().min(room);
    });
    let ended = tokio::select! {
        result = sending => Some(result),
        () = interrupted() => None,
    };
    bar.finish_and_clear();
    let elapsed_ms = clock.now_ms() - started_ms;
    report(&args, &totals, bytes, elapsed_ms)?;
    match ended {
        Some(Ok(_)) if totals.all_accepted() => Ok(Outcome::Done),
        Some(Ok(_)) => {
            output::note(&format!("see why: riomar quarantine {}", args.stream));
            Ok(Outcome::Incomplete)
        }
        Some(Err(error)) => {
            output::note(&format!("not everything was sent. {}", safe.unwrap_or_default()));
            Err(error.into())
        }
        None => {
            output::note(&format!("interrupted. {}", safe.unwrap_or_default()));
            Ok(Outcome::Incomplete)
        }
    }
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

fn report(args: &SendArgs, totals: &Totals, bytes: u64, elapsed_ms: i64) -> Result<(), CommandError> {
    let elapsed_ms = elapsed_ms.max(1);
    let events_per_second = totals.received.saturating_mul(1_000) / elapsed_ms.unsigned_abs();
    if args.client.json {
        let answer = json!({
            "stream": args.stream, "received": totals.received, "accepted": totals.accepted, "quarantined": totals.quarantined,
            "rejected": totals.rejected, "bytes": bytes, "elapsed_ms": elapsed_ms, "events_per_second": events_per_second,
        });
        return Ok(output::print(&format!("{answer}\n"))?);
    }
    let text = format!(
        "received {}: {} accepted, {} quarantined, {} rejected\n{} in {}: {} events/s\n",
        output::grouped(totals.received),
        output::grouped(totals.accepted),
        output::grouped(totals.quarantined),
        output::grouped(totals.rejected),
        HumanBytes(bytes),
        output::duration_ms(elapsed_ms),
        output::grouped(events_per_second),
    );
    Ok(output::print(&text)?)
}

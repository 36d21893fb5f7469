//! Sending a file: several requests at a time, each tried again until it is answered or a deadline has passed.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use riomar_event_log::Clock;
use tokio::io::AsyncBufRead;

use super::{
    Client, ClientError, LineError, SendAnswer,
    chunks::{Chunk, Chunks},
};

/// Requests that are under way at the same time.
const REQUESTS_IN_FLIGHT: usize = 3;
/// The first wait before a request is tried again; it doubles from then on.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// The longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Why sending ended early.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The input cannot be read.
    #[error("reading failed: {0}")]
    Input(#[from] std::io::Error),
    /// The platform refused for good, or did not answer until the deadline.
    #[error(transparent)]
    Platform(#[from] ClientError),
}

/// What became of everything that was sent so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Events that the platform received, and lines too long to be sent.
    pub received: u64,
    /// Events that are durable in the log.
    pub accepted: u64,
    /// Events that are durable in quarantine.
    pub quarantined: u64,
    /// Events that broke a limit and are not kept.
    pub rejected: u64,
}

impl Totals {
    /// Whether nothing was left behind.
    #[must_use]
    pub fn all_accepted(&self) -> bool {
        self.received == self.accepted
    }
}

/// What is told of one answered request.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Bytes of the input that the request stood for.
    pub bytes: u64,
    /// All answers so far, this one included.
    pub totals: &'a Totals,
    /// What was wrong with events of this request, with their lines in the input.
    pub errors: &'a [LineError],
}

/// How a file is sent.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The platform.
    pub client: Client,
    /// Paces the tries.
    pub clock: Arc<dyn Clock>,
    /// How long one request is tried again.
    pub retry_for: Duration,
}

impl Sender {
    /// Sends every line of `input` to `stream` and reports each answer, in the order of the input.
    ///
    /// # Errors
    /// [`SendError`]; what was answered before stays in the log, and in the last progress report.
    pub async fn send<R>(&self, stream: &str, input: R, mut report: impl FnMut(Progress<'_>)) -> Result<Totals, SendError>
    where
        R: AsyncBufRead + Unpin + Send,
    {
        let chunks = stream::try_unfold(Chunks::new(input), async |mut chunks| {
            Ok::<_, SendError>(chunks.next().await?.map(|chunk| (chunk, chunks)))
        });
        let answers = chunks.map(|chunk| async { self.send_chunk(stream, chunk?).await }).buffered(REQUESTS_IN_FLIGHT);
        let mut answers = std::pin::pin!(answers);
        let mut totals = Totals::default();
        while let Some(answer) = answers.next().await {
            let (bytes, answer) = answer?;
            totals.received += answer.received;
            totals.accepted += answer.accepted;
            totals.quarantined += answer.quarantined;
            totals.rejected += answer.rejected;
            report(Progress { bytes, totals: &totals, errors: &answer.errors });
        }
        Ok(totals)
    }

    async fn send_chunk(&self, stream: &str, chunk: Chunk) -> Result<(u64, SendAnswer), SendError> {
        let started_ms = self.clock.now_ms();
        let mut backoff = BACKOFF_FIRST;
        let answer = loop {
            let error = match self.client.send(stream, chunk.body.clone()).await {
                Ok(answer) => break answer,
                Err(error) => error,
            };
            let Some(asked) = error.retry() else { return Err(error.into()) };
            let wait = asked.unwrap_or(backoff).max(backoff);
            let waited = Duration::from_millis(u64::try_from(self.clock.now_ms() - started_ms).unwrap_or_default());
            if waited + wait > self.retry_for {
                return Err(error.into());
            }
            tracing::debug!(%error, wait_ms = wait.as_millis(), "a request is tried again");
            self.clock.sleep(wait).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        };
        Ok((chunk.bytes_read, in_the_input(&chunk, answer)))
    }
}

/// Turns lines of a request into lines of the input, and counts the lines that were too long to be sent as rejected.
fn in_the_input(chunk: &Chunk, mut answer: SendAnswer) -> SendAnswer {
    for error in &mut answer.errors {
        error.line += chunk.first_line - 1;
    }
    for line in &chunk.too_long {
        answer.received += 1;
        answer.rejected += 1;
        let detail = format!(
            "the line is longer than the {} MiB of one request, and no event may be that long; it was not sent, the lines behind it are",
            super::chunks::CHUNK_BYTES_MAX >> 20
        );
        answer.errors.push(LineError { line: *line, code: "line_too_long".to_owned(), pointer: String::new(), detail });
    }
    answer.errors.sort_by_key(|error| error.line);
    answer
}

#[cfg(test)]
mod tests;

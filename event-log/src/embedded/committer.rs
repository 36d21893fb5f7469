//! The committer: the one thread that writes.
//!
//! It takes the append that has waited longest and all that wait behind it, up to [`GROUP_BYTES_MAX`], gives every record its
//! offset, and writes them with one durable commit. An append is never split over two commits. Offsets are taken only by a commit
//! that succeeded, so there are no gaps.
//!
//! After a commit that failed half-way nothing is written any more. What a failed fsync left on the disk is unknown, and asking
//! again would answer for nothing (the kernel forgets what it could not write); recovery reads what is really there.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use fjall::{UserKey, UserValue};
use riomar_schemas::{Name, Offset, PartitionId, record::RecordBody};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    codec::{self, PartitionKey},
    partitions::{Partition, StreamState, Streams},
};
use crate::{clock::Clock, error::LogError, log::PartitionBounds};

/// Bytes of event text after which a commit takes no more appends.
pub const GROUP_BYTES_MAX: usize = 32 << 20;

/// Where the committer writes.
pub trait Durable: Send + 'static {
    /// Writes rows all or none, and returns once they are durable and readers can find them. `commits` is the commit's number.
    ///
    /// # Errors
    /// [`CommitError`]: it says whether anything may have been written.
    fn commit(&self, commits: u64, rows: Vec<(UserKey, UserValue)>) -> Result<(), CommitError>;
}

/// Why a commit did not succeed.
#[derive(Debug)]
pub enum CommitError {
    /// Nothing was written; the next commit may succeed.
    Refused(LogError),
    /// Some of it may have been written, and may be on the disk.
    Failed(LogError),
}

/// What is told to everybody who waits for the same commit, or comes after one that ended half-way.
#[derive(Debug, Clone)]
struct Failure {
    cause: String,
    disk_full: bool,
    reopen: bool,
}

impl Failure {
    /// Without the words that the error's kind puts before its cause.
    fn of(error: LogError) -> Self {
        match error {
            LogError::Unavailable(cause) => Self { cause, disk_full: false, reopen: false },
            LogError::DiskFull { cause, reopen } => Self { cause, disk_full: true, reopen },
            other => Self { cause: other.to_string(), disk_full: false, reopen: false },
        }
    }

    fn error(&self) -> LogError {
        let cause = self.cause.clone();
        match self.disk_full {
            true => LogError::DiskFull { cause, reopen: self.reopen },
            false => LogError::Unavailable(cause),
        }
    }
}

/// Who waits for the answer to a command, and the share of the queue that the command takes until then.
#[derive(Debug)]
pub struct Reply<T> {
    sender: oneshot::Sender<Result<T, LogError>>,
    _room: OwnedSemaphorePermit,
}

impl<T> Reply<T> {
    /// A reply to this receiver.
    pub fn new(sender: oneshot::Sender<Result<T, LogError>>, room: OwnedSemaphorePermit) -> Self {
        Self { sender, _room: room }
    }

    fn send(self, answer: Result<T, LogError>) {
        // A caller that has gone away does not want to know.
        let _ = self.sender.send(answer);
    }
}

/// One append.
#[derive(Debug)]
pub struct Append {
    /// The records, each with its partition.
    pub records: Vec<(Arc<Partition>, RecordBody)>,
    /// Bytes of event text.
    pub bytes: usize,
    /// Takes the offset of each record.
    pub reply: Reply<Vec<Offset>>,
}

/// What the committer can be asked for.
#[derive(Debug)]
pub enum Command {
    /// Append records.
    Append(Append),
    /// Create the partitions of a stream, as far as they are not there.
    Create {
        /// The stream.
        stream: Name,
        /// How many partitions it shall have at least.
        partitions: u32,
        /// Takes the outcome.
        reply: Reply<()>,
    },
    /// Move the start of a partition; it is neither below the start nor above the end that the partition had.
    Trim {
        /// The partition.
        partition: Arc<Partition>,
        /// The new start.
        below: Offset,
        /// Takes the outcome.
        reply: Reply<()>,
    },
}

/// The committer's state.
pub struct Committer<D> {
    durable: D,
    streams: Arc<Streams>,
    clock: Arc<dyn Clock>,
    commands: mpsc::Receiver<Command>,
    /// A command that was taken from the queue but is no append of the group.
    held: Option<Command>,
    commits: u64,
    append_time_ms: i64,
    failed: Option<Failure>,
    buffer: Vec<u8>,
}

impl<D: Durable> Committer<D> {
    /// A committer that goes on behind commit number `commits`.
    pub fn new(
        durable: D,
        streams: Arc<Streams>,
        clock: Arc<dyn Clock>,
        commands: mpsc::Receiver<Command>,
        commits: u64,
        append_time_ms: i64,
    ) -> Self {
        Self { durable, streams, clock, commands, held: None, commits, append_time_ms, failed: None, buffer: Vec::new() }
    }

    /// Answers commands until nobody can send any more.
    pub fn run(mut self) {
        while let Some(command) = self.held.take().or_else(|| self.commands.blocking_recv()) {
            match command {
                Command::Append(append) => {
                    let group = self.gather(append);
                    self.append(group);
                }
                Command::Create { stream, partitions, reply } => {
                    let outcome = self.create(&stream, partitions);
                    reply.send(outcome);
                }
                Command::Trim { partition, below, reply } => {
                    let outcome = self.trim(&partition, below);
                    reply.send(outcome);
                }
            }
        }
    }

    /// The first append and those that wait behind it.
    fn gather(&mut self, first: Append) -> Vec<Append> {
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while self.held.is_none()
            && let Ok(command) = self.commands.try_recv()
        {
            match command {
                Command::Append(append) if bytes + append.bytes <= GROUP_BYTES_MAX => {
                    bytes += append.bytes;
                    group.push(append);
                }
                other => self.held = Some(other),
            }
        }
        group
    }

    fn append(&mut self, group: Vec<Append>) {
        let append_time_ms = self.append_time_ms.max(self.clock.now_ms());
        let mut ends: BTreeMap<PartitionKey, (Arc<Partition>, Offset)> = BTreeMap::new();
        let mut rows = Vec::with_capacity(1 + group.iter().map(|append| append.records.len()).sum::<usize>());
        let mut answers = Vec::with_capacity(group.len());
        for append in group {
            let mut offsets = Vec::with_capacity(append.records.len());
            for (partition, body) in append.records {
                let key = partition.key();
                let (_, end) = ends.entry(key).or_insert_with(|| {
                    let end = partition.latest().end;
                    (partition, end)
                });
                codec::encode_record(&body, append_time_ms, &mut self.buffer);
                rows.push((codec::record_key(key, *end).into(), self.buffer.as_slice().into()));
                offsets.push(*end);
                *end = end.next();
            }
            answers.push((append.reply, offsets));
        }
        match self.commit(rows, append_time_ms) {
            Ok(()) => {
                for (partition, end) in ends.into_values() {
                    partition.set_end(end);
                }
                for (reply, offsets) in answers {
                    reply.send(Ok(offsets));
                }
            }
            Err(error) => {
                let failure = Failure::of(error);
                for (reply, _) in answers {
                    reply.send(Err(failure.error()));
                }
            }
        }
    }

    fn create(&mut self, name: &Name, partitions: u32) -> Result<(), LogError> {
        let existing = self.streams.get(name);
        let have = self.streams.partitions(name);
        if existing.is_some() && have >= partitions {
            return Ok(());
        }
        let mut stream = existing.unwrap_or_else(|| StreamState { id: self.streams.next_id(), partitions: Vec::new() });
        let row = (codec::stream_key(name).into(), codec::encode_stream(stream.id, partitions).into());
        self.commit(vec![row], self.append_time_ms)?;
        stream.partitions.extend((have..partitions).map(|partition| {
            let key = PartitionKey { stream: stream.id, partition: PartitionId(partition) };
            Arc::new(Partition::new(key, PartitionBounds { start: Offset(0), end: Offset(0) }))
        }));
        self.streams.put(name.clone(), stream);
        Ok(())
    }

    fn trim(&mut self, partition: &Partition, below: Offset) -> Result<(), LogError> {
        // Another trim may have come first.
        if below <= partition.latest().start {
            return Ok(());
        }
        let row = (codec::start_key(partition.key()).into(), codec::encode_start(below).into());
        self.commit(vec![row], self.append_time_ms)?;
        partition.set_start(below);
        Ok(())
    }

    /// Commits rows, with the row that counts commits.
    fn commit(&mut self, mut rows: Vec<(UserKey, UserValue)>, append_time_ms: i64) -> Result<(), LogError> {
        if let Some(failure) = &self.failed {
            return Err(failure.error());
        }
        let commits = self.commits + 1;
        rows.push((codec::COMMIT_KEY.into(), codec::encode_commit(commits, append_time_ms).into()));
        match self.durable.commit(commits, rows) {
            Ok(()) => {
                (self.commits, self.append_time_ms) = (commits, append_time_ms);
                Ok(())
            }
            Err(CommitError::Refused(error)) => Err(error),
            Err(CommitError::Failed(error)) => {
                tracing::error!(%error, "a commit failed; the log accepts nothing until it is opened again");
                let failure = Failure::of(error);
                let cause = format!(
                    "a write failed ({}), and what it left on the disk is unknown: nothing is taken until it is opened again",
                    failure.cause
                );
                let failure = Failure { cause, reopen: true, ..failure };
                let error = failure.error();
                self.failed = Some(failure);
                Err(error)
            }
        }
    }
}

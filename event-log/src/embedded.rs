//! The embedded log, on `fjall`: one directory, one process, every acknowledged record on disk.
//!
//! ```text
//! {directory}/LOCK        held while the log is open; holds the pid of its holder
//! {directory}/COMMITTED   the number of the last commit: what recovery must not fall short of
//! {directory}/records/    the fjall database
//! ```
//!
//! One thread, the committer, writes. Appends that wait for it at the same time become one atomic fjall batch and one fsync, and
//! are acknowledged after it ([`committer`]). Readers never see a record that is not durable: fjall applies a batch after its
//! fsync, and a partition's end moves after that.
//!
//! What is damaged is reported, never skipped: fjall checks a checksum with every block it reads and every batch it recovers;
//! this module checks that offsets follow one another, and that recovery found every commit that was acknowledged.

mod codec;
mod committer;
mod lock;
mod partitions;
mod store;
mod witness;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread::JoinHandle,
};

use async_trait::async_trait;
use riomar_schemas::{Name, Offset, PartitionId, record::RecordBody};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    clock::Clock,
    error::LogError,
    log::{self, Log, PartitionBounds, QUEUE_BYTES_MAX, ReadLimit, ReadRecords},
    membership::Membership,
};
use committer::{Append, Command, Committer, Reply};
use partitions::{Partition, Streams};
use store::{SharedStore, Store};

/// Appends that may wait for the committer; more wait until there is room.
pub const QUEUE_APPENDS_MAX: usize = 1024;
/// Bytes that must stay free on the disk. Below it appends are refused, before a write can fail half-way: reading goes on, and
/// appends go on as soon as there is room again.
pub const DISK_FREE_BYTES_MIN: u64 = 128 << 20;

/// A log in one directory.
pub struct EmbeddedLog {
    directory: PathBuf,
    clock: Arc<dyn Clock>,
    streams: Arc<Streams>,
    store: SharedStore,
    /// Room in the queue. A command holds its share until it is answered, so the channel below is never full.
    room: Arc<Semaphore>,
    commands: RwLock<Option<mpsc::Sender<Command>>>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLog").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl EmbeddedLog {
    /// Opens the log in a directory, and creates both if they are not there. Blocks while it recovers what was written last.
    ///
    /// # Errors
    /// [`LogError::Locked`] where the directory is open already, here or in another process; [`LogError::Damaged`] where files
    /// cannot be read or acknowledged records are missing; [`LogError::Unavailable`] where the directory cannot be used.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        let (store, recovered) = Store::open(directory)?;
        let streams = Arc::new(Streams::default());
        for (name, stream) in recovered.streams {
            streams.put(name, stream);
        }
        let store = SharedStore::new(store);
        let (sender, receiver) = mpsc::channel(QUEUE_APPENDS_MAX);
        let committer =
            Committer::new(store.clone(), streams.clone(), clock.clone(), receiver, recovered.commits, recovered.append_time_ms);
        let committer = std::thread::Builder::new()
            .name("log-committer".into())
            .spawn(move || committer.run())
            .map_err(|error| LogError::Unavailable(format!("no thread can be started: {error}")))?;
        Ok(Self {
            directory: directory.to_owned(),
            clock,
            streams,
            store,
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            commands: RwLock::new(Some(sender)),
            committer: Mutex::new(Some(committer)),
        })
    }

    /// Closes the log: commits what was handed over, waits for reads that are under way, and lets go of the directory. Any call
    /// after it is answered with [`LogError::Unavailable`]. Dropping the log closes it too, but blocks the thread that drops it.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] where the runtime shuts down while it closes.
    pub async fn close(self: &Arc<Self>) -> Result<(), LogError> {
        let log = Arc::clone(self);
        blocking(move || {
            log.close_blocking();
            Ok(())
        })
        .await
    }

    fn close_blocking(&self) {
        drop(self.commands.write().unwrap_or_else(PoisonError::into_inner).take());
        let committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(committer) = committer
            && committer.join().is_err()
        {
            tracing::error!(directory = %self.directory.display(), "the log's committer panicked");
        }
        self.streams.close();
        self.store.close();
    }

    /// Hands a command to the committer and waits for its answer.
    async fn command<T>(&self, bytes: usize, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, LogError> {
        let share = bytes.max(QUEUE_BYTES_MAX / QUEUE_APPENDS_MAX);
        let share = u32::try_from(share.min(QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(share).await.map_err(|_| closed())?;
        let (sender, answer) = oneshot::channel();
        let reply = Reply::new(sender, room);
        // The sender never lives across an await: a caller that is not polled any more cannot keep the log from closing.
        match self.commands.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(sender) => sender.try_send(command(reply)).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => LogError::Unavailable("too many appends are waiting".into()),
                mpsc::error::TrySendError::Closed(_) => committer_gone(),
            })?,
            None => return Err(closed()),
        }
        answer.await.unwrap_or_else(|_| Err(committer_gone()))
    }

    fn partition(&self, stream: &Name, partition: PartitionId) -> Result<Arc<Partition>, LogError> {
        self.streams.partition(stream, partition).ok_or_else(|| LogError::UnknownPartition { stream: stream.clone(), partition })
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.close_blocking();
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn create(&self, stream: &Name, partitions: u32) -> Result<(), LogError> {
        log::check_partitions(partitions)?;
        let stream = stream.clone();
        self.command(0, |reply| Command::Create { stream, partitions, reply }).await
    }

    async fn append(&self, stream: &Name, records: Vec<(PartitionId, RecordBody)>) -> Result<Vec<Offset>, LogError> {
        let bytes = log::check_append(&records)?;
        let records = records
            .into_iter()
            .map(|(partition, body)| Ok((self.partition(stream, partition)?, body)))
            .collect::<Result<Vec<_>, LogError>>()?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.command(bytes, |reply| Command::Append(Append { records, bytes, reply })).await
    }

    async fn read(&self, stream: &Name, partition: PartitionId, from: Offset, limit: ReadLimit) -> Result<ReadRecords, LogError> {
        let state = self.partition(stream, partition)?;
        let out_of_range = |bounds: PartitionBounds| LogError::OutOfRange {
            stream: stream.clone(),
            partition,
            wanted: from,
            start: bounds.start,
            end: bounds.end,
        };
        let mut bounds = state.bounds()?;
        if from == bounds.end && limit.records > 0 && !limit.wait.is_zero() {
            tokio::select! {
                grown = state.grown_beyond(from) => bounds = grown?,
                () = self.clock.sleep(limit.wait) => bounds = state.bounds()?,
            }
        }
        if from < bounds.start || from > bounds.end {
            return Err(out_of_range(bounds));
        }
        if from == bounds.end || limit.records == 0 {
            return Ok(ReadRecords::none(from));
        }
        // On a thread that may block: a block that is not cached is read from disk, and decoding a full step takes milliseconds.
        let (store, key) = (self.store.clone(), state.key());
        let records = blocking(move || store.with(|store| store.read(key, from, bounds.end, limit))).await;
        if records.is_err() {
            // What looks like a gap may be a trim that ran while the records were read.
            let bounds = state.bounds()?;
            if bounds.start > from {
                return Err(out_of_range(bounds));
            }
        }
        let records = records?;
        Ok(ReadRecords { next: records.last().map_or(from, |record| record.offset.next()), records })
    }

    async fn bounds(&self, stream: &Name, partition: PartitionId) -> Result<PartitionBounds, LogError> {
        self.partition(stream, partition)?.bounds()
    }

    async fn partitions(&self, stream: &Name) -> Result<u32, LogError> {
        Ok(self.streams.partitions(stream))
    }

    async fn trim(&self, stream: &Name, partition: PartitionId, below: Offset) -> Result<(), LogError> {
        let state = self.partition(stream, partition)?;
        let PartitionBounds { start, end } = state.bounds()?;
        if below > end {
            return Err(LogError::OutOfRange { stream: stream.clone(), partition, wanted: below, start, end });
        }
        if below <= start {
            return Ok(());
        }
        let key = state.key();
        self.command(0, |reply| Command::Trim { partition: state, below, reply }).await?;
        let store = self.store.clone();
        blocking(move || {
            store.with(|store| {
                // The records are out of reach already; the next trim frees what this one did not.
                if let Err(error) = store.free_below(key, below) {
                    tracing::warn!(%error, "trimmed records still take room on the disk");
                }
                Ok(())
            })
        })
        .await
    }

    /// This process is the only one that has the log open, so it works on all partitions.
    async fn join(&self, _: &str, streams: &[Name]) -> Result<Membership, LogError> {
        self.streams.join(streams)
    }
}

/// Runs what may block on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, LogError> + Send + 'static) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(LogError::Damaged(format!("reading it failed: {error}"))),
        Err(_) => Err(LogError::Unavailable("the process is shutting down".into())),
    }
}

fn closed() -> LogError {
    LogError::Unavailable("it is closed".into())
}

fn committer_gone() -> LogError {
    LogError::Unavailable("its committer stopped: open it again".into())
}

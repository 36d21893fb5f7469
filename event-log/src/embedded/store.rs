//! The fjall database of a log: opening and recovering it, reading ranges, writing commits.
//!
//! Everything is in one keyspace. So there is one memtable however many partitions there are, and a journal is let go of as soon
//! as that memtable is flushed.

use std::{
    collections::HashMap,
    io::ErrorKind,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use fjall::{
    AbstractTree, Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode, UserKey, UserValue,
    compaction::Leveled,
    config::{BlockSizePolicy, FilterPolicy},
};
use riomar_schemas::{Name, Offset, PartitionId, record::Record};

use super::{
    DISK_FREE_BYTES_MIN, closed,
    codec::{self, PartitionKey},
    committer::{CommitError, Durable},
    lock::DirectoryLock,
    partitions::{Partition, StreamState},
    witness::{self, Witness},
};
use crate::{
    disk,
    error::LogError,
    log::{self, PartitionBounds, ReadLimit},
};

/// Bytes of records in memory before they are flushed to a file.
const MEMTABLE_BYTES_MAX: u64 = 32 << 20;
/// Bytes of one file of records: trimming frees whole files.
const FILE_BYTES: u64 = 32 << 20;
/// Bytes of journals, which is what recovery reads again.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;
/// Bytes of blocks kept in memory for readers that are behind.
const BLOCK_CACHE_BYTES_MAX: u64 = 32 << 20;
/// Bytes of one block on disk: readers read many records in order.
const BLOCK_BYTES: u32 = 16 << 10;

/// An open database and the lock of its directory.
pub struct Store {
    // In the order in which they are let go of: the lock last.
    keyspace: Keyspace,
    database: Database,
    witness: Mutex<Witness>,
    directory: PathBuf,
    _lock: DirectoryLock,
}

/// What was found in a directory.
pub struct Recovered {
    /// The streams.
    pub streams: Vec<(Name, StreamState)>,
    /// The number of commits.
    pub commits: u64,
    /// The last append time, in milliseconds since 1970-01-01 UTC.
    pub append_time_ms: i64,
}

impl Store {
    /// Opens, or creates, the database in a directory.
    ///
    /// # Errors
    /// See [`super::EmbeddedLog::open`].
    pub fn open(directory: &Path) -> Result<(Self, Recovered), LogError> {
        std::fs::create_dir_all(directory).map_err(|error| io_error(directory, &error))?;
        let lock = DirectoryLock::take(directory)?;
        let (mut witness, witnessed) = Witness::open(directory)?;
        let records = directory.join("records");
        remove_unfinished(&records, witnessed)?;
        let database = open_database(&records)?;
        sync_directory(directory)?;
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE_BYTES_MAX)
                .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(FILE_BYTES)))
                .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
                .filter_policy(FilterPolicy::disabled())
        };
        let keyspace = database.keyspace("log", options).map_err(|error| fjall_error(&error))?;
        let recovered = recover(&keyspace)?;
        if recovered.commits < witnessed {
            return Err(LogError::Damaged(format!(
                "{} tells of {witnessed} commits, but only {} are left: restore a backup (removing {} accepts the loss)",
                directory.display(),
                recovered.commits,
                witness::FILE,
            )));
        }
        let path = directory.join(witness::FILE);
        witness.record(recovered.commits).and_then(|()| witness.sync()).map_err(|error| io_error(&path, &error))?;
        let store = Self { keyspace, database, witness: Mutex::new(witness), directory: directory.to_owned(), _lock: lock };
        Ok((store, recovered))
    }

    /// The records of `[from, end)`, as far as the limit goes. `end` is not beyond what is held.
    ///
    /// # Errors
    /// [`LogError::Damaged`] where a record cannot be read or is not there.
    pub fn read(&self, of: PartitionKey, from: Offset, end: Offset, limit: ReadLimit) -> Result<Vec<Record>, LogError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut expected = from;
        for row in self.keyspace.range(codec::record_key(of, from)..codec::record_key(of, end)) {
            let (key, value) = row.into_inner().map_err(|error| fjall_error(&error))?;
            if codec::record_offset(&key) != Some(expected) {
                break;
            }
            let (append_time_ms, body) = codec::decode_record(&value)
                .ok_or_else(|| LogError::Damaged(format!("the record at offset {expected} has no known format")))?;
            bytes += log::body_bytes(&body);
            if !records.is_empty() && bytes > limit.bytes {
                return Ok(records);
            }
            records.push(Record { offset: expected, append_time_ms, body });
            expected = expected.next();
            if records.len() >= limit.records {
                return Ok(records);
            }
        }
        if expected < end {
            return Err(LogError::Damaged(format!("the record at offset {expected} is missing")));
        }
        Ok(records)
    }

    /// Frees what records below an offset take on disk. Whole files only: what shares a file with other rows, as everything does
    /// until compaction sorts it by partition, stays out of reach until a later trim. (One tombstone a record would cost almost
    /// as much as the record did.)
    ///
    /// # Errors
    /// [`LogError::Unavailable`] where files cannot be removed.
    pub fn free_below(&self, of: PartitionKey, below: Offset) -> Result<(), LogError> {
        let range = codec::record_key(of, Offset(0))..codec::record_key(of, below);
        self.keyspace.tree.drop_range(range).map_err(|error| fjall_error(&error.into()))
    }

    /// Flushes memory and sorts it into files of this size, as happens by itself when enough has been written.
    #[cfg(test)]
    pub fn compact(&self, file_bytes: u64) {
        self.keyspace.rotate_memtable_and_wait().expect("flushes");
        self.keyspace.tree.major_compact(file_bytes, 0).expect("compacts");
    }

    /// Bytes that the records' files take, and how many of their records can still be found.
    #[cfg(test)]
    pub fn held(&self) -> (u64, usize) {
        (self.keyspace.disk_space(), self.keyspace.len().expect("reads"))
    }

    fn commit(&self, commits: u64, rows: Vec<(UserKey, UserValue)>) -> Result<(), CommitError> {
        let bytes = rows.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() as u64;
        self.check_disk(bytes).map_err(CommitError::Refused)?;
        // fjall applies the rows to memory, where readers find them, only after the fsync.
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for (key, value) in rows {
            batch.insert(&self.keyspace, key, value);
        }
        batch.commit().map_err(|error| CommitError::Failed(fjall_error(&error)))?;
        if let Err(error) = self.witness.lock().unwrap_or_else(PoisonError::into_inner).record(commits) {
            tracing::warn!(%error, "the commit is durable, but its number could not be written beside it");
        }
        Ok(())
    }

    fn check_disk(&self, bytes: u64) -> Result<(), LogError> {
        let free = disk::free_bytes(&self.directory).map_err(|error| {
            LogError::Unavailable(format!("the free space of {} is unknown: {error}", self.directory.display()))
        })?;
        if free < DISK_FREE_BYTES_MIN.saturating_add(bytes) {
            let cause = format!(
                "the disk of {} has {free} bytes left, DISK_FREE_BYTES_MIN is {DISK_FREE_BYTES_MIN}: make room, send again",
                self.directory.display(),
            );
            return Err(LogError::DiskFull { cause, reopen: false });
        }
        Ok(())
    }
}

/// A store that can be closed while others still know of it.
#[derive(Clone)]
pub struct SharedStore(Arc<RwLock<Option<Store>>>);

impl SharedStore {
    /// Shares a store.
    pub fn new(store: Store) -> Self {
        Self(Arc::new(RwLock::new(Some(store))))
    }

    /// Works with the store, which stays open meanwhile.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] once it is closed; whatever the work reports.
    pub fn with<T>(&self, work: impl FnOnce(&Store) -> Result<T, LogError>) -> Result<T, LogError> {
        work(self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().ok_or_else(closed)?)
    }

    /// Waits for the work that is under way, then closes the database and lets go of the directory.
    pub fn close(&self) {
        drop(self.0.write().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Durable for SharedStore {
    fn commit(&self, commits: u64, rows: Vec<(UserKey, UserValue)>) -> Result<(), CommitError> {
        match self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(store) => store.commit(commits, rows),
            None => Err(CommitError::Refused(closed())),
        }
    }
}

/// Removes a database whose creation was cut off: it has no `version` file yet, so nothing was ever committed to it.
fn remove_unfinished(records: &Path, witnessed: u64) -> Result<(), LogError> {
    let context = |error| io_error(records, &error);
    if !records.try_exists().map_err(context)? || records.join("version").try_exists().map_err(context)? {
        return Ok(());
    }
    if witnessed > 0 {
        return Err(LogError::Damaged(format!("{} has lost its version file", records.display())));
    }
    std::fs::remove_dir_all(records).map_err(context)
}

fn open_database(records: &Path) -> Result<Database, LogError> {
    // fjall asserts where it finds some kinds of damage.
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| {
        Database::builder(records).cache_size(BLOCK_CACHE_BYTES_MAX).max_journaling_size(JOURNAL_BYTES_MAX).open()
    }));
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(fjall_error(&error)),
        Err(_) => Err(LogError::Damaged(format!("recovering {} failed", records.display()))),
    }
}

fn sync_directory(directory: &Path) -> Result<(), LogError> {
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for directory in [directory, parent] {
        std::fs::File::open(directory).and_then(|file| file.sync_all()).map_err(|error| io_error(directory, &error))?;
    }
    Ok(())
}

fn recover(keyspace: &Keyspace) -> Result<Recovered, LogError> {
    let damaged = |what: &str| LogError::Damaged(format!("{what} has no known format"));
    let commit = keyspace.get(codec::COMMIT_KEY).map_err(|error| fjall_error(&error))?;
    let (commits, append_time_ms) = match commit {
        Some(commit) => codec::decode_commit(&commit).ok_or_else(|| damaged("the number of commits"))?,
        None => (0, i64::MIN),
    };
    let mut streams = HashMap::new();
    for row in keyspace.prefix(codec::STREAM_PREFIX) {
        let (key, value) = row.into_inner().map_err(|error| fjall_error(&error))?;
        let name = codec::stream_name(&key).ok_or_else(|| damaged("the name of a stream"))?;
        let (id, partitions) = codec::decode_stream(&value).ok_or_else(|| damaged("a stream"))?;
        let partitions = (0..partitions)
            .map(|partition| {
                let key = PartitionKey { stream: id, partition: PartitionId(partition) };
                Ok(Arc::new(Partition::new(key, recover_bounds(keyspace, key)?)))
            })
            .collect::<Result<_, LogError>>()?;
        streams.insert(name, StreamState { id, partitions });
    }
    Ok(Recovered { streams: streams.into_iter().collect(), commits, append_time_ms })
}

fn recover_bounds(keyspace: &Keyspace, of: PartitionKey) -> Result<PartitionBounds, LogError> {
    let damaged = || LogError::Damaged(format!("the bounds of {of:?} have no known format"));
    let start = match keyspace.get(codec::start_key(of)).map_err(|error| fjall_error(&error))? {
        Some(start) => codec::decode_start(&start).ok_or_else(damaged)?,
        None => Offset(0),
    };
    let mut records = keyspace.range(codec::record_key(of, Offset(0))..=codec::record_key(of, Offset(u64::MAX)));
    let end = match records.next_back() {
        Some(last) => codec::record_offset(&last.key().map_err(|error| fjall_error(&error))?).ok_or_else(damaged)?.next(),
        None => Offset(0),
    };
    // A partition may be empty because everything was trimmed.
    Ok(PartitionBounds { start, end: end.max(start) })
}

/// What the caller of a log can do about an error of a file.
pub fn io_error(path: &Path, error: &std::io::Error) -> LogError {
    let cause = format!("{}: {error}", path.display());
    if is_full(error) { LogError::DiskFull { cause, reopen: false } } else { LogError::Unavailable(cause) }
}

/// Whether room on the disk is what is lacking: its own, or what is left of a quota.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// What the caller of a log can do about an error of fjall.
fn fjall_error(error: &fjall::Error) -> LogError {
    match error {
        fjall::Error::Io(io) | fjall::Error::Storage(LsmError::Io(io)) => match io.kind() {
            // Files of the database that are shorter than they were, or gone.
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::NotFound => LogError::Damaged(io.to_string()),
            _ if is_full(io) => LogError::DiskFull { cause: io.to_string(), reopen: false },
            _ => LogError::Unavailable(io.to_string()),
        },
        fjall::Error::Poisoned => LogError::Unavailable("a write to the disk failed earlier".into()),
        fjall::Error::Locked => LogError::Unavailable("its database is locked by another process".into()),
        other => LogError::Damaged(format!("{other:?}")),
    }
}

//! The master dataset of a stream: every accepted event as Parquet files under a Delta commit log.
//!
//! A commit is one object, created if absent, that holds the files it adds or removes *and* the positions they reach. Whoever
//! finds the next version taken reads what came in between and checks its change against that, so two landings that read the same
//! records, or two compactions that merged the same files, can never both be committed.

mod action;
mod checkpoint;
mod cleanup;
mod data_file;
mod partition;
mod schema;
mod snapshot;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use object_store::path::Path;
use riomar_event_log::Loss;
use riomar_schemas::{Name, Offset, PartitionId, Stream, paths};
use tokio::sync::Mutex;

use self::action::Line;
pub use self::{
    data_file::{DataFile, DataFileWriter, FileStats},
    partition::LandedPartition,
    snapshot::{MasterSnapshot, RowSelection},
};
use crate::{
    context::{Context, is_over},
    error::BatchError,
    objects::{self, Creation},
};

/// How often a commit is tried while others commit first.
const COMMIT_ATTEMPTS_MAX: u32 = 100;
/// A version that was the newest this long ago is not followed by its commits any more, but read anew. Commits stay much longer.
const FOLLOW_MAX_MS: i64 = cleanup::COMMITS_RETAIN_MS / 7;

/// The folder of a table's commits.
fn log_folder(stream: &Name) -> Path {
    paths::master(stream).join("_delta_log")
}

fn commit_path(stream: &Name, version: u64) -> Path {
    log_folder(stream).join(format!("{version:020}.json"))
}

/// A change of a master dataset.
#[derive(Debug, Default)]
pub struct Change {
    /// New files.
    pub adds: Vec<DataFile>,
    /// Names of files whose rows the new files hold as well.
    pub removes: Vec<String>,
    /// Partitions that the new files take further; refused if one is not where it started from.
    pub advances: BTreeMap<PartitionId, Advance>,
    /// What the advances pass over because the log has lost it, and that was accepted.
    pub losses: BTreeMap<PartitionId, Loss>,
}

/// How far a change takes a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// The offset that the rows begin at.
    pub from: Offset,
    /// What has landed with them.
    pub to: LandedPartition,
}

impl Change {
    /// Whether the change still fits what is stored.
    fn check(&self, snapshot: &MasterSnapshot) -> Result<(), BatchError> {
        let conflict = |detail: String| Err(BatchError::Conflict { stream: snapshot.stream.name.clone(), detail });
        for (partition, advance) in &self.advances {
            let stored = snapshot.position(*partition).offset;
            if stored != advance.from {
                return conflict(format!("partition {partition} has landed up to offset {stored}, not {}", advance.from));
            }
        }
        for name in &self.removes {
            if !snapshot.files.contains_key(name) {
                return conflict(format!("file {name} is no longer there"));
            }
        }
        Ok(())
    }

    fn lines(&self, commit: &str, event_time: &str, now_ms: i64) -> Vec<Line> {
        let (operation, data_change) = if self.removes.is_empty() { ("WRITE", true) } else { ("OPTIMIZE", false) };
        let mut lines = vec![Line::commit_info(operation, commit, now_ms).with_lost(self.losses.iter())];
        lines.extend(self.advances.iter().flat_map(|(partition, advance)| Line::landed(*partition, &advance.to)));
        lines.extend(self.losses.iter().flat_map(|(partition, loss)| Line::loss(*partition, loss)));
        lines.extend(self.removes.iter().map(|name| Line::remove(name, now_ms)));
        lines.extend(self.adds.iter().map(|file| Line::add(file, data_change, event_time)));
        lines
    }
}

/// The master dataset of one stream.
#[derive(Debug)]
pub struct Master {
    context: Context,
    stream: Arc<Stream>,
    newest: Mutex<Option<Newest>>,
    /// The version of the checkpoint that old commits were last removed for.
    cleaned: Mutex<u64>,
}

/// The version that was the newest at some time, in milliseconds since 1970-01-01 UTC.
#[derive(Debug)]
struct Newest {
    snapshot: Arc<MasterSnapshot>,
    at_ms: i64,
}

impl Master {
    /// The master dataset of a stream; nothing is read or written yet.
    #[must_use]
    pub fn new(context: Context, stream: Arc<Stream>) -> Self {
        Self { context, stream, newest: Mutex::new(None), cleaned: Mutex::new(0) }
    }

    /// Its stream.
    #[must_use]
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// The newest version, which is created if there is none. Costs one small request when nothing has changed.
    ///
    /// # Errors
    /// [`BatchError::Store`], [`BatchError::Damaged`], [`BatchError::SchemaChanged`].
    pub async fn snapshot(&self) -> Result<Arc<MasterSnapshot>, BatchError> {
        let mut newest = self.newest.lock().await;
        let at_ms = self.context.clock.now_ms();
        let base = match newest.as_ref() {
            Some(seen) if !is_over(seen.at_ms, FOLLOW_MAX_MS, at_ms) => seen.snapshot.clone(),
            _ => self.open().await?,
        };
        let snapshot = self.catch_up(base).await?;
        *newest = Some(Newest { snapshot: snapshot.clone(), at_ms });
        Ok(snapshot)
    }

    /// A version that was the newest at most so long ago, in milliseconds; never one before what this value has given or committed.
    ///
    /// # Errors
    /// As [`Self::snapshot`].
    pub async fn recent(&self, age_max_ms: i64) -> Result<Arc<MasterSnapshot>, BatchError> {
        if let Some(seen) = self.newest.lock().await.as_ref()
            && !is_over(seen.at_ms, age_max_ms, self.context.clock.now_ms())
        {
            return Ok(seen.snapshot.clone());
        }
        self.snapshot().await
    }

    /// Commits a change to the newest version and gives the version that holds it.
    ///
    /// # Errors
    /// [`BatchError::Conflict`] where the change does not fit what others committed; [`BatchError::Store`] where the outcome is
    /// unknown, so that whoever goes on must start from a new [`Self::snapshot`].
    pub async fn commit(&self, change: &Change) -> Result<Arc<MasterSnapshot>, BatchError> {
        let commit = self.context.fresh_ids.next().to_string();
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            let base = self.snapshot().await?;
            change.check(&base)?;
            let lines = change.lines(&commit, base.event_time(), self.context.clock.now_ms());
            if self.create(base.version + 1, &lines).await? == Creation::Created {
                self.check_continues(base.version + 1).await?;
                let snapshot = self.snapshot().await?;
                if (base.version + 1).is_multiple_of(checkpoint::CHECKPOINT_INTERVAL_VERSIONS) {
                    checkpoint::write(&self.context, &self.stream, base.version + 1).await;
                }
                return Ok(snapshot);
            }
        }
        let detail = format!("{COMMIT_ATTEMPTS_MAX} times somebody else committed first");
        Err(BatchError::Conflict { stream: self.stream.name.clone(), detail })
    }

    /// Takes back a commit that continues nothing. Whoever stood still until the commits that it had not seen were old enough to be
    /// removed finds their numbers free again; but the one before it is gone as well, for they go in order.
    async fn check_continues(&self, version: u64) -> Result<(), BatchError> {
        if objects::exists(&self.context, &commit_path(&self.stream.name, version - 1)).await? {
            return Ok(());
        }
        objects::delete(&self.context, &commit_path(&self.stream.name, version)).await?;
        *self.newest.lock().await = None;
        let detail = format!("version {version} was taken, and is so old that it is removed");
        Err(BatchError::Conflict { stream: self.stream.name.clone(), detail })
    }

    /// Removes commits that a checkpoint stands for and that are a week old. Costs nothing until there is a new checkpoint. Gives the
    /// number of files.
    ///
    /// # Errors
    /// [`BatchError::Store`]; calling again goes on.
    pub async fn remove_old_commits(&self) -> Result<u64, BatchError> {
        let interval = checkpoint::CHECKPOINT_INTERVAL_VERSIONS;
        let checkpoint = self.snapshot().await?.version / interval * interval;
        let mut cleaned = self.cleaned.lock().await;
        if *cleaned == checkpoint {
            return Ok(0);
        }
        let removed = cleanup::remove_old(&self.context, &self.stream).await?;
        *cleaned = checkpoint;
        Ok(removed)
    }

    /// Reads a checkpoint and all commits, creates the table if it is new, and widens its schema if the stream has new columns.
    async fn open(&self) -> Result<Arc<MasterSnapshot>, BatchError> {
        let base = match checkpoint::load(&self.context, &self.stream).await? {
            Some(snapshot) => snapshot,
            None => self.first_commit().await?,
        };
        let mut snapshot = self.catch_up(Arc::new(base)).await?;
        while let Some(schema_text) = schema::evolve(&self.stream, &snapshot.schema_text)? {
            let lines = [
                Line::commit_info("ADD COLUMN", &self.context.fresh_ids.next().to_string(), self.context.clock.now_ms()),
                Line::meta_data(&snapshot.table_id, schema_text, self.context.clock.now_ms()),
            ];
            self.create(snapshot.version + 1, &lines).await?;
            snapshot = self.catch_up(snapshot).await?;
        }
        Ok(snapshot)
    }

    /// The first version, written here or by whoever was first.
    async fn first_commit(&self) -> Result<MasterSnapshot, BatchError> {
        let path = commit_path(&self.stream.name, 0);
        if objects::read(&self.context, &path).await?.is_none() {
            let now_ms = self.context.clock.now_ms();
            let lines = [
                Line::commit_info("CREATE TABLE", &self.context.fresh_ids.next().to_string(), now_ms),
                Line::protocol(),
                Line::meta_data(
                    &self.context.fresh_ids.next().to_string(),
                    schema::schema_text(self.stream.row_schema()),
                    now_ms,
                ),
            ];
            self.create(0, &lines).await?;
        }
        let Some(bytes) = objects::read(&self.context, &path).await? else {
            return Err(BatchError::damaged(&path, "it was created and is gone"));
        };
        let mut snapshot = MasterSnapshot::empty(self.stream.clone());
        apply(&mut snapshot, 0, &path, &bytes)?;
        Ok(snapshot)
    }

    /// Applies the commits after `base`.
    async fn catch_up(&self, base: Arc<MasterSnapshot>) -> Result<Arc<MasterSnapshot>, BatchError> {
        let mut snapshot = None;
        loop {
            let next = snapshot.as_ref().map_or(base.version, |newer: &MasterSnapshot| newer.version) + 1;
            let path = commit_path(&self.stream.name, next);
            let Some(bytes) = objects::read(&self.context, &path).await? else { break };
            let snapshot = snapshot.get_or_insert_with(|| MasterSnapshot::clone(&base));
            apply(snapshot, next, &path, &bytes)?;
        }
        Ok(snapshot.map_or(base, Arc::new))
    }

    async fn create(&self, version: u64, lines: &[Line]) -> Result<Creation, BatchError> {
        let path = commit_path(&self.stream.name, version);
        let bytes = action::encode(lines).map_err(|error| BatchError::damaged(&path, error))?;
        objects::create_if_absent(&self.context, &path, Bytes::from(bytes)).await
    }
}

fn apply(snapshot: &mut MasterSnapshot, version: u64, path: &Path, bytes: &[u8]) -> Result<(), BatchError> {
    for line in action::decode(bytes).map_err(|error| BatchError::damaged(path, error))? {
        snapshot.apply(line);
    }
    snapshot.version = version;
    Ok(())
}

//! Compaction: merging small files of a master dataset into larger ones, and deleting what no longer belongs to it.

use std::{collections::BTreeSet, sync::Arc};

use datafusion::{logical_expr::LogicalPlanBuilder, prelude::ident};
use futures::TryStreamExt;
use riomar_schemas::{
    paths,
    stream::{OFFSET, PARTITION},
};

use crate::{
    context::Context,
    error::BatchError,
    master::{Change, DataFile, DataFileWriter, Master, MasterSnapshot, RowSelection},
    objects, scan,
};

/// Which files are merged, and how long unneeded ones are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionLimits {
    /// Files below this size are merged.
    pub small_bytes: u64,
    /// A merged file is about this large at the most.
    pub target_bytes: u64,
    /// Fewer small files than this are left alone.
    pub files_min: usize,
    /// A file that was merged into another stays for this long: the longest that a query may run.
    pub removed_grace_ms: i64,
    /// A file that belongs to nothing stays for this long after it was written: the longest that writing one may take.
    pub orphan_age_ms: i64,
}

impl Default for CompactionLimits {
    fn default() -> Self {
        Self {
            small_bytes: 32 << 20,
            target_bytes: 128 << 20,
            files_min: 16,
            removed_grace_ms: 3_600_000,
            orphan_age_ms: 86_400_000,
        }
    }
}

/// What compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Files that were merged into others.
    pub merged: u64,
    /// Files that came of it.
    pub written: u64,
    /// Files that were deleted.
    pub deleted: u64,
}

/// Groups of small files to merge, each in the order in which they were written, so that epochs stay together.
#[must_use]
pub fn plan(files: &[&DataFile], limits: &CompactionLimits) -> Vec<Vec<String>> {
    let mut small: Vec<_> = files.iter().filter(|file| file.bytes < limits.small_bytes).collect();
    small.sort_by_key(|file| (file.stats.epoch, file.created_at_ms, file.stats.offset));
    let mut groups: Vec<(u64, Vec<String>)> = Vec::new();
    for file in small {
        match groups.last_mut() {
            Some((bytes, group)) if *bytes + file.bytes <= limits.target_bytes => {
                *bytes += file.bytes;
                group.push(file.name.clone());
            }
            _ => groups.push((file.bytes, vec![file.name.clone()])),
        }
    }
    groups.into_iter().map(|(_, group)| group).filter(|group| group.len() >= limits.files_min.max(2)).collect()
}

/// Merges small files, one commit a group. Landing goes on meanwhile; a compaction that merges the same files loses.
///
/// # Errors
/// Any; nothing is lost, and the next call goes on.
pub async fn compact(context: &Context, master: &Master, limits: &CompactionLimits) -> Result<Compacted, BatchError> {
    let mut compacted = Compacted::default();
    let snapshot = master.snapshot().await?;
    for group in plan(&snapshot.files.values().collect::<Vec<_>>(), limits) {
        let file = merge(context, &snapshot, &group).await?;
        compacted.merged += group.len() as u64;
        compacted.written += 1;
        master.commit(&Change { adds: vec![file], removes: group, ..Change::default() }).await?;
    }
    compacted.deleted = delete_unneeded(context, master, limits).await?;
    Ok(compacted)
}

/// Writes the rows of some files into one, by partition and offset.
async fn merge(context: &Context, snapshot: &MasterSnapshot, group: &[String]) -> Result<DataFile, BatchError> {
    let mut part = snapshot.clone();
    part.files.retain(|name, _| group.contains(name));
    let expected: u64 = part.files.values().map(|file| file.stats.rows).sum();
    let rows = part.scan(&RowSelection::default())?;
    let plan =
        LogicalPlanBuilder::from(rows).sort([ident(PARTITION), ident(OFFSET)].map(|column| column.sort(true, false)))?.build()?;
    let mut batches = scan::stream(&context.session(), &plan).await?;
    let mut writer = DataFileWriter::create(context, Arc::clone(&snapshot.stream))?;
    while let Some(rows) = batches.try_next().await? {
        writer.write(&rows).await?;
    }
    let file = writer.finish(context.clock.now_ms()).await?;
    if file.stats.rows != expected {
        let detail = format!("files with {expected} rows gave {}", file.stats.rows);
        return Err(BatchError::damaged(paths::master(&snapshot.stream.name), detail));
    }
    Ok(file)
}

/// Deletes files that were merged into others, or never committed, long enough ago.
async fn delete_unneeded(context: &Context, master: &Master, limits: &CompactionLimits) -> Result<u64, BatchError> {
    let folder = paths::master(&master.stream().name);
    // The listing comes first: a file that is committed after it was listed is in the snapshot.
    let found = objects::list(context, &folder).await?;
    let snapshot = master.snapshot().await?;
    let now_ms = context.clock.now_ms();
    let names: BTreeSet<_> = snapshot.files.keys().map(|name| folder.clone().join(name.as_str())).collect();
    let mut deleted = 0;
    for object in found {
        let Some(name) = object.location.filename().filter(|name| name.ends_with(".parquet")) else { continue };
        if names.contains(&object.location) {
            continue;
        }
        let unneeded = match snapshot.removed.get(name) {
            Some(removed_ms) => now_ms - removed_ms >= limits.removed_grace_ms,
            None => now_ms - object.last_modified.timestamp_millis() >= limits.orphan_age_ms,
        };
        if unneeded {
            objects::delete(context, &object.location).await?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BatchConfig,
        landing::LandingLimits,
        master::FileStats,
        testing::{Fixture, expected_rows, land_all, landed_rows, memory},
    };

    #[test]
    fn groups_small_files_in_order() {
        let file = |name: &str, bytes: u64, epoch: i64| DataFile {
            name: name.to_owned(),
            bytes,
            created_at_ms: 0,
            stats: FileStats { epoch: Some((epoch, epoch)), ..FileStats::default() },
        };
        let limits = CompactionLimits { small_bytes: 10, target_bytes: 12, files_min: 2, ..CompactionLimits::default() };
        let files = [file("c", 5, 3), file("big", 10, 2), file("a", 5, 1), file("b", 6, 2), file("d", 9, 4), file("e", 3, 5)];
        assert_eq!(plan(&files.iter().collect::<Vec<_>>(), &limits), [vec!["a", "b"], vec!["d", "e"]]);
        assert!(plan(&[&files[0]], &limits).is_empty());
    }

    #[tokio::test]
    async fn merging_keeps_every_row_and_old_files_for_a_while() {
        let fixture = Fixture::new().await;
        let store = memory();
        let stream = fixture.stream();
        let landing = LandingLimits { step_records: 12, buffered_rows: 10, ..LandingLimits::default() };
        let compaction = CompactionLimits { files_min: 4, removed_grace_ms: 5_000, ..CompactionLimits::default() };
        let config = BatchConfig { landing, compaction, target_partitions: 2, ..BatchConfig::default() };
        let layer = fixture.layer_with(store.clone(), config);
        fixture.append_events(0..100).await;
        fixture.append_cut(1).await;
        fixture.append_events(100..150).await;
        land_all(&mut layer.landing(&stream).expect("known")).await;
        let master = layer.master(&stream.name).expect("known");
        let before = master.snapshot().await.expect("a snapshot");
        let files = before.files.len() as u64;
        assert!(files >= 4, "{files}");

        let compacted = layer.maintain(&stream.name).await.expect("compacts");
        assert_eq!(compacted, Compacted { merged: files, written: 1, deleted: 0 });
        let after = master.snapshot().await.expect("a snapshot");
        let expected = expected_rows(&fixture).await;
        assert_eq!(landed_rows(&store, &after).await, expected, "C2");
        assert_eq!(landed_rows(&store, &before).await, expected, "whoever began before still reads the old files");
        let stats = &after.files.values().next().expect("one file").stats;
        assert_eq!((stats.epoch, stats.partition), (Some((0, 1)), Some((0, 1))));

        fixture.clock.advance(5_000);
        let compacted = layer.maintain(&stream.name).await.expect("deletes");
        assert_eq!(compacted, Compacted { merged: 0, written: 0, deleted: files });
        assert_eq!(landed_rows(&store, &after).await, expected);
        fixture.append_events(150..170).await;
        land_all(&mut layer.landing(&stream).expect("known")).await;
        let now = fixture.layer(store.clone()).master(&stream.name).expect("known").snapshot().await.expect("a snapshot");
        assert_eq!(landed_rows(&store, &now).await, expected_rows(&fixture).await, "duplicates are found in merged files too");
    }
}

//! Removing old commits, and the checkpoints that newer ones stand for.
//!
//! By the rule of Delta's own clean-up: every version that is younger than the retention can still be read, so the newest
//! checkpoint that is not above the first of them stays, and only what is below it goes.

use object_store::{ObjectMeta, path::Path};
use riomar_schemas::Stream;

use super::{checkpoint, log_folder};
use crate::{context::Context, error::BatchError, objects};

/// How long commits stay after they were written: as long as Delta's checkpoints remember removed files.
pub(super) const COMMITS_RETAIN_MS: i64 = 7 * 86_400_000;
/// The digits of a version in a file's name.
const VERSION_DIGITS: usize = 20;

/// A commit, a checkpoint, or what else belongs to one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogFile {
    pub version: u64,
    pub is_checkpoint: bool,
    path: Path,
    modified_ms: i64,
}

impl LogFile {
    fn of(object: ObjectMeta) -> Option<Self> {
        let (version, rest) = object.location.filename()?.split_at_checked(VERSION_DIGITS)?;
        let (version, is_checkpoint) = (version.parse().ok()?, rest == ".checkpoint.parquet");
        Some(Self { version, is_checkpoint, modified_ms: object.last_modified.timestamp_millis(), path: object.location })
    }
}

/// The files of a commit log, lowest version first.
pub(super) async fn log_files(context: &Context, stream: &Stream) -> Result<Vec<LogFile>, BatchError> {
    let found = objects::list(context, &log_folder(&stream.name)).await?;
    Ok(found.into_iter().filter_map(LogFile::of).collect())
}

/// The files that may go. `last_checkpoint` is the one that readers begin at.
fn expired(files: &[LogFile], last_checkpoint: u64, oldest_ms: i64) -> impl Iterator<Item = &LogFile> {
    let first_young = files.iter().filter(|file| file.modified_ms >= oldest_ms).map(|file| file.version).min();
    let newest = first_young.map_or(last_checkpoint, |young| young.min(last_checkpoint));
    let checkpoints = files.iter().filter(|file| file.is_checkpoint).map(|file| file.version);
    let begin = checkpoints.filter(|version| *version <= newest).max().unwrap_or_default();
    files.iter().filter(move |file| file.version < begin)
}

/// Removes what is old, the lowest version first, so that what is left has no gap. Gives the number of files.
///
/// # Errors
/// [`BatchError::Store`]; calling again goes on.
pub(super) async fn remove_old(context: &Context, stream: &Stream) -> Result<u64, BatchError> {
    let files = log_files(context, stream).await?;
    let Some(last_checkpoint) = checkpoint::hinted(context, stream).await? else { return Ok(0) };
    let oldest_ms = context.clock.now_ms() - COMMITS_RETAIN_MS;
    let mut removed = 0;
    for file in expired(&files, last_checkpoint, oldest_ms) {
        objects::delete(context, &file.path).await?;
        removed += 1;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_young_can_still_be_read() {
        // One commit a millisecond, a checkpoint every ten.
        let file = |version: u64, is_checkpoint| {
            let (path, modified_ms) = (Path::from(format!("{version}/{is_checkpoint}")), version.cast_signed());
            LogFile { version, is_checkpoint, path, modified_ms }
        };
        let mut files: Vec<_> = (0..35).map(|version| file(version, false)).collect();
        files.extend([10, 20, 30].map(|version| file(version, true)));
        let cases = [
            (30, 0, 0),
            (30, 5, 0),
            (30, 10, 10),
            (30, 25, 20),
            (30, 30, 30),
            (30, 99, 30),
            (20, 99, 20),
            (15, 99, 10),
            (0, 99, 0),
        ];
        for (last_checkpoint, oldest_ms, begin) in cases {
            let expired: Vec<_> = expired(&files, last_checkpoint, oldest_ms).cloned().collect();
            let expected: Vec<_> = files.iter().filter(|file| file.version < begin).cloned().collect();
            assert_eq!(expired, expected, "checkpoint {last_checkpoint}, oldest {oldest_ms}");
        }
        assert_eq!(expired(&files[..35], 30, 99).count(), 0, "no checkpoint stands for them");
    }
}

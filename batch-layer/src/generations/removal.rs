//! Removing generations that nobody reads any more, and files that belong to none.

use std::collections::{BTreeMap, BTreeSet};

use object_store::path::Path;
use riomar_schemas::{GenerationManifest, View, paths};

use super::Generations;
use crate::{error::BatchError, objects};

/// How long what is no longer current is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The newest generations, whatever their age.
    pub generations: u64,
    /// A generation stays for this long after another took its place: the longest that a query may run.
    pub grace_ms: i64,
    /// A file that belongs to nothing stays for this long after it was written: the longest that a recompute may run.
    pub orphan_age_ms: i64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { generations: 3, grace_ms: 3_600_000, orphan_age_ms: 86_400_000 }
    }
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Generations.
    pub generations: u64,
    /// Parquet files.
    pub files: u64,
}

/// The generations that may go, lowest first: not among the newest, and replaced long ago.
fn expired(created_at_ms: &BTreeMap<u64, i64>, retention: &Retention, now_ms: i64) -> Vec<u64> {
    let Some(newest) = created_at_ms.keys().next_back() else { return Vec::new() };
    // The next one that there is: whoever published a number that had been removed, and died, has left a gap behind it.
    let replaced_at = |generation: u64| created_at_ms.range(generation + 1..).next().map(|(_, created_ms)| created_ms);
    created_at_ms
        .keys()
        .copied()
        .take_while(|generation| {
            generation + retention.generations.max(1) <= *newest
                && replaced_at(*generation).is_some_and(|replaced_ms| now_ms - replaced_ms >= retention.grace_ms)
        })
        .collect()
}

impl Generations {
    /// Removes generations beyond their retention and files that belong to none. May be called at any time, by anybody.
    ///
    /// # Errors
    /// [`BatchError::Store`], [`BatchError::Damaged`]; calling again goes on.
    pub async fn remove_old(&self, view: &View) -> Result<Removed, BatchError> {
        let now_ms = self.context.clock.now_ms();
        // Files first: one that appears after this listing is not looked at, whatever the manifests say.
        let files = objects::list(&self.context, &paths::generation_data(view)).await?;
        let mut manifests = BTreeMap::new();
        for path in self.list(view).await? {
            if let Some(manifest) = self.read(view, &path).await? {
                manifests.insert(manifest.generation, (path, manifest));
            }
        }
        let created = manifests.iter().map(|(number, (_, manifest))| (*number, manifest.created_at_ms)).collect();
        let expired = expired(&created, &self.retention, now_ms);
        let mut removed = Removed { generations: expired.len() as u64, files: 0 };
        let kept: BTreeSet<_> = manifests.iter().filter(|(number, _)| !expired.contains(number)).flat_map(names).collect();
        for number in &expired {
            let Some((path, manifest)) = manifests.get(number) else { continue };
            // The files before the manifest, so that what is left after a crash is still known to be removable.
            for file in &manifest.files {
                if !kept.contains(file.path.as_str()) {
                    objects::delete(&self.context, &Path::from(file.path.as_str())).await?;
                    removed.files += 1;
                }
            }
            objects::delete(&self.context, path).await?;
        }
        let named: BTreeSet<_> = manifests.iter().flat_map(names).collect();
        for file in files {
            let age_ms = now_ms - file.last_modified.timestamp_millis();
            if !named.contains(file.location.as_ref()) && age_ms >= self.retention.orphan_age_ms {
                objects::delete(&self.context, &file.location).await?;
                removed.files += 1;
            }
        }
        Ok(removed)
    }
}

/// The paths that a manifest names.
fn names<'a>((_, (_, manifest)): (&u64, &'a (Path, std::sync::Arc<GenerationManifest>))) -> impl Iterator<Item = &'a str> {
    manifest.files.iter().map(|file| file.path.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_and_what_may_still_be_read() {
        let created: BTreeMap<u64, i64> = (1..=6).map(|n| (n, n as i64 * 100)).collect();
        let retention = Retention { generations: 3, grace_ms: 200, orphan_age_ms: 0 };
        for (now_ms, expected) in [(399, vec![]), (400, vec![1]), (500, vec![1, 2]), (10_000, vec![1, 2, 3])] {
            assert_eq!(expired(&created, &retention, now_ms), expected, "at {now_ms}");
        }
        assert_eq!(expired(&BTreeMap::new(), &retention, 0), Vec::<u64>::new());
        let with_gap: BTreeMap<u64, i64> = [(2, 9_000), (4, 400), (5, 500), (6, 600), (7, 700)].into();
        assert_eq!(expired(&with_gap, &retention, 10_000), [2, 4], "what stands before a gap holds up nothing");
    }
}

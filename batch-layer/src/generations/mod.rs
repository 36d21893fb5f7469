//! Generations: the published, immutable versions of a batch view.
//!
//! Creating the manifest of generation *n* + 1, if absent, publishes it; only whoever read generation *n* tries. The current
//! generation is the highest one, so publishing needs nothing of the store but creating an object.
//!
//! Whoever stood still between the two for so long that *n* + 1 was published by somebody else and removed again finds its number
//! free. It has lost the race all the same, and takes back what it created.

mod file;
mod removal;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
    prelude::ident,
};
use object_store::path::Path;
use riomar_schemas::{
    GenerationManifest, Name, View,
    generation::{GenerationFile, MANIFEST_FORMAT},
    paths,
};
use tokio::sync::Mutex;

pub use self::{
    file::{GenerationWriter, window_partition, window_partition_width_us},
    removal::{Removed, Retention},
};
use crate::{
    context::{Context, is_over},
    error::BatchError,
    objects::{self, Creation},
    scan::{ScanFile, scan_files},
};

/// A cached generation is trusted to have its successor still there for this long, if removal waits longer than that.
const LIST_AGAIN_AFTER_MS: i64 = 60_000;

/// What became of publishing.
#[derive(Debug, Clone, PartialEq)]
pub enum Publication {
    /// It is the current generation.
    Published(Arc<GenerationManifest>),
    /// Another run published a generation of this number first; nothing changed.
    LostRace,
}

/// The generation of a view seen last.
#[derive(Debug, Clone)]
struct Seen {
    manifest: Option<Arc<GenerationManifest>>,
    at_ms: i64,
}

/// The generations of all views.
#[derive(Debug)]
pub struct Generations {
    context: Context,
    retention: Retention,
    seen: Mutex<HashMap<Name, Seen>>,
}

impl Generations {
    /// The generations in an object store.
    #[must_use]
    pub fn new(context: Context, retention: Retention) -> Self {
        Self { context, retention, seen: Mutex::default() }
    }

    /// The current generation of a view; `None` before the first is published. Costs one small request when nothing has changed.
    ///
    /// # Errors
    /// [`BatchError::Store`], [`BatchError::Damaged`].
    pub async fn current(&self, view: &View) -> Result<Option<Arc<GenerationManifest>>, BatchError> {
        let now_ms = self.context.clock.now_ms();
        let cached = self.seen.lock().await.get(view.name()).cloned();
        // Removal takes generations away in order and waits at least twice as long as this, so the successor of a generation that
        // was current a moment ago is there if it was ever published.
        let trusted_ms = LIST_AGAIN_AFTER_MS.min(self.retention.grace_ms / 2);
        let mut newest = match cached {
            Some(seen) if !is_over(seen.at_ms, trusted_ms, now_ms) => seen.manifest,
            _ => match self.list(view).await?.last() {
                Some(path) => self.read(view, path).await?,
                None => None,
            },
        };
        while let Some(next) = self.read(view, &paths::generation(view, number(newest.as_deref()) + 1)).await? {
            newest = Some(next);
        }
        self.remember(view, newest.clone(), now_ms).await;
        Ok(newest)
    }

    /// Publishes a generation whose number is that of the current one plus 1.
    ///
    /// # Errors
    /// [`BatchError::Store`]: whether it is published is unknown; [`Self::current`] tells.
    pub async fn publish(&self, view: &View, manifest: GenerationManifest) -> Result<Publication, BatchError> {
        let path = paths::generation(view, manifest.generation);
        match objects::create_if_absent(&self.context, &path, objects::json(&path, &manifest)?).await? {
            Creation::Exists => Ok(Publication::LostRace),
            Creation::Created if !self.continues(view, &manifest).await? => {
                objects::delete(&self.context, &path).await?;
                self.seen.lock().await.remove(view.name());
                tracing::info!(view = %view.name(), generation = manifest.generation, "it was published and removed long ago");
                Ok(Publication::LostRace)
            }
            Creation::Created => {
                let manifest = Arc::new(manifest);
                self.remember(view, Some(manifest.clone()), self.context.clock.now_ms()).await;
                Ok(Publication::Published(manifest))
            }
        }
    }

    /// Whether a manifest that was just created has its place at the end of the chain, or had it a moment ago.
    async fn continues(&self, view: &View, created: &GenerationManifest) -> Result<bool, BatchError> {
        let highest = self.list(view).await?.last().and_then(paths::number).unwrap_or_default();
        let next = match highest > created.generation {
            true => self.read(view, &paths::generation(view, created.generation + 1)).await?,
            false => None,
        };
        Ok(stands(created, highest, next.as_deref()))
    }

    /// A plan that reads the states of a generation in [`View::state_schema`].
    ///
    /// # Errors
    /// A plan that DataFusion refuses.
    pub fn states(&self, view: &View, manifest: &GenerationManifest) -> Result<LogicalPlan, BatchError> {
        self.states_of(view, &manifest.files)
    }

    /// A plan that reads the states of some files of a generation in [`View::state_schema`].
    ///
    /// # Errors
    /// A plan that DataFusion refuses.
    pub fn states_of(&self, view: &View, files: &[GenerationFile]) -> Result<LogicalPlan, BatchError> {
        let files = files.iter().map(|file| ScanFile {
            path: Path::from(file.path.as_str()),
            bytes: file.bytes,
            ranges: file::ranges(view, file.window_partition),
        });
        let stored = scan_files(view.name().as_str(), file::schema(view), files.collect())?;
        let columns = view.state_schema().fields().iter().map(|field| ident(field.name()));
        Ok(LogicalPlanBuilder::from(stored).project(columns)?.build()?)
    }

    /// Remembers a generation unless a later one is already known.
    async fn remember(&self, view: &View, manifest: Option<Arc<GenerationManifest>>, at_ms: i64) {
        let mut seen = self.seen.lock().await;
        if seen.get(view.name()).is_none_or(|known| number(known.manifest.as_deref()) <= number(manifest.as_deref())) {
            seen.insert(view.name().clone(), Seen { manifest, at_ms });
        }
    }

    /// The manifests of a view, lowest number first.
    async fn list(&self, view: &View) -> Result<Vec<Path>, BatchError> {
        let found = objects::list(&self.context, &paths::generations(view)).await?;
        Ok(found.into_iter().map(|object| object.location).filter(|path| paths::number(path).is_some()).collect())
    }

    async fn read(&self, view: &View, path: &Path) -> Result<Option<Arc<GenerationManifest>>, BatchError> {
        let Some(bytes) = objects::read(&self.context, path).await? else { return Ok(None) };
        let manifest: GenerationManifest = serde_json::from_slice(&bytes).map_err(|error| BatchError::damaged(path, error))?;
        if manifest.format > MANIFEST_FORMAT {
            return Err(BatchError::damaged(path, format!("its format {} was written by a later version", manifest.format)));
        }
        if manifest.fingerprint != view.fingerprint() {
            return Err(BatchError::damaged(path, "it belongs to another definition of the view"));
        }
        Ok(Some(Arc::new(manifest)))
    }
}

/// Whether a manifest that was just created continues the chain, by the highest number that there is and by the generation after it.
/// One that was removed is followed by others, and those are built on what stood in its place: each run takes a cut of its own, so
/// they tell by the cut whose generation they follow. Removal goes in order, so a gap behind it says the same.
fn stands(created: &GenerationManifest, highest: u64, next: Option<&GenerationManifest>) -> bool {
    highest <= created.generation || next.is_some_and(|next| next.previous_cut == created.cut)
}

/// The number of a generation; 0 stands for none.
fn number(manifest: Option<&GenerationManifest>) -> u64 {
    manifest.map_or(0, |manifest| manifest.generation)
}

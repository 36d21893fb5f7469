//! Generations: the published, immutable versions of a batch view.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    name::Name,
    position::{Epoch, Offset, PartitionId},
};

/// The version of [`GenerationManifest`]'s format that this build writes.
pub const MANIFEST_FORMAT: u32 = 1;

/// One generation of a batch view. Creating its manifest, if absent, is what publishes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerationManifest {
    /// The format of this manifest, [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The view.
    pub view: Name,
    /// The view's definition, as [`crate::View::fingerprint`] gives it.
    pub fingerprint: String,
    /// Counts up from 1 without gaps.
    pub generation: u64,
    /// The states cover all epochs before this cut.
    pub cut: Epoch,
    /// The cut of the generation before this one (0 when there was none).
    pub previous_cut: Epoch,
    /// The first position behind the cut, for each partition.
    pub positions: BTreeMap<PartitionId, Offset>,
    /// The highest event time of each partition, in microseconds since 1970-01-01 UTC; absent where it has no events.
    pub event_time_max_us: BTreeMap<PartitionId, i64>,
    /// The version of the master dataset that was read.
    pub master_version: u64,
    /// Whether every state was computed afresh from the master dataset.
    pub full: bool,
    /// Number of groups over all files.
    pub groups: u64,
    /// Milliseconds since 1970-01-01 UTC.
    pub created_at_ms: i64,
    /// The Parquet files, one for each window partition that has groups.
    pub files: Vec<GenerationFile>,
}

/// One Parquet file of a generation. Several generations may share it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationFile {
    /// The window partition: windows whose start divided by the partition's width gives this number.
    pub window_partition: i64,
    /// The object's path, relative to the root of the object store.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Number of groups (rows).
    pub groups: u64,
}

/// What the speed layer must know of the batch layer: where the current generation ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandOver {
    /// The current generation; 0 before the first one.
    pub generation: u64,
    /// Realtime states of epochs from this cut on are still read.
    pub cut: Epoch,
    /// The cut of the generation before: epochs below it are read by nobody once the grace period is over.
    pub previous_cut: Epoch,
    /// The first position behind the cut, for each partition that the generation covers.
    pub positions: BTreeMap<PartitionId, Offset>,
}

impl HandOver {
    /// The first position behind the cut in `partition`; 0 for a partition that came later.
    #[must_use]
    pub fn position(&self, partition: PartitionId) -> Offset {
        self.positions.get(&partition).copied().unwrap_or_default()
    }
}

impl From<&GenerationManifest> for HandOver {
    fn from(manifest: &GenerationManifest) -> Self {
        Self {
            generation: manifest.generation,
            cut: manifest.cut,
            previous_cut: manifest.previous_cut,
            positions: manifest.positions.clone(),
        }
    }
}

//! Where a record stands: partitions, offsets, epochs, and the position that a reader saves.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A partition of a stream's log, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

/// The place of a record in its partition, counted from 0. A saved offset always names the *next* record to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

/// The number of a cut and of the epoch that it opens: cut *n* closes epoch *n − 1* and opens epoch *n*.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Offset {
    /// The offset behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The first epoch whose ids still make a record of this epoch a duplicate.
    #[must_use]
    pub fn dedup_horizon(self, dedup_epochs: u64) -> Self {
        Self(self.0.saturating_sub(dedup_epochs))
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a reader of one partition saves: the next offset it reads, and the epoch it is in there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReaderPosition {
    /// The next offset to read.
    pub offset: Offset,
    /// The epoch of the record at `offset`, unless that record is a cut.
    pub epoch: Epoch,
}

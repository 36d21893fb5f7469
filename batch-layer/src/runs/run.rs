//! A run as it is told to users.

use riomar_schemas::{Epoch, Name};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What to recompute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// The views; empty for all.
    #[serde(default)]
    pub views: Vec<Name>,
    /// Whether to compute every state afresh from the master dataset.
    #[serde(default)]
    pub full: bool,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Accepted.
    Queued,
    /// Taking a cut's number and appending the cut.
    Cutting,
    /// Waiting until landing has passed the cut.
    Landing,
    /// Computing states.
    Folding,
    /// Creating a manifest.
    Publishing,
    /// Through; every view has its result.
    Done,
    /// Ended without a new generation of at least one view; the generations before keep serving.
    Failed,
    /// Not heard of for so long that nobody can say: the process that carries it out is gone, frozen, or cannot write to the object
    /// store. Only other processes tell this of a run.
    Unknown,
}

impl RunState {
    /// Whether nothing more will happen, for certain.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its identifier.
    pub id: Uuid,
    /// The streams it appends a cut to.
    pub streams: Vec<Name>,
    /// The views it recomputes.
    pub views: Vec<Name>,
    /// Whether every state is computed afresh.
    pub full: bool,
    /// How far it has come.
    pub state: RunState,
    /// The view being computed.
    pub view: Option<Name>,
    /// Rows that the view's computation will read, as far as is known.
    pub rows_total: u64,
    /// Rows it has read.
    pub rows_read: u64,
    /// What became of the views that are through.
    pub results: Vec<ViewResult>,
    /// Why it failed.
    pub error: Option<String>,
    /// Milliseconds since 1970-01-01 UTC.
    pub started_at_ms: i64,
    /// Milliseconds since 1970-01-01 UTC.
    pub finished_at_ms: Option<i64>,
}

/// What a run did for one view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewResult {
    /// The view.
    pub view: Name,
    /// What came of it.
    pub outcome: ViewOutcome,
    /// The cut that was recomputed up to.
    pub cut: Epoch,
    /// How long it took, in milliseconds.
    pub took_ms: i64,
}

/// What came of recomputing one view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViewOutcome {
    /// A new generation is current.
    Published {
        /// Its number.
        generation: u64,
        /// Number of groups.
        groups: u64,
        /// Whether every state was computed afresh.
        full: bool,
        /// Rows that were read.
        rows: u64,
    },
    /// Another run published first; its generation serves.
    LostRace,
    /// The current generation covers the cut already.
    UpToDate,
    /// The generation before keeps serving.
    Failed {
        /// Why.
        error: String,
    },
}

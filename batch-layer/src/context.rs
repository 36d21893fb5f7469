//! What every part of the batch layer stands on: object store, clock, query engine, and a source of fresh identifiers.

use std::{fmt, sync::Arc};

use datafusion::execution::{SessionState, runtime_env::RuntimeEnv};
use object_store::ObjectStore;
use riomar_event_log::Clock;
use riomar_schemas::session::session_state;
use uuid::Uuid;

/// Where identifiers that nobody else has come from; a test may hand in its own.
#[derive(Clone)]
pub struct FreshIds(Arc<dyn Fn() -> Uuid + Send + Sync>);

impl FreshIds {
    /// Identifiers from a function that never returns the same one twice.
    pub fn new(next: impl Fn() -> Uuid + Send + Sync + 'static) -> Self {
        Self(Arc::new(next))
    }

    /// Random identifiers.
    #[must_use]
    pub fn random() -> Self {
        Self::new(Uuid::new_v4)
    }

    /// The next identifier.
    #[must_use]
    pub fn next(&self) -> Uuid {
        (self.0)()
    }
}

impl fmt::Debug for FreshIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreshIds")
    }
}

/// The components that the parts of the batch layer share.
#[derive(Debug, Clone)]
pub struct Context {
    /// Where master datasets, cuts and generations live; paths are relative to its root.
    pub store: Arc<dyn ObjectStore>,
    /// Paces waiting and stamps what is written.
    pub clock: Arc<dyn Clock>,
    /// Memory and disk that queries may use; `store` is registered in it.
    pub runtime: Arc<RuntimeEnv>,
    /// Names of new files and runs.
    pub fresh_ids: FreshIds,
    /// How many threads a query is spread over.
    pub target_partitions: usize,
}

impl Context {
    /// A session for one query.
    #[must_use]
    pub fn session(&self) -> SessionState {
        session_state(self.runtime.clone(), self.target_partitions)
    }
}

/// Whether a wait of so many milliseconds, begun at `since_ms`, is over. It is as well where the clock was set back since: nobody
/// waits until it has caught up.
pub(crate) fn is_over(since_ms: i64, wait_ms: i64, now_ms: i64) -> bool {
    !(since_ms..since_ms.saturating_add(wait_ms)).contains(&now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_at_its_time_or_when_the_clock_is_set_back() {
        for (now_ms, expected) in
            [(1_000, false), (1_499, false), (1_500, true), (i64::MAX, true), (999, true), (-3_600_000, true)]
        {
            assert_eq!(is_over(1_000, 500, now_ms), expected, "at {now_ms}");
        }
        assert!(!is_over(1_000, i64::MAX, i64::MAX - 1), "the longest wait is no short one");
    }
}

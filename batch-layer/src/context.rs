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

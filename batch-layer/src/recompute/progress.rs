//! How far a recompute has come.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use datafusion::physical_plan::ExecutionPlan;

/// Counts the rows that a recompute has read. Shared between the recompute and whoever asks.
#[derive(Debug, Default)]
pub struct Progress {
    rows_total: AtomicU64,
    /// Rows of scans that are through.
    rows_done: AtomicU64,
    /// The scan that is under way.
    running: Mutex<Option<Arc<dyn ExecutionPlan>>>,
}

impl Progress {
    /// Rows that will be read, as far as is known by now.
    #[must_use]
    pub fn rows_total(&self) -> u64 {
        self.rows_total.load(Ordering::Relaxed)
    }

    /// Rows that have been read.
    #[must_use]
    pub fn rows_read(&self) -> u64 {
        let running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.rows_done.load(Ordering::Relaxed) + running.as_ref().map_or(0, rows_scanned)
    }

    pub(super) fn expect_rows(&self, rows: u64) {
        self.rows_total.fetch_add(rows, Ordering::Relaxed);
    }

    pub(super) fn watch(&self, plan: Option<Arc<dyn ExecutionPlan>>) {
        let mut running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(through) = std::mem::replace(&mut *running, plan) {
            self.rows_done.fetch_add(rows_scanned(&through), Ordering::Relaxed);
        }
    }
}

/// Rows that the scans of a plan have given so far.
fn rows_scanned(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let children = plan.children();
    if children.is_empty() {
        return plan.metrics().and_then(|metrics| metrics.output_rows()).unwrap_or_default() as u64;
    }
    children.into_iter().map(rows_scanned).sum()
}

//! The audit of every hand-over: drift between the layers is found when it begins.

use std::{collections::HashMap, future::Future, pin::pin, time::Duration};

use ::metrics::gauge;
use futures::future::{Either, select};
use riomar_batch_layer::audit::{AuditKind, AuditReport};
use riomar_schemas::Name;

use crate::{
    app::AppState,
    metrics::{self, AuditOutcome},
};

/// How often a new generation is looked for.
const PERIOD: Duration = Duration::from_secs(1);

/// The last generation of each view that was audited, and the last whose audit failed.
#[derive(Debug, Default)]
struct Seen {
    audited: HashMap<Name, u64>,
    failed: HashMap<Name, u64>,
}

/// Audits each view once for each generation, as soon as the realtime view has passed its cut, until `shutdown` is over.
pub async fn run(state: AppState, shutdown: impl Future<Output = ()> + Send) {
    let mut shutdown = pin!(shutdown);
    let mut seen = Seen::default();
    loop {
        if matches!(select(&mut shutdown, state.clock.sleep(PERIOD)).await, Either::Left(_)) {
            return;
        }
        if matches!(select(&mut shutdown, Box::pin(audit_new(&state, &mut seen))).await, Either::Left(_)) {
            return;
        }
    }
}

async fn audit_new(state: &AppState, seen: &mut Seen) {
    for view in state.catalog.views() {
        let current = match state.batch.generations().current(view).await {
            Ok(Some(manifest)) => manifest.generation,
            // Without a generation there is nothing to audit; a store that does not answer is reported by those who need it.
            Ok(None) | Err(_) => continue,
        };
        if seen.audited.get(view.name()) == Some(&current) {
            continue;
        }
        match state.query.audit_hand_over(view).await {
            Ok(Some(report)) => {
                seen.audited.insert(view.name().clone(), report.generation);
                tell(&report);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(view = %view.name(), %error, "the hand-over cannot be audited yet");
                // It is tried again and again, and counts once for each generation.
                if seen.failed.insert(view.name().clone(), current) != Some(current) {
                    metrics::audited(view.name(), AuditKind::HandOver, AuditOutcome::Failed);
                }
            }
        }
    }
}

fn tell(report: &AuditReport) {
    let AuditReport { view, generation, comparison, .. } = report;
    metrics::audited(view, AuditKind::HandOver, AuditOutcome::of(comparison.is_equal()));
    gauge!("riomar_hand_over_differing_groups", "view" => view.to_string()).set(comparison.differing as f64);
    if !comparison.is_equal() {
        let (differing, groups) = (comparison.differing, comparison.groups);
        tracing::error!(%view, generation, differing, groups, "batch view and realtime view differ");
    }
}

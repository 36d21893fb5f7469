//! The audit of every hand-over: drift between the layers is found when it begins.
//!
//! A hand-over whose epochs the realtime view no longer holds is not audited, and not counted: the view was rebuilt, which is told where
//! it happens.

use std::{collections::HashMap, future::Future, pin::pin, time::Duration};

use ::metrics::gauge;
use futures::future::{Either, select};
use riomar_batch_layer::audit::{AuditKind, AuditReport};
use riomar_schemas::Name;

use crate::{
    app::AppState,
    metrics::{self, AuditOutcome},
    query::HandOverAudit,
};

/// How often a new generation is looked for.
const PERIOD: Duration = Duration::from_secs(1);

/// The last generation of each view that was audited or never can be, and the last whose audit failed.
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
            Ok(HandOverAudit::Done(report)) => {
                seen.audited.insert(view.name().clone(), report.generation);
                tell(&report);
            }
            Ok(HandOverAudit::NoMore { generation }) => {
                seen.audited.insert(view.name().clone(), generation);
                tracing::debug!(view = %view.name(), generation, "the realtime view was rebuilt, so the hand-over is not audited");
            }
            Ok(HandOverAudit::NotYet) => {}
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use riomar_schemas::{Epoch, HandOver, ReaderPosition};
    use riomar_speed_layer::Entry;

    use super::*;
    use crate::testing::Platform;

    /// Gives every partition of the view an entry, which begins at this epoch and stands where the generation's cut does.
    async fn begin(platform: &Platform, start: impl Fn(&HandOver) -> Epoch) {
        let view = platform.services.view("traffic").expect("a view");
        let manifest = platform.services.batch.generations().current(&view).await.expect("reads").expect("a generation");
        let hand_over = HandOver::from(manifest.as_ref());
        for (partition, position) in &hand_over.positions {
            let position = ReaderPosition { offset: *position, epoch: hand_over.cut };
            let entry = Entry { start: start(&hand_over), floor: start(&hand_over), ..Entry::fresh(position) };
            platform.services.realtime.reset(&view, *partition, None, &entry).await.expect("written");
        }
    }

    #[tokio::test]
    async fn a_generation_is_looked_at_until_it_was_audited_or_never_can_be() {
        for rebuilt in [true, false] {
            let platform = Platform::new().await;
            platform.publish("1").await;
            let state = Arc::clone(&platform.services);
            let mut seen = Seen::default();
            audit_new(&state, &mut seen).await;
            assert!(seen.audited.is_empty(), "the realtime view has not come to it");
            begin(&platform, |hand_over| if rebuilt { hand_over.cut } else { Epoch(0) }).await;
            audit_new(&state, &mut seen).await;
            assert_eq!(seen.audited.values().copied().collect::<Vec<_>>(), [1], "rebuilt: {rebuilt}");
            let audits = platform.get("/v1/views/traffic").await.json()["last_hand_over_audit"].clone();
            assert_eq!(audits.is_null(), rebuilt, "{audits}");
            // It is not looked at again.
            let before = platform.store.states_read.load(std::sync::atomic::Ordering::SeqCst);
            audit_new(&state, &mut seen).await;
            assert_eq!(platform.store.states_read.load(std::sync::atomic::Ordering::SeqCst), before);
        }
    }
}

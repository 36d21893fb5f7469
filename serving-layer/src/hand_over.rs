//! The audit of every hand-over: drift between the layers is found when it begins.

use std::{collections::HashMap, future::Future, pin::pin, time::Duration};

use futures::future::{Either, select};
use riomar_schemas::Name;

use crate::app::AppState;

/// How often a new generation is looked for.
const PERIOD: Duration = Duration::from_secs(1);

/// Audits each view once for each generation, as soon as the realtime view has passed its cut, until `shutdown` is over.
pub async fn run(state: AppState, shutdown: impl Future<Output = ()> + Send) {
    let mut shutdown = pin!(shutdown);
    let mut audited: HashMap<Name, u64> = HashMap::new();
    loop {
        if matches!(select(&mut shutdown, state.clock.sleep(PERIOD)).await, Either::Left(_)) {
            return;
        }
        if matches!(select(&mut shutdown, Box::pin(audit_new(&state, &mut audited))).await, Either::Left(_)) {
            return;
        }
    }
}

async fn audit_new(state: &AppState, audited: &mut HashMap<Name, u64>) {
    for view in state.catalog.views() {
        let current = match state.batch.generations().current(view).await {
            Ok(Some(manifest)) => manifest.generation,
            // Without a generation there is nothing to audit; a store that does not answer is reported by those who need it.
            Ok(None) | Err(_) => continue,
        };
        if audited.get(view.name()) == Some(&current) {
            continue;
        }
        match state.query.audit_hand_over(view).await {
            Ok(Some(report)) => {
                audited.insert(view.name().clone(), report.generation);
                let view = view.name().to_string();
                metrics::counter!("riomar_hand_over_audits_total", "view" => view.clone()).increment(1);
                metrics::gauge!("riomar_hand_over_differing_groups", "view" => view.clone())
                    .set(report.comparison.differing as f64);
                if !report.comparison.is_equal() {
                    let (differing, groups) = (report.comparison.differing, report.comparison.groups);
                    tracing::error!(
                        view,
                        generation = report.generation,
                        differing,
                        groups,
                        "batch view and realtime view differ"
                    );
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(view = %view.name(), %error, "the hand-over cannot be audited yet"),
        }
    }
}

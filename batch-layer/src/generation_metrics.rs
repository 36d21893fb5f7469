//! The metrics of the current generations, told by the process that leads, whoever published them.

use std::{future::Future, time::Duration};

use futures::future::{Either, select};

use crate::{
    layer::BatchLayer,
    telemetry::{self, GenerationGauges},
};

/// How often the current generations are looked at: one small request a view.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl BatchLayer {
    /// Makes the counters of the batch layer known before they count. For every process that may come to lead.
    pub fn begin_metrics(&self) {
        telemetry::begin(&self.runs().parts().catalog);
    }

    /// Tells the current generation of each view as metrics until `shutdown` is over or the future is dropped; then what was told is
    /// withdrawn.
    pub async fn tell_generations(&self, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = Box::pin(shutdown);
        let mut gauges = GenerationGauges::default();
        loop {
            let look = async {
                for view in self.runs().parts().catalog.views() {
                    // A store that does not answer is reported by the runs, and counted.
                    if let Ok(Some(manifest)) = self.generations().current(view).await {
                        gauges.tell(view, &manifest);
                    }
                }
                self.context().clock.sleep(LOOK_EVERY).await;
            };
            if matches!(select(&mut shutdown, Box::pin(look)).await, Either::Left(_)) {
                return;
            }
        }
    }
}

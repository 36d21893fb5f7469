//! Measuring freshness: how long after the acknowledgement of an event an answer contains it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use riomar_event_log::{Clock, Log};
use riomar_schemas::{Offset, PartitionId, View};
use riomar_serving_layer::query::QueryEngine;
use tokio::sync::watch;

use super::feed::Fed;

/// How often the view is asked whether it has caught up.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// How long is waited between two measurements.
const REST: Duration = Duration::from_secs(1);
/// Measurements that the median is taken over.
const REMEMBERED: usize = 15;

/// The latest measurements, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freshness {
    latest_ms: Vec<i64>,
}

impl Freshness {
    /// The median of the latest measurements.
    #[must_use]
    pub fn median_ms(&self) -> Option<i64> {
        let mut sorted = self.latest_ms.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    fn add(&mut self, measured_ms: i64) {
        if self.latest_ms.len() == REMEMBERED {
            self.latest_ms.remove(0);
        }
        self.latest_ms.push(measured_ms);
    }
}

/// What a measurement asks.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Answers queries.
    pub engine: QueryEngine,
    /// The log, which knows how far the acknowledged events reach.
    pub log: Arc<dyn Log>,
    /// The view that is watched.
    pub view: Arc<View>,
    /// Stamps both ends.
    pub clock: Arc<dyn Clock>,
}

impl Probe {
    /// Measures for ever; drop it to stop.
    pub async fn run(self, mut fed: watch::Receiver<Fed>, freshness: watch::Sender<Freshness>) {
        // Without a sender there is nothing to measure any more.
        while fed.changed().await.is_ok() {
            let acknowledged_ms = self.clock.now_ms();
            if let Some(ends) = self.ends().await {
                while !self.visible(&ends).await {
                    self.clock.sleep(ASK_EVERY).await;
                }
                freshness.send_modify(|freshness| freshness.add(self.clock.now_ms() - acknowledged_ms));
            }
            self.clock.sleep(REST).await;
            fed.mark_unchanged();
        }
    }

    /// The end of each partition: everything acknowledged so far is before it.
    async fn ends(&self) -> Option<BTreeMap<PartitionId, Offset>> {
        let mut ends = BTreeMap::new();
        let stream = &self.view.stream().name;
        for partition in (0..self.log.partitions(stream).await.ok()?).map(PartitionId) {
            ends.insert(partition, self.log.bounds(stream, partition).await.ok()?.end);
        }
        Some(ends)
    }

    /// Whether an answer that was given now would contain everything before `ends`.
    async fn visible(&self, ends: &BTreeMap<PartitionId, Offset>) -> bool {
        let Ok(receipt) = self.engine.receipt(&self.view).await else { return false };
        receipt.views.get(self.view.name()).is_some_and(|view| contains(&view.through, ends))
    }
}

/// Whether an answer contains everything before `ends`.
fn contains(through: &BTreeMap<PartitionId, Offset>, ends: &BTreeMap<PartitionId, Offset>) -> bool {
    // A partition without records needs no place in the receipt.
    ends.iter().all(|(partition, end)| through.get(partition).copied().unwrap_or_default() >= *end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_contains_what_its_receipt_says() {
        let positions = |offsets: &[u64]| (0..).map(PartitionId).zip(offsets.iter().map(|offset| Offset(*offset))).collect();
        for (through, ends, expected) in [
            (vec![5, 7], vec![5, 7], true),
            (vec![6, 7], vec![5, 7], true),
            (vec![5, 6], vec![5, 7], false),
            (vec![5], vec![5, 1], false),
            (vec![5], vec![5, 0], true),
        ] {
            assert_eq!(contains(&positions(&through), &positions(&ends)), expected, "{through:?} {ends:?}");
        }
    }

    #[test]
    fn the_median_is_that_of_the_latest_measurements() {
        let mut freshness = Freshness::default();
        assert_eq!(freshness.median_ms(), None);
        (0..100).for_each(|measured_ms| freshness.add(measured_ms));
        assert_eq!(freshness.median_ms(), Some(92));
    }
}

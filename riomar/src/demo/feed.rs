//! Feeding sample traffic to the platform at a steady rate.

use std::{sync::Arc, time::Duration};

use riomar_event_log::Clock;
use tokio::sync::watch;

use super::{STREAM, traffic::Traffic};
use crate::client::{Client, send::Totals};

/// How often events are sent.
const SEND_EVERY: Duration = Duration::from_millis(100);
/// The wait after a request that failed.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Events in one request at the most.
const REQUEST_EVENTS_MAX: u64 = 5_000;

/// What was sent so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fed {
    /// The sums of all answers.
    pub totals: Totals,
    /// Number of answers, and so of acknowledgements.
    pub answers: u64,
    /// Why the last request failed, while it is tried again.
    pub failing: Option<String>,
}

/// Sends events for ever; drop it to stop. Every answer is published through `fed`.
///
/// A request that failed is sent again as it was: what arrived the first time is recognised by its event ids.
pub async fn feed(client: Client, mut traffic: Traffic, rate: u64, clock: Arc<dyn Clock>, fed: watch::Sender<Fed>) {
    let mut schedule = Schedule { rate, started_ms: clock.now_ms(), started_events: 0 };
    loop {
        let now_ms = clock.now_ms();
        let due = schedule.due(now_ms, traffic.generated().events);
        let mut lines = String::new();
        (0..due).for_each(|_| traffic.write_event(now_ms, &mut lines));
        if !lines.is_empty() {
            send(&client, lines, &*clock, &fed).await;
        }
        clock.sleep(SEND_EVERY).await;
    }
}

async fn send(client: &Client, lines: String, clock: &dyn Clock, fed: &watch::Sender<Fed>) {
    loop {
        match client.send(STREAM, lines.clone().into_bytes()).await {
            Ok(answer) => {
                return fed.send_modify(|fed| {
                    fed.totals.received += answer.received;
                    fed.totals.accepted += answer.accepted;
                    fed.totals.quarantined += answer.quarantined;
                    fed.totals.rejected += answer.rejected;
                    fed.answers += 1;
                    fed.failing = None;
                });
            }
            Err(error) => fed.send_modify(|fed| fed.failing = Some(error.to_string())),
        }
        clock.sleep(RETRY_AFTER).await;
    }
}

/// When which event is due.
#[derive(Debug)]
struct Schedule {
    rate: u64,
    started_ms: i64,
    started_events: u64,
}

impl Schedule {
    /// How many events are due. Where sending has fallen far behind, the lost time is not made up for: traffic does not pile up while
    /// a site is away.
    fn due(&mut self, now_ms: i64, sent: u64) -> u64 {
        let elapsed_ms = u64::try_from(now_ms - self.started_ms).unwrap_or_default();
        let due = (self.started_events + elapsed_ms.saturating_mul(self.rate) / 1_000).saturating_sub(sent);
        let most = self.rate.clamp(1, REQUEST_EVENTS_MAX);
        if due > most {
            (self.started_ms, self.started_events) = (now_ms, sent + most);
        }
        due.min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_at_their_rate() {
        let mut schedule = Schedule { rate: 500, started_ms: 1_000, started_events: 0 };
        let mut sent = 0;
        for now_ms in (1_000..=11_000).step_by(100) {
            sent += schedule.due(now_ms, sent);
        }
        assert_eq!(sent, 5_000);
    }

    #[test]
    fn a_slow_rate_is_kept_too() {
        let mut schedule = Schedule { rate: 1, started_ms: 0, started_events: 0 };
        let due: Vec<u64> = [0, 900, 1_000, 2_500]
            .into_iter()
            .scan(0, |sent, now_ms| {
                let due = schedule.due(now_ms, *sent);
                *sent += due;
                Some(due)
            })
            .collect();
        assert_eq!(due, [0, 0, 1, 1]);
    }

    #[test]
    fn lost_time_is_not_made_up_for() {
        let mut schedule = Schedule { rate: 100, started_ms: 0, started_events: 0 };
        assert_eq!(schedule.due(60_000, 0), 100, "one second's worth after a minute of silence");
        assert_eq!(schedule.due(60_100, 100), 10, "and then the rate again");
    }
}

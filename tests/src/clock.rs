//! A clock that stands still until it is moved.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use riomar_event_log::Clock;

/// Waits at least this long are deadlines of requests; shorter ones pace the platform's own work.
const DEADLINE_MIN: Duration = Duration::from_secs(5);

/// A clock for tests: time passes when the platform waits for it, or when the test says so.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows so many milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn new(now_ms: i64) -> Self {
        Self(AtomicI64::new(now_ms))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    async fn sleep(&self, duration: Duration) {
        if duration >= DEADLINE_MIN {
            tokio::time::sleep(duration).await;
        } else {
            // Whoever is waited for gets a turn, and then the time has passed.
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.advance(duration);
        }
    }
}

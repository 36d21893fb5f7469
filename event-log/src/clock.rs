//! The clock seam. Boundaries are never drawn by it: it stamps append times, and paces schedules.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio::sync::watch;

/// Where time comes from.
#[async_trait]
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> i64;

    /// Waits.
    async fn sleep(&self, duration: Duration);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock that stands still until it is told otherwise: the twin of [`SystemClock`] for tests. Clones share their time.
///
/// A sleeper wakes when the time it waits for has come, however it came.
#[derive(Debug, Clone)]
pub struct ManualClock {
    now_ms: Arc<watch::Sender<i64>>,
}

impl ManualClock {
    /// A clock that shows this time, in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn new(now_ms: i64) -> Self {
        Self { now_ms: Arc::new(watch::Sender::new(now_ms)) }
    }

    /// Shows this time from now on, in milliseconds since 1970-01-01 UTC; it may be earlier than before.
    pub fn set(&self, now_ms: i64) {
        self.now_ms.send_replace(now_ms);
    }

    /// Lets time pass. Parts of a millisecond are rounded up.
    pub fn advance(&self, duration: Duration) {
        self.now_ms.send_modify(|now_ms| *now_ms = now_ms.saturating_add(whole_ms(duration)));
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        *self.now_ms.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        let mut now_ms = self.now_ms.subscribe();
        let deadline_ms = now_ms.borrow_and_update().saturating_add(whole_ms(duration));
        // The sender lives as long as this clock does, so the wait cannot end early.
        let _ = now_ms.wait_for(|now_ms| *now_ms >= deadline_ms).await;
    }
}

/// Milliseconds, rounded up: a sleep never ends before its time.
fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_its_time_has_come() {
        let clock = ManualClock::new(1_000);
        let mut sleeper = clock.sleep(Duration::from_micros(1_500)).boxed();
        assert!(futures::poll!(&mut sleeper).is_pending());
        clock.advance(Duration::from_millis(1));
        assert!(futures::poll!(&mut sleeper).is_pending(), "1.5 ms are not over after 1 ms");
        clock.advance(Duration::from_millis(1));
        assert!(futures::poll!(&mut sleeper).is_ready());
        assert_eq!(clock.now_ms(), 1_002);
    }

    #[tokio::test]
    async fn clones_share_their_time_and_it_may_run_backwards() {
        let clock = ManualClock::new(0);
        let twin = clock.clone();
        twin.set(500);
        assert_eq!(clock.now_ms(), 500);
        let mut sleeper = clock.sleep(Duration::from_millis(10)).boxed();
        assert!(futures::poll!(&mut sleeper).is_pending());
        twin.set(100);
        assert!(futures::poll!(&mut sleeper).is_pending());
        twin.set(510);
        assert!(futures::poll!(&mut sleeper).is_ready());
        assert!(clock.sleep(Duration::ZERO).now_or_never().is_some());
    }
}

//! When to ask a Redis that does not answer again.

use std::time::Duration;

use tokio::time::Instant;

/// Counts calls that got no answer. After enough of them in a row it refuses calls for a period; then it lets one call in each
/// period through, until one is answered.
#[derive(Debug)]
pub(super) struct Breaker {
    failures_max: u32,
    period: Duration,
    failures: u32,
    refuses_until: Option<Instant>,
}

/// What a call may do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// Go ahead.
    Call,
    /// Go ahead, over a new connection: the old one may be what is broken.
    Probe,
    /// Fail at once; the next probe is due after this long.
    Refused(Duration),
}

impl Breaker {
    pub(super) fn new(failures_max: u32, period: Duration) -> Self {
        Self { failures_max, period, failures: 0, refuses_until: None }
    }

    pub(super) fn permit(&mut self, now: Instant) -> Permit {
        match self.refuses_until {
            None => Permit::Call,
            Some(until) if now < until => Permit::Refused(until - now),
            Some(_) => {
                self.refuses_until = Some(now + self.period);
                Permit::Probe
            }
        }
    }

    pub(super) fn answered(&mut self) {
        self.failures = 0;
        self.refuses_until = None;
    }

    /// Notes a call that got no answer, and says whether calls are refused from now on.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.failures_max {
            self.refuses_until = Some(now + self.period);
        }
        self.refuses_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_after_failures_in_a_row_and_probes_once_a_period() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut breaker = Breaker::new(2, second);
        assert_eq!(breaker.permit(start), Permit::Call);
        assert!(!breaker.failed(start));
        breaker.answered();
        assert!(!breaker.failed(start));
        assert_eq!(breaker.permit(start), Permit::Call, "an answer in between starts the count again");
        assert!(breaker.failed(start));
        assert_eq!(breaker.permit(start), Permit::Refused(second));
        assert_eq!(breaker.permit(start + second / 2), Permit::Refused(second / 2));
        assert_eq!(breaker.permit(start + second), Permit::Probe);
        assert_eq!(breaker.permit(start + second), Permit::Refused(second), "one probe at a time");
        assert!(breaker.failed(start + second));
        assert_eq!(breaker.permit(start + second), Permit::Refused(second));
        assert_eq!(breaker.permit(start + second * 2), Permit::Probe);
        breaker.answered();
        assert_eq!(breaker.permit(start + second * 2), Permit::Call);
    }
}

//! What the clients say about the cluster: one line for an incident, and why it cannot be reached.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rdkafka::{ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError, types::RDKafkaErrorCode};

use crate::{clock::Clock, error::LogError};

/// After this time a cluster that has trouble is spoken of again, in milliseconds.
const REPEAT_MS: i64 = 300_000;

/// Whether the cluster can be reached.
#[derive(Debug)]
pub(super) struct Incidents {
    brokers: String,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    unreachable: bool,
    /// When a line was written last, in milliseconds since 1970-01-01 UTC.
    told_ms: Option<i64>,
    reason: Option<String>,
}

/// The lines that an incident is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Trouble,
    Over,
}

impl State {
    fn trouble(&mut self, all_brokers: bool, reason: &str, now_ms: i64) -> Option<Line> {
        // That no broker is left says less than why the last one went.
        if !all_brokers || self.reason.is_none() {
            self.reason = Some(reason.to_owned());
        }
        self.unreachable |= all_brokers;
        if self.told_ms.is_some_and(|told_ms| now_ms - told_ms < REPEAT_MS) {
            return None;
        }
        self.told_ms = Some(now_ms);
        Some(Line::Trouble)
    }

    fn answered(&mut self) -> Option<Line> {
        if !std::mem::take(&mut self.unreachable) {
            return None;
        }
        (self.told_ms, self.reason) = (None, None);
        Some(Line::Over)
    }
}

impl Incidents {
    pub(super) fn new(brokers: String, clock: Arc<dyn Clock>) -> Self {
        Self { brokers, clock, state: Mutex::default() }
    }

    /// A broker, or all of them, cannot be reached.
    fn trouble(&self, all_brokers: bool, reason: &str) {
        let line = self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble(all_brokers, reason, self.clock.now_ms());
        match line {
            Some(_) => tracing::warn!(brokers = self.brokers, reason, "Kafka cannot be reached"),
            None => tracing::debug!(brokers = self.brokers, reason, "Kafka cannot be reached"),
        }
    }

    /// The cluster has done what it was asked to do.
    pub(super) fn answered(&self) {
        if self.state.lock().unwrap_or_else(PoisonError::into_inner).answered().is_some() {
            tracing::info!(brokers = self.brokers, "Kafka can be reached again");
        }
    }

    /// The error for a call that failed, with the reason where the cluster cannot be reached.
    pub(super) fn unavailable(&self, doing: impl fmt::Display, error: impl fmt::Display) -> LogError {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = state.reason.as_ref().filter(|_| state.unreachable).map(|reason| format!(" ({reason})")).unwrap_or_default();
        LogError::Unavailable(format!("Kafka at {}: {doing}: {error}{reason}", self.brokers))
    }
}

/// A client whose events are served all the time: it tells of incidents.
#[derive(Debug, Clone)]
pub(super) struct Watched(pub(super) Arc<Incidents>);

impl ClientContext for Watched {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        match level {
            // Comes as an error too.
            _ if fac == "FAIL" => tracing::debug!(fac, message, "librdkafka"),
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(fac, message, "librdkafka");
            }
            _ => tracing::debug!(fac, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => self.0.trouble(true, reason),
            Some(Code::BrokerTransportFailure | Code::Resolve | Code::Authentication | Code::SSL | Code::OperationTimedOut) => {
                self.0.trouble(false, reason);
            }
            _ => tracing::debug!(%error, reason, "librdkafka"),
        }
    }
}

/// A client whose events wait until somebody uses it: old news when they are served. What matters comes back from the calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(fac, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn an_incident_is_told_once_and_so_is_its_end() {
        let mut state = State::default();
        assert_eq!(state.answered(), None, "nothing was wrong");
        assert_eq!(state.trouble(false, "a:1 refused", 1_000), Some(Line::Trouble));
        assert_eq!(state.trouble(true, "1/1 brokers are down", 1_001), None);
        assert_eq!(state.trouble(false, "a:1 refused", 2_000), None);
        assert_eq!(state.answered(), Some(Line::Over));
        assert_eq!(state.answered(), None);
        assert_eq!(state.trouble(true, "1/1 brokers are down", 3_000), Some(Line::Trouble), "another one");
        assert_eq!(state.trouble(true, "1/1 brokers are down", 3_000 + REPEAT_MS), Some(Line::Trouble), "it lasts");
    }

    #[test]
    fn one_broker_of_many_is_told_now_and_then() {
        let mut state = State::default();
        assert_eq!(state.trouble(false, "b:2 refused", 0), Some(Line::Trouble));
        assert_eq!(state.answered(), None, "the others answer, and the trouble is not over");
        assert_eq!(state.trouble(false, "b:2 refused", 30_000), None);
        assert_eq!(state.trouble(false, "b:2 refused", REPEAT_MS), Some(Line::Trouble));
    }

    #[test]
    fn errors_name_the_brokers_and_the_reason() {
        let incidents = Incidents::new("a:1".into(), Arc::new(ManualClock::new(0)));
        assert_eq!(incidents.unavailable("asking", "no").to_string(), "the log is not available: Kafka at a:1: asking: no");
        incidents.trouble(false, "refused");
        incidents.trouble(true, "1/1 brokers are down");
        let text = incidents.unavailable("asking", "no").to_string();
        assert_eq!(text, "the log is not available: Kafka at a:1: asking: no (refused)");
        incidents.answered();
        assert!(!incidents.unavailable("asking", "no").to_string().contains("refused"));
    }
}

//! What the clients say about the cluster: one line for an incident, and why it cannot be reached.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rdkafka::{ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError, types::RDKafkaErrorCode};

use crate::{clock::Clock, error::LogError};

/// After this time a cluster that has trouble is spoken of again, in milliseconds.
const REPEAT_MS: i64 = 300_000;

/// A connection that ends within this time after it was made was not wanted, in milliseconds. It is librdkafka's own time for it.
const AT_ONCE_MS: u32 = 2_000;

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
            // Comes as an error too, but for connections that a broker closed without a word.
            _ if fac == "FAIL" => {
                tracing::debug!(fac, message, "librdkafka");
                let reason = message.split_once("]: ").map_or(message, |(_, behind_thread)| behind_thread);
                if let Some(meaning) = closed(reason) {
                    self.0.trouble(false, &format!("{meaning}: {reason}"));
                }
            }
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
            Some(
                code @ (Code::BrokerTransportFailure
                | Code::Resolve
                | Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::SSL
                | Code::OperationTimedOut),
            ) => self.0.trouble(false, &in_our_words(code, reason)),
            _ => tracing::debug!(%error, reason, "librdkafka"),
        }
    }
}

/// What librdkafka says, behind what it means where that is not plain: its advice is about properties that are not the user's.
fn in_our_words(code: RDKafkaErrorCode, reason: &str) -> String {
    use RDKafkaErrorCode as Code;
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    let meaning = match code {
        Code::Authentication if says(&["mechanism handshake failed"]) => "it does not take this SASL mechanism",
        Code::Authentication | Code::SaslAuthenticationFailed => "it refuses the user or the password",
        _ if says(&["certificate verify failed", "Failed to verify broker certificate"]) => {
            "its certificate has expired, is for another host, or is signed by a CA that is not trusted"
        }
        _ if says(&["alert bad certificate", "alert certificate required", "alert handshake failure"]) => {
            "it asks for another certificate of this client, or for one at all"
        }
        _ if says(&["alert unknown ca", "alert certificate unknown", "alert certificate expired"]) => {
            "it refuses this client's certificate"
        }
        _ if says(&["connecting to a PLAINTEXT broker listener?", "wrong version number", "packet length too long"]) => {
            "it does not speak TLS there"
        }
        _ => match closed(reason) {
            Some(meaning) => meaning,
            None => return reason.to_owned(),
        },
    };
    format!("{meaning}: {reason}")
}

/// What it may mean that a broker closed a connection: `… (after 3ms in state UP)`. It says nothing of its own accord.
fn closed(reason: &str) -> Option<&'static str> {
    let (_, after) = reason.rsplit_once("(after ")?;
    let (after_ms, state) = after.split_once("ms in state ")?;
    if after_ms.parse::<u32>().ok()? >= AT_ONCE_MS {
        return None;
    }
    if state.starts_with("APIVERSION_QUERY") && !reason.contains("ssl://") {
        Some("it may speak TLS there")
    } else if state.starts_with("UP") {
        Some("it may ask for a user")
    } else {
        None
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
    fn refusals_are_told_as_what_they_are() {
        use RDKafkaErrorCode as Code;
        for (code, reason, meaning) in [
            (Code::BrokerTransportFailure, "a:1: Connect to ipv4#1.2.3.4:1 failed: Connection refused", "a:1: Connect"),
            (
                Code::Authentication,
                "a:1: SASL authentication error: Authentication failed",
                "it refuses the user or the password: a:1",
            ),
            (Code::Authentication, "a:1: SASL PLAIN mechanism handshake failed: x", "it does not take this SASL mechanism: a:1"),
            (
                Code::SSL,
                "a:1: SSL handshake failed: error:0A000086::certificate verify failed",
                "its certificate has expired, is for",
            ),
            (
                Code::BrokerTransportFailure,
                "a:1: SSL routines::ssl/tls alert bad certificate",
                "it asks for another certificate of",
            ),
            (Code::SSL, "a:1: SSL routines::wrong version number", "it does not speak TLS there"),
            (Code::BrokerTransportFailure, "a:1: Send failed: Broken pipe (after 3ms in state UP)", "it may ask for a user: a:1"),
            (Code::BrokerTransportFailure, "a:1: Disconnected (after 2000ms in state UP)", "a:1: Disconnected"),
            (
                Code::BrokerTransportFailure,
                "a:1: Disconnected (after 1ms in state APIVERSION_QUERY)",
                "it may speak TLS there: a:1",
            ),
            (Code::BrokerTransportFailure, "ssl://a:1: Disconnected (after 1ms in state APIVERSION_QUERY)", "ssl://a:1"),
        ] {
            let words = in_our_words(code, reason);
            assert!(words.starts_with(meaning) && words.ends_with(reason), "{words}");
        }
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

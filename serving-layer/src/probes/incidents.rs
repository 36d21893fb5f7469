//! What the journal is told of the checks: each incident once when it begins and once when it ends, however often it is asked.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::Check;

/// What was not there when it was last looked.
#[derive(Debug, Default)]
pub struct Incidents {
    /// When each check was first seen to fail, in milliseconds since 1970-01-01 UTC.
    since_ms: Mutex<BTreeMap<String, i64>>,
}

/// What changed.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Began { check: String, cause: String },
    Ended { check: String, after_ms: i64 },
}

impl Incidents {
    /// Takes the outcome of all checks, and tells what changed.
    pub(super) fn observe(&self, checks: &[Check], now_ms: i64) {
        for change in self.changes(checks, now_ms) {
            match change {
                Change::Began { check, cause } => {
                    tracing::warn!(check, cause, "not all that this process depends on is there");
                }
                Change::Ended { check, after_ms } => tracing::info!(check, after_ms, "it is there again"),
            }
        }
    }

    fn changes(&self, checks: &[Check], now_ms: i64) -> Vec<Change> {
        let mut since_ms = self.since_ms.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *since_ms);
        let mut changes = Vec::new();
        for Check { name, cause, .. } in checks {
            let Some(cause) = cause else { continue };
            let began_ms = before.remove(name).unwrap_or_else(|| {
                changes.push(Change::Began { check: name.clone(), cause: cause.clone() });
                now_ms
            });
            since_ms.insert(name.clone(), began_ms);
        }
        let ended = before.into_iter();
        changes.extend(ended.map(|(check, since_ms)| Change::Ended { check, after_ms: now_ms.saturating_sub(since_ms) }));
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_incident_is_told_when_it_begins_and_when_it_ends() {
        let check = |name: &str, outcome: Result<(), &str>| {
            Check::new(name.to_owned(), true, outcome.map_err(str::to_owned), "it does not answer")
        };
        let began = |check: &str, cause: &str| Change::Began { check: check.to_owned(), cause: cause.to_owned() };
        let ended = |check: &str, after_ms| Change::Ended { check: check.to_owned(), after_ms };
        let incidents = Incidents::default();
        assert_eq!(incidents.changes(&[check("log", Ok(())), check("store", Ok(()))], 0), []);
        let one = incidents.changes(&[check("log", Err("refused")), check("store", Ok(()))], 10);
        assert_eq!(one, [began("log", "refused")]);
        let both = incidents.changes(&[check("log", Err("no answer")), check("store", Err("full"))], 20);
        assert_eq!(both, [began("store", "full")], "the same incident may show otherwise");
        assert_eq!(incidents.changes(&[check("log", Ok(())), check("store", Err("full"))], 30), [ended("log", 20)]);
        assert_eq!(
            incidents.changes(&[check("log", Err("refused")), check("store", Ok(()))], 40),
            [began("log", "refused"), ended("store", 20)]
        );
    }
}

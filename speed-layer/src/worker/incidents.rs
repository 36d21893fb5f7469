//! Failures that last are told once when they begin and once when they end, however often they are retried.

use std::collections::BTreeMap;

use riomar_schemas::Name;

/// What is wrong now: the worker as a whole (`None`) or a view.
#[derive(Debug, Default)]
pub(super) struct Incidents {
    open: BTreeMap<Option<Name>, Incident>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Incident {
    since_ms: i64,
    failures: u64,
}

/// What there is to tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Began { view: Option<Name>, error: String },
    Ended { view: Option<Name>, after_ms: i64, failures: u64 },
}

impl Incidents {
    /// Takes the failures of one step and the views that wait for another try, and gives what changed.
    pub(super) fn observe(
        &mut self,
        now_ms: i64,
        failed: impl IntoIterator<Item = (Option<Name>, String)>,
        waiting: &[Name],
    ) -> Vec<Told> {
        let mut ended = std::mem::take(&mut self.open);
        for view in waiting {
            // It is not known yet whether these are over.
            self.open.extend(ended.remove_entry(&Some(view.clone())));
        }
        let mut told = Vec::new();
        for (view, error) in failed {
            let known = ended.remove(&view).or_else(|| self.open.get(&view).copied());
            let incident = known.unwrap_or_else(|| {
                told.push(Told::Began { view: view.clone(), error });
                Incident { since_ms: now_ms, failures: 0 }
            });
            self.open.insert(view, Incident { failures: incident.failures + 1, ..incident });
        }
        told.extend(ended.into_iter().map(|(view, incident)| Told::Ended {
            view,
            after_ms: now_ms.saturating_sub(incident.since_ms),
            failures: incident.failures,
        }));
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_beginning_and_the_end_once() {
        let view = Some(Name::new("hits").expect("a name"));
        let mut incidents = Incidents::default();
        assert_eq!(incidents.observe(0, [], &[]), []);
        let began = incidents.observe(10, [(None, "down".to_owned())], &[]);
        assert_eq!(began, [Told::Began { view: None, error: "down".to_owned() }]);
        assert_eq!(incidents.observe(20, [(None, "still down".to_owned())], &[]), []);
        let failed = [(None, "down".to_owned()), (view.clone(), "damaged".to_owned())];
        let also = incidents.observe(30, failed, &[]);
        assert_eq!(also, [Told::Began { view: view.clone(), error: "damaged".to_owned() }]);
        let ended = incidents.observe(40, [(view.clone(), "damaged".to_owned())], &[]);
        assert_eq!(ended, [Told::Ended { view: None, after_ms: 30, failures: 3 }]);
        assert_eq!(incidents.observe(45, [], view.as_slice()), [], "a view that waits for another try is not well yet");
        assert_eq!(incidents.observe(50, [], &[]), [Told::Ended { view, after_ms: 20, failures: 2 }]);
        assert_eq!(incidents.observe(60, [], &[]), []);
    }
}

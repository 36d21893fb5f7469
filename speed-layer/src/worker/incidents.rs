//! Failures that last are told once when they begin and once when they end, however often they are retried.
//!
//! A service that is away is met by every worker of the process at once, and is told of once for all of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use riomar_event_log::LogError;
use riomar_schemas::Name;

use super::SpeedError;
use crate::store::StoreError;

/// What all workers of a process share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Service {
    Log,
    /// Where the hand-overs are.
    History,
    Store,
}

impl Service {
    /// The service that is away, where that is what the error says.
    pub(super) fn away(error: &SpeedError) -> Option<Self> {
        match error {
            SpeedError::Log { source: LogError::Unavailable(_), .. } => Some(Self::Log),
            SpeedError::Log { source: LogError::History(_), .. } | SpeedError::HandOver { .. } => Some(Self::History),
            SpeedError::Store { source: StoreError::Unavailable(_), .. } => Some(Self::Store),
            _ => None,
        }
    }
}

/// How many incidents are open of each service, in all workers of the process. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Outages(Arc<Mutex<BTreeMap<Service, u64>>>);

impl Outages {
    /// Notes an incident, and says whether it is the first. One that is of no service is always told.
    fn begin(&self, service: Option<Service>) -> bool {
        let Some(service) = service else { return true };
        let mut open = self.lock();
        let count = open.entry(service).or_default();
        *count += 1;
        *count == 1
    }

    /// Notes that an incident is over, and says whether it was the last.
    fn end(&self, service: Option<Service>) -> bool {
        let Some(service) = service else { return true };
        let mut open = self.lock();
        let count = open.entry(service).or_default();
        *count = count.saturating_sub(1);
        *count == 0
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Service, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wrong now: a worker as a whole (`None`) or a view.
#[derive(Debug, Default)]
pub(super) struct Incidents {
    open: BTreeMap<Option<Name>, Incident>,
    outages: Outages,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Incident {
    since_ms: i64,
    failures: u64,
    /// What was away when it began.
    service: Option<Service>,
}

/// A failure of one step.
#[derive(Debug)]
pub(super) struct Failure {
    view: Option<Name>,
    service: Option<Service>,
    error: String,
}

impl Failure {
    pub(super) fn new(view: Option<Name>, error: &SpeedError) -> Self {
        Self { view, service: Service::away(error), error: error.to_string() }
    }
}

/// What there is to tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Began { view: Option<Name>, error: String },
    Ended { view: Option<Name>, after_ms: i64, failures: u64 },
}

impl Incidents {
    /// Of a worker beside others that share these outages.
    pub(super) fn new(outages: Outages) -> Self {
        Self { open: BTreeMap::new(), outages }
    }

    /// Takes the failures of one step and the views that wait for another try, and gives what changed.
    pub(super) fn observe(&mut self, now_ms: i64, failed: impl IntoIterator<Item = Failure>, waiting: &[Name]) -> Vec<Told> {
        let mut ended = std::mem::take(&mut self.open);
        for view in waiting {
            // It is not known yet whether these are over.
            self.open.extend(ended.remove_entry(&Some(view.clone())));
        }
        let mut told = Vec::new();
        for Failure { view, service, error } in failed {
            let known = ended.remove(&view).or_else(|| self.open.get(&view).copied());
            let incident = known.unwrap_or_else(|| {
                if self.outages.begin(service) {
                    told.push(Told::Began { view: view.clone(), error });
                }
                Incident { since_ms: now_ms, failures: 0, service }
            });
            self.open.insert(view, Incident { failures: incident.failures + 1, ..incident });
        }
        for (view, Incident { since_ms, failures, service }) in ended {
            if self.outages.end(service) {
                told.push(Told::Ended { view, after_ms: now_ms.saturating_sub(since_ms), failures });
            }
        }
        told
    }
}

impl Drop for Incidents {
    /// The partition is somebody else's now, or nobody's.
    fn drop(&mut self) {
        for incident in self.open.values() {
            self.outages.end(incident.service);
        }
    }
}

#[cfg(test)]
mod tests {
    use riomar_schemas::PartitionId;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn of(view: Option<&Name>, error: &str) -> Failure {
        Failure { view: view.cloned(), service: None, error: error.to_owned() }
    }

    #[test]
    fn tells_the_beginning_and_the_end_once() {
        let view = Some(name("hits"));
        let mut incidents = Incidents::default();
        assert_eq!(incidents.observe(0, [], &[]), []);
        let began = incidents.observe(10, [of(None, "down")], &[]);
        assert_eq!(began, [Told::Began { view: None, error: "down".to_owned() }]);
        assert_eq!(incidents.observe(20, [of(None, "still down")], &[]), []);
        let failed = [of(None, "down"), of(view.as_ref(), "damaged")];
        let also = incidents.observe(30, failed, &[]);
        assert_eq!(also, [Told::Began { view: view.clone(), error: "damaged".to_owned() }]);
        let ended = incidents.observe(40, [of(view.as_ref(), "damaged")], &[]);
        assert_eq!(ended, [Told::Ended { view: None, after_ms: 30, failures: 3 }]);
        assert_eq!(incidents.observe(45, [], view.as_slice()), [], "a view that waits for another try is not well yet");
        assert_eq!(incidents.observe(50, [], &[]), [Told::Ended { view, after_ms: 20, failures: 2 }]);
        assert_eq!(incidents.observe(60, [], &[]), []);
    }

    #[test]
    fn a_service_that_is_away_is_told_of_once_for_all_workers() {
        let (view, partition) = (name("hits"), PartitionId(0));
        let away = |source| Failure::new(Some(view.clone()), &SpeedError::Store { view: view.clone(), partition, source });
        let store = || away(StoreError::Unavailable("down".to_owned()));
        let outages = Outages::default();
        let mut workers = [(); 3].map(|()| Incidents::new(outages.clone()));
        let told = workers.each_mut().map(|worker| worker.observe(0, [store()], &[]).len());
        assert_eq!(told, [1, 0, 0]);
        // What is damaged is so in one view alone; another service is another incident.
        let [one, other, taken] = &mut workers;
        let damaged = || away(StoreError::Damaged("bytes".to_owned()));
        let more = [Failure { view: Some(name("others")), ..damaged() }, store()];
        assert_eq!(one.observe(10, more, &[]).len(), 1);
        let log = SpeedError::Log { stream: name("s"), partition, source: LogError::Unavailable("down".to_owned()) };
        assert_eq!(other.observe(10, [Failure::new(None, &log), store()], &[]).len(), 1);
        assert_eq!(one.observe(20, [store()], &[]).len(), 1, "what was damaged is mended");
        assert_eq!(one.observe(30, [], &[]), [], "the others have not found it back yet");
        *taken = Incidents::new(outages.clone());
        let ended = other.observe(40, [], &[]);
        assert_eq!(ended.len(), 2, "the log, and the store for the last of those that are left: {ended:?}");
        assert_eq!(one.observe(50, [store()], &[]).len(), 1, "that is another incident");
    }
}

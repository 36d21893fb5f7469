//! What goes wrong with requests, as a test chooses while the server runs.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

/// How many requests are remembered; the oldest are forgotten first.
const REQUESTS_KEPT_MAX: usize = 100_000;

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Fault {
    /// Nothing is done; the answer is 503 SlowDown.
    SlowDown,
    /// It is done after this time.
    Delay(Duration),
    /// Nothing is done, and no answer comes until the faults are cleared: then the connection is closed.
    Silence,
    /// It is done, and the connection is closed without an answer.
    LostReply,
    /// It is done, and no answer comes until the faults are cleared: then the connection is closed.
    SilentReply,
    /// It is done; the connection is closed in the middle of the answer's body.
    TruncatedBody,
}

/// Which requests a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Requests {
    /// All of them.
    All,
    /// GET and HEAD.
    Reads,
    /// PUT, POST and DELETE.
    Writes,
    /// PUT with `If-None-Match`: objects that are created unless they are there.
    Creations,
}

/// A request as the server saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Request {
    /// `GET`, `PUT` …
    pub method: String,
    /// The path and the query as they were sent: `/{bucket}/{key}?{query}`.
    pub target: String,
    /// Whether it has the header `If-None-Match`.
    pub if_none_match: bool,
}

impl S3Request {
    /// The bucket and the key; both may be empty.
    fn place(&self) -> (&str, &str) {
        let path = self.target.split('?').next().unwrap_or_default().trim_start_matches('/');
        path.split_once('/').unwrap_or((path, ""))
    }

    /// The name of the bucket; empty where the request is about none.
    #[must_use]
    pub fn bucket(&self) -> &str {
        self.place().0
    }

    /// The key as it was sent; empty where the request is not about one object.
    #[must_use]
    pub fn key(&self) -> &str {
        self.place().1
    }
}

impl S3Requests {
    fn holds(self, request: &S3Request) -> bool {
        let reads = matches!(request.method.as_str(), "GET" | "HEAD");
        match self {
            Self::All => true,
            Self::Reads => reads,
            Self::Writes => !reads,
            Self::Creations => request.method == "PUT" && request.if_none_match,
        }
    }
}

/// Which requests go wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Rule {
    fault: S3Fault,
    requests: S3Requests,
    target: String,
    after: u64,
    times: u64,
    every: u64,
    /// Requests that the rule was about so far.
    seen: u64,
}

impl S3Rule {
    /// Every request goes wrong in this way, until the faults are cleared.
    #[must_use]
    pub fn new(fault: S3Fault) -> Self {
        Self { fault, requests: S3Requests::All, target: String::new(), after: 0, times: u64::MAX, every: 1, seen: 0 }
    }

    /// Only these requests.
    #[must_use]
    pub fn of(mut self, requests: S3Requests) -> Self {
        self.requests = requests;
        self
    }

    /// Only requests whose [`S3Request::target`] contains this text.
    #[must_use]
    pub fn target_contains(mut self, text: &str) -> Self {
        text.clone_into(&mut self.target);
        self
    }

    /// Lets the first so many of them pass.
    #[must_use]
    pub fn after(mut self, requests: u64) -> Self {
        self.after = requests;
        self
    }

    /// Only so many of them.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Only each n-th of them; 1 is each.
    #[must_use]
    pub fn every(mut self, nth: u64) -> Self {
        self.every = nth.max(1);
        self
    }

    /// Whether this request goes wrong. Counts it.
    fn strikes(&mut self, request: &S3Request) -> bool {
        if !self.requests.holds(request) || !request.target.contains(&self.target) {
            return false;
        }
        let number = self.seen;
        self.seen += 1;
        let Some(number) = number.checked_sub(self.after) else { return false };
        number.is_multiple_of(self.every) && number / self.every < self.times
    }
}

/// What goes wrong, and what was asked.
#[derive(Debug)]
pub struct S3Faults {
    state: Mutex<State>,
    cleared: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<S3Rule>,
    requests: VecDeque<S3Request>,
    struck: u64,
}

impl Default for S3Faults {
    fn default() -> Self {
        Self { state: Mutex::default(), cleared: watch::Sender::new(()) }
    }
}

impl S3Faults {
    /// Adds a rule. Of several rules that a request falls under, the one that was added first has its way.
    pub fn add(&self, rule: S3Rule) {
        self.state().rules.push(rule);
    }

    /// Takes away all rules, and closes the connections that wait for an answer in vain.
    pub fn clear(&self) {
        self.state().rules.clear();
        self.cleared.send_replace(());
    }

    /// How many requests went wrong so far.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.state().struck
    }

    /// The requests so far, in the order of their arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<S3Request> {
        self.state().requests.iter().cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.state().requests.clear();
    }

    /// Remembers a request, and says what goes wrong with it.
    pub(super) fn meet(&self, request: S3Request) -> Option<S3Fault> {
        let mut state = self.state();
        let fault = state.rules.iter_mut().find_map(|rule| rule.strikes(&request).then_some(rule.fault));
        state.struck += u64::from(fault.is_some());
        if state.requests.len() == REQUESTS_KEPT_MAX {
            state.requests.pop_front();
        }
        state.requests.push_back(request);
        fault
    }

    /// Over when the faults are cleared after the call.
    pub(super) fn cleared(&self) -> impl Future<Output = ()> + use<> {
        let mut cleared = self.cleared.subscribe();
        async move {
            // An error means that the server is gone, which ends the wait as well.
            let _ = cleared.changed().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever panicked beside it, the state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, if_none_match: bool) -> S3Request {
        S3Request { method: method.to_owned(), target: target.to_owned(), if_none_match }
    }

    /// Which of ten requests go wrong.
    fn struck(rule: S3Rule, request: &S3Request) -> Vec<usize> {
        let faults = S3Faults::default();
        faults.add(rule);
        (0..10).filter(|_| faults.meet(request.clone()).is_some()).collect()
    }

    #[test]
    fn a_rule_strikes_as_often_as_it_says() {
        let get = request("GET", "/b/k", false);
        let rule = || S3Rule::new(S3Fault::SlowDown);
        assert_eq!(struck(rule(), &get), (0..10).collect::<Vec<_>>());
        assert_eq!(struck(rule().times(2), &get), [0, 1]);
        assert_eq!(struck(rule().after(7), &get), [7, 8, 9]);
        assert_eq!(struck(rule().every(4), &get), [0, 4, 8]);
        assert_eq!(struck(rule().after(1).every(3).times(2), &get), [1, 4]);
    }

    #[test]
    fn a_rule_is_about_its_requests_only() {
        let (get, put) = (request("GET", "/b/a/k", false), request("PUT", "/b/k", false));
        let create = request("PUT", "/b/k", true);
        for (requests, expected) in [
            (S3Requests::All, [true, true, true]),
            (S3Requests::Reads, [true, false, false]),
            (S3Requests::Writes, [false, true, true]),
            (S3Requests::Creations, [false, false, true]),
        ] {
            assert_eq!([&get, &put, &create].map(|request| requests.holds(request)), expected, "{requests:?}");
        }
        assert!(struck(S3Rule::new(S3Fault::LostReply).target_contains("/a/"), &put).is_empty());
        assert_eq!(struck(S3Rule::new(S3Fault::LostReply).target_contains("/a/"), &get).len(), 10);
    }

    #[test]
    fn the_first_of_two_rules_has_its_way() {
        let faults = S3Faults::default();
        faults.add(S3Rule::new(S3Fault::SlowDown).times(1));
        faults.add(S3Rule::new(S3Fault::LostReply));
        let get = request("GET", "/b/k", false);
        let met: Vec<_> = (0..2).map(|_| faults.meet(get.clone())).collect();
        assert_eq!(met, [Some(S3Fault::SlowDown), Some(S3Fault::LostReply)]);
        faults.clear();
        assert_eq!((faults.meet(get.clone()), faults.struck(), faults.requests().len()), (None, 2, 3));
    }
}

//! What the store writes to the log.

use std::{
    fmt::{Debug, Write},
    sync::Mutex,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

use super::*;

/// The lines of this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn catch() -> (Self, DefaultGuard) {
        let lines = Self::default();
        (lines.clone(), tracing::subscriber::set_default(lines))
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("not poisoned").clone()
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").expect("text");
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().expect("not poisoned").push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn warnings(lines: &Lines) -> Vec<String> {
    lines.all().into_iter().filter(|line| line.starts_with(Level::WARN.as_str())).collect()
}

#[tokio::test]
async fn a_policy_that_evicts_is_warned_of_once() {
    let mut server = start_with(RedisOptions { password: Some("hunter2".to_owned()), ..RedisOptions::default() });
    let (lines, _guard) = Lines::catch();
    let view = conformance::view();
    connect(&server.url(), patient()).entry(&view, PARTITION).await.expect("entry");
    assert_eq!(warnings(&lines), [""; 0]);

    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).expect("set");
    let store = connect(&server.url(), patient());
    for _ in 0..3 {
        store.entry(&view, PARTITION).await.expect("entry");
    }
    server.restart().expect("started");
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).expect("set");
    in_the_end(async || store.entry(&view, PARTITION).await).await;
    let found = warnings(&lines);
    assert!(found.len() == 1 && found[0].contains("policy=allkeys-lru") && found[0].contains("noeviction"), "{found:?}");
    assert!(!format!("{:?}", lines.all()).contains("hunter2"), "{:?}", lines.all());
}

#[tokio::test]
async fn a_user_who_may_not_ask_for_the_policy_is_not_troubled() {
    let users = vec![ACL.replace(" +info", "")];
    let server = start_with(RedisOptions { users, ..RedisOptions::default() });
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).expect("set");
    let (lines, _guard) = Lines::catch();
    let store = connect(&server.url_of("riomar", "hunter2"), patient());
    fill(&store, &conformance::view()).await;
    assert_eq!(warnings(&lines), [""; 0]);
}

#[tokio::test]
async fn every_master_of_a_cluster_is_asked() {
    let cluster = start_cluster(RedisClusterOptions::default());
    cluster.node(2).command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]).expect("set");
    let (lines, _guard) = Lines::catch();
    connect(&cluster.url(), patient()).entry(&conformance::view(), PARTITION).await.expect("entry");
    let found = warnings(&lines);
    assert!(found.len() == 1 && found[0].contains("policy=allkeys-random"), "{found:?}");
}

#[tokio::test]
async fn a_password_is_in_no_line() {
    let server = start_with(RedisOptions { password: Some("of-the-operator".to_owned()), ..RedisOptions::default() });
    let (lines, _guard) = Lines::catch();
    let store = connect(&server.url_of("default", "hunter2"), patient());
    for _ in 0..4 {
        assert_unavailable(store.entry(&conformance::view(), PARTITION).await, "Redis at");
    }
    assert!(!format!("{:?}", lines.all()).contains("hunter2"), "{:?}", lines.all());
}

//! The store against a real Redis: conformance, faults, and what others did to its keys.

use std::sync::Arc;

use riomar_infra::{RedisOptions, RedisServer};
use riomar_schemas::{Offset, ReaderPosition, keys};

use super::*;
use crate::conformance;

const PARTITION: PartitionId = PartitionId(0);

fn start() -> RedisServer {
    start_with(RedisOptions::default())
}

fn start_with(options: RedisOptions) -> RedisServer {
    RedisServer::start_with(options).unwrap_or_else(|error| panic!("{error}"))
}

fn connect(server: &RedisServer, limits: RedisLimits) -> RedisStore {
    RedisStore::connect(&server.url(), "test", limits).expect("an address")
}

fn fresh() -> Entry {
    Entry::fresh(ReaderPosition::default())
}

fn at(offset: u64) -> Entry {
    Entry { position: ReaderPosition { offset: Offset(offset), epoch: Epoch(0) }, ..fresh() }
}

fn state(epoch: u64, key: &str) -> EncodedState {
    EncodedState { epoch: Epoch(epoch), key: key.to_owned(), state: b"1".to_vec() }
}

/// A store with one entry at offset 1 and one group in epoch 0.
async fn filled(server: &RedisServer) -> (RedisStore, Arc<View>) {
    let (store, view) = (connect(server, RedisLimits::default()), conformance::view());
    assert_eq!(store.reset(&view, PARTITION, None, &fresh()).await.expect("reset"), WriteOutcome::Applied);
    let outcome = store.write(&view, PARTITION, &fresh(), &at(1), &[state(0, "a")]).await.expect("write");
    assert_eq!(outcome, WriteOutcome::Applied);
    (store, view)
}

fn assert_unavailable<T: std::fmt::Debug>(result: Result<T, StoreError>, reason: &str) {
    match result {
        Err(StoreError::Unavailable(text)) if text.contains(reason) => {}
        other => panic!("expected to be unavailable because of '{reason}', got {other:?}"),
    }
}

fn assert_damaged<T: std::fmt::Debug>(result: Result<T, StoreError>, reason: &str) {
    match result {
        Err(StoreError::Damaged(text)) if text.contains(reason) => {}
        other => panic!("expected to be damaged because of '{reason}', got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let server = start();
    conformance::check(Arc::new(connect(
        &server,
        RedisLimits { call_timeout: Duration::from_secs(30), ..RedisLimits::default() },
    )))
    .await;
}

#[tokio::test]
async fn keys_and_entries_are_readable() {
    let server = start();
    let (_, view) = filled(&server).await;
    let listed = server.command(&["KEYS", "*"]).expect("keys");
    let mut listed: Vec<_> = listed.lines().collect();
    listed.sort_unstable();
    let mut expected = [keys::entry("test", &view, PARTITION), keys::epoch("test", &view, PARTITION, Epoch(0))];
    expected.sort_unstable();
    assert_eq!(listed, expected);
    let fields = server.command(&["HGETALL", &keys::entry("test", &view, PARTITION)]).expect("entry");
    let fields: Vec<_> = fields.lines().collect();
    let mut pairs: Vec<_> = fields.chunks(2).map(|pair| pair.join(" ")).collect();
    pairs.sort_unstable();
    assert_eq!(pairs, ["epoch 0", "floor 0", "format 1", "groups:0 1", "offset 1", "start 0"]);
}

#[tokio::test]
async fn c6_an_entry_whose_epochs_are_not_whole_counts_as_none() {
    for remove in ["UNLINK", "HDEL"] {
        let server = start();
        let (store, view) = filled(&server).await;
        store.write(&view, PARTITION, &at(1), &at(2), &[state(1, "a"), state(1, "b")]).await.expect("write");
        let epoch = keys::epoch("test", &view, PARTITION, Epoch(1));
        let command = [remove, epoch.as_str(), "a"];
        server.command(if remove == "HDEL" { &command } else { &command[..2] }).expect("removed");

        assert_eq!(store.entry(&view, PARTITION).await.expect("entry"), None);
        assert!(store.read(&view, PARTITION, Epoch(0)).await.expect("read").is_none());
        assert_eq!(store.states(&view, PARTITION, &[(Epoch(0), "a")]).await.expect("states"), (None, vec![None]));
        let fenced = store.write(&view, PARTITION, &at(2), &at(3), &[state(1, "c")]).await.expect("write");
        assert_eq!(fenced, WriteOutcome::Fenced(None), "a write must not hide the loss");
        assert_eq!(store.reset(&view, PARTITION, None, &fresh()).await.expect("reset"), WriteOutcome::Applied);
        assert_eq!(
            server.command(&["KEYS", "*"]).expect("keys"),
            keys::entry("test", &view, PARTITION),
            "nothing is left behind"
        );
    }
}

#[tokio::test]
async fn c6_states_of_an_entry_that_was_lost_do_not_show_through() {
    let server = start();
    let (store, view) = filled(&server).await;
    server.command(&["UNLINK", &keys::entry("test", &view, PARTITION)]).expect("removed");
    store.reset(&view, PARTITION, None, &fresh()).await.expect("reset");
    let (_, states) = store.states(&view, PARTITION, &[(Epoch(0), "a")]).await.expect("states");
    assert_eq!(states, [None]);
    store.write(&view, PARTITION, &fresh(), &at(1), &[state(0, "b")]).await.expect("write");
    let part = store.read(&view, PARTITION, Epoch(0)).await.expect("read").expect("entry");
    assert_eq!(part.states, [state(0, "b")]);
}

#[tokio::test]
async fn what_others_wrote_is_not_read_and_not_overwritten() {
    let server = start();
    let (store, view) = filled(&server).await;
    let entry = keys::entry("test", &view, PARTITION);
    server.command(&["HSET", &entry, "format", "2"]).expect("set");
    assert_damaged(store.entry(&view, PARTITION).await, "format");
    assert_damaged(store.read(&view, PARTITION, Epoch(0)).await, "format");
    assert_damaged(store.write(&view, PARTITION, &at(1), &at(2), &[]).await, "format");
    assert_damaged(store.reset(&view, PARTITION, Some(&at(1)), &fresh()).await, "format");
    assert_damaged(store.reset(&view, PARTITION, None, &fresh()).await, "format");
    assert_damaged(store.remove_below(&view, PARTITION, Epoch(9)).await, "format");
    assert_eq!(server.command(&["HGET", &entry, "offset"]).expect("get"), "1");
    server.command(&["HSET", &entry, "format", "1", "offset", "many"]).expect("set");
    assert_damaged(store.entry(&view, PARTITION).await, "offset");
    server.command(&["SET", &entry, "text"]).expect("set");
    assert_damaged(store.entry(&view, PARTITION).await, "WRONGTYPE");
}

#[tokio::test]
async fn a_store_survives_restarts_lost_scripts_and_a_start_without_redis() {
    let mut server = start_with(RedisOptions { snapshots: true, ..RedisOptions::default() });
    let (store, view) = filled(&server).await;
    server.command(&["SCRIPT", "FLUSH"]).expect("flushed");
    assert_eq!(store.entry(&view, PARTITION).await.expect("entry"), Some(at(1)));

    server.stop().expect("stopped");
    let late = connect(&server, RedisLimits { breaker_period: Duration::from_millis(1), ..RedisLimits::default() });
    for _ in 0..5 {
        assert_unavailable(late.entry(&view, PARTITION).await, "Redis at 127.0.0.1");
    }
    server.restart().expect("started");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while late.entry(&view, PARTITION).await.ok() != Some(Some(at(1))) {
        assert!(tokio::time::Instant::now() < deadline, "the store never came back");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_redis_that_hangs_costs_a_deadline_and_then_nothing() {
    let mut server = start();
    let (_, view) = filled(&server).await;
    let limits =
        RedisLimits { call_timeout: Duration::from_millis(50), breaker_failures: 2, breaker_period: Duration::from_millis(400) };
    let store = connect(&server, limits);
    store.entry(&view, PARTITION).await.expect("entry");
    server.pause().expect("paused");
    for _ in 0..2 {
        assert_unavailable(store.entry(&view, PARTITION).await, "no answer within 50ms");
    }
    let before = tokio::time::Instant::now();
    for _ in 0..1000 {
        assert_unavailable(store.entry(&view, PARTITION).await, "next try");
    }
    assert!(before.elapsed() < Duration::from_millis(400), "calls that fail at once take no time");
    server.resume().expect("resumed");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while store.entry(&view, PARTITION).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the store never came back");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_write_whose_reply_is_lost_is_found_applied() {
    let mut server = start();
    let (_, view) = filled(&server).await;
    let store = connect(&server, RedisLimits { call_timeout: Duration::from_millis(50), ..RedisLimits::default() });
    store.entry(&view, PARTITION).await.expect("entry");
    server.pause().expect("paused");
    // The request waits in the socket: Redis runs it when it goes on, and nobody hears the reply.
    assert_unavailable(store.write(&view, PARTITION, &at(1), &at(2), &[state(0, "b")]).await, "no answer");
    server.resume().expect("resumed");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let entry = loop {
        match store.entry(&view, PARTITION).await {
            Ok(entry) => break entry,
            Err(_) => assert!(tokio::time::Instant::now() < deadline, "the store never came back"),
        }
    };
    assert_eq!(entry, Some(at(2)));
    let fenced = store.write(&view, PARTITION, &at(1), &at(2), &[state(0, "b")]).await.expect("write");
    assert_eq!(fenced, WriteOutcome::Fenced(Some(at(2))), "sent again, it changes nothing");
}

#[tokio::test]
async fn without_memory_a_write_changes_nothing() {
    let server = start();
    let (store, view) = filled(&server).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).expect("set");
    // Raising the floor removes an epoch in the same script: that must not happen without the rest of the write.
    let next = Entry { floor: Epoch(1), ..at(2) };
    assert_unavailable(store.write(&view, PARTITION, &at(1), &at(2), &[state(0, "b")]).await, "OOM");
    let raised = store.write(&view, PARTITION, &at(1), &next, &[state(1, "b")]).await;
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).expect("set");
    let part = store.read(&view, PARTITION, Epoch(0)).await.expect("read").expect("entry");
    match raised {
        Ok(WriteOutcome::Applied) => assert_eq!((part.entry, part.states), (next, vec![state(1, "b")])),
        _ => assert_eq!((part.entry, part.states), (at(1), vec![state(0, "a")])),
    }
}

#[test]
fn an_address_that_is_none_is_refused_without_repeating_it() {
    let error = RedisStore::connect("http://user:secret@host", "test", RedisLimits::default()).expect_err("no address");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert!(error.to_string().contains("redis://"), "{error}");
}

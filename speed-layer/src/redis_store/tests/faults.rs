//! Redis is restarted, hangs, loses replies, has no memory, or comes back with an older copy.

use super::*;

#[tokio::test]
async fn a_store_survives_restarts_lost_scripts_and_a_start_without_redis() {
    let mut server = start_with(RedisOptions { snapshots: true, ..RedisOptions::default() });
    let (store, view) = filled(&server.url()).await;
    server.command(&["SCRIPT", "FLUSH"]).expect("flushed");
    assert_eq!(store.entry(&view, PARTITION).await.expect("entry"), Some(at(1)));

    server.stop().expect("stopped");
    let late = connect(&server.url(), patient());
    for _ in 0..5 {
        assert_unavailable(late.entry(&view, PARTITION).await, "Redis at 127.0.0.1");
    }
    assert!(store.entry(&view, PARTITION).await.is_err());
    server.restart().expect("started");
    for store in [&late, &store] {
        assert_eq!(in_the_end(async || store.entry(&view, PARTITION).await).await, Some(at(1)));
    }
}

/// A store whose calls end soon, after its first call has succeeded.
async fn impatient(server: &RedisServer, view: &View, limits: RedisLimits) -> RedisStore {
    let mut store = connect(&server.url(), limits);
    in_the_end(async || {
        // Whatever a busy machine made of the last one, this one has not failed yet.
        store = connect(&server.url(), limits);
        store.entry(view, PARTITION).await
    })
    .await;
    store
}

const SOON: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_redis_that_hangs_costs_a_deadline_and_then_nothing() {
    let mut server = start();
    let (_, view) = filled(&server.url()).await;
    let limits = RedisLimits { call_timeout: SOON, breaker_failures: 2, breaker_period: Duration::from_secs(3600) };
    let store = impatient(&server, &view, limits).await;
    server.pause().expect("paused");
    for _ in 0..2 {
        assert_unavailable(store.entry(&view, PARTITION).await, "no answer within 50ms");
    }
    for _ in 0..1000 {
        assert_unavailable(store.entry(&view, PARTITION).await, "next try");
    }
}

#[tokio::test]
async fn a_redis_that_goes_on_is_found_again() {
    let mut server = start();
    let (_, view) = filled(&server.url()).await;
    let limits = RedisLimits { call_timeout: SOON, breaker_failures: 2, breaker_period: Duration::from_millis(1) };
    let store = impatient(&server, &view, limits).await;
    server.pause().expect("paused");
    for _ in 0..10 {
        assert!(store.entry(&view, PARTITION).await.is_err());
    }
    server.resume().expect("resumed");
    assert_eq!(in_the_end(async || store.entry(&view, PARTITION).await).await, Some(at(1)));
}

#[tokio::test]
async fn a_write_whose_reply_is_lost_is_found_applied() {
    let mut server = start();
    let (_, view) = filled(&server.url()).await;
    let store = impatient(&server, &view, RedisLimits { call_timeout: SOON, ..patient() }).await;
    server.pause().expect("paused");
    // The request waits in the socket: Redis runs it when it goes on, and nobody hears the reply.
    assert_unavailable(store.write(&view, PARTITION, &at(1), &at(2), &[state(0, "b")]).await, "no answer");
    server.resume().expect("resumed");
    assert_eq!(in_the_end(async || store.entry(&view, PARTITION).await).await, Some(at(2)));
    let again = in_the_end(async || store.write(&view, PARTITION, &at(1), &at(2), &[state(0, "b")]).await).await;
    assert_eq!(again, WriteOutcome::Fenced(Some(at(2))), "sent again, it changes nothing");
}

#[tokio::test]
async fn without_memory_a_write_changes_nothing() {
    let server = start();
    let (store, view) = filled(&server.url()).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).expect("set");
    // More groups, groups of a new epoch, and a raised floor, which removes an epoch in the same script.
    for (next, states) in
        [(at(2), vec![state(0, "b")]), (at(2), vec![state(1, "b")]), (Entry { floor: Epoch(1), ..at(2) }, vec![state(1, "b")])]
    {
        assert_unavailable(store.write(&view, PARTITION, &at(1), &next, &states).await, "it has no memory left");
    }
    let part = store.read(&view, PARTITION, Epoch(0)).await.expect("read").expect("entry");
    assert_eq!((part.entry, part.states), (at(1), vec![state(0, "a")]));
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).expect("set");
    let applied = store.write(&view, PARTITION, &at(1), &at(2), &[state(1, "b")]).await.expect("write");
    assert_eq!(applied, WriteOutcome::Applied);
}

/// Bytes of a state that takes some memory.
const LARGE_BYTES: usize = 64 << 10;

/// One write further, with a large state in this epoch.
async fn write_large(store: &RedisStore, view: &View, from: &Entry, epoch: u64) -> Result<Entry, StoreError> {
    let next = at(from.position.offset.0 + 1);
    let next = Entry { position: ReaderPosition { epoch: Epoch(epoch), ..next.position }, floor: from.floor, ..next };
    let large = EncodedState { state: vec![b'x'; LARGE_BYTES], ..state(epoch, &next.position.offset.to_string()) };
    match store.write(view, PARTITION, from, &next, &[large]).await? {
        WriteOutcome::Applied => Ok(next),
        fenced => panic!("{fenced:?}"),
    }
}

/// Leaves Redis with less memory than it has taken, by a few states.
async fn leave_no_memory(server: &RedisServer, store: &RedisStore, view: &View, from: &Entry) {
    let used = server.command(&["INFO", "memory"]).expect("info");
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("a line");
    let max = used.parse::<usize>().expect("a number") - 4 * LARGE_BYTES;
    server.command(&["CONFIG", "SET", "maxmemory", &max.to_string()]).expect("set");
    assert_unavailable(write_large(store, view, from, from.position.epoch.0).await, "it has no memory left");
}

#[tokio::test]
async fn a_redis_without_memory_is_drained_by_what_is_removed_and_by_what_begins_anew() {
    let server = start();
    let (store, view) = filled(&server.url()).await;
    let mut last = at(1);
    for epoch in [0, 1, 4] {
        for _ in 0..16 {
            last = write_large(&store, &view, &last, epoch).await.expect("written");
        }
    }

    // A generation covers the first epochs: they go, the others stay, and writes go on.
    leave_no_memory(&server, &store, &view, &last).await;
    store.remove_below(&view, PARTITION, Epoch(2)).await.expect("removed");
    let last = Entry { floor: Epoch(2), ..last };
    let (entry, groups) = store.groups(&view, PARTITION).await.expect("groups").expect("an entry");
    assert_eq!((&entry, groups), (&last, BTreeMap::from([(Epoch(4), 16)])));
    // The memory is given back in the background.
    let last = in_the_end(async || write_large(&store, &view, &last, 4).await).await;

    // The batch view has overtaken it: it begins anew, unless another worker was faster.
    leave_no_memory(&server, &store, &view, &last).await;
    let other = store.reset(&view, PARTITION, Some(&at(1)), &fresh()).await.expect("reset");
    assert_eq!(other, WriteOutcome::Fenced(Some(last.clone())));
    let reset = store.reset(&view, PARTITION, Some(&last), &fresh()).await.expect("reset");
    assert_eq!(reset, WriteOutcome::Applied);
    let part = store.read(&view, PARTITION, Epoch(0)).await.expect("read").expect("an entry");
    assert_eq!((part.entry, part.states), (fresh(), Vec::new()));
    in_the_end(async || write_large(&store, &view, &fresh(), 5).await.map(drop)).await;
}

#[tokio::test]
async fn a_removal_is_not_refused_for_lack_of_memory_where_there_is_nothing_to_remove() {
    let server = start();
    let (store, view) = filled(&server.url()).await;
    let next = Entry { position: ReaderPosition { epoch: Epoch(5), ..at(2).position }, floor: Epoch(1), ..at(2) };
    let applied = store.write(&view, PARTITION, &at(1), &next, &[state(5, "a")]).await.expect("write");
    assert_eq!(applied, WriteOutcome::Applied);
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).expect("set");
    // A removal that failed would keep those behind it waiting, which may have something to remove.
    store.remove_below(&view, PARTITION, Epoch(3)).await.expect("removed");
    let part = store.read(&view, PARTITION, Epoch(0)).await.expect("read").expect("an entry");
    assert_eq!((part.entry, part.states), (Entry { floor: Epoch(3), ..next }, vec![state(5, "a")]));
}

#[tokio::test]
async fn c6_a_stale_replica_that_becomes_the_master_fences_writes_that_expect_more() {
    let master = start();
    let (store, view) = filled(&master.url()).await;
    let replica = start_with(RedisOptions { replica_of: Some(master.port()), ..RedisOptions::default() });
    let copy = connect(&replica.url(), patient());
    in_the_end(async || match copy.entry(&view, PARTITION).await {
        Ok(Some(entry)) => {
            assert_eq!(entry, at(1));
            Ok(())
        }
        Ok(None) => Err(StoreError::Unavailable("not copied".to_owned())),
        Err(error) => Err(error),
    })
    .await;
    assert_unavailable(copy.write(&view, PARTITION, &at(1), &at(2), &[]).await, "it is a replica");

    // The master goes on for a while after the copy ended, and then it is gone.
    replica.command(&["REPLICAOF", "NO", "ONE"]).expect("promoted");
    store.write(&view, PARTITION, &at(1), &at(2), &[state(0, "b"), state(1, "c")]).await.expect("write");
    drop(master);
    let fenced = copy.write(&view, PARTITION, &at(2), &at(3), &[state(1, "d")]).await.expect("write");
    assert_eq!(fenced, WriteOutcome::Fenced(Some(at(1))), "what was written last is not there");
    let applied = copy.write(&view, PARTITION, &at(1), &at(3), &[state(1, "d")]).await.expect("write");
    assert_eq!(applied, WriteOutcome::Applied, "it goes on from what the replica has");
    let part = copy.read(&view, PARTITION, Epoch(0)).await.expect("read").expect("entry");
    assert_eq!((part.entry, part.states.len()), (at(3), 2));
}

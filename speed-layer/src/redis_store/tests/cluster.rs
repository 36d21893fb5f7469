//! Redis Cluster: nodes die, hang and are replaced; slots move while they are read and written.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join3;

use super::*;

/// The slot of the partition that these tests use.
fn slot(cluster: &RedisCluster, view: &View) -> u16 {
    cluster.slot(&keys::entry("test", view, PARTITION)).expect("a slot")
}

/// Calls that fail soon enough to be made often.
fn brisk() -> RedisLimits {
    RedisLimits { call_timeout: Duration::from_secs(4), ..patient() }
}

#[tokio::test]
async fn a_node_that_dies_is_not_available_until_it_is_back() {
    let mut cluster = start_cluster(RedisClusterOptions::default());
    let (_, view) = filled(&cluster.url()).await;
    let store = connect(&cluster.url(), brisk());
    assert_eq!(store.entry(&view, PARTITION).await.expect("entry"), Some(at(1)));
    let master = cluster.master(slot(&cluster, &view)).expect("a master");
    cluster.node_mut(master).kill().expect("killed");
    for _ in 0..5 {
        assert_unavailable(store.entry(&view, PARTITION).await, "Redis Cluster at 127.0.0.1");
        assert_unavailable(store.write(&view, PARTITION, &at(1), &at(2), &[state(0, "b")]).await, "Redis Cluster");
    }
    cluster.node_mut(master).restart().expect("started");
    // It kept nothing on disk: that is found, and begun anew.
    assert_eq!(in_the_end(async || store.entry(&view, PARTITION).await).await, None);
    in_the_end(async || store.reset(&view, PARTITION, None, &fresh()).await).await;
    assert_eq!(in_the_end(async || store.entry(&view, PARTITION).await).await, Some(fresh()));
}

#[tokio::test]
async fn a_node_that_hangs_is_not_available_until_it_goes_on() {
    let mut cluster = start_cluster(RedisClusterOptions::default());
    let (_, view) = filled(&cluster.url()).await;
    let store = connect(&cluster.url(), RedisLimits { call_timeout: Duration::from_millis(500), ..patient() });
    in_the_end(async || store.entry(&view, PARTITION).await).await;
    let master = cluster.master(slot(&cluster, &view)).expect("a master");
    cluster.node_mut(master).pause().expect("paused");
    for _ in 0..4 {
        assert_unavailable(store.entry(&view, PARTITION).await, "Redis Cluster");
    }
    cluster.node_mut(master).resume().expect("resumed");
    assert_eq!(in_the_end(async || store.entry(&view, PARTITION).await).await, Some(at(1)));
}

#[tokio::test]
async fn a_replica_takes_its_masters_place() {
    let mut cluster = start_cluster(RedisClusterOptions { replicas: true, ..RedisClusterOptions::default() });
    let (_, view) = filled(&cluster.url()).await;
    let store = connect(&cluster.url(), brisk());
    store.entry(&view, PARTITION).await.expect("entry");
    let slot = slot(&cluster, &view);
    let master = cluster.master(slot).expect("a master");
    assert_eq!(cluster.node(master).command(&["WAIT", "1", "60000"]).expect("answer"), "1");
    cluster.node_mut(master).kill().expect("killed");
    assert_eq!(in_the_end(async || store.entry(&view, PARTITION).await).await, Some(at(1)));
    let replica = cluster.wait_for_another_master(slot, master).expect("another master");
    // Nobody else writes, so a write that was fenced was applied by a try before it.
    let written = in_the_end(async || store.write(&view, PARTITION, &at(1), &at(2), &[state(1, "b")]).await).await;
    assert!([WriteOutcome::Applied, WriteOutcome::Fenced(Some(at(2)))].contains(&written), "{written:?}");
    cluster.node_mut(master).restart().expect("started");
    cluster.wait_until_ok().expect("well");
    assert_eq!(cluster.master(slot), Some(replica));
    let part = in_the_end(async || store.read(&view, PARTITION, Epoch(0)).await).await.expect("an entry");
    assert_eq!((part.entry, part.states.len()), (at(2), 2));
}

/// Nothing that is asked of a partition whose slot is on its way gives another answer than it would at rest.
#[tokio::test]
async fn a_partition_in_a_moving_slot_is_right_or_not_available() {
    let cluster = start_cluster(RedisClusterOptions::default());
    let view = conformance::view();
    let slot = slot(&cluster, &view);
    let entry_key = keys::entry("test", &view, PARTITION);
    let knowing = connect(&cluster.url(), brisk());
    fill(&knowing, &view).await;
    let mut stored = at(2);
    knowing.write(&view, PARTITION, &at(1), &stored, &[state(1, "a"), state(2, "a")]).await.expect("write");
    for entry_first in [true, false] {
        let to = (cluster.master(slot).expect("a master") + 1) % 3;
        let moving = cluster.begin_move(slot, to).expect("begun");
        let mut left = cluster.keys_left(&moving).expect("keys");
        assert_eq!(left.len(), 4);
        left.sort_by_key(|key| (*key == entry_key) != entry_first);
        for moved in 0..=left.len() {
            if moved > 0 {
                cluster.move_key(&moving, &left[moved - 1]).expect("moved");
            }
            let unknowing = connect(&cluster.url(), brisk());
            let whole = moved == 0 || moved == left.len();
            for store in [&knowing, &unknowing] {
                match store.read(&view, PARTITION, Epoch(0)).await {
                    Ok(part) => {
                        let part = part.expect("an entry that was not lost");
                        assert_eq!((part.entry, part.states.len()), (stored.clone(), 3));
                        assert!(whole, "states were read that are not there");
                    }
                    other => {
                        assert_unavailable(other, "on its way to another node");
                        assert!(!whole, "all keys are in one place");
                    }
                }
            }
            // An epoch that is new has no key yet, and none can be made before the slot has arrived.
            let next = at(stored.position.offset.0 + 1);
            let write = knowing.write(&view, PARTITION, &stored, &next, &[state(0, "a"), state(9, "new")]).await;
            assert_unavailable(write, "on its way to another node");
            if whole {
                let write = knowing.write(&view, PARTITION, &stored, &next, &[state(0, "a"), state(2, "a")]).await;
                assert_eq!(write.expect("all keys are in one place"), WriteOutcome::Applied);
                stored = next;
            }
        }
        cluster.end_move(&moving).expect("ended");
        assert_eq!(in_the_end(async || knowing.entry(&view, PARTITION).await).await, Some(stored.clone()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_reads_go_on_while_slots_move() {
    const MOVES: usize = 12;
    let cluster = Arc::new(start_cluster(RedisClusterOptions::default()));
    let (view, moving) = (conformance::view(), Arc::new(AtomicBool::new(true)));
    let slot = slot(&cluster, &view);
    let store = connect(&cluster.url(), brisk());
    store.reset(&view, PARTITION, None, &fresh()).await.expect("reset");
    let writer = async {
        let (mut stored, mut written) = (fresh(), 0);
        while moving.load(Ordering::SeqCst) {
            let offset = stored.position.offset.0 + 1;
            let next = at(offset);
            // On to the next epoch now and then: its key is made wherever the slot is.
            let states: Vec<_> = (0..=offset / 50)
                .map(|epoch| EncodedState { state: offset.to_string().into_bytes(), ..state(epoch, "a") })
                .collect();
            match store.write(&view, PARTITION, &stored, &next, &states).await {
                Ok(WriteOutcome::Applied) => written += 1,
                // By the same write, sent before and again.
                Ok(WriteOutcome::Fenced(found)) => assert_eq!(found.as_ref(), Some(&next)),
                Err(StoreError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
            let found = in_the_end(async || store.entry(&view, PARTITION).await).await.expect("an entry that was not lost");
            assert!(found == stored || found == next, "{found:?} after {stored:?}");
            stored = found;
        }
        written
    };
    let reader = async {
        let (store, mut read) = (connect(&cluster.url(), brisk()), 0);
        while moving.load(Ordering::SeqCst) {
            let part = match store.read(&view, PARTITION, Epoch(0)).await {
                Ok(part) => part.expect("an entry that was not lost"),
                Err(StoreError::Unavailable(_)) => continue,
                Err(error) => panic!("{error}"),
            };
            let offset = part.entry.position.offset.0.to_string().into_bytes();
            assert!(part.states.iter().all(|state| state.state == offset), "not of one moment: {part:?}");
            read += 1;
        }
        read
    };
    let mover = {
        let (cluster, moving) = (cluster.clone(), moving.clone());
        tokio::task::spawn_blocking(move || {
            for _ in 0..MOVES {
                let from = cluster.master(slot).expect("a master");
                let moved = cluster.begin_move(slot, (from + 1) % 3).expect("begun");
                cluster.end_move(&moved).expect("ended");
            }
            moving.store(false, Ordering::SeqCst);
        })
    };
    let (written, read, moved) = join3(writer, reader, mover).await;
    moved.expect("slots that move");
    assert!(written > 0 && read > 0, "{written} written, {read} read");
}

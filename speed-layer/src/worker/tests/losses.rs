//! What Redis loses is noticed and made good: a part of a view, a whole node, and what a replica had not copied yet.

use std::time::Duration;

use riomar_infra::{RedisCluster, RedisClusterOptions, RedisServer};
use riomar_schemas::{Epoch, keys};

use super::{
    super::{RebuildReason, SpeedWorker},
    world::{PARTITION, World, Written, in_redis},
};
use crate::store::{RealtimeStore, StoreError};

const DEADLINE: Duration = Duration::from_secs(60);

/// Steps until every view has read everything, however often the store is not available on the way.
async fn catch_up(world: &World, worker: &mut SpeedWorker) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        // Views that failed have had their pause.
        world.clock.advance(world.limits.retry_pause_max);
        let _ = worker.step(Duration::ZERO).await;
        let mut reached = true;
        for view in &world.views {
            reached &= match world.store.entry(view, PARTITION).await {
                Ok(entry) => entry.is_some_and(|entry| entry.position.offset == world.end()),
                Err(StoreError::Unavailable(_)) => false,
                Err(error) => panic!("{error}"),
            };
        }
        if reached {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "the worker does not reach the end");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn c6_a_part_that_redis_lost_is_told_from_a_view_that_is_new() {
    let server = RedisServer::start().unwrap_or_else(|error| panic!("{error}"));
    let mut world = World::new(in_redis(&server.url()), 0, 0).await;
    let mut worker = world.worker();
    world.hits(5, 3).await;
    world.append([Written::Cut(1)]).await;
    world.hits(5, 3).await;
    let reasons = worker.step(Duration::ZERO).await.expect("a step").rebuilds;
    assert!(reasons.iter().all(|(_, reason)| *reason == RebuildReason::NoEntry), "{reasons:?}");
    world.catch_up(&mut worker).await;
    let view = world.views[0].clone();
    for epoch in [0, 1] {
        server.command(&["UNLINK", &keys::epoch("test", &view, PARTITION, Epoch(epoch))]).expect("lost");
        world.clock.advance(world.limits.hand_over_interval);
        let step = worker.step(Duration::ZERO).await.expect("a step");
        assert_eq!(step.rebuilds, [(view.name().clone(), RebuildReason::Lost)], "without a new event");
        world.catch_up(&mut worker).await;
        world.check("after a loss").await;
    }
}

#[tokio::test]
async fn c3_c6_a_cluster_that_fails_over_moves_slots_and_loses_a_node_is_never_wrong() {
    let options = RedisClusterOptions { replicas: true, ..RedisClusterOptions::default() };
    let mut cluster = RedisCluster::start_with(options).unwrap_or_else(|error| panic!("{error}"));
    let mut world = World::new(in_redis(&cluster.url()), 0, 0).await;
    let mut worker = world.worker();
    world.hits(20, 5).await;
    world.append([Written::Cut(1)]).await;
    world.hits(20, 5).await;
    catch_up(&world, &mut worker).await;
    world.check("at first").await;

    // The replica hears nothing while the worker goes on, and then it is all there is.
    let slot = cluster.slot(&keys::entry("test", &world.views[0], PARTITION)).expect("a slot");
    let master = cluster.master(slot).expect("a master");
    cluster.node_mut(master + 3).pause().expect("paused");
    world.hits(20, 5).await;
    catch_up(&world, &mut worker).await;
    cluster.node_mut(master).kill().expect("killed");
    cluster.node_mut(master + 3).resume().expect("resumed");
    world.hits(5, 5).await;
    catch_up(&world, &mut worker).await;
    world.check("after a fail-over").await;

    cluster.wait_for_another_master(slot, master).expect("another master");
    cluster.node_mut(master).restart().expect("started");
    cluster.wait_until_ok().expect("well");
    let moving = cluster.begin_move(slot, (master + 1) % 3).expect("begun");
    for key in cluster.keys_left(&moving).expect("keys") {
        world.hits(2, 2).await;
        let _ = worker.step(Duration::ZERO).await;
        cluster.move_key(&moving, &key).expect("moved");
    }
    cluster.end_move(&moving).expect("ended");
    catch_up(&world, &mut worker).await;
    world.check("after a slot has moved").await;

    // A master and its replica are gone for good, with all they held.
    let lost = cluster.master(slot).expect("a master");
    for node in [lost, (lost + 3) % 6] {
        cluster.node_mut(node).kill().expect("killed");
    }
    for node in [lost, (lost + 3) % 6] {
        cluster.node_mut(node).restart().expect("started");
    }
    world.append([Written::Cut(2)]).await;
    world.hits(5, 5).await;
    catch_up(&world, &mut worker).await;
    world.check("after a node was lost").await;
}

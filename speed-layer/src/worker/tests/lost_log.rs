//! The log loses records that have not landed: the worker stops there, and once the loss is accepted no state holds them any more.

use std::time::Duration;

use riomar_event_log::LogError;
use riomar_schemas::{Epoch, Offset};

use super::{
    super::{RebuildReason, SpeedError},
    world::{Hit, World, Written},
};

/// Records 0 to 12, of which 0 to 7 have landed and 8 to 10 are gone: an event, a cut, and an event.
async fn world() -> World {
    let mut world = World::in_memory().await;
    world.hits(5, 2).await;
    world.append([Written::Cut(1)]).await;
    world.hits(3, 2).await;
    world.append([Written::Cut(2)]).await;
    world.hits(3, 2).await;
    world.land(8);
    world
}

fn is_gone(error: &SpeedError) -> bool {
    let wanted = Offset(8);
    matches!(error, SpeedError::Log { source: LogError::OutOfRange { wanted: found, start: Offset(11), .. }, .. } if *found == wanted)
}

#[tokio::test]
async fn c3_states_that_hold_lost_events_stay_exact_until_the_loss_is_accepted_and_are_then_rebuilt() {
    let mut world = world().await;
    let mut ahead = world.worker();
    world.catch_up(&mut ahead).await;
    world.trim(Offset(11)).await;
    // One that begins here cannot know which ids were kept. It waits, and harms nothing.
    let mut restarted = world.worker();
    for _ in 0..3 {
        let refused = restarted.step(Duration::ZERO).await.expect_err("what was kept is unknown");
        assert!(is_gone(&refused), "{refused}");
    }
    world.check("while nothing is accepted").await;
    world.hits(2, 2).await;
    world.catch_up(&mut ahead).await;
    world.check("the one that has read them goes on").await;

    world.accept_loss(Offset(11), Epoch(4));
    // A lost id comes again, and a cut that was lost: the one counts now, and the other no longer.
    let again = Hit { id: "new 8".to_owned(), minute: 7, key: "k0".to_owned(), amount: 100 };
    world.append([Written::Hit(again), Written::Cut(2)]).await;
    for worker in [&mut ahead, &mut restarted] {
        let step = worker.step(Duration::ZERO).await.expect("a step");
        let rebuilt: Vec<_> = step.rebuilds.iter().map(|(_, reason)| *reason).collect();
        // The second one finds them rebuilt.
        assert!(rebuilt == [RebuildReason::HoldsLost; 2] || rebuilt.is_empty(), "{rebuilt:?}");
    }
    world.catch_up(&mut restarted).await;
    world.check("after the rebuild").await;
    for view in &world.views {
        assert_eq!(world.entry(view).await.expect("an entry").lost, 3);
    }
    world.append([Written::Cut(5)]).await;
    world.hits(4, 2).await;
    world.land_all();
    world.publish();
    world.catch_up(&mut ahead).await;
    world.check("behind the next hand-over").await;
    let step = restarted.step(Duration::ZERO).await.expect("a step");
    assert!(step.rebuilds.is_empty() && world.history.current(world.views[0].name()).cut == Epoch(5), "{step:?}");
}

#[tokio::test]
async fn c3_a_view_that_has_not_read_the_lost_events_passes_over_them_once_that_is_accepted() {
    let mut world = world().await;
    world.trim(Offset(11)).await;
    let mut worker = world.worker();
    worker.step(Duration::ZERO).await.expect("what has landed");
    for _ in 0..3 {
        let refused = worker.step(Duration::ZERO).await.expect_err("neither log nor master dataset has the next record");
        assert!(is_gone(&refused), "{refused}");
        world.check("up to where landing stands").await;
    }
    world.accept_loss(Offset(11), Epoch(4));
    world.catch_up(&mut worker).await;
    world.check("behind the loss").await;
    let step = worker.step(Duration::ZERO).await.expect("a step");
    assert!(step.rebuilds.is_empty(), "{step:?}");
}

#[tokio::test]
async fn c3_a_reader_that_knows_of_a_loss_folds_nothing_into_states_that_do_not() {
    let mut world = world().await;
    let mut ahead = world.worker();
    world.catch_up(&mut ahead).await;
    world.trim(Offset(11)).await;
    // Its views are settled for long when the loss is accepted.
    world.limits.hand_over_interval = Duration::from_secs(3_600);
    let mut worker = world.worker();
    let refused = worker.step(Duration::ZERO).await.expect_err("what was kept is unknown");
    assert!(is_gone(&refused), "{refused}");
    world.hits(2, 2).await;
    world.accept_loss(Offset(11), Epoch(4));
    let again = Hit { id: "new 8".to_owned(), minute: 7, key: "k0".to_owned(), amount: 100 };
    world.append([Written::Hit(again)]).await;
    let step = worker.step(Duration::ZERO).await.expect("a step");
    assert_eq!((step.records, step.events_folded), (0, 0), "the views come first");
    world.catch_up(&mut worker).await;
    world.check("after the rebuild").await;
}

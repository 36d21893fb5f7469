//! Two processes over one object store.

use std::sync::Arc;

use object_store::ObjectStore;
use serde_json::json;

use super::*;
use crate::{
    BatchConfig, BatchLayer,
    runs::{PendingRun, RunRequest},
    testing::{Fault, FaultStore, Fixture, memory},
};

/// A process that shares the batch layer, and where it tells of itself.
async fn process(fixture: &Fixture, store: Arc<dyn ObjectStore>) -> (BatchLayer, Notices) {
    let layer = fixture.layer_with(store, BatchConfig { shared: true, target_partitions: 2, ..BatchConfig::default() });
    let notices = Notices::new(layer.context().clone(), layer.context().fresh_ids.next());
    (layer, notices)
}

fn teller(layer: &BatchLayer) -> Teller<'_> {
    Teller::new(layer.runs().told.as_ref().expect("shared"), &layer.runs().registry)
}

/// A run that was told of and does not move.
async fn announced(layer: &BatchLayer) -> PendingRun {
    let pending = layer.runs().accept(&RunRequest::default()).expect("free");
    layer.runs().told.as_ref().expect("shared").announce(&pending.active.run()).await.expect("told");
    pending
}

async fn stored(layer: &BatchLayer) -> usize {
    objects::list(layer.context(), &paths::runs()).await.expect("lists").len()
}

#[tokio::test]
async fn a_run_that_was_accepted_is_found_at_once_by_every_process() {
    let (fixture, store) = (Fixture::new().await, memory());
    let (one, notices) = process(&fixture, store.clone()).await;
    let (other, others) = process(&fixture, store).await;
    // Also by one that has only just begun, and has told nothing of itself.
    for heard in [false, true] {
        if heard {
            others.tell(json!("other")).await.expect("tells");
        }
        fixture.clock.advance(1_000);
        let request = RunRequest { full: heard, ..RunRequest::default() };
        let run = one.runs().start(&request).await.expect("accepted");
        let found = other.runs().find(run.id, Some(&others)).await.expect("found");
        assert_eq!((found.id, found.full, found.state), (run.id, heard, RunState::Queued));
        let all = other.runs().everyones(Some(&others)).await.expect("read");
        assert_eq!(all.first().map(|newest| newest.id), Some(run.id));
        assert_eq!(one.runs().everyones(Some(&notices)).await.expect("read").len(), all.len(), "its own are not shown twice");
        assert!(matches!(other.runs().get(run.id), Err(BatchError::UnknownRun(_))), "it is not its own");
        one.runs().registry.interrupt().await;
        teller(&one).round().await;
        let found = other.runs().find(run.id, Some(&others)).await.expect("found");
        assert_eq!((found.state, found.error), (RunState::Failed, Some(BatchError::Interrupted.to_string())));
    }
    let nobodys = Uuid::from_u128(u128::MAX);
    assert!(matches!(other.runs().find(nobodys, Some(&others)).await, Err(BatchError::UnknownRun(id)) if id == nobodys));
}

#[tokio::test]
async fn a_run_that_cannot_be_told_of_does_not_begin() {
    let (fixture, store) = (Fixture::new().await, memory());
    let (other, others) = process(&fixture, store.clone()).await;
    for after_effect in [false, true] {
        let fault = Fault { at: 0, after_effect, for_good: false };
        let (one, _) = process(&fixture, FaultStore::new(store.clone(), fault)).await;
        let refused = one.runs().start(&RunRequest::default()).await.expect_err("the others cannot be told");
        assert!(matches!(refused, BatchError::Store { .. }), "{refused}");
        let [run]: [Run; 1] = one.runs().all().try_into().expect("one run");
        assert_eq!(run.state, RunState::Failed);
        // Whether or not the others have heard of it, they hear how it ended.
        assert_eq!(other.runs().find(run.id, Some(&others)).await.is_ok(), after_effect);
        teller(&one).round().await;
        assert_eq!(other.runs().find(run.id, Some(&others)).await.expect("found").state, RunState::Failed);
        one.runs().start(&RunRequest::default()).await.expect("the stream is free");
        one.runs().registry.interrupt().await;
    }
}

#[tokio::test]
async fn a_run_whose_process_is_silent_is_unknown_until_it_is_heard_of_again() {
    let (fixture, store) = (Fixture::new().await, memory());
    let (one, _) = process(&fixture, store.clone()).await;
    let (other, others) = process(&fixture, store).await;
    let mut telling = teller(&one);
    let over = announced(&one).await.id();
    telling.round().await;
    let pending = announced(&one).await;
    let id = pending.id();
    others.tell(json!("other")).await.expect("tells");
    let states = async || {
        let all = other.runs().everyones(Some(&others)).await.expect("read");
        let state = |id| all.iter().find(|run| run.id == id).map(|run| run.state);
        let found = other.runs().find(id, Some(&others)).await.expect("found");
        assert_eq!((Some(found.state), found.error.is_some()), (state(id), found.state == RunState::Unknown));
        (state(over).expect("listed"), found.state == RunState::Unknown)
    };
    assert_eq!(states().await, (RunState::Failed, false));
    fixture.clock.advance(SILENT_AFTER_MS + 20_000);
    assert_eq!(states().await, (RunState::Failed, true), "what is over stays so");
    // It was frozen, and goes on. The other one has told of itself since, so it knows how late it is.
    telling.round().await;
    others.tell(json!("other")).await.expect("tells");
    assert_eq!(states().await, (RunState::Failed, false));
    // Nothing is new, and it is told again all the same.
    fixture.clock.advance(SILENT_AFTER_MS + 20_000);
    assert_eq!(states().await, (RunState::Failed, true));
    telling.round().await;
    others.tell(json!("other")).await.expect("tells");
    assert_eq!(states().await, (RunState::Failed, false));
}

#[tokio::test]
async fn the_newest_hundred_are_kept() {
    let (fixture, store) = (Fixture::new().await, memory());
    let (one, _) = process(&fixture, store.clone()).await;
    let (other, others) = process(&fixture, store).await;
    for layer in [&one, &other] {
        for _ in 0..RUNS_REMEMBERED - 20 {
            drop(layer.runs().accept(&RunRequest::default()).expect("free"));
        }
        teller(layer).round().await;
    }
    assert_eq!(stored(&one).await, RUNS_REMEMBERED);
    assert_eq!(one.runs().everyones(Some(&others)).await.expect("read").len(), RUNS_REMEMBERED);
}

#[tokio::test]
async fn a_process_that_stops_ends_its_runs_and_says_so() {
    let (fixture, store) = (Fixture::in_real_time().await, memory());
    let (one, _) = process(&fixture, store.clone()).await;
    let (other, others) = process(&fixture, store).await;
    // Nothing lands here, so it would wait for minutes.
    let run = one.runs().start(&RunRequest::default()).await.expect("accepted");
    one.runs().tell(async {}).await;
    let found = other.runs().find(run.id, Some(&others)).await.expect("found");
    assert_eq!((found.state, found.error), (RunState::Failed, Some(BatchError::Interrupted.to_string())));
}

#[tokio::test]
async fn a_process_that_is_alone_tells_nobody() {
    let fixture = Fixture::new().await;
    let alone = fixture.layer(memory());
    let run = alone.runs().start(&RunRequest::default()).await.expect("accepted");
    alone.runs().tell(std::future::pending()).await;
    assert_eq!(alone.runs().find(run.id, None).await.expect("its own").id, run.id);
    assert_eq!(alone.runs().everyones(None).await.expect("its own").len(), 1);
    assert_eq!(stored(&alone).await, 0);
}

//! Every operation happens at one moment, whoever else is at work.

use std::sync::Arc;

use futures::future::join_all;
use riomar_schemas::Epoch;

use super::{Subject, at, entry, state};
use crate::store::{RealtimeStore, WriteOutcome};

const WRITERS: u64 = 8;
const ROUNDS: u64 = 20;
const KEYS: usize = 50;

pub(super) async fn check(store: Arc<dyn RealtimeStore>) {
    one_of_many_writers_wins(&store).await;
    one_of_many_resets_wins(&store).await;
    reads_see_whole_writes(&store).await;
}

async fn one_of_many_writers_wins(store: &Arc<dyn RealtimeStore>) {
    let mut stored = entry(0, 0);
    let subject = Subject::new(&**store, 30, &stored).await;
    for round in 0..ROUNDS {
        let writers = (0..WRITERS).map(|writer| {
            let (store, view, partition, expected) = (store.clone(), subject.view.clone(), subject.partition, stored.clone());
            tokio::spawn(async move {
                // Each moves the position to another place, so that the others' guard no longer holds.
                let next = at(&expected, 1 + round * WRITERS + writer, 0);
                let states = [state(0, "winner", writer.to_string())];
                (store.write(&view, partition, &expected, &next, &states).await.expect("a write"), next, writer)
            })
        });
        let outcomes: Vec<_> = join_all(writers).await.into_iter().map(|joined| joined.expect("a writer that ends")).collect();
        let winners: Vec<_> = outcomes.iter().filter(|(outcome, ..)| *outcome == WriteOutcome::Applied).collect();
        assert_eq!(winners.len(), 1, "of writers with the same guard");
        let (_, next, writer) = winners[0];
        assert_eq!(subject.entry().await.as_ref(), Some(next));
        assert_eq!(subject.all().await, [state(0, "winner", writer.to_string())]);
        for (outcome, ..) in &outcomes {
            assert!(
                matches!(outcome, WriteOutcome::Applied) || *outcome == WriteOutcome::Fenced(Some(next.clone())),
                "{outcome:?}"
            );
        }
        stored = next.clone();
    }
}

async fn one_of_many_resets_wins(store: &Arc<dyn RealtimeStore>) {
    let stored = entry(0, 0);
    let subject = Subject::new(&**store, 31, &stored).await;
    let resets = (1..=WRITERS).map(|writer| {
        let (store, view, partition, expected) = (store.clone(), subject.view.clone(), subject.partition, stored.clone());
        tokio::spawn(
            async move { store.reset(&view, partition, Some(&expected), &entry(writer, writer)).await.expect("a reset") },
        )
    });
    let outcomes = join_all(resets).await;
    let applied = outcomes.iter().filter(|joined| matches!(joined, Ok(WriteOutcome::Applied))).count();
    assert_eq!(applied, 1, "of resets with the same guard");
}

/// Every write gives all keys of two epochs the write's own offset; a reader must never see two numbers at once.
async fn reads_see_whole_writes(store: &Arc<dyn RealtimeStore>) {
    let first = entry(0, 0);
    let subject = Subject::new(&**store, 32, &first).await;
    let names: Vec<String> = (0..KEYS).map(|key| key.to_string()).collect();
    let writer = {
        let (store, view, partition, names) = (store.clone(), subject.view.clone(), subject.partition, names.clone());
        tokio::spawn(async move {
            let mut expected = first;
            for offset in 1..=ROUNDS * 10 {
                let next = at(&expected, offset, 1);
                let states: Vec<_> =
                    names.iter().flat_map(|name| [0, 1].map(|epoch| state(epoch, name, offset.to_string()))).collect();
                let outcome = store.write(&view, partition, &expected, &next, &states).await.expect("a write");
                assert_eq!(outcome, WriteOutcome::Applied, "the only writer");
                expected = next;
            }
        })
    };
    let keys: Vec<(Epoch, &str)> =
        names.iter().flat_map(|name| [Epoch(0), Epoch(1)].map(|epoch| (epoch, name.as_str()))).collect();
    while !writer.is_finished() {
        let part = subject.read(0).await.expect("an entry");
        let offset = part.entry.position.offset;
        assert!(part.states.iter().all(|state| state.state == offset.to_string().as_bytes()), "read: not of one moment");
        assert!(offset.0 == 0 || part.states.len() == 2 * KEYS, "read: {} states", part.states.len());

        let (entry, states) = store.states(&subject.view, subject.partition, &keys).await.expect("states");
        let offset = entry.expect("an entry").position.offset;
        let expected = (offset.0 > 0).then(|| offset.to_string().into_bytes());
        assert!(states.iter().all(|state| *state == expected), "states: not of one moment");
        tokio::task::yield_now().await;
    }
    writer.await.expect("a writer that ends");
}

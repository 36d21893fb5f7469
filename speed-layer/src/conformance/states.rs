//! States come back as they were written, each under its epoch and key.

use std::collections::BTreeMap;

use riomar_schemas::{Epoch, PartitionId, state_codec::EncodedState};

use super::{Subject, at, entry, state, views};
use crate::store::{RealtimeStore, WriteOutcome};

/// More than any limit on the arguments of one command.
const LARGE: usize = 20_000;

pub(super) async fn check(store: &dyn RealtimeStore) {
    states_are_replaced(store).await;
    any_key_and_any_bytes(store).await;
    large_batches(store).await;
    views_and_partitions_are_apart(store).await;
}

async fn states_are_replaced(store: &dyn RealtimeStore) {
    let first = entry(0, 9);
    let subject = Subject::new(store, 10, &first).await;
    let second = at(&first, 5, 10);
    let outcome = subject.write(&first, &second, &[state(9, "a", "1"), state(10, "a", "2"), state(9, "b", "3")]).await;
    assert_eq!(outcome, WriteOutcome::Applied);
    let third = at(&first, 6, 100);
    subject.write(&second, &third, &[state(9, "a", "4"), state(100, "c", "5")]).await;
    // A write without states moves the position all the same: the records were duplicates, or cuts.
    let fourth = at(&first, 9, 101);
    assert_eq!(subject.write(&third, &fourth, &[]).await, WriteOutcome::Applied);

    let all = [state(9, "a", "4"), state(9, "b", "3"), state(10, "a", "2"), state(100, "c", "5")];
    for (from, expected) in [(0, &all[..]), (9, &all), (10, &all[2..]), (11, &all[3..]), (100, &all[3..]), (101, &[])] {
        let part = subject.read(from).await.expect("an entry");
        assert_eq!((part.entry, part.states.as_slice()), (fourth.clone(), expected), "from epoch {from}");
    }
    let keys = [(Epoch(100), "c"), (Epoch(9), "b"), (Epoch(9), "c"), (Epoch(10), "a"), (Epoch(11), "a"), (Epoch(9), "a")];
    let (stored, states) = store.states(&subject.view, subject.partition, &keys).await.expect("states");
    assert_eq!(stored, Some(fourth.clone()));
    let states: Vec<_> = states.iter().map(Option::as_deref).collect();
    assert_eq!(states, [Some(b"5".as_slice()), Some(b"3"), None, Some(b"2"), None, Some(b"4")]);
    let groups = store.groups(&subject.view, subject.partition).await.expect("groups");
    assert_eq!(groups, Some((fourth, BTreeMap::from([(Epoch(9), 2), (Epoch(10), 1), (Epoch(100), 1)]))));
}

async fn any_key_and_any_bytes(store: &dyn RealtimeStore) {
    let first = entry(0, 0);
    let subject = Subject::new(store, 11, &first).await;
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let mut written: Vec<EncodedState> =
        ["[\"/über\",\"🌊\"]", "[null,\"\\u0000\"]", "", "a b\r\n*1", "\0", "groups:1", "日本語"]
            .iter()
            .map(|key| state(0, key, &every_byte))
            .collect();
    written.push(state(0, "empty", ""));
    written.push(state(0, "long", vec![0xff; 100_000]));
    let second = at(&first, 1, 0);
    subject.write(&first, &second, &written).await;
    written.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(subject.all().await, written);
    let keys: Vec<_> = written.iter().map(|state| (state.epoch, state.key.as_str())).collect();
    let (_, states) = store.states(&subject.view, subject.partition, &keys).await.expect("states");
    for (state, written) in states.into_iter().zip(&written) {
        assert_eq!(state.as_ref(), Some(&written.state), "{:?}", written.key);
    }
}

async fn large_batches(store: &dyn RealtimeStore) {
    let first = entry(0, 1);
    let subject = Subject::new(store, 12, &first).await;
    // All in one epoch, then spread over three of them.
    let one: Vec<_> = (0..LARGE).map(|i| state(1, &format!("key {i:05}"), i.to_le_bytes())).collect();
    let second = at(&first, 1, 1);
    assert_eq!(subject.write(&first, &second, &one).await, WriteOutcome::Applied);
    assert_eq!(subject.all().await, one);

    let spread: Vec<_> = (0..LARGE).map(|i| state(1 + i as u64 % 3, &format!("key {i:05}"), "new")).collect();
    assert_eq!(subject.write(&second, &at(&first, 2, 3), &spread).await, WriteOutcome::Applied);
    let keys: Vec<_> = spread.iter().map(|state| (state.epoch, state.key.as_str())).collect();
    let (_, states) = store.states(&subject.view, subject.partition, &keys).await.expect("states");
    assert!(states.iter().all(|state| state.as_deref() == Some(b"new")), "each state that was asked for");
    let (_, groups) = store.groups(&subject.view, subject.partition).await.expect("groups").expect("an entry");
    let counts: Vec<_> = groups.into_values().collect();
    assert_eq!(counts, [LARGE as u64, LARGE.div_ceil(3) as u64, (LARGE / 3) as u64]);
    assert_eq!(subject.read(2).await.expect("an entry").states.len(), LARGE.div_ceil(3) + LARGE / 3);
}

async fn views_and_partitions_are_apart(store: &dyn RealtimeStore) {
    let first = entry(0, 0);
    let subject = Subject::new(store, 13, &first).await;
    let neighbour = Subject::new(store, 14, &first).await;
    let other = Subject { store, view: views().1, partition: PartitionId(13) };
    let stored = other.entry().await;
    other.reset(stored.as_ref(), &first).await;
    subject.write(&first, &at(&first, 1, 0), &[state(0, "a", "1")]).await;
    for untouched in [&neighbour, &other] {
        assert_eq!(untouched.entry().await.as_ref(), Some(&first));
        assert_eq!(untouched.all().await, []);
    }
}

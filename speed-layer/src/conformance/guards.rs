//! Nothing is written over an entry that is not the expected one.

use riomar_schemas::{Epoch, Offset, PartitionId};

use super::{Subject, at, entry, state, view};
use crate::store::{Entry, RealtimeStore, WriteOutcome};

pub(super) async fn check(store: &dyn RealtimeStore) {
    without_an_entry(store).await;
    entries_come_back_as_written(store).await;
    writes_that_expect_another_entry(store).await;
    resets(store).await;
}

async fn without_an_entry(store: &dyn RealtimeStore) {
    // Partitions that no other check uses.
    let subject = Subject { store, view: view(), partition: PartitionId(1_000) };
    assert_eq!(subject.entry().await, None);
    assert!(subject.read(0).await.is_none());
    assert_eq!(store.groups(&subject.view, subject.partition).await.expect("groups"), None);
    let (stored, states) =
        store.states(&subject.view, subject.partition, &[(Epoch(0), "a"), (Epoch(1), "b")]).await.expect("states");
    assert_eq!((stored, states), (None, vec![None, None]));
    subject.remove_below(7).await;
    assert_eq!(subject.write(&entry(0, 0), &entry(1, 0), &[state(0, "a", "1")]).await, WriteOutcome::Fenced(None));
    assert_eq!(subject.reset(Some(&entry(0, 0)), &entry(1, 0)).await, WriteOutcome::Fenced(None));
    assert_eq!(subject.entry().await, None, "what was fenced left nothing behind");
}

async fn entries_come_back_as_written(store: &dyn RealtimeStore) {
    let entries = [
        entry(0, 0),
        Entry { event_time_max_us: Some(-1), halted: Some("more than 5 groups: ü \"quoted\" {}".to_owned()), ..entry(9, 4) },
        Entry { event_time_max_us: Some(i64::MAX), rebuilding_to: Some(Offset(u64::MAX)), ..entry(u64::MAX, u64::MAX) },
        Entry { start: Epoch(2), floor: Epoch(3), lost: (1 << 53) + 1, ..entry((1 << 53) + 1, 9) },
        entry(5, 5),
    ];
    let subject = Subject::new(store, 1, &entries[0]).await;
    for pair in entries.windows(2) {
        assert_eq!(subject.entry().await.as_ref(), Some(&pair[0]));
        assert_eq!(subject.reset(Some(&pair[0]), &pair[1]).await, WriteOutcome::Applied);
    }
    // A write moves every field too, and takes away what the next entry lacks.
    let full = Entry {
        event_time_max_us: Some(77),
        rebuilding_to: Some(Offset(9)),
        halted: Some("a limit".to_owned()),
        lost: 8,
        ..at(&entries[4], 6, 6)
    };
    assert_eq!(subject.write(&entries[4], &full, &[]).await, WriteOutcome::Applied);
    assert_eq!(subject.entry().await.as_ref(), Some(&full));
    let bare = at(&entries[4], 7, 6);
    assert_eq!(subject.write(&full, &bare, &[]).await, WriteOutcome::Applied);
    assert_eq!(subject.entry().await, Some(bare));
}

async fn writes_that_expect_another_entry(store: &dyn RealtimeStore) {
    let exact = (1 << 53) + 1; // a number that floating point cannot tell from its neighbour
    let stored = Entry { start: Epoch(3), floor: Epoch(3), ..entry(exact, 4) };
    let subject = Subject::new(store, 2, &stored).await;
    let strangers = [
        at(&stored, exact - 1, 4),
        at(&stored, exact + 1, 4),
        at(&stored, exact, 3),
        at(&stored, exact, 5),
        Entry { start: Epoch(2), ..stored.clone() },
        Entry { start: Epoch(4), ..stored.clone() },
    ];
    for stranger in &strangers {
        let outcome = subject.write(stranger, &at(stranger, exact + 9, 9), &[state(4, "a", "1")]).await;
        assert_eq!(outcome, WriteOutcome::Fenced(Some(stored.clone())), "{stranger:?}");
        let outcome = subject.reset(Some(stranger), &entry(0, 0)).await;
        assert_eq!(outcome, WriteOutcome::Fenced(Some(stored.clone())), "{stranger:?}");
    }
    assert_eq!(subject.entry().await.as_ref(), Some(&stored));
    assert_eq!(subject.all().await, []);

    // The fields beside position and start are no part of the guard.
    let expected = Entry {
        floor: Epoch(0),
        event_time_max_us: Some(1),
        rebuilding_to: Some(Offset(1)),
        halted: Some("no".to_owned()),
        lost: 3,
        ..stored.clone()
    };
    let next = at(&stored, exact + 1, 4);
    assert_eq!(subject.write(&expected, &next, &[state(4, "a", "1")]).await, WriteOutcome::Applied);
    let again = subject.write(&expected, &next, &[state(4, "a", "2")]).await;
    assert_eq!(again, WriteOutcome::Fenced(Some(next)), "the same write once more, as after a reply that was lost");
    assert_eq!(subject.all().await, [state(4, "a", "1")]);
}

async fn resets(store: &dyn RealtimeStore) {
    let first = entry(3, 1);
    let subject = Subject::new(store, 3, &first).await;
    let filled = at(&first, 4, 2);
    subject.write(&first, &filled, &[state(1, "a", "1"), state(2, "b", "2")]).await;
    assert_eq!(subject.reset(None, &entry(0, 0)).await, WriteOutcome::Fenced(Some(filled.clone())), "expected to be none");
    assert_eq!(subject.all().await.len(), 2);

    let next = Entry { position: riomar_schemas::ReaderPosition { offset: Offset(2), epoch: Epoch(2) }, ..entry(2, 2) };
    assert_eq!(subject.reset(Some(&filled), &next).await, WriteOutcome::Applied);
    assert_eq!(subject.entry().await.as_ref(), Some(&next));
    assert_eq!(subject.all().await, [], "of states before a reset");
    let later = at(&next, 5, 2);
    subject.write(&next, &later, &[state(2, "c", "3")]).await;
    assert_eq!(subject.all().await, [state(2, "c", "3")], "no state of before the reset shows through");
}

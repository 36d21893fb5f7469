//! Epochs below the floor are gone for good.

use riomar_schemas::Epoch;

use super::{Subject, at, entry, state};
use crate::store::{Entry, RealtimeStore, WriteOutcome};

pub(super) async fn check(store: &dyn RealtimeStore) {
    epochs_are_removed(store).await;
    late_writes_do_not_bring_them_back(store).await;
    a_write_may_raise_the_floor(store).await;
}

async fn epochs_are_removed(store: &dyn RealtimeStore) {
    let first = entry(0, 8);
    let subject = Subject::new(store, 20, &first).await;
    let second = at(&first, 4, 11);
    subject.write(&first, &second, &[state(8, "a", "1"), state(9, "a", "2"), state(10, "a", "3"), state(11, "a", "4")]).await;
    // 9 and 10: as texts they would be the other way round.
    subject.remove_below(10).await;
    let raised = Entry { floor: Epoch(10), ..second.clone() };
    assert_eq!(subject.entry().await.as_ref(), Some(&raised));
    assert_eq!(subject.all().await, [state(10, "a", "3"), state(11, "a", "4")]);
    subject.remove_below(9).await;
    assert_eq!(subject.entry().await.as_ref(), Some(&raised), "a floor never falls");
    // The guard does not contain the floor: a worker need not know of the removal.
    assert_eq!(subject.write(&second, &at(&raised, 5, 11), &[]).await, WriteOutcome::Applied);
    subject.remove_below(99).await;
    assert_eq!(subject.all().await, []);
}

async fn late_writes_do_not_bring_them_back(store: &dyn RealtimeStore) {
    let first = entry(0, 1);
    let subject = Subject::new(store, 21, &first).await;
    subject.remove_below(3).await;
    let next = at(&first, 1, 4);
    let written = [state(1, "a", "1"), state(2, "a", "2"), state(3, "a", "3"), state(4, "a", "4")];
    assert_eq!(subject.write(&first, &next, &written).await, WriteOutcome::Applied);
    assert_eq!(subject.entry().await, Some(Entry { floor: Epoch(3), ..next }), "the higher floor is kept");
    assert_eq!(subject.all().await, written[2..]);
}

async fn a_write_may_raise_the_floor(store: &dyn RealtimeStore) {
    let first = entry(0, 1);
    let subject = Subject::new(store, 22, &first).await;
    let second = at(&first, 1, 2);
    subject.write(&first, &second, &[state(1, "a", "1"), state(2, "a", "2")]).await;
    let third = Entry { floor: Epoch(2), ..at(&first, 2, 2) };
    subject.write(&second, &third, &[state(1, "b", "3"), state(2, "b", "4")]).await;
    assert_eq!(subject.entry().await, Some(third));
    assert_eq!(subject.all().await, [state(2, "a", "2"), state(2, "b", "4")]);
}

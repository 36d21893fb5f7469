//! Which hand-overs can be audited, and what looking at those that cannot costs.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use riomar_schemas::{Name, ReaderPosition};

use super::*;
use crate::testing::Platform;

const PARTITION: PartitionId = PartitionId(1);

fn entry(offset: u64, epoch: u64, start: u64, floor: u64) -> Entry {
    let position = ReaderPosition { offset: Offset(offset), epoch: Epoch(epoch) };
    Entry { start: Epoch(start), floor: Epoch(floor), ..Entry::fresh(position) }
}

#[test]
fn an_entry_holds_what_was_taken_over_or_will_or_never_will() {
    // The generation took over the epochs 3 and 4.
    let positions = BTreeMap::from([(PARTITION, Offset(50))]);
    let hand_over = HandOver { generation: 7, cut: Epoch(5), previous_cut: Epoch(3), positions };
    let (from, to, epoch_before, epoch) = (Offset(55), Offset(60), Epoch(5), Epoch(6));
    let losses = [Loss { from, to, epoch_before, epoch, accepted_at_ms: 0 }];
    let cases = [
        (entry(50, 5, 3, 3), 0, Holding::All),
        (entry(55, 5, 1, 2), 0, Holding::All),
        (entry(50, 5, 4, 4), 4, Holding::All),
        (entry(49, 4, 3, 3), 0, Holding::NotYet),
        // It holds events that were lost: it is rebuilt, and then it begins too late.
        (entry(56, 5, 3, 3), 0, Holding::NotYet),
        (Entry { lost: 5, ..entry(60, 6, 3, 3) }, 0, Holding::All),
        (entry(50, 5, 5, 5), 0, Holding::NoMore),
        (entry(40, 4, 4, 4), 0, Holding::NoMore),
        (entry(50, 5, 3, 4), 0, Holding::NoMore),
        (entry(50, 5, 5, 5), 4, Holding::NoMore),
    ];
    for (entry, first_epoch, expected) in cases {
        let found = holding(&entry, &hand_over, PARTITION, Epoch(first_epoch), &losses);
        assert_eq!(found, expected, "{entry:?}, first epoch {first_epoch}");
    }
}

#[tokio::test]
async fn states_are_not_read_for_an_audit_that_cannot_be() {
    let platform = Platform::new().await;
    platform.publish("1").await;
    platform.publish("2").await;
    let (engine, view) = (&platform.services.query, platform.services.view("traffic").expect("a view"));
    let store = &platform.services.realtime;
    let manifest = platform.services.batch.generations().current(&view).await.expect("reads").expect("a generation");
    let hand_over = HandOver::from(manifest.as_ref());
    assert!(hand_over.previous_cut > Epoch(0) && hand_over.positions.len() == 4, "{hand_over:?}");
    let reads = || platform.store.states_read.load(Ordering::SeqCst);
    let audited = async || engine.audit_hand_over(&view).await.expect("an answer");

    assert!(matches!(audited().await, HandOverAudit::NotYet), "there are no entries yet");
    // Those of a rebuild begin at the cut, in all partitions but the last, which holds all.
    for (partition, position) in &hand_over.positions {
        let begins = ReaderPosition { offset: *position, epoch: hand_over.cut };
        let start = if *partition == PartitionId(3) { Epoch(0) } else { hand_over.cut };
        let entry = Entry { start, floor: start, ..Entry::fresh(begins) };
        store.reset(&view, *partition, None, &entry).await.expect("written");
    }
    assert!(matches!(audited().await, HandOverAudit::NoMore { generation: 2 }));
    assert_eq!(reads(), 0, "entries tell enough");

    // With entries that go back far enough it is carried out: these hold nothing of what the master dataset has.
    for partition in hand_over.positions.keys() {
        let before = store.entry(&view, *partition).await.expect("an entry");
        let position = before.as_ref().expect("written above").position;
        let entry = Entry { start: Epoch(0), floor: Epoch(0), ..Entry::fresh(position) };
        store.reset(&view, *partition, before.as_ref(), &entry).await.expect("written");
    }
    match audited().await {
        HandOverAudit::Done(report) => {
            assert_eq!((report.generation, report.view.clone()), (2, Name::new("traffic").expect("a name")));
            assert_eq!((report.comparison.groups, report.comparison.differing), (1, 1), "{report:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reads(), 4);
}

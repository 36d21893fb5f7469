//! Whether a view's partition goes on from its entry or is rebuilt: a pure function of what was observed.

use std::fmt;

use riomar_event_log::Loss;
use riomar_schemas::{Epoch, HandOver, Offset, PartitionId, ReaderPosition};

use crate::store::Entry;

/// The facts. The hand-over must have been read after the entry: an older one could not know of epochs that were removed since.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// The partition's first epoch.
    pub first_epoch: Epoch,
    /// What the store holds.
    pub entry: Option<&'a Entry>,
    /// Whether this worker has seen it hold an entry.
    pub seen: bool,
    /// Whether states of this very entry were found damaged.
    pub damaged: bool,
    /// Where the current generation ends.
    pub hand_over: &'a HandOver,
    /// The log's end, where it was read after the entry.
    pub log_end: Option<Offset>,
    /// The losses that were accepted.
    pub losses: &'a [Loss],
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on from the entry (or leave it halted, if it is).
    Continue,
    /// Empty it and begin at the hand-over.
    Rebuild(RebuildReason),
}

/// The reasons, each with its label in metrics and its text: one table, so that none is left out of [`RebuildReason::ALL`].
macro_rules! rebuild_reasons {
    ($($(#[$documentation:meta])+ $reason:ident: $label:literal, $text:literal;)+) => {
        /// Why a view's partition is rebuilt.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum RebuildReason {
            $($(#[$documentation])+ $reason,)+
        }

        impl RebuildReason {
            /// All reasons.
            pub(super) const ALL: &[Self] = &[$(Self::$reason),+];

            /// Its name as a label of metrics.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$reason => $label,)+
                }
            }
        }

        impl fmt::Display for RebuildReason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$reason => $text,)+
                })
            }
        }
    };
}

rebuild_reasons! {
    /// The store has no entry, and the log nothing to fold: the view begins here.
    NothingYet: "nothing_yet", "there is nothing to fold yet";
    /// The store has no entry, and this worker never saw one: the view is new, or it was lost before.
    NoEntry: "no_entry", "the store has no entry";
    /// The store no longer has the entry that this worker saw: Redis was emptied, or it evicted or lost a part of it.
    Lost: "lost", "the store has lost its entry, or a part of its states";
    /// The store holds bytes that are no states of the view.
    Damaged: "damaged", "its states are damaged";
    /// The states begin behind the current cut, so the events between are in neither layer.
    StartsAfterCut: "starts_after_cut", "its states begin behind the current cut";
    /// Epochs that the current generation does not cover have been removed.
    LacksEpochs: "lacks_epochs", "epochs that are still needed were removed";
    /// The current generation covers more than has been folded: the rest of those epochs need not be.
    BehindCut: "behind_cut", "the batch view has overtaken it";
    /// The log ends before the entry's position: the entry is of another log's life.
    AheadOfLog: "ahead_of_log", "its position is behind the end of the log";
    /// The states hold events that the log lost before they landed: their loss was accepted, so they are no longer the stream's. Or they
    /// were folded knowing of a loss that this master dataset does not know of.
    HoldsLost: "holds_lost", "it holds events whose loss was accepted";
}

/// Decides.
#[must_use]
pub fn decide(observed: &Observed<'_>) -> Decision {
    let Observed { partition, first_epoch, entry, seen, damaged, hand_over, log_end, losses } = *observed;
    let covered = hand_over.position(partition);
    let Some(entry) = entry else {
        return Decision::Rebuild(match log_end {
            _ if seen => RebuildReason::Lost,
            Some(end) if end == covered => RebuildReason::NothingYet,
            _ => RebuildReason::NoEntry,
        });
    };
    let needed_from = hand_over.cut.max(first_epoch);
    if damaged {
        Decision::Rebuild(RebuildReason::Damaged)
    } else if entry.lost != Loss::before(losses, entry.position.offset) {
        // One that counts more is of a master dataset that was there before this one was restored; or of a worker that heard of a loss
        // a moment sooner, which costs one rebuild.
        Decision::Rebuild(RebuildReason::HoldsLost)
    } else if log_end.is_some_and(|end| entry.position.offset > end && covered < entry.position.offset) {
        Decision::Rebuild(RebuildReason::AheadOfLog)
    } else if entry.start > needed_from {
        Decision::Rebuild(RebuildReason::StartsAfterCut)
    } else if entry.floor > needed_from {
        Decision::Rebuild(RebuildReason::LacksEpochs)
    } else if entry.position.offset < covered && entry.position.epoch < hand_over.cut {
        Decision::Rebuild(RebuildReason::BehindCut)
    } else {
        Decision::Continue
    }
}

/// The entry that a rebuild begins with, where the log ends at `log_end`.
#[must_use]
pub fn rebuilt(observed: &Observed<'_>, log_end: Offset) -> Entry {
    let epoch = observed.hand_over.cut.max(observed.first_epoch);
    let offset = observed.hand_over.position(observed.partition);
    let rebuilding_to = (log_end > offset).then_some(log_end);
    let lost = Loss::before(observed.losses, offset);
    Entry { rebuilding_to, lost, ..Entry::fresh(ReaderPosition { offset, epoch }) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const PARTITION: PartitionId = PartitionId(1);

    fn entry(offset: u64, epoch: u64, start: u64, floor: u64) -> Entry {
        let position = ReaderPosition { offset: Offset(offset), epoch: Epoch(epoch) };
        Entry { start: Epoch(start), floor: Epoch(floor), ..Entry::fresh(position) }
    }

    /// A hand-over at cut `cut`, which stands at `position` in the partition.
    fn hand_over(cut: u64, position: Option<u64>) -> HandOver {
        let positions: BTreeMap<_, _> = position.map(|position| (PARTITION, Offset(position))).into_iter().collect();
        HandOver { generation: cut, cut: Epoch(cut), previous_cut: Epoch(cut.saturating_sub(1)), positions }
    }

    #[test]
    fn goes_on_or_rebuilds() {
        use Decision::{Continue, Rebuild};
        use RebuildReason::{AheadOfLog, BehindCut, LacksEpochs, Lost, NoEntry, NothingYet, StartsAfterCut};
        let at_start = hand_over(0, None);
        let cut_4 = hand_over(4, Some(40));
        // entry, hand-over, first epoch, the log's end, decision
        let cases = [
            (None, &at_start, 0, 0, Rebuild(NothingYet)),
            (None, &at_start, 0, 1, Rebuild(NoEntry)),
            (None, &cut_4, 0, 40, Rebuild(NothingYet)),
            (None, &cut_4, 0, 90, Rebuild(NoEntry)),
            (Some(entry(0, 0, 0, 0)), &at_start, 0, 0, Continue),
            (Some(entry(50, 4, 2, 3)), &cut_4, 0, 50, Continue),
            (Some(entry(40, 4, 4, 4)), &cut_4, 0, 90, Continue),
            // The states begin behind the cut, or at the first epoch of a partition that was added later.
            (Some(entry(50, 5, 5, 5)), &cut_4, 0, 90, Rebuild(StartsAfterCut)),
            (Some(entry(50, 5, 5, 5)), &hand_over(4, None), 5, 90, Continue),
            (Some(entry(50, 6, 6, 6)), &hand_over(4, None), 5, 90, Rebuild(StartsAfterCut)),
            // Epochs below the floor are gone.
            (Some(entry(70, 6, 2, 5)), &cut_4, 0, 90, Rebuild(LacksEpochs)),
            (Some(entry(70, 6, 2, 4)), &cut_4, 0, 90, Continue),
            (Some(entry(70, 6, 2, 5)), &hand_over(4, None), 5, 90, Continue),
            // The batch view has gone further than the entry.
            (Some(entry(39, 3, 2, 2)), &cut_4, 0, 90, Rebuild(BehindCut)),
            (Some(entry(0, 0, 0, 0)), &cut_4, 0, 90, Rebuild(BehindCut)),
            (Some(entry(40, 3, 2, 2)), &cut_4, 0, 90, Continue),
            (Some(entry(0, 7, 7, 7)), &hand_over(9, Some(0)), 7, 0, Continue),
            // The log is shorter than the entry says, and the hand-over is not to blame.
            (Some(entry(91, 6, 2, 2)), &cut_4, 0, 90, Rebuild(AheadOfLog)),
            (Some(entry(40, 4, 4, 4)), &cut_4, 0, 9, Continue),
        ];
        for (number, (entry, hand_over, first_epoch, log_end, expected)) in cases.into_iter().enumerate() {
            let log_end = Some(Offset(log_end));
            let (entry, first_epoch) = (entry.as_ref(), Epoch(first_epoch));
            let (seen, damaged) = (false, false);
            let losses = &[];
            let observed = Observed { partition: PARTITION, first_epoch, entry, seen, damaged, hand_over, log_end, losses };
            assert_eq!(decide(&observed), expected, "case {number}: {observed:?}");
            let lost = if entry.is_none() { Rebuild(Lost) } else { expected };
            assert_eq!(decide(&Observed { seen: true, ..observed }), lost, "seen before, in case {number}");
            // A rebuild settles the matter: what it writes needs no other.
            let fresh = rebuilt(&observed, Offset(90));
            assert_eq!(decide(&Observed { entry: Some(&fresh), ..observed }), Continue, "after a rebuild in case {number}");
            let of_damaged = if entry.is_some() { Rebuild(RebuildReason::Damaged) } else { expected };
            assert_eq!(decide(&Observed { damaged: true, ..observed }), of_damaged, "damaged, in case {number}");
        }
    }

    #[test]
    fn every_reason_is_listed_under_a_label_of_its_own() {
        let labels: Vec<_> = RebuildReason::ALL.iter().map(|reason| reason.label()).collect();
        let mut different = labels.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!((labels.len(), different.len()), (9, 9), "{labels:?}");
        assert!(labels.contains(&"holds_lost"), "{labels:?}");
    }

    #[test]
    fn a_halted_entry_waits_for_the_next_cut() {
        let halted = Entry { halted: Some("a limit".to_owned()), ..entry(45, 4, 4, 4) };
        for (hand_over, expected) in
            [(hand_over(4, Some(40)), Decision::Continue), (hand_over(5, Some(60)), Decision::Rebuild(RebuildReason::BehindCut))]
        {
            let (entry, hand_over) = (Some(&halted), &hand_over);
            let (first_epoch, seen, damaged, log_end) = (Epoch(0), true, false, None);
            let losses = &[];
            let observed = Observed { partition: PARTITION, first_epoch, entry, seen, damaged, hand_over, log_end, losses };
            assert_eq!(decide(&observed), expected);
        }
    }

    #[test]
    fn a_rebuild_begins_at_the_cut_or_at_the_first_epoch() {
        let begin = |hand_over: &HandOver, first_epoch| {
            let first_epoch = Epoch(first_epoch);
            let (entry, seen, damaged, log_end, losses) = (None, false, false, None, &[]);
            let observed = Observed { partition: PARTITION, first_epoch, entry, seen, damaged, hand_over, log_end, losses };
            rebuilt(&observed, Offset(40))
        };
        assert_eq!(begin(&hand_over(4, Some(40)), 0), entry(40, 4, 4, 4), "nothing is behind the cut");
        let to_the_end = |entry| Entry { rebuilding_to: Some(Offset(40)), ..entry };
        assert_eq!(begin(&hand_over(4, None), 6), to_the_end(entry(0, 6, 6, 6)));
        assert_eq!(begin(&HandOver::default(), 0), to_the_end(entry(0, 0, 0, 0)));
    }

    #[test]
    fn states_that_hold_lost_events_are_rebuilt_and_those_that_passed_over_them_are_not() {
        let loss = |from, to, epoch| {
            let (from, to, epoch, epoch_before) = (Offset(from), Offset(to), Epoch(epoch), Epoch(3));
            Loss { from, to, epoch_before, epoch, accepted_at_ms: 0 }
        };
        let losses = [loss(40, 50, 7), loss(60, 65, 9)];
        let hand_over = hand_over(3, Some(30));
        // the entry's offset, what it knows of, whether it goes on
        let cases = [
            (35, 0, true),
            (40, 0, true),
            (41, 0, false),
            (50, 0, false),
            (50, 10, true),
            (60, 10, true),
            (61, 10, false),
            (70, 0, false),
            (70, 10, false),
            (70, 15, true),
            (50, 15, false),
        ];
        for (offset, lost, goes_on) in cases {
            let entry = Entry { lost, ..entry(offset, 3, 3, 3) };
            let (first_epoch, seen, damaged, log_end) = (Epoch(0), true, false, None);
            let (partition, hand_over, losses) = (PARTITION, &hand_over, losses.as_slice());
            let observed = Observed { partition, first_epoch, entry: Some(&entry), seen, damaged, hand_over, log_end, losses };
            let expected = if goes_on { Decision::Continue } else { Decision::Rebuild(RebuildReason::HoldsLost) };
            assert_eq!(decide(&observed), expected, "{entry:?}");
            let fresh = rebuilt(&observed, Offset(90));
            assert_eq!((fresh.position.offset, fresh.lost), (Offset(30), 0));
            assert_eq!(decide(&Observed { entry: Some(&fresh), ..observed }), Decision::Continue);
        }
        let later = super::tests::hand_over(8, Some(58));
        let (first_epoch, entry, seen, damaged, log_end) = (Epoch(0), None, true, false, None);
        let observed =
            Observed { partition: PARTITION, first_epoch, entry, seen, damaged, hand_over: &later, log_end, losses: &losses };
        assert_eq!(rebuilt(&observed, Offset(90)).lost, 10, "what the hand-over has passed over");
    }
}

//! The ids of kept events, for as long as an event can be a duplicate of them.

use std::collections::{HashMap, VecDeque};

use riomar_schemas::{Epoch, decode::IdDigest};

/// Into how many segments the epochs of the horizon are divided: with more of them fewer ids are held that nobody needs any more,
/// and each id is looked for in more places.
const SEGMENTS: u64 = 4;

/// Which ids were kept, and in which epoch.
///
/// Ids are forgotten a segment of epochs at a time, by letting go of a table as it is: however many ids an epoch had, no cut makes
/// a reader pause. What is held is the live epochs' ids, and those of less than one segment before them.
#[derive(Debug)]
pub struct KeptIds {
    dedup_epochs: u64,
    epoch: Epoch,
    /// Oldest first; none is empty.
    segments: VecDeque<Segment>,
}

/// The ids that were kept in some adjacent epochs.
#[derive(Debug)]
struct Segment {
    first: Epoch,
    last: Epoch,
    /// How many epochs after the first one an id was kept last.
    ids: HashMap<IdDigest, u32>,
}

impl KeptIds {
    /// No ids yet.
    pub fn new(dedup_epochs: u64) -> Self {
        Self { dedup_epochs, epoch: Epoch(0), segments: VecDeque::new() }
    }

    /// Takes over ids that were kept before, in any order.
    pub fn load(&mut self, mut ids: Vec<(IdDigest, Epoch)>) {
        ids.sort_unstable_by_key(|(_, epoch)| *epoch);
        for (id, epoch) in ids {
            self.enter(epoch);
            self.insert(id);
        }
    }

    /// The records that follow are in this epoch. Epochs only grow: an earlier one changes nothing.
    pub fn enter(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
        let horizon = self.horizon();
        while self.segments.front().is_some_and(|segment| segment.last < horizon) {
            self.segments.pop_front();
        }
    }

    /// Keeps an event with this id, unless it is a duplicate. Tells whether it was kept.
    pub fn keep(&mut self, id: IdDigest) -> bool {
        let horizon = self.horizon();
        // The newest segment that has it says when it was kept last.
        let kept = self.segments.iter().rev().find_map(|segment| {
            let after = segment.ids.get(&id)?;
            Some(Epoch(segment.first.0 + u64::from(*after)))
        });
        if kept.is_some_and(|kept| kept >= horizon) {
            return false;
        }
        self.insert(id);
        true
    }

    /// How many ids are held.
    pub fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.ids.len()).sum()
    }

    fn horizon(&self) -> Epoch {
        self.epoch.dedup_horizon(self.dedup_epochs)
    }

    fn insert(&mut self, id: IdDigest) {
        let span = (self.dedup_epochs / SEGMENTS).max(1);
        if self.segments.back().is_none_or(|segment| self.epoch.0 - segment.first.0 >= span) {
            self.segments.push_back(Segment { first: self.epoch, last: self.epoch, ids: HashMap::new() });
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.last = self.epoch;
            // Less than the span of a segment, which is far below the limit of the type.
            segment.ids.insert(id, u32::try_from(self.epoch.0 - segment.first.0).unwrap_or(u32::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> IdDigest {
        number.to_be_bytes()
    }

    #[test]
    fn an_id_is_remembered_for_the_declared_epochs_after_it_was_kept() {
        let mut ids = KeptIds::new(2);
        ids.enter(Epoch(5));
        assert!(ids.keep(id(1)));
        for epoch in 5..=7 {
            ids.enter(Epoch(epoch));
            assert!(!ids.keep(id(1)), "epoch {epoch}");
        }
        ids.enter(Epoch(8));
        assert!(ids.keep(id(1)), "the duplicates did not prolong its memory");
        ids.enter(Epoch(10));
        assert!(!ids.keep(id(1)));
    }

    #[test]
    fn loaded_ids_count_in_their_epochs() {
        let mut ids = KeptIds::new(1);
        ids.load(vec![(id(1), Epoch(4)), (id(2), Epoch(2)), (id(1), Epoch(2)), (id(3), Epoch(3))]);
        ids.enter(Epoch(4));
        assert!(!ids.keep(id(1)) && !ids.keep(id(3)));
        assert!(ids.keep(id(2)));
    }

    #[test]
    fn an_id_that_was_kept_again_is_not_forgotten_with_its_first_epoch() {
        let mut ids = KeptIds::new(1);
        assert!(ids.keep(id(1)));
        ids.enter(Epoch(2));
        assert!(ids.keep(id(1)) && ids.keep(id(2)));
        ids.enter(Epoch(3));
        assert_eq!(ids.len(), 2, "its first epoch is gone");
        assert!(!ids.keep(id(1)));
    }

    #[test]
    fn every_horizon_is_kept_to_the_epoch() {
        for dedup_epochs in 1..=20 {
            for again in 1..=2 * dedup_epochs {
                let mut ids = KeptIds::new(dedup_epochs);
                let mut kept = None;
                for epoch in 0..3 * dedup_epochs {
                    ids.enter(Epoch(epoch));
                    // Others keep the segments busy.
                    assert!(ids.keep(id(1_000 + u128::from(epoch))));
                    if epoch % again == 0 {
                        let expected = kept.is_none_or(|kept| kept + dedup_epochs < epoch);
                        assert_eq!(ids.keep(id(1)), expected, "{dedup_epochs} epochs, every {again}, epoch {epoch}");
                        kept = if expected { Some(epoch) } else { kept };
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_held_stays_within_a_segment_of_the_live_epochs() {
        const PER_EPOCH: u64 = 1_000;
        for dedup_epochs in [1, 8, 10] {
            let mut ids = KeptIds::new(dedup_epochs);
            let mut next = 0;
            for epoch in 0..50 {
                ids.enter(Epoch(epoch));
                for _ in 0..PER_EPOCH {
                    assert!(ids.keep(id(next)));
                    next += 1;
                }
                let epochs = dedup_epochs + 1 + (dedup_epochs / SEGMENTS).max(1);
                assert!(ids.len() as u64 <= epochs * PER_EPOCH, "{} ids in epoch {epoch}", ids.len());
            }
        }
    }
}

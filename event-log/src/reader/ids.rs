//! The ids of kept events, for as long as an event can be a duplicate of them.

use std::collections::{HashMap, VecDeque};

use riomar_schemas::{Epoch, decode::IdDigest};

/// Ids that are forgotten, at the most, for each one that is kept.
const FORGOTTEN_AT_ONCE: usize = 2;

/// Which ids were kept, and in which epoch.
///
/// Forgetting is spread over the ids that come after: however many ids an epoch had, no cut makes a reader pause, and what is
/// held is about twice what the live epochs need at the most.
#[derive(Debug)]
pub struct KeptIds {
    dedup_epochs: u64,
    epoch: Epoch,
    /// The epoch in which an id was kept last. May still hold ids below the horizon.
    epochs: HashMap<IdDigest, Epoch>,
    /// The ids in the order in which they were kept.
    order: VecDeque<IdDigest>,
    /// How many of `order` were kept in each epoch, oldest first.
    runs: VecDeque<(Epoch, usize)>,
}

impl KeptIds {
    /// No ids yet.
    pub fn new(dedup_epochs: u64) -> Self {
        Self { dedup_epochs, epoch: Epoch(0), epochs: HashMap::new(), order: VecDeque::new(), runs: VecDeque::new() }
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
    }

    /// Keeps an event with this id, unless it is a duplicate. Tells whether it was kept.
    pub fn keep(&mut self, id: IdDigest) -> bool {
        let horizon = self.epoch.dedup_horizon(self.dedup_epochs);
        if self.epochs.get(&id).is_some_and(|kept| *kept >= horizon) {
            return false;
        }
        self.insert(id);
        true
    }

    /// How many ids are held.
    pub fn len(&self) -> usize {
        self.epochs.len()
    }

    fn insert(&mut self, id: IdDigest) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            self.forget_one();
        }
        self.epochs.insert(id, self.epoch);
        self.order.push_back(id);
        match self.runs.back_mut() {
            Some((epoch, count)) if *epoch == self.epoch => *count += 1,
            _ => self.runs.push_back((self.epoch, 1)),
        }
    }

    fn forget_one(&mut self) {
        let horizon = self.epoch.dedup_horizon(self.dedup_epochs);
        let Some((epoch, count)) = self.runs.front_mut() else { return };
        if *epoch >= horizon {
            return;
        }
        // The id may have been kept again since.
        if let Some(id) = self.order.pop_front()
            && self.epochs.get(&id) == Some(epoch)
        {
            self.epochs.remove(&id);
        }
        *count -= 1;
        if *count == 0 {
            self.runs.pop_front();
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
        assert!(ids.keep(id(1)));
        assert!((2..12).all(|number| ids.keep(id(number))));
        assert_eq!(ids.order.len(), ids.len(), "its first entry is gone");
        assert!(!ids.keep(id(1)));
    }

    #[test]
    fn what_is_held_stays_within_twice_the_live_epochs() {
        const PER_EPOCH: usize = 1_000;
        let mut ids = KeptIds::new(1);
        let mut next = 0;
        for epoch in 0..50 {
            ids.enter(Epoch(epoch));
            for _ in 0..PER_EPOCH {
                assert!(ids.keep(id(next)));
                next += 1;
                assert!(ids.len() <= 2 * 2 * PER_EPOCH, "{} ids in epoch {epoch}", ids.len());
            }
            assert_eq!(ids.order.len(), ids.runs.iter().map(|(_, count)| count).sum::<usize>());
        }
        assert!(ids.len() <= 3 * PER_EPOCH, "{}", ids.len());
    }
}

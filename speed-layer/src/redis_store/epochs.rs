//! Which epochs entries list: a call names their keys before it knows what it will find.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use riomar_schemas::Epoch;

/// The epochs that each entry listed when it was last seen. A few too many do no harm; with one too few the call is made again.
#[derive(Debug, Default)]
pub(super) struct ListedEpochs(Mutex<HashMap<String, BTreeSet<Epoch>>>);

impl ListedEpochs {
    pub(super) fn of(&self, entry_key: &str) -> BTreeSet<Epoch> {
        self.all().get(entry_key).cloned().unwrap_or_default()
    }

    pub(super) fn set(&self, entry_key: &str, epochs: BTreeSet<Epoch>) {
        self.all().insert(entry_key.to_owned(), epochs);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<Epoch>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

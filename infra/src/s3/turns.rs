//! Requests for one object take their turn.
//!
//! [`s3s_fs`] looks whether an object is there, and then writes it: two requests that create it at the same time would both succeed.
//! It also writes an object and its tag one after the other.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::faults::S3Request;

/// Objects that share a turn by chance only wait a little longer.
const TURNS: usize = 64;

/// Who may read and write which objects.
#[derive(Debug)]
pub struct Turns {
    locks: Vec<RwLock<()>>,
}

/// Held while a request is worked on.
#[derive(Default)]
pub struct Turn<'a> {
    /// Others may read as well.
    reading: Vec<RwLockReadGuard<'a, ()>>,
    /// Nobody else does anything.
    writing: Vec<RwLockWriteGuard<'a, ()>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { locks: (0..TURNS).map(|_| RwLock::default()).collect() }
    }
}

impl Turns {
    /// Waits for a request's turn.
    pub async fn take(&self, request: &S3Request) -> Turn<'_> {
        let key = request.key();
        // A list, or a deletion of many: all objects, always in the same order.
        let locks = if key.is_empty() { &self.locks[..] } else { std::slice::from_ref(self.lock(key)) };
        // Parts of an upload are files of their own until it is complete.
        let part = request.target.contains("?partNumber=");
        let reads = part || matches!(request.method.as_str(), "GET" | "HEAD");
        let mut turn = Turn::default();
        for lock in locks {
            if reads { turn.reading.push(lock.read().await) } else { turn.writing.push(lock.write().await) }
        }
        turn
    }

    fn lock(&self, key: &str) -> &RwLock<()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        // The remainder is below TURNS, which is a small number.
        &self.locks[usize::try_from(hasher.finish() % TURNS as u64).unwrap_or_default()]
    }
}

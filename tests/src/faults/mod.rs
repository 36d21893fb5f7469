//! Faults: decorators over the seams that kill the platform at a chosen durable operation.
//!
//! All decorators of one process share a [`CrashPoints`]. It counts the operations that change something durable, and can let the
//! process die at one of them: from then on every operation fails, reads as well, so nothing that still runs can do anything.
//! The next process gets a new controller over the same data.

mod log;
mod object_store;
mod realtime_store;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

pub use log::FaultLog;
pub use object_store::FaultObjectStore;
pub use realtime_store::FaultRealtimeStore;

/// When the process dies, seen from the operation it dies at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing happens any more.
    Before,
    /// It happens, its caller learns that, and nothing happens after it.
    After,
    /// It happens, but its caller does not learn that.
    AfterLostReply,
}

impl Moment {
    /// All moments.
    pub const ALL: [Self; 3] = [Self::Before, Self::After, Self::AfterLostReply];
}

/// Why an operation of a dead process failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dead;

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the process was killed")
    }
}

impl std::error::Error for Dead {}

/// Counts the durable operations of one process, and kills it at one of them.
#[derive(Debug, Clone, Default)]
pub struct CrashPoints(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    operations: Vec<String>,
    armed: Option<(usize, Moment)>,
    dead: bool,
}

impl CrashPoints {
    /// A process that dies at its operation number `operation`, counted from 0.
    #[must_use]
    pub fn armed(operation: usize, moment: Moment) -> Self {
        Self(Arc::new(Mutex::new(State { armed: Some((operation, moment)), ..State::default() })))
    }

    /// The names of the operations so far, in order.
    #[must_use]
    pub fn operations(&self) -> Vec<String> {
        self.state().operations.clone()
    }

    /// Whether the process is dead.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Ends the process now.
    pub fn kill(&self) {
        self.state().dead = true;
    }

    /// What an operation that changes nothing asks first.
    ///
    /// # Errors
    /// [`Dead`] when the process is.
    pub fn alive(&self) -> Result<(), Dead> {
        if self.is_dead() { Err(Dead) } else { Ok(()) }
    }

    /// Runs one durable operation, or dies at it.
    ///
    /// # Errors
    /// Its own error, or [`Dead`].
    pub async fn durable<T, E>(
        &self,
        name: String,
        error: fn(Dead) -> E,
        operation: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        let moment = self.next(name).map_err(error)?;
        let outcome = operation.await;
        match moment {
            // Another operation may have been the last one while this one ran: then its reply comes too late.
            None => self.alive().map_err(error).and(outcome),
            Some(Moment::After) => {
                self.kill();
                outcome
            }
            Some(_) => {
                self.kill();
                Err(error(Dead))
            }
        }
    }

    /// Counts an operation: the moment to die at if it is the armed one.
    fn next(&self, name: String) -> Result<Option<Moment>, Dead> {
        let mut state = self.state();
        if state.dead {
            return Err(Dead);
        }
        let number = state.operations.len();
        state.operations.push(name);
        match state.armed {
            Some((armed, Moment::Before)) if armed == number => {
                state.dead = true;
                Err(Dead)
            }
            Some((armed, moment)) if armed == number => Ok(Some(moment)),
            _ => Ok(None),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(points: &CrashPoints, effects: &Mutex<Vec<u32>>, number: u32) -> Result<u32, Dead> {
        let effect = async {
            effects.lock().expect("not poisoned").push(number);
            Ok(number)
        };
        points.durable(format!("effect {number}"), |dead| dead, effect).await
    }

    #[tokio::test]
    async fn dies_before_after_and_between() {
        for (moment, replies, effects_left) in [
            (Moment::Before, [Ok(0), Err(Dead), Err(Dead)], vec![0]),
            (Moment::After, [Ok(0), Ok(1), Err(Dead)], vec![0, 1]),
            (Moment::AfterLostReply, [Ok(0), Err(Dead), Err(Dead)], vec![0, 1]),
        ] {
            let (points, effects) = (CrashPoints::armed(1, moment), Mutex::new(Vec::new()));
            for (number, reply) in (0..).zip(replies) {
                assert_eq!(run(&points, &effects, number).await, reply, "{moment:?} {number}");
            }
            assert!(points.is_dead());
            assert_eq!(*effects.lock().expect("not poisoned"), effects_left);
        }
    }

    #[tokio::test]
    async fn counts_what_it_lets_pass() {
        let (points, effects) = (CrashPoints::default(), Mutex::new(Vec::new()));
        for number in 0..3 {
            assert_eq!(run(&points, &effects, number).await, Ok(number));
        }
        assert_eq!(points.operations(), ["effect 0", "effect 1", "effect 2"]);
    }
}

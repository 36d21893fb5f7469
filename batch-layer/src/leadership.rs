//! Which of several batch processes lands the log and starts the scheduled runs.
//!
//! Exactness does not hang on it: whoever lands or publishes does so by creating one object that must not be there yet, so two at
//! once would only be in each other's way. Leadership keeps them from doing the same work twice.
//!
//! It is a lease in the object store. A term is taken by creating its object, which must be absent; the highest one counts. Its
//! holder overwrites it again and again. Who sees it unchanged for [`LEASE_MS`], by its own clock, takes the next term; the holder
//! counts its time from before it wrote, and gives up earlier than that. So no two clocks are compared, and a process that was paused
//! for too long finds its time over before it does anything else ([`Leadership::held`]).
//!
//! A step takes at most three requests one after the other, and a renewal counts if it is through before the one before it ends. So the
//! object store may take two seconds for a request; where it takes longer for long, nobody leads, and each process says so.
//!
//! A clock that is set back tells nothing of the time that has passed. The holder gives up then, and the others begin to wait anew.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures::future::{Either, select};
use riomar_schemas::paths;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use uuid::Uuid;

use crate::{
    context::Context,
    error::BatchError,
    objects::{self, Creation},
};

/// How long a lease must stand unchanged before another process takes the next term, in milliseconds.
pub const LEASE_MS: i64 = 10_000;
/// How much earlier its holder gives it up: more than two clocks differ over a lease.
const MARGIN_MS: i64 = 1_000;
/// How often the holder renews it, and the others look at it.
const STEP_EVERY: Duration = Duration::from_millis(2_500);
/// A step is given up after so many times [`STEP_EVERY`]: a lease that it writes then is over.
const STEP_PERIODS_MAX: u32 = 4;

/// The content of a term's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    holder: Uuid,
    renewals: u64,
    /// The holder stopped in order: nobody need wait.
    released: bool,
}

/// What a process saw last, and since when, in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    term: u64,
    lease: Option<Lease>,
    since_ms: i64,
    /// The highest term that is known to be there; what stands in it need not have been seen.
    highest: u64,
    /// The number of the last renewal that was written here, or was to be. None is written twice.
    renewals: u64,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// Take the next term.
    Claim,
    /// Write the lease again.
    Renew,
    /// Someone else leads.
    Follow,
}

/// Decides, for the process `me` at the moment `now_ms`, which holds its own lease until `held_until_ms`.
fn decide(seen: &Seen, me: Uuid, held_until_ms: i64, now_ms: i64) -> Decision {
    match seen.lease {
        None => Decision::Claim,
        Some(lease) if lease.released => Decision::Claim,
        Some(lease) if lease.holder == me && holds(held_until_ms, now_ms) => Decision::Renew,
        Some(_) if now_ms - seen.since_ms >= LEASE_MS => Decision::Claim,
        Some(_) => Decision::Follow,
    }
}

/// Whether a lease that is held until a moment is held at another. Never is one held for longer in advance than it lasts: where it
/// seems so, the clock was set back.
fn holds(held_until_ms: i64, now_ms: i64) -> bool {
    (1..=LEASE_MS).contains(&held_until_ms.saturating_sub(now_ms))
}

/// Whether this process leads.
#[derive(Debug)]
pub struct Leadership {
    context: Context,
    me: Uuid,
    held_until_ms: AtomicI64,
    seen: Mutex<Seen>,
}

impl Leadership {
    /// A process that shares the batch layer with others. It does not lead before it has taken a term.
    pub(crate) fn shared(context: Context) -> Self {
        let me = context.fresh_ids.next();
        Self { context, me, held_until_ms: AtomicI64::new(i64::MIN), seen: Mutex::default() }
    }

    /// A process that nobody can share it with: it leads always.
    pub(crate) fn alone(context: Context) -> Self {
        Self { held_until_ms: AtomicI64::new(i64::MAX), ..Self::shared(context) }
    }

    /// Whether this process leads at this moment.
    #[must_use]
    pub fn held(&self) -> bool {
        self.is_alone() || holds(self.held_until_ms.load(Ordering::SeqCst), self.context.clock.now_ms())
    }

    fn is_alone(&self) -> bool {
        self.held_until_ms.load(Ordering::SeqCst) == i64::MAX
    }

    /// Looks at the lease, and takes or renews it where that is due.
    ///
    /// # Errors
    /// [`BatchError::Store`]; the lease runs on until its end.
    pub async fn step(&self) -> Result<(), BatchError> {
        if self.is_alone() {
            return Ok(());
        }
        let mut seen = self.seen.lock().await;
        let now_ms = self.context.clock.now_ms();
        seen.since_ms = seen.since_ms.min(now_ms);
        self.look(&mut seen).await?;
        let held_until_ms = self.held_until_ms.load(Ordering::SeqCst);
        match decide(&seen, self.me, held_until_ms, now_ms) {
            Decision::Follow => Ok(()),
            Decision::Claim => self.claim(&mut seen).await,
            Decision::Renew => self.renew(&mut seen).await,
        }
    }

    /// Takes the next term, unless somebody else does.
    async fn claim(&self, seen: &mut Seen) -> Result<(), BatchError> {
        // Who follows counts from when it saw it, which is later.
        let now_ms = self.context.clock.now_ms();
        let (term, path) = (seen.highest + 1, paths::leader(seen.highest + 1));
        let lease = Lease { holder: self.me, renewals: 0, released: false };
        if objects::create_if_absent(&self.context, &path, objects::json(&path, &lease)?).await? == Creation::Created {
            *seen = Seen { term, lease: Some(lease), since_ms: now_ms, highest: term, renewals: 0 };
            self.hold_from(now_ms);
            tracing::info!(term, holder = %self.me, "this process leads the batch layer");
        }
        Ok(())
    }

    /// Writes the lease again.
    async fn renew(&self, seen: &mut Seen) -> Result<(), BatchError> {
        let now_ms = self.context.clock.now_ms();
        if self.held() {
            self.write(seen, false).await?;
            // Where it took until after the lease's end, somebody else may have taken the next term before it was written.
            if self.held() {
                self.hold_from(now_ms);
            }
        }
        Ok(())
    }

    /// Writes the lease of the term seen, which is this process's own.
    async fn write(&self, seen: &mut Seen, released: bool) -> Result<(), BatchError> {
        seen.renewals += 1;
        let (path, lease) = (paths::leader(seen.term), Lease { holder: self.me, renewals: seen.renewals, released });
        objects::overwrite(&self.context, &path, objects::json(&path, &lease)?).await
    }

    /// Steps until `shutdown` is over, telling `leads` what is the case, and then gives the lease back.
    pub async fn run(&self, leads: &watch::Sender<bool>, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = Box::pin(shutdown);
        let mut trouble = Trouble::default();
        while let Either::Right(_) = select(&mut shutdown, Box::pin(self.one_step(leads, &mut trouble))).await {}
        leads.send_replace(false);
        metrics::gauge!("riomar_batch_leader").set(0.0);
        if let Err(error) = self.release().await {
            tracing::warn!(%error, "the lease of the batch layer could not be given back; it ends by itself");
        }
    }

    /// Takes one step, and waits until the next one is due. What is the case is told while it lasts, too: whatever does not answer, the
    /// end of a lease is noticed in time.
    async fn one_step(&self, leads: &watch::Sender<bool>, trouble: &mut Trouble) {
        let mut step = Box::pin(self.step());
        for period in 1..=STEP_PERIODS_MAX {
            match select(step, self.context.clock.sleep(STEP_EVERY)).await {
                Either::Left((stepped, rest)) => {
                    self.tell(leads);
                    let in_time = period == 1;
                    if let (true, Err(error)) = (trouble.begins(stepped.is_ok(), in_time), stepped) {
                        tracing::warn!(%error, "the lease of the batch layer cannot be looked at");
                    }
                    if in_time {
                        rest.await;
                    }
                    return;
                }
                Either::Right(((), unfinished)) => {
                    self.tell(leads);
                    if trouble.begins(false, false) {
                        let waited = STEP_EVERY * period;
                        tracing::warn!(?waited, "the object store does not answer in time for the lease of the batch layer");
                    }
                    step = unfinished;
                }
            }
        }
    }

    /// Tells whether this process leads now.
    fn tell(&self, leads: &watch::Sender<bool>) {
        let held = self.held();
        if leads.send_replace(held) && !held {
            tracing::warn!(holder = %self.me, "this process no longer leads the batch layer");
        }
        metrics::gauge!("riomar_batch_leader").set(f64::from(u8::from(held)));
    }

    /// Gives the lease back, so that nobody waits for its end.
    async fn release(&self) -> Result<(), BatchError> {
        if self.is_alone() || !self.held() {
            return Ok(());
        }
        self.held_until_ms.store(i64::MIN, Ordering::SeqCst);
        let mut seen = self.seen.lock().await;
        match seen.lease {
            Some(lease) if lease.holder == self.me => self.write(&mut seen, true).await,
            _ => Ok(()),
        }
    }

    /// Finds the highest term and what stands in it. What was found of the terms stays found, whatever fails then.
    async fn look(&self, seen: &mut Seen) -> Result<(), BatchError> {
        if seen.highest == 0 {
            let terms = objects::list(&self.context, &paths::leaders()).await?;
            seen.highest = terms.iter().filter_map(|object| paths::number(&object.location)).max().unwrap_or_default();
        } else {
            while objects::exists(&self.context, &paths::leader(seen.highest + 1)).await? {
                seen.highest += 1;
            }
        }
        if seen.highest == 0 {
            return Ok(());
        }
        let (term, path) = (seen.highest, paths::leader(seen.highest));
        let text = objects::read(&self.context, &path).await?.ok_or_else(|| BatchError::damaged(&path, "it is gone"))?;
        let lease: Lease = serde_json::from_slice(&text).map_err(|error| BatchError::damaged(&path, error))?;
        if (term, Some(lease)) != (seen.term, seen.lease) {
            let renewals = seen.renewals.max(lease.renewals);
            // From now on, for it may have been written a moment ago.
            let since_ms = self.context.clock.now_ms();
            *seen = Seen { term, lease: Some(lease), since_ms, renewals, ..*seen };
        }
        Ok(())
    }

    fn hold_from(&self, now_ms: i64) {
        self.held_until_ms.store(now_ms + LEASE_MS - MARGIN_MS, Ordering::SeqCst);
    }
}

/// What a scheduled run asks before it publishes.
pub(crate) type Guard = Option<Arc<Leadership>>;

/// Whether the lease cannot be looked at, or not in time; each such incident is told of once.
#[derive(Debug, Default)]
struct Trouble {
    is_told: bool,
}

impl Trouble {
    /// Takes note of how a step went so far; whether it is to be told that there is trouble. Only a step that was in time ends it.
    fn begins(&mut self, is_well: bool, in_time: bool) -> bool {
        if is_well {
            self.is_told &= !in_time;
            return false;
        }
        !std::mem::replace(&mut self.is_told, true)
    }
}

#[cfg(test)]
mod tests;

//! Which of several batch processes lands the log and starts the scheduled runs.
//!
//! Exactness does not hang on it: whoever lands or publishes does so by creating one object that must not be there yet, so two at
//! once would only be in each other's way. Leadership keeps them from doing the same work twice.
//!
//! It is a lease in the object store. A term is taken by creating its object, which must be absent, and terms have no gaps; the
//! highest one counts. Its holder overwrites it again and again. Who sees it unchanged for [`LEASE_MS`], by its own clock, takes the
//! next term; the holder counts its time from before it wrote, and gives up earlier than that. So no two clocks are compared, and a
//! process that was paused for too long finds its time over before it does anything else ([`Leadership::held`]).

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
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
        Some(lease) if lease.holder == me && now_ms < held_until_ms => Decision::Renew,
        Some(_) if now_ms - seen.since_ms >= LEASE_MS => Decision::Claim,
        Some(_) => Decision::Follow,
    }
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
        self.context.clock.now_ms() < self.held_until_ms.load(Ordering::SeqCst)
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
        // From here on counts what is written below.
        let now_ms = self.context.clock.now_ms();
        let mut seen = self.seen.lock().await;
        self.look(&mut seen, now_ms).await?;
        let held_until_ms = self.held_until_ms.load(Ordering::SeqCst);
        match decide(&seen, self.me, held_until_ms, now_ms) {
            Decision::Follow => {}
            Decision::Claim => {
                let lease = Lease { holder: self.me, renewals: 0, released: false };
                let term = seen.term + 1;
                let created = objects::create_if_absent(&self.context, &paths::leader(term), json(&lease)).await?;
                if created == Creation::Created {
                    *seen = Seen { term, lease: Some(lease), since_ms: now_ms };
                    self.hold_from(now_ms);
                    tracing::info!(term, holder = %self.me, "this process leads the batch layer");
                }
            }
            Decision::Renew => {
                let renewals = seen.lease.map_or(0, |lease| lease.renewals) + 1;
                let lease = Lease { holder: self.me, renewals, released: false };
                objects::overwrite(&self.context, &paths::leader(seen.term), json(&lease)).await?;
                self.hold_from(now_ms);
            }
        }
        Ok(())
    }

    /// Steps until `shutdown` is over, telling `leads` what is the case, and then gives the lease back.
    pub async fn run(&self, leads: &watch::Sender<bool>, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = Box::pin(shutdown);
        let mut failing = false;
        loop {
            // Whatever does not answer: the end of a lease is noticed in time.
            let step = async {
                let stepped = select(Box::pin(self.step()), self.context.clock.sleep(STEP_EVERY)).await;
                match stepped {
                    Either::Left((stepped, rest)) => {
                        self.tell(leads, &mut failing, stepped);
                        rest.await;
                    }
                    Either::Right(_) => self.tell(leads, &mut failing, Ok(())),
                }
            };
            if matches!(select(&mut shutdown, Box::pin(step)).await, Either::Left(_)) {
                break;
            }
        }
        leads.send_replace(false);
        metrics::gauge!("riomar_batch_leader").set(0.0);
        if let Err(error) = self.release().await {
            tracing::warn!(%error, "the lease of the batch layer could not be given back; it ends by itself");
        }
    }

    /// Tells whether this process leads now, and writes one line where failures begin.
    fn tell(&self, leads: &watch::Sender<bool>, failing: &mut bool, stepped: Result<(), BatchError>) {
        let held = self.held();
        if leads.send_replace(held) && !held {
            tracing::warn!(holder = %self.me, "this process no longer leads the batch layer");
        }
        metrics::gauge!("riomar_batch_leader").set(f64::from(u8::from(held)));
        match &stepped {
            Err(error) if !*failing => tracing::warn!(%error, "the lease of the batch layer cannot be looked at"),
            _ => {}
        }
        *failing = stepped.is_err();
    }

    /// Gives the lease back, so that nobody waits for its end.
    async fn release(&self) -> Result<(), BatchError> {
        if self.is_alone() || !self.held() {
            return Ok(());
        }
        self.held_until_ms.store(i64::MIN, Ordering::SeqCst);
        let seen = self.seen.lock().await;
        let renewals = seen.lease.map_or(0, |lease| lease.renewals) + 1;
        let lease = Lease { holder: self.me, renewals, released: true };
        objects::overwrite(&self.context, &paths::leader(seen.term), json(&lease)).await
    }

    /// Finds the highest term and what stands in it.
    async fn look(&self, seen: &mut Seen, now_ms: i64) -> Result<(), BatchError> {
        let mut term = seen.term;
        while objects::exists(&self.context, &paths::leader(term + 1)).await? {
            term += 1;
        }
        if term == 0 {
            return Ok(());
        }
        let path = paths::leader(term);
        let text = objects::read(&self.context, &path).await?.ok_or_else(|| BatchError::damaged(&path, "it is gone"))?;
        let lease: Lease = serde_json::from_slice(&text).map_err(|error| BatchError::damaged(&path, error))?;
        if (term, Some(lease)) != (seen.term, seen.lease) {
            *seen = Seen { term, lease: Some(lease), since_ms: now_ms };
        }
        Ok(())
    }

    fn hold_from(&self, now_ms: i64) {
        self.held_until_ms.store(now_ms + LEASE_MS - MARGIN_MS, Ordering::SeqCst);
    }
}

/// What a scheduled run asks before it publishes.
pub(crate) type Guard = Option<Arc<Leadership>>;

fn json(lease: &Lease) -> Bytes {
    Bytes::from(serde_json::to_vec(lease).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BatchConfig, BatchLayer,
        runs::RunRequest,
        testing::{Fixture, memory},
    };

    #[test]
    fn who_leads_is_decided_from_what_was_seen() {
        let (me, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let lease = |holder, released| Some(Lease { holder, renewals: 3, released });
        // lease, seen unchanged since, held until, now, decision
        let cases = [
            (None, 0, i64::MIN, 5, Decision::Claim),
            (lease(other, false), 0, i64::MIN, LEASE_MS - 1, Decision::Follow),
            (lease(other, false), 0, i64::MIN, LEASE_MS, Decision::Claim),
            (lease(other, true), 0, i64::MIN, 1, Decision::Claim),
            (lease(me, false), 0, 9_000, 8_999, Decision::Renew),
            // Its time is over: it waits like anybody else, and takes a term of its own.
            (lease(me, false), 0, 9_000, 9_000, Decision::Follow),
            (lease(me, false), 0, 9_000, LEASE_MS, Decision::Claim),
        ];
        for (number, (lease, since_ms, held_until_ms, now_ms, expected)) in cases.into_iter().enumerate() {
            let seen = Seen { term: 1, lease, since_ms };
            assert_eq!(decide(&seen, me, held_until_ms, now_ms), expected, "case {number}");
        }
    }

    #[tokio::test]
    async fn one_leads_and_the_next_takes_over_when_it_falls_silent() {
        let fixture = Fixture::new().await;
        let store = memory();
        let [one, other] = [(); 2].map(|()| Leadership::shared(fixture.layer(store.clone()).context().clone()));
        let look = async || {
            one.step().await.expect("steps");
            other.step().await.expect("steps");
            (one.held(), other.held())
        };
        for _ in 0..10 {
            assert_eq!(look().await, (true, false));
            fixture.clock.advance(2_500);
        }
        // The one is paused: it holds its lease no more before the other takes the next term.
        for _ in 0..4 {
            other.step().await.expect("steps");
            assert!(!(one.held() && other.held()), "two lead");
            fixture.clock.advance(2_500);
        }
        other.step().await.expect("steps");
        assert!(!one.held() && other.held());
        assert_eq!(look().await, (false, true), "the one that wakes up follows");
        other.release().await.expect("gives back");
        assert_eq!(look().await, (true, false), "nobody waits for a lease that was given back");
    }

    /// C8: a leader that was paused in the middle of a scheduled run wakes up when another one leads.
    #[tokio::test]
    async fn a_leader_that_was_paused_too_long_publishes_nothing() {
        let fixture = Fixture::new().await;
        let store = memory();
        let shared = || fixture.layer_with(store.clone(), BatchConfig { shared: true, ..BatchConfig::default() });
        let (one, other) = (shared(), shared());
        fixture.append_events(0..30).await;
        let run_of = |layer: &BatchLayer| {
            let request = RunRequest { views: vec![fixture.view().name().clone()], full: false };
            layer.runs().accept_guarded(&request, layer.leadership().clone()).expect("accepted").execute()
        };
        let land = async || {
            let mut landing = one.landing(&fixture.stream()).expect("known");
            loop {
                landing.step().await.expect("lands");
                tokio::task::yield_now().await;
            }
        };
        one.leadership().step().await.expect("leads");
        let paused = run_of(&one);
        fixture.clock.advance(LEASE_MS);
        other.leadership().step().await.expect("follows");
        fixture.clock.advance(LEASE_MS);
        other.leadership().step().await.expect("leads");
        for (layer, run, generation) in [(&one, Either::Left(paused), 0), (&other, Either::Right(run_of(&other)), 1)] {
            let run = tokio::select! { run = run => run, () = land() => unreachable!("landing does not end") };
            assert_eq!(run.error.is_some(), generation == 0, "{run:?}");
            let current = layer.generations().current(&fixture.view()).await.expect("reads");
            assert_eq!(current.map_or(0, |manifest| manifest.generation), generation);
        }
    }

    #[tokio::test]
    async fn whoever_is_alone_leads_at_once_and_writes_nothing() {
        let fixture = Fixture::new().await;
        let store = memory();
        let alone = Leadership::alone(fixture.layer(store.clone()).context().clone());
        alone.step().await.expect("nothing to do");
        assert!(alone.held());
        assert!(!objects::exists(&alone.context, &paths::leader(1)).await.expect("looks"));
    }
}

//! Who leads, however slow the object store is.

use std::sync::atomic::AtomicU64;

use object_store::ObjectStore;
use riomar_event_log::clock::ManualClock;

use super::*;
use crate::{
    BatchConfig, BatchLayer,
    runs::RunRequest,
    testing::{Fault, FaultStore, Fixture, SlowStore, memory},
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
        // Its clock was set back by an hour: how long it has led is not known.
        (lease(me, false), 0, 3_609_000, 8_999, Decision::Follow),
    ];
    for (number, (lease, since_ms, held_until_ms, now_ms, expected)) in cases.into_iter().enumerate() {
        let seen = Seen { term: 1, lease, since_ms, ..Seen::default() };
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
            // As it does beside its runs.
            other.leadership().step().await.expect("renews");
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

/// What processes are made of that share the batch layer.
async fn base() -> Context {
    Fixture::new().await.layer(memory()).context().clone()
}

/// A process on a clock that stands still until it is told otherwise.
fn process(base: &Context, store: Arc<dyn ObjectStore>, clock: &ManualClock) -> Leadership {
    Leadership::shared(Context { store, clock: Arc::new(clock.clone()), ..base.clone() })
}

/// Lets time pass, a little at a time, and everybody act in between. `look` is called each time.
async fn pass(clock: &ManualClock, duration: Duration, mut look: impl FnMut()) {
    let step = Duration::from_millis(50);
    for _ in 0..duration.as_millis() / step.as_millis() {
        clock.advance(step);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        look();
    }
}

/// Runs a process whose requests take as long as `delays` says before and after they take effect.
fn run(
    base: &Context,
    clock: &ManualClock,
    store: Arc<dyn ObjectStore>,
    delays: impl Fn() -> (Duration, Duration) + Send + Sync + 'static,
) -> Arc<Leadership> {
    let slow = SlowStore::new(store, Arc::new(clock.clone()), delays);
    let process = Arc::new(process(base, slow, clock));
    let running = process.clone();
    tokio::spawn(async move { running.run(&watch::Sender::new(false), std::future::pending()).await });
    process
}

#[tokio::test]
async fn a_process_that_begins_after_many_changes_leads_with_few_requests() {
    let (base, store, clock) = (base().await, memory(), ManualClock::new(1_000_000));
    for _ in 0..300 {
        let before = process(&base, store.clone(), &clock);
        before.step().await.expect("leads");
        assert!(before.held());
        before.release().await.expect("gives back");
    }
    let counted = FaultStore::new(store.clone(), Fault::never());
    let begun = process(&base, counted.clone(), &clock);
    begun.step().await.expect("leads");
    assert!(begun.held() && counted.operations() <= 3, "{} requests", counted.operations());
    assert!(objects::exists(&begun.context, &paths::leader(301)).await.expect("looks"));
    // Old terms may be removed by somebody: the highest one counts.
    for term in 1..=300 {
        objects::delete(&begun.context, &paths::leader(term)).await.expect("deleted");
    }
    let other = process(&base, store, &clock);
    other.step().await.expect("follows");
    assert!(begun.held() && !other.held());
}

#[tokio::test]
async fn what_was_found_of_the_terms_stays_found() {
    let (base, store, clock) = (base().await, memory(), ManualClock::new(1_000_000));
    let change = async || {
        let next = process(&base, store.clone(), &clock);
        next.step().await.expect("leads");
        next.release().await.expect("gives back");
    };
    change().await;
    // It takes two requests to see the first term. Of those that look for the next ones the third fails, and all after it.
    let faults = FaultStore::new(store.clone(), Fault { at: 4, after_effect: false, for_good: true });
    let failing = process(&base, faults, &clock);
    failing.look(&mut *failing.seen.lock().await).await.expect("sees the first term");
    for _ in 0..5 {
        change().await;
    }
    let (failed, ()) = tokio::join!(failing.step(), pass(&clock, Duration::from_secs(5), || {}));
    failed.expect_err("no answer");
    let seen = *failing.seen.lock().await;
    assert_eq!((seen.term, seen.highest), (1, 3), "two terms more, in which it has read nothing yet");
}

#[tokio::test]
async fn somebody_leads_though_the_object_store_is_slow() {
    let base = base().await;
    for request_ms in [0, 30, 650, 1_000, 2_000] {
        let clock = ManualClock::new(1_000_000);
        let half = Duration::from_millis(request_ms / 2);
        let store = memory();
        let processes = [(); 2].map(|()| run(&base, &clock, store.clone(), move || (half, half)));
        let leads = || processes.iter().map(|process| process.held()).collect::<Vec<_>>();
        pass(&clock, Duration::from_secs(60), || assert_ne!(leads(), [true, true], "two lead")).await;
        let leader = leads();
        assert!(leader.contains(&true), "nobody leads at {request_ms} ms a request");
        pass(&clock, Duration::from_secs(120), || assert_eq!(leads(), leader, "at {request_ms} ms a request")).await;
    }
}

/// The leader's requests are slow all at once: its renewal is through when the other one has taken the next term.
#[tokio::test]
async fn a_renewal_that_comes_too_late_counts_for_nothing() {
    let (base, clock) = (base().await, ManualClock::new(1_000_000));
    let (store, slow) = (memory(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let next = slow.clone();
    let one = run(&base, &clock, store.clone(), move || (next.lock().expect("whole").pop().unwrap_or_default(), Duration::ZERO));
    pass(&clock, Duration::from_secs(1), || {}).await;
    let other = run(&base, &clock, store, Default::default);
    pass(&clock, Duration::from_secs(9), || {}).await;
    assert!(one.held() && !other.held());
    // Last of all the first: it looks for the next term, reads the lease, writes it.
    *slow.lock().expect("whole") = [4_000, 0, 5_500].map(Duration::from_millis).to_vec();
    pass(&clock, Duration::from_secs(20), || assert!(!(one.held() && other.held()), "two lead")).await;
    assert!(slow.lock().expect("whole").is_empty() && other.held());
}

/// A process that follows is slow to read the lease: how long it has stood unchanged it knows from then on.
#[tokio::test]
async fn a_lease_is_counted_from_when_it_was_read() {
    let (base, clock) = (base().await, ManualClock::new(1_000_000));
    let slow = std::sync::Mutex::new(vec![Duration::from_secs(4)]);
    let delays = move || (slow.lock().expect("whole").pop().unwrap_or_default(), Duration::ZERO);
    let store = memory();
    let leader = process(&base, store.clone(), &clock);
    let slow_store = SlowStore::new(store, Arc::new(clock.clone()), delays);
    let follower = Arc::new(process(&base, slow_store, &clock));
    // It begins to look four seconds before the leader takes the term, and reads what that wrote.
    let looking = tokio::spawn({
        let follower = follower.clone();
        async move { follower.step().await }
    });
    pass(&clock, Duration::from_millis(3_950), || {}).await;
    leader.step().await.expect("leads");
    pass(&clock, Duration::from_millis(100), || {}).await;
    looking.await.expect("ends").expect("sees the lease");
    pass(&clock, Duration::from_secs(7), || {}).await;
    follower.step().await.expect("follows");
    assert!(leader.held() && !follower.held());
}

/// Requests that take longer than a lease, and take effect long before or after anybody knows.
#[tokio::test]
async fn two_never_lead_whatever_a_request_takes() {
    let (base, mut led) = (base().await, 0_u64);
    for seed in 1..=40_u64 {
        let clock = ManualClock::new(1_000_000);
        let random = Arc::new(AtomicU64::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let next = move || {
            let step = |x: u64| {
                let x = x ^ (x << 13);
                let x = x ^ (x >> 7);
                x ^ (x << 17)
            };
            let before = random.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |x| Some(step(x))).expect("always");
            let longest_ms = if before.is_multiple_of(6) { 14_000 } else { 1_500 };
            Duration::from_millis((before >> 20) % longest_ms)
        };
        let store = memory();
        let processes = [next.clone(), next].map(|next| run(&base, &clock, store.clone(), move || (next(), next())));
        pass(&clock, Duration::from_secs(180), || {
            let held = processes.iter().filter(|process| process.held()).count();
            assert!(held < 2, "two lead (seed {seed})");
            led += held as u64;
        })
        .await;
    }
    assert!(led > 1_000, "there was a leader now and then");
}

#[tokio::test]
async fn a_clock_that_is_set_back_holds_up_nobody_for_longer_than_a_lease() {
    let (base, store, clock) = (base().await, memory(), ManualClock::new(100_000_000));
    let (one, other) = (process(&base, store.clone(), &clock), process(&base, store, &clock));
    one.step().await.expect("leads");
    other.step().await.expect("follows");
    assert!(one.held());
    clock.set(100_000_000 - 3_600_000);
    assert!(!one.held(), "how long it has led is not known");
    // The one is dead; the other takes over as if it had seen the lease just now.
    for expected in [false, true] {
        other.step().await.expect("steps");
        assert_eq!(other.held(), expected);
        clock.advance(Duration::from_millis(LEASE_MS.unsigned_abs()));
    }
    other.step().await.expect("steps");
    one.step().await.expect("follows");
    assert!(!(one.held() && other.held()));
}

#[test]
fn each_incident_is_told_of_once() {
    let mut trouble = Trouble::default();
    // Is well, was in time, is told.
    for (number, (is_well, in_time, told)) in [
        (true, true, false),
        (false, false, true),
        (false, false, false),
        (false, true, false),
        (true, false, false),
        (false, false, false),
        (true, true, false),
        (false, true, true),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(trouble.begins(is_well, in_time), told, "step {number}");
    }
}

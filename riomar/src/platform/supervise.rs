//! Keeping the platform's tasks going: one that ends or panics is logged, waited out and started again. It never ends the process.

use std::{any::Any, fmt::Display, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use riomar_event_log::Clock;
use tokio::sync::watch;

/// The wait after a first failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// The longest wait before a task is started again.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A task that ran this long before it failed is not one that fails at its start.
const GOOD_RUN_MS: i64 = 60_000;

/// A request to stop that any number of tasks can see.
pub type Stop = watch::Receiver<bool>;

/// Waits until it is asked to stop, or until nobody is left who could ask.
pub async fn stopped(mut stop: Stop) {
    // What is waited for is not looked at, so that no lock is held by the waiting task.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Runs `task` until it is asked to stop. The task sees the request itself, and ends by itself; where it ends before, it is started
/// again.
pub async fn keep_running<E: Display, T: Future<Output = Result<(), E>>>(
    name: &'static str,
    clock: Arc<dyn Clock>,
    stop: Stop,
    mut task: impl FnMut() -> T,
) {
    // Known before the first one: a rise from nothing is seen by nobody.
    count(name, 0);
    let mut failures = Failures { name, count: 0, last: String::new() };
    while !*stop.borrow() {
        let started_ms = clock.now_ms();
        let outcome = AssertUnwindSafe(task()).catch_unwind().await;
        if *stop.borrow() {
            return;
        }
        if clock.now_ms() - started_ms >= GOOD_RUN_MS {
            failures.forget();
        }
        let wait = match outcome {
            Ok(Ok(())) => failures.another("it ended"),
            Ok(Err(error)) => failures.another(&error.to_string()),
            Err(panic) => failures.another(&format!("panic: {}", panic_text(&*panic))),
        };
        tokio::select! {
            () = clock.sleep(wait) => {}
            () = stopped(stop.clone()) => {}
        }
    }
}

/// A series of failures without a good run in between.
struct Failures {
    name: &'static str,
    count: u32,
    last: String,
}

impl Failures {
    /// Counts one more, logs it if it is news, and gives the wait until the next start.
    fn another(&mut self, cause: &str) -> Duration {
        if self.last != cause {
            tracing::error!(task = self.name, cause, "a task of the platform failed; it is started again");
            cause.clone_into(&mut self.last);
        }
        count(self.name, 1);
        let wait = BACKOFF_FIRST.saturating_mul(1 << self.count.min(10)).min(BACKOFF_MAX);
        self.count = self.count.saturating_add(1);
        wait
    }

    fn forget(&mut self) {
        (self.count, self.last) = (0, String::new());
    }
}

fn count(task: &'static str, failures: u64) {
    metrics::counter!("riomar_task_failures_total", "task" => task).increment(failures);
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;

    /// A clock whose waits are over at once, and that remembers them.
    #[derive(Debug, Default)]
    struct Waits {
        waits_ms: Mutex<Vec<u128>>,
        now_ms: Mutex<i64>,
    }

    #[async_trait]
    impl Clock for Waits {
        fn now_ms(&self) -> i64 {
            *self.now_ms.lock().expect("lock")
        }

        async fn sleep(&self, duration: Duration) {
            self.waits_ms.lock().expect("lock").push(duration.as_millis());
        }
    }

    /// Runs a task that ends as `script` says, until the script is at its end; gives the waits in between.
    async fn run(script: &[&str]) -> Vec<u128> {
        let clock = Arc::new(Waits::default());
        let (stop, stopped) = watch::channel(false);
        let mut ends = script.iter();
        keep_running("test", clock.clone(), stopped, || {
            let (end, clock, stop) = (ends.next().copied(), clock.clone(), &stop);
            async move {
                match end {
                    Some("ends") => Ok(()),
                    Some("panics") => panic!("a defect"),
                    Some("runs long") => {
                        *clock.now_ms.lock().expect("lock") += GOOD_RUN_MS;
                        Err("after a long time")
                    }
                    Some(failure) => Err(failure),
                    None => {
                        stop.send(true).expect("running");
                        Ok(())
                    }
                }
            }
        })
        .await;
        clock.waits_ms.lock().expect("lock").clone()
    }

    #[tokio::test]
    async fn failures_and_panics_are_waited_out_and_a_good_run_ends_the_series() {
        let waits_ms = run(&["no disk", "no disk", "panics", "ends", "runs long", "no disk"]).await;
        assert_eq!(waits_ms, [200, 400, 800, 1_600, 200, 400]);
    }

    #[tokio::test]
    async fn the_wait_has_a_maximum() {
        let waits_ms = run(&["no disk"; 40]).await;
        assert_eq!((waits_ms.len(), waits_ms[39]), (40, BACKOFF_MAX.as_millis()));
    }

    #[tokio::test]
    async fn a_task_that_was_stopped_before_it_began_does_nothing() {
        let (_stop, stopped) = watch::channel(true);
        let mut starts = 0;
        keep_running("test", Arc::new(Waits::default()), stopped, || {
            starts += 1;
            async { Ok::<_, String>(()) }
        })
        .await;
        assert_eq!(starts, 0);
    }
}

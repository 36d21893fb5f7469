//! What a process tells of itself: when it started, what its tasks are at, and how much room its data directory has left.

use std::{path::PathBuf, sync::Arc, time::Duration};

use metrics::{Unit, describe_counter, describe_gauge, gauge};
use riomar_event_log::{Clock, disk};

use super::{
    metered,
    supervise::{Stop, stopped},
};

/// How often the free space is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Says what the metrics of the process mean; call it once the recorder is installed.
pub(super) fn describe() {
    describe_gauge!(
        "riomar_process_start_timestamp_seconds",
        Unit::Seconds,
        "When this process started, in seconds since 1970-01-01 UTC"
    );
    describe_gauge!(
        "riomar_data_free_bytes",
        Unit::Bytes,
        "Bytes that may still be written on the disk of this process's data directory"
    );
    describe_counter!(
        "riomar_task_failures_total",
        Unit::Count,
        "Tasks of this process that ended or panicked and were started again, by task"
    );
    metered::describe();
}

/// Tells when this process started: now.
pub(super) fn started(clock: &dyn Clock) {
    gauge!("riomar_process_start_timestamp_seconds").set(clock.now_ms() as f64 / 1000.0);
}

/// Tells how much room a data directory has, until it is asked to stop.
pub(super) async fn watch_free_space(data: PathBuf, clock: Arc<dyn Clock>, stop: Stop) {
    loop {
        let directory = data.clone();
        // A disk that does not answer holds up this task alone.
        let free = tokio::task::spawn_blocking(move || disk::free_bytes(&directory)).await;
        // Not known is not what it was: without an answer the metric is withdrawn.
        let free_bytes = free.ok().and_then(Result::ok).map_or(f64::NAN, |bytes| bytes as f64);
        gauge!("riomar_data_free_bytes").set(free_bytes);
        tokio::select! {
            () = clock.sleep(LOOK_EVERY) => {}
            () = stopped(stop.clone()) => return,
        }
    }
}

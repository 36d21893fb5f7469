//! `/livez` and `/readyz`.
//!
//! Alive: the process answers. Ready: it can do the durable work of its roles. A process that ingests is ready while it can make
//! events durable, whatever else is away: answers say what they lack. Without ingestion, `batch` needs the log, with all that has not
//! landed, and the master datasets, `speed` the realtime store as well, and `serve` the master datasets. What is away and not needed is
//! listed as degraded.
//!
//! Whether a store takes writes, the writes of the process itself tell: those of `batch` to the object store, those of `speed` to the
//! realtime store. Both try again by themselves, so the last failure counts until a write succeeds. After a failed append nobody may
//! try again, if no request is sent here; so it counts for a few seconds.

mod incidents;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::join;
use riomar_event_log::LogError;
use riomar_schemas::PartitionId;
use riomar_speed_layer::StoreError;
use serde::Serialize;
use serde_json::{Value, json};

pub use self::incidents::Incidents;
use crate::{
    app::{AppState, Services},
    roles::{Role, Roles},
    starting::Step,
};

/// For how long a failed append makes the process unready, in milliseconds; then the next request may try again.
pub const UNREADY_AFTER_FAILURE_MS: i64 = 5_000;
/// The name of the check whether events can be made durable.
pub(crate) const LOG_CHECK: &str = "log";
/// The status of a process that cannot do its work.
const UNREADY: &str = "unready";
/// How long one check may take, in seconds.
const CHECK_SECONDS_MAX: u64 = 2;

/// When the last append failed, if no append succeeded since.
#[derive(Debug)]
pub struct AppendHealth {
    failed_at_ms: AtomicI64,
}

impl Default for AppendHealth {
    fn default() -> Self {
        Self { failed_at_ms: AtomicI64::new(i64::MIN) }
    }
}

impl AppendHealth {
    /// Notes how an append ended.
    pub(crate) fn note<T>(&self, outcome: &Result<T, LogError>, now_ms: i64) {
        let failed_at_ms = if outcome.is_ok() { i64::MIN } else { now_ms };
        self.failed_at_ms.store(failed_at_ms, Ordering::Relaxed);
    }

    fn is_healthy(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.failed_at_ms.load(Ordering::Relaxed)) >= UNREADY_AFTER_FAILURE_MS
    }
}

/// Why the last write to a store failed, if none succeeded since. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct WriteHealth(Arc<Mutex<Option<String>>>);

impl WriteHealth {
    /// Notes that a write succeeded.
    pub fn succeeded(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes why a write failed.
    pub fn failed(&self, cause: impl std::fmt::Display) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause.to_string());
    }

    /// Why the last write failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/livez", get(get_livez)).route("/readyz", get(get_readyz))
}

pub(crate) async fn get_livez() -> Json<Value> {
    Json(json!({"status": "alive"}))
}

/// One thing that the process depends on.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    /// Whether the process is unready without it.
    required: bool,
    /// What it means that it is not there; the journal has the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
    /// Why it is not there, for the journal.
    #[serde(skip)]
    cause: Option<String>,
}

impl Check {
    /// A check, and what it means where it failed.
    fn new(name: String, required: bool, outcome: Result<(), String>, meaning: &'static str) -> Self {
        let cause = outcome.err();
        Self { name, ok: cause.is_none(), required, detail: cause.is_some().then_some(meaning), cause }
    }
}

/// What a process depends on, and whether it can do its work.
#[derive(Debug, Serialize)]
pub(crate) struct Readiness {
    status: &'static str,
    checks: Vec<Check>,
}

impl Readiness {
    /// Of a process that has not begun, for want of one thing.
    pub(crate) fn starting(Step { name, meaning }: Step) -> Self {
        let awaited = Check::new(name.to_owned(), true, Err("the process starts".to_owned()), meaning);
        Self { status: UNREADY, checks: vec![awaited] }
    }

    /// Whether what the check of this name is about is there.
    pub(crate) fn is_there(&self, name: &str) -> bool {
        self.checks.iter().any(|check| check.name == name && check.ok)
    }
}

/// Looks at all that the process depends on, at once: whoever asks does not wait for one after the other. Takes
/// [`CHECK_SECONDS_MAX`] where nothing answers.
pub(crate) async fn readiness(services: &Services) -> Readiness {
    let (log, masters, landings, realtime) =
        join!(check_log(services), check_masters(services), check_landings(services), check_realtime(services));
    let mut checks = vec![log];
    checks.extend(masters);
    checks.extend(check_object_writes(services));
    checks.extend(landings);
    checks.push(realtime);
    let ready = checks.iter().all(|check| check.ok || !check.required);
    let status = match (ready, checks.iter().all(|check| check.ok)) {
        (true, true) => "ready",
        (true, false) => "degraded",
        _ => UNREADY,
    };
    Readiness { status, checks }
}

async fn get_readyz(State(state): State<AppState>) -> Response {
    let readiness = readiness(&state).await;
    state.incidents.observe(&readiness.checks, state.clock.now_ms());
    let code = if readiness.status == UNREADY { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    // Not a problem document: a probe reads the checks.
    let mut response = (code, Json(readiness)).into_response();
    response.extensions_mut().insert(crate::problem::Finished);
    response
}

/// Waits for a check, but not for long.
async fn in_time<T, E: std::fmt::Display>(services: &Services, check: impl Future<Output = Result<T, E>>) -> Result<(), String> {
    let time_out = services.clock.sleep(Duration::from_secs(CHECK_SECONDS_MAX));
    tokio::select! {
        outcome = check => outcome.map(drop).map_err(|error| error.to_string()),
        () = time_out => Err("it did not answer in time".to_owned()),
    }
}

/// What a process of these roles needs: the log, the master datasets, the realtime store.
fn needs(roles: &Roles) -> [bool; 3] {
    let has = |role| roles.has(role);
    match has(Role::Ingest) {
        true => [true, false, false],
        false => [has(Role::Batch) || has(Role::Speed), true, has(Role::Speed)],
    }
}

async fn check_log(services: &Services) -> Check {
    let bounds = async {
        for stream in services.catalog.streams() {
            services.log.bounds(&stream.name, PartitionId(0)).await?;
        }
        Ok::<_, LogError>(())
    };
    let (outcome, meaning) = match services.append_health.is_healthy(services.clock.now_ms()) {
        true => (in_time(services, bounds).await, "it does not answer: events cannot be made durable"),
        false => (
            Err("an append failed".to_owned()),
            "an append failed in the last seconds: events are refused, and producers told to send them again",
        ),
    };
    let [required, ..] = needs(&services.roles);
    Check::new(LOG_CHECK.to_owned(), required, outcome, meaning)
}

async fn check_masters(services: &Services) -> Vec<Check> {
    let checks = services.catalog.streams().map(async |stream| {
        let name = format!("master dataset of {}", stream.name);
        let snapshot = async { services.batch.master(&stream.name)?.snapshot().await };
        let outcome = in_time(services, snapshot).await;
        let [_, required, _] = needs(&services.roles);
        Check::new(name, required, outcome, "it does not answer: landing, recomputes and queries of raw events wait for it")
    });
    futures::future::join_all(checks).await
}

/// Whether the object store takes what the batch layer writes.
fn check_object_writes(services: &Services) -> Option<Check> {
    let meaning = "it takes no writes: nothing lands, and no generation is published";
    let required = !services.roles.has(Role::Ingest);
    let check = || Check::new("object store".to_owned(), required, services.object_writes.failure().map_or(Ok(()), Err), meaning);
    services.roles.has(Role::Batch).then(check)
}

/// Whether the log still has what is to land. Where that cannot be told, other checks say so.
async fn check_landings(services: &Services) -> Vec<Check> {
    if !services.roles.has(Role::Batch) {
        return Vec::new();
    }
    let checks = services.catalog.streams().map(async |stream| {
        let time_out = services.clock.sleep(Duration::from_secs(CHECK_SECONDS_MAX));
        let lost = tokio::select! {
            losses = services.batch.losses(&stream.name) => losses.is_ok_and(|losses| !losses.waiting.is_empty()),
            () = time_out => false,
        };
        let outcome = if lost { Err("the log lost records before they landed".to_owned()) } else { Ok(()) };
        let meaning = "the log lost records before they landed: `riomar accept-loss` shows which, and what can be done";
        Check::new(format!("landing of {}", stream.name), !services.roles.has(Role::Ingest), outcome, meaning)
    });
    futures::future::join_all(checks).await
}

async fn check_realtime(services: &Services) -> Check {
    let entry = async {
        let Some(view) = services.catalog.views().next() else { return Ok(()) };
        match services.realtime.entry(view, PartitionId(0)).await {
            // It answers, and the speed layer rebuilds or tells of what it holds.
            Ok(_) | Err(StoreError::Damaged(_)) => Ok(()),
            Err(error) => Err(error),
        }
    };
    let (outcome, meaning) = match (in_time(services, entry).await, services.process.speed.write_failure()) {
        (Ok(()), Some(cause)) => (Err(cause), "it takes no writes: realtime views grow older"),
        (outcome, _) => (outcome, "it does not answer: answers lack what is behind the last cut"),
    };
    let [.., required] = needs(&services.roles);
    Check::new("realtime store".to_owned(), required, outcome, meaning)
}

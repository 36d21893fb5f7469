//! `GET /v1/processes`: every process of the deployment, as each tells of itself, and the roles that nobody has.
//!
//! A deployment has no list of its processes: they come and go. Each tells of itself in an object beside the master datasets
//! ([`tell`]), with an age; who falls silent is shown as silent for a while, and then no more. A process that is the whole platform
//! has nobody to tell, and writes nothing.

mod notice;

use std::{future::Future, net::SocketAddr, pin::pin, sync::OnceLock, time::Duration};

use axum::{Json, Router, extract::State, routing::get};
use futures::future::{Either, join, select};
use riomar_batch_layer::{
    BatchError,
    notices::{Heard, Notice, Notices, TELL_EVERY},
};
use riomar_speed_layer::Activity;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    app::{AppState, Services},
    problem::ApiError,
    roles::Role,
};

/// How long telling may take, in seconds: what is told later than that is of the past.
const TELL_SECONDS_MAX: u64 = 5;
/// How long a process that stops may take to say so, in seconds.
const WITHDRAW_SECONDS_MAX: u64 = 1;

/// What makes this process one of a deployment.
#[derive(Debug)]
pub struct ThisProcess {
    /// Its identifier, which no other process has or had.
    pub id: Uuid,
    /// The name of its host.
    pub host: String,
    /// When it began, in milliseconds since 1970-01-01 UTC.
    pub began_at_ms: i64,
    /// Where it listens, once it does.
    pub address: OnceLock<SocketAddr>,
    /// What its speed layer works on.
    pub speed: Activity,
    /// Where it tells of itself and hears of the others; `None` where there can be no others.
    pub notices: Option<Notices>,
}

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/v1/processes", get(get_processes))
}

/// The processes of a deployment.
#[derive(Debug, Serialize)]
struct Processes {
    /// In order of their roles.
    processes: Vec<Map<String, Value>>,
    /// The roles of no process that is heard of.
    missing_roles: Vec<&'static str>,
    /// Processes beyond the number that is shown.
    left_out: usize,
}

async fn get_processes(State(state): State<AppState>) -> Result<Json<Processes>, ApiError> {
    let heard = hear(&state).await?;
    let has = |role: &Role| {
        let told = |notice: &Notice| notice.process["roles"].as_array().is_some_and(|roles| roles.contains(&role.name().into()));
        heard.notices.iter().any(|notice| !notice.is_silent() && told(notice))
    };
    let missing_roles = Role::ALL.iter().filter(|role| !has(role)).map(|role| role.name()).collect();
    let mut notices = heard.notices;
    notices.sort_by_cached_key(|notice| {
        ["roles", "host", "address"].map(|member| notice.process[member].to_string()).join(" ") + &notice.id
    });
    let processes = notices.into_iter().map(shown).collect();
    Ok(Json(Processes { processes, missing_roles, left_out: heard.left_out }))
}

/// What the processes tell of themselves.
async fn hear(state: &Services) -> Result<Heard, BatchError> {
    let Some(notices) = &state.process.notices else {
        let own = Notice { id: state.process.id.to_string(), age_ms: 0, process: notice::of(state).await };
        return Ok(Heard { notices: vec![own], left_out: 0 });
    };
    if let Some(heard) = notices.all().await? {
        return Ok(heard);
    }
    // It has only just begun, or was taken for gone: the others' ages are told from its own notice.
    notices.tell(notice::of(state).await).await?;
    Ok(notices.all().await?.unwrap_or_default())
}

/// A process as it is shown: what is known of it, and what it told.
fn shown(notice: Notice) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("id".to_owned(), notice.id.clone().into());
    shown.insert("state".to_owned(), if notice.is_silent() { "silent" } else { "heard" }.into());
    shown.insert("heard_seconds_ago".to_owned(), (notice.age_ms / 1000).into());
    if let Value::Object(told) = notice.process {
        shown.extend(told);
    }
    shown
}

/// Tells of this process, again and again, until `shutdown` is over; then takes it back. What fails here fails alone.
pub async fn tell(state: AppState, shutdown: impl Future<Output = ()> + Send) {
    let Some(notices) = &state.process.notices else { return };
    let mut shutdown = pin!(shutdown);
    let mut telling = Telling::default();
    loop {
        let round = join(telling.once(&state, notices), state.clock.sleep(TELL_EVERY));
        if matches!(select(&mut shutdown, Box::pin(round)).await, Either::Left(_)) {
            break;
        }
    }
    if let Err(cause) = in_time(&state, WITHDRAW_SECONDS_MAX, notices.withdraw()).await {
        tracing::warn!(cause, "what this process told of itself could not be taken back: it is shown as silent for a while");
    }
}

/// What is remembered from one telling to the next.
#[derive(Debug, Default)]
struct Telling {
    failing: bool,
    /// Whether the removal of what others left was tried.
    tidied: bool,
}

impl Telling {
    async fn once(&mut self, state: &Services, notices: &Notices) {
        let told = async { notices.tell(notice::of(state).await).await };
        let told = in_time(state, TELL_SECONDS_MAX, told).await;
        if told.is_ok()
            && !std::mem::replace(&mut self.tidied, true)
            && let Err(cause) = in_time(state, TELL_SECONDS_MAX, notices.remove_forgotten()).await
        {
            tracing::warn!(cause, "what processes that are gone left could not be removed; the next one that starts tries again");
        }
        match (&told, self.failing) {
            (Err(cause), false) => {
                tracing::warn!(cause, "this process cannot tell of itself, and is shown as silent; it goes on, and tries again");
            }
            (Ok(()), true) => tracing::info!("this process tells of itself again"),
            _ => {}
        }
        self.failing = told.is_err();
    }
}

/// Waits, but not for long.
async fn in_time(state: &Services, seconds: u64, what: impl Future<Output = Result<(), BatchError>>) -> Result<(), String> {
    tokio::select! {
        outcome = what => outcome.map_err(|error| error.to_string()),
        () = state.clock.sleep(Duration::from_secs(seconds)) => Err("the object store did not answer in time".to_owned()),
    }
}

#[cfg(test)]
mod tests;

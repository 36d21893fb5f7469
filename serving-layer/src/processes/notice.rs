//! What a process tells of itself.

use riomar_batch_layer::runs::{Run, RunState};
use riomar_schemas::{Name, PartitionId};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    app::Services,
    probes::{self, LOG_CHECK, Readiness},
    roles::Role,
    time::rfc3339_ms,
};

/// A process as it tells of itself.
#[derive(Debug, Serialize)]
struct Told {
    host: String,
    /// The id of the process on its host.
    pid: u32,
    version: &'static str,
    roles: Vec<&'static str>,
    /// Where it listens: `http://{address}`; null before it does.
    address: Option<String>,
    /// By its own clock.
    began_at: String,
    /// How long it runs.
    up_seconds: i64,
    #[serde(flatten)]
    readiness: Readiness,
    ingest: Option<Ingest>,
    speed: Option<Speed>,
    batch: Option<Batch>,
}

#[derive(Debug, Serialize)]
struct Ingest {
    /// Whether events can be made durable.
    accepts: bool,
}

#[derive(Debug, Serialize)]
struct Speed {
    partitions: Vec<Partition>,
}

/// A partition that the process folds; how far behind is null where it is not known yet.
#[derive(Debug, Serialize)]
struct Partition {
    stream: Name,
    partition: PartitionId,
    lag_records: Option<u64>,
    lag_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Batch {
    /// Whether it lands and starts the scheduled runs.
    leads: bool,
    /// The run under way.
    run: Option<RunUnderWay>,
}

#[derive(Debug, Serialize)]
struct RunUnderWay {
    id: Uuid,
    state: RunState,
    view: Option<Name>,
    rows_total: u64,
    rows_read: u64,
}

impl From<Run> for RunUnderWay {
    fn from(run: Run) -> Self {
        let Run { id, state, view, rows_total, rows_read, .. } = run;
        Self { id, state, view, rows_total, rows_read }
    }
}

/// What this process has to tell now.
pub(super) async fn of(services: &Services) -> Value {
    let process = &services.process;
    let readiness = probes::readiness(services).await;
    let has = |role| services.roles.has(role);
    let told = Told {
        host: process.host.clone(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION"),
        roles: services.roles.names(),
        address: process.address.get().map(|address| format!("http://{address}")),
        began_at: rfc3339_ms(process.began_at_ms),
        up_seconds: services.clock.now_ms().saturating_sub(process.began_at_ms).max(0) / 1000,
        ingest: has(Role::Ingest).then(|| Ingest { accepts: readiness.is_there(LOG_CHECK) }),
        speed: has(Role::Speed).then(|| Speed { partitions: partitions(services) }),
        batch: has(Role::Batch).then(|| batch(services)),
        readiness,
    };
    serde_json::to_value(told).unwrap_or_default()
}

fn partitions(services: &Services) -> Vec<Partition> {
    let all = services.process.speed.partitions().into_iter();
    all.map(|(stream, partition, behind)| Partition {
        stream,
        partition,
        lag_records: behind.map(|behind| behind.records),
        lag_seconds: behind.map(|behind| behind.ms as f64 / 1000.0),
    })
    .collect()
}

fn batch(services: &Services) -> Batch {
    let run = services.batch.runs().all().into_iter().find(|run| !run.state.is_final());
    Batch { leads: services.batch.leadership().held(), run: run.map(RunUnderWay::from) }
}

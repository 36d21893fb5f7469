//! What the tests of the routes stand on: all routes over a real log in a directory of its own.

mod faults;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use bytes::Bytes;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use metrics_exporter_prometheus::PrometheusBuilder;
use object_store::{ObjectStore, memory::InMemory};
use riomar_batch_layer::{BatchComponents, BatchConfig, BatchLayer, FreshIds, landing::Landing, notices::Notices};
use riomar_event_log::{Clock, EmbeddedLog, Log, ReadLimit, clock::ManualClock, quarantine::Quarantine};
use riomar_schemas::{Catalog, Name, Offset, PartitionId, record::RecordBody};
use riomar_speed_layer::{MemoryStore, RealtimeStore};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;
use uuid::Uuid;

use crate::{
    app::{Services, app},
    ingestion::{Budget, IngestionLimits},
    processes::ThisProcess,
    query::{QueryEngine, QueryLimits, QueryParts},
    requests::RequestIds,
    roles::Roles,
};

pub(crate) use self::faults::{Fault, FaultyLog, FaultyObjects, FaultyStore};

/// The streams and views of the tests.
pub(crate) const DEFINITIONS: &str = "
CREATE TABLE page_views (
  event_id VARCHAR NOT NULL, ts TIMESTAMP NOT NULL, path VARCHAR NOT NULL, visitor VARCHAR, status INT, bytes BIGINT
) WITH (event_time = 'ts', dedup_by = 'event_id', partition_by = 'visitor', partitions = 4);

CREATE TABLE readings (
  number BIGINT NOT NULL, at TIMESTAMP NOT NULL
) WITH (event_time = 'at', dedup_by = 'number', partitions = 1);

CREATE MATERIALIZED VIEW traffic AS
SELECT window_start, path, status, count(*) AS hits, approx_distinct(visitor) AS visitors
FROM TUMBLE(page_views, ts, INTERVAL '1 minute') GROUP BY window_start, path, status;
";

/// All routes, and what stands behind them.
pub(crate) struct Platform {
    pub(crate) services: Arc<Services>,
    pub(crate) clock: ManualClock,
    pub(crate) log: Arc<EmbeddedLog>,
    /// The log as the platform has it.
    pub(crate) faulty_log: Arc<FaultyLog>,
    pub(crate) store: Arc<FaultyStore>,
    pub(crate) objects: Arc<FaultyObjects>,
    app: Router,
    _directory: TempDir,
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

impl Platform {
    /// With the limits as they are by default.
    pub(crate) async fn new() -> Self {
        Self::with_limits(IngestionLimits::default()).await
    }

    /// With other limits of ingestion.
    pub(crate) async fn with_limits(limits: IngestionLimits) -> Self {
        Self::with(limits, Roles::all(), RuntimeEnv::default(), None).await
    }

    /// A process that has only these roles.
    pub(crate) async fn with_roles(roles: Roles) -> Self {
        Self::with(IngestionLimits::default(), roles, RuntimeEnv::default(), None).await
    }

    /// With this much memory for queries.
    pub(crate) async fn with_memory(bytes: usize) -> Self {
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(bytes, 1.0).build().expect("a runtime");
        Self::with(IngestionLimits::default(), Roles::all(), runtime, None).await
    }

    /// A process of a deployment with others, whose objects these are. The log is its own all the same.
    pub(crate) async fn with_notices(roles: Roles, objects: &Arc<dyn ObjectStore>, id: Uuid) -> Self {
        Self::with(IngestionLimits::default(), roles, RuntimeEnv::default(), Some((Arc::clone(objects), id))).await
    }

    async fn with(
        limits: IngestionLimits,
        roles: Roles,
        runtime: RuntimeEnv,
        others: Option<(Arc<dyn ObjectStore>, Uuid)>,
    ) -> Self {
        let runtime = Arc::new(runtime);
        let directory = tempfile::tempdir().expect("a directory");
        let clock = ManualClock::new(1_700_000_000_000);
        let log = Arc::new(EmbeddedLog::open(directory.path(), Arc::new(clock.clone())).expect("a log"));
        let faulty_log = Arc::new(FaultyLog::new(log.clone()));
        let shared: Arc<dyn Log> = faulty_log.clone();
        let objects = others.as_ref().map_or_else(|| Arc::new(InMemory::new()) as _, |(objects, _)| Arc::clone(objects));
        let objects = Arc::new(FaultyObjects::new(objects));
        let catalog = Catalog::parse([("test.sql", DEFINITIONS)]).expect("definitions");
        let quarantine = Quarantine::new(Arc::clone(&shared));
        for stream in catalog.streams() {
            log.create(&stream.name, stream.partitions).await.expect("partitions");
            quarantine.create(&stream.name).await.expect("a quarantine");
        }
        let catalog = Arc::new(catalog);
        let components = BatchComponents {
            catalog: Arc::clone(&catalog),
            log: Arc::clone(&shared),
            store: objects.clone(),
            clock: Arc::new(clock.clone()),
            runtime: Arc::clone(&runtime),
            fresh_ids: FreshIds::random(),
        };
        let config = BatchConfig { shared: others.is_some(), ..BatchConfig::default() };
        let batch = Arc::new(BatchLayer::new(components, config));
        let realtime: Arc<dyn RealtimeStore> = Arc::new(MemoryStore::default());
        let store = Arc::new(FaultyStore::new(realtime));
        let realtime: Arc<dyn RealtimeStore> = store.clone();
        let query = QueryEngine::new(QueryParts {
            catalog: Arc::clone(&catalog),
            log: Arc::clone(&shared),
            batch: Arc::clone(&batch),
            realtime: Arc::clone(&realtime),
            memory: Arc::clone(&runtime.memory_pool),
        });
        let process = ThisProcess {
            id: others.as_ref().map_or_else(Uuid::nil, |(_, id)| *id),
            host: "test".to_owned(),
            began_at_ms: clock.now_ms(),
            address: Default::default(),
            speed: Default::default(),
            notices: others.map(|(_, id)| Notices::new(batch.context().clone(), id)),
        };
        let services = Arc::new(Services {
            roles,
            catalog,
            log: shared,
            quarantine,
            batch,
            realtime,
            query,
            query_limits: QueryLimits::default(),
            clock: Arc::new(clock.clone()),
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            ingestion_limits: limits,
            ingestion_budget: Budget::new(&limits),
            request_ids: RequestIds::new(7),
            counters: Default::default(),
            append_health: Default::default(),
            object_writes: Default::default(),
            incidents: Default::default(),
            audit_room: Default::default(),
            process,
        });
        Self { app: app(Arc::clone(&services)), services, clock, log, faulty_log, store, objects, _directory: directory }
    }

    /// The objects in a folder.
    pub(crate) async fn objects_below(&self, folder: &object_store::path::Path) -> Vec<object_store::ObjectMeta> {
        let found = self.services.batch.context().store.list_with_delimiter(Some(folder)).await;
        found.expect("a store in memory").objects
    }

    /// Sends a request and reads the response to its end.
    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        self.call(self.app.clone(), request).await
    }

    /// Sends a request to other routes.
    pub(crate) async fn call(&self, app: Router, request: Request<Body>) -> Reply {
        let response = app.oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
        Reply { status: parts.status, headers: parts.headers, body }
    }

    /// `GET`.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    /// `POST` with headers.
    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).expect("a request")).await
    }

    /// Lands all that is in the log.
    pub(crate) async fn land(&self, landing: &mut Landing) {
        while landing.step().await.expect("landed").records > 0 {}
        landing.flush().await.expect("committed");
    }

    /// Lands what comes into `page_views`, and lets time pass, until the run at this path is through.
    pub(crate) async fn finish_run(&self, path: &str) {
        let stream = self.services.stream("page_views").expect("a stream");
        let mut landing = self.services.batch.landing(&stream).expect("landing");
        loop {
            let run = self.get(path).await.json();
            match run["state"].as_str() {
                Some("done") => return,
                Some("failed") | None => panic!("{run}"),
                Some(_) => {}
            }
            self.land(&mut landing).await;
            self.clock.advance(std::time::Duration::from_millis(50));
            tokio::task::yield_now().await;
        }
    }

    /// Sends an event of this id to `page_views`, and publishes a generation of `traffic`.
    pub(crate) async fn publish(&self, id: &str) {
        let event = format!(r#"{{"event_id":"{id}","ts":"2026-11-20T10:00:00Z","path":"/","visitor":"v","status":200}}"#);
        let json = [("content-type", "application/json")];
        assert!(self.post("/v1/streams/page_views/events", &json, event).await.status.is_success());
        let run = self.post("/v1/batch/runs", &json, r#"{"views":["traffic"]}"#).await;
        self.finish_run(run.headers["location"].to_str().expect("text")).await;
    }

    /// The events of a stream's log as text, partition by partition.
    pub(crate) async fn logged(&self, stream: &str) -> Vec<String> {
        let stream = Name::new(stream).expect("a name");
        let limit = ReadLimit { records: usize::MAX, bytes: usize::MAX, wait: std::time::Duration::ZERO };
        let mut events = Vec::new();
        for partition in 0..self.log.partitions(&stream).await.expect("partitions") {
            for record in self.log.read(&stream, PartitionId(partition), Offset(0), limit).await.expect("records") {
                if let RecordBody::Event(event) = record.body {
                    events.push(String::from_utf8_lossy(&event).into_owned());
                }
            }
        }
        events
    }
}

//! The wiring: what is appended to the log is answered by queries, step by step and on its own.

mod metrics;

use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use riomar_batch_layer::runs::ViewOutcome;
use riomar_event_log::{EmbeddedLog, SystemClock, clock::ManualClock};
use riomar_schemas::{EventDecoder, record::RecordBody};
use riomar_serving_layer::query::QueryLimits;
use riomar_speed_layer::MemoryStore;
use tokio::net::TcpListener;

use super::*;
use crate::{client::Client, demo::DEFINITIONS};

struct Bench {
    _directory: tempfile::TempDir,
    platform: Platform,
}

async fn bench(clock: Arc<dyn Clock>) -> Bench {
    let directory = tempfile::tempdir().expect("directory");
    let parts = Parts {
        catalog: Arc::new(Catalog::parse(DEFINITIONS).expect("definitions")),
        log: Arc::new(EmbeddedLog::open(directory.path(), Arc::clone(&clock)).expect("log")),
        objects: Arc::new(InMemory::new()),
        realtime: Arc::new(MemoryStore::new()),
        clock,
        settings: Settings::default(),
    };
    Bench { _directory: directory, platform: Platform::open(parts).await.expect("platform") }
}

impl Bench {
    async fn append(&self, ids: std::ops::Range<u32>) {
        let stream = self.platform.catalog().stream("page_views").expect("stream");
        let mut decoder = EventDecoder::new(Arc::clone(stream));
        let records = ids.map(|id| {
            let event = format!(r#"{{"event_id":"{id}","ts":"2026-11-20T10:00:00Z","path":"/","visitor":"v{id}","bytes":1}}"#);
            let partition = decoder.decode(event.as_bytes()).expect("valid").partition;
            (partition, RecordBody::Event(Bytes::from(event)))
        });
        self.platform.log().append(&stream.name, records.collect()).await.expect("appended");
    }

    async fn speed(&self) {
        while self.platform.speed_step().await.expect("step").iter().any(|step| step.records > 0) {}
    }

    /// The hits that a query finds, and the generation that it read.
    async fn hits(&self) -> (i64, u64) {
        use datafusion::arrow::{array::AsArray, datatypes::Int64Type};
        let query = &self.platform.services().query;
        let answer =
            query.sql("SELECT CAST(sum(hits) AS BIGINT) FROM traffic_by_minute", QueryLimits::default()).await.expect("answer");
        let generation = answer.receipt.views.values().next().expect("receipt").generation;
        (answer.batches[0].column(0).as_primitive::<Int64Type>().value(0), generation)
    }
}

#[tokio::test]
async fn every_step_of_an_event_is_the_callers() {
    let bench = bench(Arc::new(ManualClock::new(1_795_687_200_000))).await;
    bench.append(0..10).await;
    bench.speed().await;
    assert_eq!(bench.hits().await, (10, 0), "all of it realtime");
    let outcomes = bench.platform.recompute(&["traffic_by_minute"], false).await.expect("recomputed");
    assert!(matches!(outcomes.as_slice(), [(_, ViewOutcome::Published { generation: 1, .. })]), "{outcomes:?}");
    assert_eq!(bench.hits().await, (10, 1), "all of it batch");
    // A repeated event, and two new ones.
    bench.append(9..12).await;
    bench.speed().await;
    assert_eq!(bench.hits().await, (12, 1), "both");
    assert!(bench.platform.land_step().await.expect("landed") > 0);
    assert_eq!(bench.platform.cut().await.expect("cut").len(), 1);
    bench.platform.recompute(&[], true).await.expect("recomputed");
    bench.speed().await;
    assert_eq!(bench.hits().await, (12, 2));
    assert!(bench.platform.recompute(&["nothing"], false).await.is_err(), "an unknown view");
}

#[tokio::test]
async fn a_running_platform_serves_lands_and_stops() {
    let bench = bench(Arc::new(SystemClock)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let client = Client::new(&format!("http://{}", listener.local_addr().expect("address"))).expect("url");
    let user = async {
        let event = br#"{"event_id":"1","ts":"2026-11-20T10:00:00Z","path":"/"}"#;
        assert_eq!(client.send("page_views", event.to_vec()).await.expect("sent").accepted, 1);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let answer = client.sql("SELECT sum(hits) AS hits FROM traffic_by_minute").await.expect("answer");
            if answer.text.contains("[[1]]") || answer.text.contains("[[\"1\"]]") {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{}", answer.text);
            tokio::task::yield_now().await;
        }
    };
    bench.platform.run(listener, user).await.expect("stopped");
    let landed = bench.platform.batch().account(&bench.platform.catalog().stream("page_views").expect("stream").name).await;
    assert_eq!(landed.expect("account").landed, 1, "landing committed what it held");
}

#[test]
fn running_a_platform_may_be_a_task_of_its_own() {
    fn assert_send<T: Send>(_: T) {}
    fn check(platform: &Platform, listener: TcpListener) {
        assert_send(platform.run(listener, async {}));
    }
    let _ = check;
}

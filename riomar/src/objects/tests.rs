//! The object store as the configuration names it: what is wrong is told, what passes is waited for, and nothing is made up.

use std::{sync::Mutex, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::{ObjectStoreExt, PutPayload, path::Path};
use riomar_batch_layer::conformance;
use riomar_event_log::{Clock, EmbeddedLog, SystemClock};
use riomar_infra::{S3Fault, S3Requests, S3Rule, S3Server};
use riomar_schemas::{Catalog, EventDecoder, record::RecordBody};
use riomar_serving_layer::query::QueryLimits;
use riomar_speed_layer::MemoryStore;

use super::*;
use crate::{
    config::Setting,
    demo::DEFINITIONS,
    platform::{Parts, Platform, Settings, deployment::Deployment},
};

/// The client's patience, with shorter waits.
fn limits() -> S3Limits {
    let (backoff_first, backoff_max) = (Duration::from_millis(1), Duration::from_millis(5));
    S3Limits { backoff_first, backoff_max, ..S3Limits::default() }
}

/// A client that does not wait long for an answer.
fn hasty() -> S3Limits {
    S3Limits { request_time_max: Duration::from_millis(500), retries_max: 1, ..limits() }
}

fn config(server: &S3Server, url: &str) -> Config {
    let mut config = Config::new();
    config.master.url = MasterUrl::read(url).expect("a URL");
    config.master.s3_endpoint = Setting::read(&server.endpoint()).expect("an endpoint");
    config
}

fn url(server: &S3Server) -> String {
    format!("s3://{}/some/prefix", server.bucket())
}

async fn opened(server: &S3Server, limits: S3Limits) -> Arc<dyn ObjectStore> {
    open_with(&config(server, &url(server)), &server.environment(), limits).await.expect("a store")
}

/// The environment with other values.
fn environment(server: &S3Server, changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut environment = server.environment();
    for (variable, value) in changes {
        environment.retain(|(name, _)| name != variable);
        environment.push(((*variable).to_owned(), (*value).to_owned()));
    }
    environment
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_a_bucket_conforms() {
    let server = S3Server::start().expect("a server");
    conformance::check(opened(&server, limits()).await).await;
    let keys = server.faults().requests();
    assert!(keys.iter().all(|request| request.key().is_empty() || request.key().starts_with("some/prefix/")), "{keys:?}");
    // A whole bucket is one as well.
    let whole = config(&server, &format!("s3://{}", server.bucket()));
    let whole = open_with(&whole, &server.environment(), limits()).await.expect("a store");
    conformance::check(whole).await;
}

#[tokio::test]
async fn a_directory_is_opened_as_the_configuration_says() {
    let directory = tempfile::tempdir().expect("directory");
    let mut config = Config::new();
    config.data = directory.path().join("data");
    let store = open(&config).await.expect("a store");
    store.put(&Path::from("a/b"), PutPayload::from_static(b"x")).await.expect("written");
    assert!(directory.path().join("data/objects/a/b").exists());
    config.master.url = MasterUrl::Directory(directory.path().join("data/objects/a/b/c"));
    let error = open(&config).await.expect_err("a file is in the way");
    assert!(matches!(error, ObjectsError::Directory { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_wrong_for_good_is_told_at_once_with_what_to_do() {
    let server = S3Server::start().expect("a server");
    let good = url(&server);
    // Nothing listens at the place that would give a role.
    let nobody = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), ("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")];
    for (url, changes, expected) in [
        (good.as_str(), &[("AWS_SECRET_ACCESS_KEY", "hunter2")][..], "correct AWS_ACCESS_KEY_ID"),
        (&good, &[("AWS_ACCESS_KEY_ID", "SOMEBODY")], "correct AWS_ACCESS_KEY_ID"),
        (&good, &[("AWS_SECRET_ACCESS_KEY", "")], "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (&good, &nobody, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("s3://another-bucket/x", &[], "there is no bucket 'another-bucket'"),
    ] {
        let environment = environment(&server, changes);
        let error = open_with(&config(&server, url), &environment, limits()).await.expect_err(expected);
        let told = format!("{error} {error:?}");
        assert!(told.contains(expected), "{told}");
        for secret in [server.secret_key(), "hunter2", server.access_key(), "SOMEBODY"] {
            assert!(!told.contains(secret), "{told}");
        }
    }
}

#[tokio::test]
async fn a_store_that_is_down_is_opened_and_answers_later() {
    let mut server = S3Server::start().expect("a server");
    server.stop().expect("stopped");
    let store = opened(&server, hasty()).await;
    let error = store.get(&Path::from("x")).await.expect_err("nobody answers");
    assert!(may_pass(&error), "{error:?}");
    server.restart().expect("started");
    store.put(&Path::from("x"), PutPayload::from_static(b"x")).await.expect("there it is");
    // Silence and refusals in passing are no reason either.
    for fault in [S3Fault::Silence, S3Fault::SlowDown, S3Fault::LostReply] {
        server.faults().add(S3Rule::new(fault));
        let store = opened(&server, S3Limits { probe_time_max: Duration::from_secs(2), ..hasty() }).await;
        server.faults().clear();
        assert_eq!(store.head(&Path::from("x")).await.expect("answers").size, 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_request_is_sent_again_so_often_and_no_oftener() {
    let server = S3Server::start().expect("a server");
    let store = opened(&server, limits()).await;
    let path = Path::from("x");
    for fault in [S3Fault::SlowDown, S3Fault::LostReply] {
        let struck = server.faults().struck();
        server.faults().add(S3Rule::new(fault));
        let error = store.put(&path, PutPayload::from_static(b"x")).await.expect_err("a storm");
        assert!(may_pass(&error), "{error:?}");
        assert_eq!(server.faults().struck() - struck, 1 + limits().retries_max as u64, "{fault:?}");
        server.faults().clear();
        store.put(&path, PutPayload::from_static(b"x")).await.expect("the storm is over");
    }
}

#[tokio::test]
async fn a_server_without_an_answer_meets_a_deadline() {
    let server = S3Server::start().expect("a server");
    let store = opened(&server, hasty()).await;
    let path = Path::from("x");
    server.faults().add(S3Rule::new(S3Fault::Silence));
    let error = store.get(&path).await.expect_err("no answer");
    assert!(may_pass(&error), "{error:?}");
    let error = store.put(&path, PutPayload::from_static(b"x")).await.expect_err("no answer");
    assert!(may_pass(&error), "{error:?}");
    server.faults().clear();
    // Slow is not silent.
    server.faults().add(S3Rule::new(S3Fault::Delay(Duration::from_millis(50))));
    store.put(&path, PutPayload::from_static(b"x")).await.expect("an answer");
}

#[tokio::test]
async fn content_that_is_cut_short_is_an_error() {
    let server = S3Server::start().expect("a server");
    let store = opened(&server, limits()).await;
    let (path, content) = (Path::from("x"), Bytes::from(vec![b'x'; 200_000]));
    store.put(&path, PutPayload::from_bytes(content.clone())).await.expect("written");
    let read = async || store.get(&path).await?.bytes().await;
    server.faults().add(S3Rule::new(S3Fault::TruncatedBody).of(S3Requests::Reads).times(2));
    assert_eq!(read().await.expect("the rest is asked for"), content);
    server.faults().add(S3Rule::new(S3Fault::TruncatedBody).of(S3Requests::Reads));
    read().await.expect_err("never whole");
    store.get_range(&path, 5..150_000).await.expect_err("never whole");
}

#[tokio::test]
async fn a_bucket_that_is_gone_is_not_an_empty_one() {
    let server = S3Server::start().expect("a server");
    let store = opened(&server, limits()).await;
    let path = Path::from("a/x");
    store.put(&path, PutPayload::from_static(b"x")).await.expect("written");
    std::fs::remove_dir_all(server.directory().join(server.bucket())).expect("removed");
    for outcome in [
        store.get(&path).await.map(drop),
        store.head(&path).await.map(drop),
        store.get_range(&path, 0..1).await.map(drop),
        store.list_with_delimiter(Some(&Path::from("a"))).await.map(drop),
        store.delete(&path).await,
        store.put(&path, PutPayload::from_static(b"x")).await.map(drop),
    ] {
        let error = outcome.expect_err("there is no bucket");
        assert!(error.to_string().contains("NoSuchBucket") && !matches!(error, Error::NotFound { .. }), "{error:?}");
        assert!(!may_pass(&error), "somebody has to look: {error:?}");
    }
}

/// A clock whose wait brings the server up.
#[derive(Debug)]
struct Repair(Mutex<S3Server>);

#[async_trait]
impl Clock for Repair {
    fn now_ms(&self) -> i64 {
        0
    }

    async fn sleep(&self, _: Duration) {
        self.0.lock().expect("lock").restart().expect("started");
    }
}

#[tokio::test]
async fn a_deployment_finds_its_id_once_its_store_answers() {
    let mut server = S3Server::start().expect("a server");
    let store = opened(&server, hasty()).await;
    server.stop().expect("stopped");
    // When it is up again, the reply to the creation is lost.
    server.faults().add(S3Rule::new(S3Fault::LostReply).of(S3Requests::Creations).times(1));
    let clock = Arc::new(Repair(Mutex::new(server)));
    let (_stop, stopping) = tokio::sync::watch::channel(false);
    for (fresh, struck) in [("mine", 1), ("another", 1)] {
        let deployment = Deployment::new(Arc::clone(&store), clock.clone(), fresh.to_owned());
        assert_eq!(deployment.id(), None);
        tokio::join!(deployment.find(stopping.clone()), deployment.known());
        assert_eq!(deployment.id(), Some("mine"));
        assert_eq!(clock.0.lock().expect("lock").faults().struck(), struck);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_on_s3_answers_exactly_while_replies_are_lost() {
    let (directory, server) = (tempfile::tempdir().expect("directory"), S3Server::start().expect("a server"));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let platform = Platform::open(Parts {
        catalog: Arc::new(Catalog::parse(DEFINITIONS).expect("definitions")),
        log: Arc::new(EmbeddedLog::open(directory.path(), Arc::clone(&clock)).expect("log")),
        objects: opened(&server, limits()).await,
        realtime: Arc::new(MemoryStore::new()),
        clock,
        settings: Settings::default(),
    });
    let platform = platform.await.expect("a platform");
    let mut sent = 0;
    for (round, fault) in [S3Fault::LostReply, S3Fault::SlowDown, S3Fault::TruncatedBody].into_iter().enumerate() {
        server.faults().add(S3Rule::new(fault).every(3));
        append(&platform, sent..sent + 10).await;
        sent += 10;
        while platform.speed_step().await.expect("step").iter().any(|step| step.records > 0) {}
        assert_eq!(hits(&platform).await, i64::from(sent), "round {round}, realtime");
        platform.recompute(&["traffic_by_minute"], false).await.expect("recomputed");
        assert_eq!(hits(&platform).await, i64::from(sent), "round {round}, batch");
        server.faults().clear();
    }
    assert!(server.faults().struck() > 30, "{}", server.faults().struck());
}

async fn append(platform: &Platform, ids: std::ops::Range<u32>) {
    let stream = platform.catalog().stream("page_views").expect("stream");
    let mut decoder = EventDecoder::new(Arc::clone(stream));
    let records = ids.map(|id| {
        let event = format!(r#"{{"event_id":"{id}","ts":"2026-11-20T10:00:00Z","path":"/","visitor":"v{id}","bytes":1}}"#);
        let partition = decoder.decode(event.as_bytes()).expect("valid").partition;
        (partition, RecordBody::Event(Bytes::from(event)))
    });
    platform.log().append(&stream.name, records.collect()).await.expect("appended");
}

async fn hits(platform: &Platform) -> i64 {
    use datafusion::arrow::{array::AsArray, datatypes::Int64Type};
    let sql = "SELECT CAST(sum(hits) AS BIGINT) FROM traffic_by_minute";
    let answer = platform.services().query.sql(sql, QueryLimits::default()).await.expect("an answer");
    answer.batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

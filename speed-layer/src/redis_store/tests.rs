//! The store against real servers and clusters: conformance, faults, refusals, lost keys, and slots that move.

mod cluster;
mod eviction;
mod faults;
mod keys_of_others;
mod log_lines;
mod refusals;

use std::sync::Arc;

use riomar_infra::{Certificates, RedisCluster, RedisClusterOptions, RedisOptions, RedisServer};
use riomar_schemas::{Offset, ReaderPosition, keys};

use super::*;
use crate::conformance;

const PARTITION: PartitionId = PartitionId(0);
/// For what must happen in the end.
const DEADLINE: Duration = Duration::from_secs(60);
/// The permissions that the documentation of the store names, for the user `riomar`.
const ACL: &str = "riomar on >hunter2 resetkeys ~riomar:* resetchannels -@all +eval +evalsha +hgetall +hkeys +hlen +hmget +hset +hdel \
                   +unlink +select +ping +asking +cluster|slots +info";

/// For calls that are to succeed, however busy the machine is.
fn patient() -> RedisLimits {
    RedisLimits { call_timeout: Duration::from_secs(30), breaker_failures: 3, breaker_period: Duration::from_millis(1) }
}

fn start() -> RedisServer {
    start_with(RedisOptions::default())
}

fn start_with(options: RedisOptions) -> RedisServer {
    RedisServer::start_with(options).unwrap_or_else(|error| panic!("{error}"))
}

fn start_cluster(options: RedisClusterOptions) -> RedisCluster {
    RedisCluster::start_with(options).unwrap_or_else(|error| panic!("{error}"))
}

fn certificates() -> Arc<Certificates> {
    Arc::new(Certificates::generate().unwrap_or_else(|error| panic!("{error}")))
}

fn connect(url: &str, limits: RedisLimits) -> RedisStore {
    connect_tls(url, &RedisTls::default(), limits)
}

fn connect_tls(url: &str, tls: &RedisTls, limits: RedisLimits) -> RedisStore {
    RedisStore::connect(&url.parse().expect("an address"), tls, "test", limits).expect("certificates")
}

fn trusting(certificates: &Certificates) -> RedisTls {
    RedisTls { ca_file: Some(certificates.ca()), client: None }
}

fn fresh() -> Entry {
    Entry::fresh(ReaderPosition::default())
}

fn at(offset: u64) -> Entry {
    Entry { position: ReaderPosition { offset: Offset(offset), epoch: Epoch(0) }, ..fresh() }
}

fn state(epoch: u64, key: &str) -> EncodedState {
    EncodedState { epoch: Epoch(epoch), key: key.to_owned(), state: b"1".to_vec() }
}

/// A store with one entry at offset 1 and one group in epoch 0.
async fn filled(url: &str) -> (RedisStore, Arc<View>) {
    let (store, view) = (connect(url, patient()), conformance::view());
    fill(&store, &view).await;
    (store, view)
}

async fn fill(store: &RedisStore, view: &View) {
    assert_eq!(store.reset(view, PARTITION, None, &fresh()).await.expect("reset"), WriteOutcome::Applied);
    let outcome = store.write(view, PARTITION, &fresh(), &at(1), &[state(0, "a")]).await.expect("write");
    assert_eq!(outcome, WriteOutcome::Applied);
}

/// Tries until it succeeds; every failure on the way must be that the store is not available.
async fn in_the_end<T>(mut call: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match call().await {
            Ok(value) => return value,
            Err(StoreError::Unavailable(reason)) => {
                assert!(tokio::time::Instant::now() < deadline, "the store never came back: {reason}");
            }
            Err(error) => panic!("{error}"),
        }
        tokio::task::yield_now().await;
    }
}

fn assert_unavailable<T: std::fmt::Debug>(result: Result<T, StoreError>, reason: &str) {
    match result {
        Err(StoreError::Unavailable(text)) if text.contains(reason) => {}
        other => panic!("expected to be unavailable because of '{reason}', got {other:?}"),
    }
}

fn assert_damaged<T: std::fmt::Debug>(result: Result<T, StoreError>, reason: &str) {
    match result {
        Err(StoreError::Damaged(text)) if text.contains(reason) => {}
        other => panic!("expected to be damaged because of '{reason}', got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_conforms() {
    let server = start();
    conformance::check(Arc::new(connect(&server.url(), patient()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_with_tls_conforms_for_a_user_with_the_documented_permissions() {
    let certificates = certificates();
    let options = RedisOptions {
        password: Some("of-the-operator".to_owned()),
        users: vec![ACL.to_owned()],
        tls: Some(certificates.clone()),
        client_certificates: true,
        ..RedisOptions::default()
    };
    let server = start_with(options);
    let client = RedisClientCertificate { certificate_file: certificates.client(), key_file: certificates.client_key() };
    let tls = RedisTls { client: Some(client), ..trusting(&certificates) };
    let store = connect_tls(&format!("{}/3", server.url_of("riomar", "hunter2")), &tls, patient());
    conformance::check(Arc::new(store)).await;
    assert_eq!(server.command(&["ACL", "LOG"]).expect("log"), "", "nothing was denied");
    assert!(server.command(&["INFO", "keyspace"]).expect("info").contains("db3:keys="), "in the database of the address");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_conforms() {
    let cluster = start_cluster(RedisClusterOptions::default());
    conformance::check(Arc::new(connect(&cluster.url(), patient()))).await;
    let counts = (0..3).map(|node| cluster.node(node).command(&["DBSIZE"]).expect("count"));
    assert!(counts.filter(|count| count != "0").count() > 1, "partitions are spread over the nodes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_with_tls_conforms_for_a_user_with_the_documented_permissions() {
    let certificates = certificates();
    let cluster = start_cluster(RedisClusterOptions {
        password: Some("of-the-operator".to_owned()),
        users: vec![ACL.to_owned()],
        tls: Some(certificates.clone()),
        replicas: false,
    });
    let store = connect_tls(&cluster.url_of("riomar", "hunter2"), &trusting(&certificates), patient());
    conformance::check(Arc::new(store)).await;
    for node in 0..3 {
        assert_eq!(cluster.node(node).command(&["ACL", "LOG"]).expect("log"), "", "nothing was denied");
    }
}

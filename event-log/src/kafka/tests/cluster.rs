//! Three brokers, of which some are killed or frozen. The tests share them, one after the other.

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinHandle,
};

use super::*;

/// How many append at the same time.
const APPENDERS: usize = 3;

/// The cluster, with all its brokers; it ends with the tests' process.
async fn cluster() -> MutexGuard<'static, KafkaCluster> {
    static CLUSTER: OnceLock<Mutex<KafkaCluster>> = OnceLock::new();
    let start = || Mutex::new(KafkaCluster::start().unwrap_or_else(|error| panic!("{error}")));
    let mut cluster = CLUSTER.get_or_init(start).lock().await;
    // A test that failed may have left some of them dead.
    cluster.start_again().unwrap_or_else(|error| panic!("{error}"));
    cluster
}

/// Settings with topics that no other test has: three copies, of which one may be missing; and time for a busy machine to choose
/// another leader.
fn settings(cluster: &KafkaCluster) -> KafkaSettings {
    KafkaSettings { replication: 3, delivery_timeout_ms: 60_000, ..settings_in(cluster.bootstrap()) }
}

/// The id of the broker that leads the first partition.
fn leader(brokers: &str, topic: &str) -> i32 {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
    let leader = || {
        let metadata = client.fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
        let partition = metadata.topics().first()?.partitions().first()?;
        (partition.leader() > 0).then(|| partition.leader())
    };
    let deadline = std::time::Instant::now() + DEADLINE;
    loop {
        match leader() {
            Some(leader) => return leader,
            None => assert!(std::time::Instant::now() < deadline, "{topic} has no leader"),
        }
    }
}

/// Appends that go on, one after the other from each of some tasks, until they are told to stop.
struct Appends {
    log: Arc<KafkaLog>,
    stopped: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU32>,
    appending: Vec<JoinHandle<BTreeMap<Offset, String>>>,
}

impl Appends {
    fn begin(log: &Arc<KafkaLog>) -> Self {
        let (stopped, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let append = |appender| {
            let (log, stopped, acknowledged) = (log.clone(), stopped.clone(), acknowledged.clone());
            tokio::spawn(async move {
                let mut offsets = BTreeMap::new();
                for number in 0.. {
                    if stopped.load(Ordering::Relaxed) {
                        break;
                    }
                    let text = format!("{appender}/{number}");
                    match append(&log, &[&text]).await {
                        Ok(acknowledged) => drop(offsets.insert(acknowledged[0], text)),
                        Err(error) => panic!("an append of a patient log failed: {error}"),
                    }
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                offsets
            })
        };
        Self { log: log.clone(), appending: (0..APPENDERS).map(append).collect(), stopped, acknowledged }
    }

    /// Waits until so many more than now are acknowledged.
    async fn wait_for(&self, more: u32) {
        let enough = self.acknowledged.load(Ordering::Relaxed) + more;
        let waiting = async {
            while self.acknowledged.load(Ordering::Relaxed) < enough {
                assert!(!self.appending.iter().any(JoinHandle::is_finished), "an append failed");
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(2 * DEADLINE, waiting).await.expect("appends go on");
    }

    /// Ends them. Each that was acknowledged is where it was said to be, and the log holds nothing else.
    async fn end(self) {
        self.stopped.store(true, Ordering::Relaxed);
        let mut expected = BTreeMap::new();
        for appending in self.appending {
            expected.extend(appending.await.expect("no append failed"));
        }
        let (log, name) = (self.log, stream());
        let end = eventually(|| log.bounds(&name, P0)).await.end;
        let mut found = BTreeMap::new();
        let mut from = Offset(0);
        while from < end {
            let read = eventually(|| log.read(&name, P0, from, ALL)).await;
            let offsets = read.records.iter().map(|record| record.offset);
            found.extend(offsets.zip(texts(&read.records)));
            from = read.next;
        }
        assert_eq!(found.len(), expected.len(), "as many as were acknowledged");
        assert!(found == expected, "each is where it was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_brokers_conform() {
    let cluster = cluster().await;
    conformance::all(|| async { Arc::new(connect(&settings(&cluster))) as Arc<dyn Log> }).await;
    conformance::all_shared(|| async {
        let settings = settings(&cluster);
        [Arc::new(connect(&settings)) as Arc<dyn Log>, Arc::new(connect(&settings))]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_appends_go_on_when_the_leader_is_killed_or_frozen_and_none_is_lost_or_there_twice() {
    let mut cluster = cluster().await;
    let (log, name) = (Arc::new(connect(&settings(&cluster))), stream());
    eventually(|| log.create(&name, 1)).await;
    let (brokers, topic) = (cluster.bootstrap(), log.topic(&stream()));
    let appends = Appends::begin(&log);
    appends.wait_for(200).await;

    let first = leader(&brokers, &topic);
    cluster.node_mut(first).expect("is there").kill().expect("killed");
    appends.wait_for(200).await;
    assert_ne!(leader(&brokers, &topic), first, "another one leads");
    cluster.start_again().expect("started");
    appends.wait_for(200).await;

    // This one does not know that it no longer leads when it goes on.
    let second = leader(&brokers, &topic);
    cluster.node_mut(second).expect("is there").pause().expect("paused");
    appends.wait_for(200).await;
    cluster.node_mut(second).expect("is there").resume().expect("resumed");
    appends.wait_for(200).await;
    appends.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_with_one_broker_of_three_nothing_is_acknowledged_and_nothing_is_lost() {
    let mut cluster = cluster().await;
    let settings = settings(&cluster);
    let (log, name) = (connect(&settings), stream());
    eventually(|| log.create(&name, 1)).await;
    let offsets = append(&log, &["a", "b"]).await.expect("appends");
    assert_eq!(offsets, [Offset(0), Offset(1)]);

    // The leader is the one that is left: it has the records, and may not take any more.
    let leader = leader(&cluster.bootstrap(), &log.topic(&stream()));
    let others = [1, 2, 3].into_iter().filter(|id| *id != leader);
    for id in others {
        cluster.node_mut(id).expect("is there").kill().expect("killed");
    }
    let impatient = connect(&KafkaSettings { request_timeout_ms: 2_000, delivery_timeout_ms: 3_000, ..settings });
    for _ in 0..2 {
        let refused = append(&impatient, &["refused"]).await;
        assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    }
    cluster.start_again().expect("started");
    let acknowledged = eventually(|| append(&log, &["c"])).await;
    let found = eventually(|| log.read(&name, P0, Offset(0), ALL)).await.records;
    let found: Vec<_> = found.iter().map(|record| record.offset).zip(texts(&found)).collect();
    for (text, offset) in [("a", offsets[0]), ("b", offsets[1]), ("c", acknowledged[0])] {
        let places: Vec<_> = found.iter().filter(|(_, found)| found == text).map(|(offset, _)| *offset).collect();
        assert_eq!(places, [offset], "{text}: {found:?}");
    }
}

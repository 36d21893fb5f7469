//! The decorators change nothing, and count what fails and nothing else.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion, memory::InMemory};
use riomar_event_log::{EmbeddedLog, Log, ReadLimit, SystemClock};
use riomar_schemas::{Epoch, Name, Offset, PartitionId, View, record::RecordBody, state_codec::EncodedState};
use riomar_serving_layer::probes::WriteHealth;
use riomar_speed_layer::{Entry, MemoryStore, RealtimePart, RealtimeStore, StoreError, WriteOutcome};

use super::*;

const P0: PartitionId = PartitionId(0);

fn open(directory: &Path) -> Arc<EmbeddedLog> {
    Arc::new(EmbeddedLog::open(directory, Arc::new(SystemClock)).expect("a log"))
}

/// The samples of a metric that are not 0, without its name, in order.
fn risen(handle: &PrometheusHandle, name: &str) -> Vec<String> {
    let text = handle.render();
    let samples = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|sample| !sample.ends_with(" 0"));
    let mut samples: Vec<_> = samples.map(str::to_owned).collect();
    samples.sort_unstable();
    samples
}

#[tokio::test]
async fn a_metered_log_is_a_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let number = std::sync::atomic::AtomicU32::new(0);
    riomar_event_log::conformance::all(|| {
        let next = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        let log: Arc<dyn Log> = Arc::new(MeteredLog::new(open(&directory.path().join(next))));
        async { log }
    })
    .await;
}

#[tokio::test]
async fn a_metered_object_store_is_an_object_store() {
    riomar_batch_layer::conformance::check(Arc::new(MeteredObjects::new(Arc::new(InMemory::new()), WriteHealth::default())))
        .await;
}

#[tokio::test]
async fn a_metered_realtime_store_is_a_realtime_store() {
    riomar_speed_layer::conformance::check(Arc::new(MeteredRealtime::new(Arc::new(MemoryStore::new())))).await;
}

#[tokio::test]
async fn what_the_log_does_not_do_is_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    // The test has one thread, so its tasks record here.
    let _recording = metrics::set_default_local_recorder(&recorder);
    let directory = tempfile::tempdir().expect("a directory");
    let embedded = open(directory.path());
    let log = MeteredLog::new(embedded.clone());
    let stream = Name::new("s").expect("a name");
    let limit = ReadLimit { records: 1, bytes: 1, wait: std::time::Duration::ZERO };
    log.create(&stream, 1).await.expect("created");
    log.read(&stream, P0, Offset(5), limit).await.expect_err("behind the end");
    assert_eq!(risen(&recorder.handle(), log::ERRORS.name), Vec::<String>::new(), "an answer is no error");
    assert!(recorder.handle().render().contains(r#"riomar_log_errors_total{operation="append",kind="unavailable"} 0"#));
    log.bounds(&stream, PartitionId(1)).await.expect_err("no such partition");
    embedded.close().await.expect("closed");
    for _ in 0..2 {
        let event = RecordBody::Event(Bytes::from_static(b"{}"));
        log.append(&stream, vec![(P0, event)]).await.expect_err("closed");
    }
    let expected = [r#"{operation="append",kind="unavailable"} 2"#, r#"{operation="bounds",kind="unknown_partition"} 1"#];
    assert_eq!(risen(&recorder.handle(), log::ERRORS.name), expected);
}

#[tokio::test]
async fn what_the_object_store_does_not_do_is_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let writes = WriteHealth::default();
    let store = MeteredObjects::new(Arc::new(InMemory::new()), writes.clone());
    let path = object_store::path::Path::from("a");
    let put = async |mode| store.put_opts(&path, "1".into(), PutOptions::from(mode)).await;
    store.get(&path).await.expect_err("it is not there");
    put(PutMode::Create).await.expect("created");
    put(PutMode::Create).await.expect_err("it is there");
    let version = |e_tag: Option<&str>| PutMode::Update(UpdateVersion { e_tag: e_tag.map(str::to_owned), version: None });
    put(version(Some("another"))).await.expect_err("it is another version");
    assert_eq!(risen(&recorder.handle(), objects::ERRORS.name), Vec::<String>::new(), "answers are no errors");
    assert_eq!(writes.failure(), None);
    put(version(None)).await.expect_err("the store cannot do that");
    put(PutMode::Create).await.expect_err("it is there");
    assert!(writes.failure().is_some(), "until a write succeeds");
    assert_eq!(risen(&recorder.handle(), objects::ERRORS.name), [r#"{operation="put",kind="unavailable"} 1"#]);
    put(PutMode::Overwrite).await.expect("written");
    assert_eq!(writes.failure(), None);
}

/// A store that is down, and holds damaged states.
#[derive(Debug)]
struct Down;

fn down<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("down".to_owned()))
}

#[async_trait]
impl RealtimeStore for Down {
    async fn entry(&self, _: &View, _: PartitionId) -> Result<Option<Entry>, StoreError> {
        down()
    }

    async fn states(
        &self,
        _: &View,
        _: PartitionId,
        _: &[(Epoch, &str)],
    ) -> Result<(Option<Entry>, Vec<Option<Vec<u8>>>), StoreError> {
        down()
    }

    async fn write(
        &self,
        _: &View,
        _: PartitionId,
        _: &Entry,
        _: &Entry,
        _: &[EncodedState],
    ) -> Result<WriteOutcome, StoreError> {
        Ok(WriteOutcome::Fenced(None))
    }

    async fn reset(&self, _: &View, _: PartitionId, _: Option<&Entry>, _: &Entry) -> Result<WriteOutcome, StoreError> {
        down()
    }

    async fn remove_below(&self, _: &View, _: PartitionId, _: Epoch) -> Result<(), StoreError> {
        down()
    }

    async fn read(&self, _: &View, _: PartitionId, _: Epoch) -> Result<Option<RealtimePart>, StoreError> {
        Err(StoreError::Damaged("no states".to_owned()))
    }
}

#[tokio::test]
async fn what_the_realtime_store_does_not_do_is_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (store, view) = (MeteredRealtime::new(Arc::new(Down)), riomar_speed_layer::conformance::view());
    let entry = Entry::fresh(riomar_schemas::ReaderPosition { offset: Offset(0), epoch: Epoch(0) });
    store.write(&view, P0, &entry, &entry, &[]).await.expect("fenced");
    assert_eq!(risen(&recorder.handle(), realtime::ERRORS.name), Vec::<String>::new(), "a fenced write is no error");
    store.entry(&view, P0).await.expect_err("down");
    store.states(&view, P0, &[]).await.expect_err("down");
    store.reset(&view, P0, None, &entry).await.expect_err("down");
    store.remove_below(&view, P0, Epoch(1)).await.expect_err("down");
    store.read(&view, P0, Epoch(0)).await.expect_err("damaged");
    store.groups(&view, P0).await.expect_err("damaged");
    let expected = [
        r#"{operation="entry",kind="unavailable"} 1"#,
        r#"{operation="groups",kind="damaged"} 1"#,
        r#"{operation="read",kind="damaged"} 1"#,
        r#"{operation="remove_below",kind="unavailable"} 1"#,
        r#"{operation="reset",kind="unavailable"} 1"#,
        r#"{operation="states",kind="unavailable"} 1"#,
    ];
    assert_eq!(risen(&recorder.handle(), realtime::ERRORS.name), expected);
}

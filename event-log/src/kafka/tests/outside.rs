//! Records of producers that are not ours, and what a broker keeps for itself.

use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer as _},
};
use riomar_schemas::{Catalog, Epoch, HandOver, ReaderPosition, Stream, View, decode::IdDigest};

use super::*;
use crate::{EpochReader, History, Loss};

fn producer(properties: &[(&str, &str)]) -> FutureProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker().bootstrap()).set("message.timeout.ms", "30000");
    for (name, value) in properties {
        config.set(*name, *value);
    }
    config.create().expect("a producer")
}

async fn send(producer: &FutureProducer, topic: &str, value: Option<&str>) -> i64 {
    let mut record = FutureRecord::<str, str>::to(topic).partition(0).key("a key");
    record.payload = value;
    record = record.headers(OwnedHeaders::new().insert(Header { key: "trace", value: Some("1") }));
    producer.send(record, DEADLINE).await.expect("delivered").offset
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_other_producers_are_read_as_they_are() {
    let log = connect(&settings());
    log.create(&stream(), 1).await.expect("creates");
    let topic = log.topic(&stream());
    let mut expected = Vec::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let producer = producer(&[("compression.type", codec), ("linger.ms", "20")]);
        let sent: Vec<_> = (0..50).map(|n| format!("{{\"codec\":\"{codec}\",\"n\":{n},\"{}\":0}}", "k".repeat(200))).collect();
        let sending = sent.iter().map(|text| send(&producer, &topic, Some(text)));
        futures::future::join_all(sending).await;
        expected.extend(sent);
    }
    let records = read(&log, 0).await;
    assert_eq!(texts(&records), expected);
    assert!(records.iter().all(|record| record.append_time_ms > 1_600_000_000_000));
    assert_eq!(texts(&read(&log, 199).await), expected[199..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_a_value_is_an_event_without_a_byte() {
    let log = connect(&settings());
    log.create(&stream(), 1).await.expect("creates");
    let producer = producer(&[]);
    send(&producer, &log.topic(&stream()), None).await;
    send(&producer, &log.topic(&stream()), Some("")).await;
    append(&log, &["{}"]).await.expect("appends");
    assert_eq!(texts(&read(&log, 0).await), ["", "", "{}"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_clients_read_a_topic_as_any() {
    use rdkafka::{
        Message as _,
        consumer::{BaseConsumer, Consumer as _},
        message::Headers as _,
    };
    let log = connect(&settings());
    log.create(&stream(), 1).await.expect("creates");
    log.append(&stream(), vec![event("{\"a\":1}"), (P0, RecordBody::Cut(Epoch(41)))]).await.expect("appends");
    let topic = log.topic(&stream());
    let seen = tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker().bootstrap()).set("group.id", topic.as_str());
        config.set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        consumer.subscribe(&[&topic]).expect("subscribes");
        let message = || {
            // A poll ends early when the group was divided.
            let message = (0..10).find_map(|_| consumer.poll(DEADLINE)).expect("in time").expect("a message");
            let header = message.headers().map(|headers| {
                let header = headers.get(0);
                (header.key.to_owned(), header.value.map(<[u8]>::to_vec))
            });
            (message.payload().map(<[u8]>::to_vec), header)
        };
        [message(), message()]
    });
    let [first, second] = seen.await.expect("reads");
    assert_eq!(first, (Some(b"{\"a\":1}".to_vec()), None));
    assert_eq!(second, (Some(Vec::new()), Some(("riomar-cut".to_owned(), Some(b"41".to_vec())))));
}

/// Sends events in a transaction of another producer, which then commits or takes them back. The mark stands behind them.
async fn transaction(log: &KafkaLog, producer: &FutureProducer, values: &[&str], commits: bool) {
    producer.begin_transaction().expect("begins");
    let mut last = 0;
    for value in values {
        last = send(producer, &log.topic(&stream()), Some(value)).await;
    }
    let producer = producer.clone();
    let ended = tokio::task::spawn_blocking(move || match commits {
        true => producer.commit_transaction(DEADLINE),
        false => producer.abort_transaction(DEADLINE),
    });
    ended.await.expect("no panic").expect("ends");
    // The mark is written a little after the producer is told.
    until_end(log, u64::try_from(last).expect("an offset") + 2).await;
}

/// Waits until the readable part of the partition ends at an offset.
async fn until_end(log: &KafkaLog, end: u64) {
    let ends = async { while log.bounds(&stream(), P0).await.expect("bounds").end != Offset(end) {} };
    tokio::time::timeout(DEADLINE, ends).await.expect("ends there");
}

async fn transactional(topic: &str) -> FutureProducer {
    let producer = producer(&[("transactional.id", topic)]);
    let initialized = producer.clone();
    tokio::task::spawn_blocking(move || initialized.init_transactions(DEADLINE)).await.expect("no panic").expect("initialized");
    producer
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_without_a_record_are_passed_over() {
    let log = connect(&settings());
    log.create(&stream(), 1).await.expect("creates");
    let topic = log.topic(&stream());
    let producer = transactional(&topic).await;
    append(&log, &["a"]).await.expect("appends");
    transaction(&log, &producer, &["b", "c"], true).await;
    transaction(&log, &producer, &["lost", "lost"], false).await;
    // a b c commit lost lost abort
    let (found, again) = (read(&log, 0).await, read(&log, 0).await);
    assert_eq!(texts(&found), ["a", "b", "c"]);
    assert_eq!((found.next, &again), (Offset(7), &found), "a reader that goes on behind the gap is not stuck before it");
    assert_eq!(log.bounds(&stream(), P0).await.expect("bounds").end, Offset(7));
    for from in 3..=7 {
        assert_eq!(read(&log, from).await, ReadRecords { records: Vec::new(), next: Offset(7) }, "from {from}");
    }
    append(&log, &["d"]).await.expect("appends");
    for from in 3..=7 {
        let found = read(&log, from).await;
        assert_eq!((found.first().map(|record| record.offset), found.next), (Some(Offset(7)), Offset(8)), "from {from}");
    }

    // What is not committed yet is not there yet.
    producer.begin_transaction().expect("begins");
    send(&producer, &topic, Some("open")).await;
    append(&log, &["behind it"]).await.expect("appends");
    assert_eq!(read(&log, 8).await, ReadRecords::none(Offset(8)));
    assert_eq!(log.bounds(&stream(), P0).await.expect("bounds").end, Offset(8));
    let limit = ReadLimit { wait: DEADLINE * 10, ..ALL };
    let stream = stream();
    let waiting = log.read(&stream, P0, Offset(8), limit);
    let committing = tokio::task::spawn_blocking(move || producer.commit_transaction(DEADLINE).expect("commits"));
    let (found, committed) = tokio::time::timeout(DEADLINE, async { tokio::join!(waiting, committing) }).await.expect("is woken");
    committed.expect("no panic");
    assert_eq!(texts(&found.expect("reads")), ["open", "behind it"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_back_before_what_is_still_open_is_passed_over() {
    let log = connect(&settings());
    log.create(&stream(), 1).await.expect("creates");
    let topic = log.topic(&stream());
    let (aborts, stays_open) = (transactional(&format!("{topic}a")).await, transactional(&format!("{topic}b")).await);
    aborts.begin_transaction().expect("begins");
    stays_open.begin_transaction().expect("begins");
    send(&aborts, &topic, Some("lost")).await;
    send(&stays_open, &topic, Some("open")).await;
    // A reader that was there before, and has noted that the end was reached.
    let limit = ReadLimit { wait: Duration::from_millis(50), ..ALL };
    assert_eq!(log.read(&stream(), P0, Offset(0), limit).await.expect("reads"), ReadRecords::none(Offset(0)));
    assert_eq!(log.readers.idle(), 1);
    let aborting = tokio::task::spawn_blocking(move || aborts.abort_transaction(DEADLINE).expect("aborts"));
    aborting.await.expect("no panic");
    // The end is before the open one, and between it and the one that was taken back there is not even a mark.
    until_end(&log, 1).await;
    assert_eq!(read(&log, 0).await, ReadRecords { records: Vec::new(), next: Offset(1) });
    let commit = tokio::task::spawn_blocking(move || stays_open.commit_transaction(DEADLINE).expect("commits"));
    commit.await.expect("no panic");
    until_end(&log, 4).await;
    for from in [0, 1] {
        assert_eq!(read(&log, from).await.next, Offset(4));
        assert_eq!(texts(&read(&log, from).await), ["open"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_do_not_outlive_what_they_read() {
    let log = connect(&settings());
    log.create(&stream(), 1).await.expect("creates");
    append(&log, &["a", "b", "c", "d"]).await.expect("appends");
    let limit = ReadLimit { records: 1, ..ALL };
    for from in [0, 1] {
        assert_eq!(log.read(&stream(), P0, Offset(from), limit).await.expect("reads").next, Offset(from + 1));
    }
    log.trim(&stream(), P0, Offset(4)).await.expect("trims");
    for from in [0, 1, 3] {
        let refused = log.read(&stream(), P0, Offset(from), limit).await;
        assert!(matches!(refused, Err(LogError::OutOfRange { start: Offset(4), end: Offset(4), .. })), "{from}: {refused:?}");
    }
    assert_eq!(append(&log, &["e"]).await.expect("appends"), [Offset(4)]);
    assert_eq!(texts(&read(&log, 4).await), ["e"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_a_partition_each_go_on_where_they_stopped() {
    const RECORDS: u64 = 3_000;
    let log = Arc::new(connect(&settings()));
    log.create(&stream(), 1).await.expect("creates");
    let records: Vec<_> = (0..RECORDS).map(|n| format!("{n:0100}")).collect();
    append(&log, &records.iter().map(String::as_str).collect::<Vec<_>>()).await.expect("appends");
    let readers = (1..=4).map(|step| {
        let log = log.clone();
        tokio::spawn(async move {
            let (mut from, mut seen) = (Offset(0), Vec::new());
            while from.0 < RECORDS {
                let limit = ReadLimit { records: 97 * step, bytes: 20_011 * step, wait: Duration::ZERO };
                let found = log.read(&stream(), P0, from, limit).await.expect("reads");
                assert!(!found.is_empty());
                seen.extend(texts(&found));
                from = found.next;
            }
            seen
        })
    });
    for reader in futures::future::join_all(readers).await {
        assert!(reader.expect("ends") == records, "each reads all of them in order");
    }
    assert_eq!(log.readers.idle(), 4, "each has used one reader from beginning to end");
}

/// A master dataset in which nothing has landed.
#[derive(Debug)]
struct NothingLanded;

#[async_trait]
impl History for NothingLanded {
    async fn landed(&self, _: &Stream, _: PartitionId) -> Result<ReaderPosition, LogError> {
        Ok(ReaderPosition { offset: Offset(0), epoch: Epoch(0) })
    }

    async fn kept_ids(&self, _: &Stream, _: PartitionId, _: Epoch, _: Offset) -> Result<Vec<(IdDigest, Epoch)>, LogError> {
        Ok(Vec::new())
    }

    async fn rows(
        &self,
        _: &Stream,
        _: PartitionId,
        _: Offset,
        _: Offset,
    ) -> Result<futures::stream::BoxStream<'static, Result<arrow::record_batch::RecordBatch, LogError>>, LogError> {
        Err(LogError::History("nothing has landed".into()))
    }

    async fn losses(&self, _: &Stream, _: PartitionId) -> Result<Vec<Loss>, LogError> {
        Ok(Vec::new())
    }

    async fn hand_over(&self, _: &View) -> Result<HandOver, LogError> {
        Ok(HandOver::default())
    }

    async fn first_epoch(&self, _: &Stream, _: PartitionId) -> Result<Epoch, LogError> {
        Ok(Epoch(0))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_and_duplicates_are_counted_across_gaps() {
    let sql = "CREATE TABLE page_views (id VARCHAR, ts TIMESTAMP NOT NULL) \
               WITH (event_time = 'ts', dedup_by = 'id', dedup_epochs = 1, partitions = 1)";
    let catalog = Catalog::parse([("streams.sql", sql)]).expect("valid");
    let declared = catalog.stream("page_views").expect("declared").clone();
    let text = |id: &str| format!(r#"{{"id":"{id}","ts":"2026-11-20T10:00:00Z"}}"#);
    let log = Arc::new(connect(&settings()));
    log.create(&stream(), 1).await.expect("creates");
    let topic = log.topic(&stream());
    let producer = transactional(&topic).await;
    let cut = async |number| log.append(&stream(), vec![(P0, RecordBody::Cut(Epoch(number)))]).await.expect("appends");

    transaction(&log, &producer, &[&text("a"), &text("b")], true).await; // 0 1, commit 2
    cut(1).await; // 3
    transaction(&log, &producer, &[&text("c")], false).await; // 4, abort 5
    transaction(&log, &producer, &[&text("a"), &text("c")], true).await; // 6 7, commit 8
    cut(2).await; // 9
    transaction(&log, &producer, &[&text("a")], true).await; // 10, commit 11

    let open = async |offset, epoch| {
        let at = ReaderPosition { offset: Offset(offset), epoch: Epoch(epoch) };
        EpochReader::open(log.clone(), Arc::new(NothingLanded), declared.clone(), P0, at).await.expect("opens")
    };
    let kept = |rows: &arrow::record_batch::RecordBatch| {
        let id = |row| arrow::util::display::array_value_to_string(rows.column(0), row).expect("text");
        (0..rows.num_rows()).map(id).collect::<Vec<_>>()
    };
    let mut reader = open(0, 0).await;
    let step = reader.next(ALL).await.expect("reads");
    assert_eq!(kept(&step.rows), ["a", "b", "c", "a"], "what was taken back is no earlier event, and a's horizon is over");
    assert_eq!((step.duplicates, step.cuts), (1, vec![(Epoch(1), Offset(4)), (Epoch(2), Offset(10))]));
    let end = ReaderPosition { offset: Offset(12), epoch: Epoch(2) };
    assert_eq!((step.to, reader.position()), (end, end), "behind the last mark");
    assert_eq!(reader.next(ALL).await.expect("reads").rows.num_rows(), 0);

    // Opened in the middle of a gap, with the ids of what lies before it.
    let mut reader = open(5, 1).await;
    let step = reader.next(ALL).await.expect("reads");
    assert_eq!((kept(&step.rows), step.duplicates, step.to), (vec!["c".to_owned(), "a".to_owned()], 1, end));
    // And behind the last mark, when all that it had passed over is let go of.
    let mut reader = open(12, 2).await;
    log.trim(&stream(), P0, Offset(12)).await.expect("trims");
    log.append(&stream(), vec![event(&text("a")), event(&text("d"))]).await.expect("appends");
    let step = reader.next(ALL).await.expect("reads");
    assert_eq!((kept(&step.rows), step.duplicates), (vec!["d".to_owned()], 1));
}

//! A broker that is killed, stopped, or never there.

use std::time::Instant;

use super::*;

/// Settings for a broker that goes away: calls give up soon.
fn impatient(bootstrap: String) -> KafkaSettings {
    KafkaSettings { request_timeout_ms: 1_000, delivery_timeout_ms: 1_500, ..KafkaSettings::new(bootstrap) }
}

/// Every call fails as unavailable, with the address in the text, and in time.
async fn nothing_hangs(log: &KafkaLog, address: &str) {
    let began = Instant::now();
    let limit = ReadLimit { wait: DEADLINE, ..ALL };
    let failures = [
        log.create(&Name::new("new").expect("valid"), 1).await.err(),
        append(log, &["lost"]).await.err(),
        log.read(&stream(), P0, Offset(0), limit).await.err(),
        log.bounds(&stream(), P0).await.err(),
        log.partitions(&stream()).await.err(),
        log.trim(&stream(), P0, Offset(1)).await.err(),
    ];
    for failure in failures {
        let failure = failure.expect("no call succeeds without a broker");
        assert!(matches!(&failure, LogError::Unavailable(text) if text.contains(address)), "{failure}");
    }
    assert!(began.elapsed() < DEADLINE, "six calls took {:?}", began.elapsed());
    let member = log.join("group", &[stream()]).await.expect("joining asks nothing");
    assert!(member.share().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_a_broker_that_is_killed_keeps_what_it_acknowledged() {
    let mut broker = KafkaBroker::start().unwrap_or_else(|error| panic!("{error}"));
    let (log, name) = (connect(&impatient(broker.bootstrap())), stream());
    log.create(&stream(), 1).await.expect("creates");
    append(&log, &["a", "b"]).await.expect("appends");
    assert_eq!(texts(&read(&log, 0).await), ["a", "b"]);
    broker.kill().expect("killed");
    nothing_hangs(&log, &broker.bootstrap()).await;

    broker.restart().expect("started");
    assert_eq!(eventually(|| append(&log, &["c"])).await.len(), 1);
    let limit = ReadLimit { wait: DEADLINE, ..ALL };
    let found = texts(&eventually(|| log.read(&name, P0, Offset(0), ALL)).await);
    assert!(found.starts_with(&["a".to_owned(), "b".to_owned()]) && found.ends_with(&["c".to_owned()]), "{found:?}");
    assert!(found.iter().filter(|text| *text != "lost").count() == 3, "what was acknowledged is there once: {found:?}");

    // A read goes through while the broker is away for a moment: from whatever point on it has to wait.
    let patient = connect(&KafkaSettings { request_timeout_ms: 60_000, ..KafkaSettings::new(broker.bootstrap()) });
    let end = log.bounds(&name, P0).await.expect("bounds").end;
    let waiting = tokio::spawn(async move { patient.read(&stream(), P0, end, limit).await });
    broker.restart().expect("killed and started");
    eventually(|| append(&log, &["d"])).await;
    let read = tokio::time::timeout(DEADLINE, waiting).await.expect("is woken").expect("no panic");
    assert_eq!(texts(&read.expect("reads"))[0], "d");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_is_unavailable_until_it_does() {
    let mut broker = KafkaBroker::start().unwrap_or_else(|error| panic!("{error}"));
    let (log, name) = (connect(&impatient(broker.bootstrap())), stream());
    log.create(&stream(), 1).await.expect("creates");
    append(&log, &["a"]).await.expect("appends");
    broker.pause().expect("paused");
    nothing_hangs(&log, &broker.bootstrap()).await;
    broker.resume().expect("resumed");
    let offsets = eventually(|| append(&log, &["b"])).await;
    let found = eventually(|| log.read(&name, P0, Offset(0), ALL)).await;
    assert_eq!(found.first().map(|record| record.offset), Some(Offset(0)));
    assert!(found.iter().any(|record| record.offset == offsets[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_asks_nothing_of_a_broker() {
    let mut broker = KafkaBroker::start().unwrap_or_else(|error| panic!("{error}"));
    broker.stop().expect("stopped");
    let (log, name) = (connect(&impatient(broker.bootstrap())), stream());
    nothing_hangs(&log, &broker.bootstrap()).await;
    broker.restart().expect("started");
    eventually(|| log.create(&name, 2)).await;
    assert_eq!(eventually(|| append(&log, &["a"])).await, [Offset(0)]);
    assert_eq!(texts(&read(&log, 0).await), ["a"]);
}

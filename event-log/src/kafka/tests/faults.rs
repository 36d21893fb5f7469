//! A broker that is killed, stopped, or never there.

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

/// A log that waits for a busy machine, and one that gives up soon; both have used the stream.
async fn patient_and_impatient(broker: &KafkaBroker) -> (KafkaLog, KafkaLog) {
    let patient = connect(&KafkaSettings { request_timeout_ms: 60_000, ..KafkaSettings::new(broker.bootstrap()) });
    patient.create(&stream(), 1).await.expect("creates");
    append(&patient, &["a", "b"]).await.expect("appends");
    let (impatient, name) = (connect(&impatient(broker.bootstrap())), stream());
    assert_eq!(texts(&eventually(|| impatient.read(&name, P0, Offset(0), ALL)).await), ["a", "b"]);
    (patient, impatient)
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_a_broker_that_is_killed_keeps_what_it_acknowledged() {
    let mut broker = KafkaBroker::start().unwrap_or_else(|error| panic!("{error}"));
    let (patient, impatient) = patient_and_impatient(&broker).await;
    broker.kill().expect("killed");
    nothing_hangs(&impatient, &broker.bootstrap()).await;
    broker.restart().expect("started");
    assert_eq!(append(&patient, &["c"]).await.expect("appends").len(), 1);
    for log in [&patient, &impatient] {
        let name = stream();
        let found = texts(&eventually(|| log.read(&name, P0, Offset(0), ALL)).await);
        let acknowledged: Vec<_> = found.iter().filter(|text| *text != "lost").collect();
        assert_eq!(acknowledged, ["a", "b", "c"], "what was acknowledged is there once: {found:?}");
    }

    // A read goes through while the broker is away for a moment: from whatever point on it has to wait.
    let end = patient.bounds(&stream(), P0).await.expect("bounds").end;
    let patient = Arc::new(patient);
    let reading = patient.clone();
    let limit = ReadLimit { wait: DEADLINE, ..ALL };
    let waiting = tokio::spawn(async move { reading.read(&stream(), P0, end, limit).await });
    broker.restart().expect("killed and started");
    append(&patient, &["d"]).await.expect("appends");
    let read = tokio::time::timeout(DEADLINE, waiting).await.expect("is woken").expect("no panic");
    assert_eq!(texts(&read.expect("reads")), ["d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_is_unavailable_until_it_does() {
    let mut broker = KafkaBroker::start().unwrap_or_else(|error| panic!("{error}"));
    let (patient, impatient) = patient_and_impatient(&broker).await;
    broker.pause().expect("paused");
    nothing_hangs(&impatient, &broker.bootstrap()).await;
    broker.resume().expect("resumed");
    let offsets = append(&patient, &["c"]).await.expect("appends");
    let name = stream();
    let found = eventually(|| impatient.read(&name, P0, Offset(0), ALL)).await;
    assert_eq!(texts(&found)[..2], ["a", "b"]);
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
    let offsets = eventually(|| append(&log, &["a"])).await;
    let found = eventually(|| log.read(&name, P0, offsets[0], ALL)).await;
    assert_eq!(texts(&found), ["a"]);
}

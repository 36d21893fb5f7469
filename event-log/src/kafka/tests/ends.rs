//! Where a read ends, also where the broker that is fetched from has another end than the one that was asked for it.

use rdkafka::mocking::MockCluster;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn c1_the_end_of_a_broker_that_lags_passes_nothing_over() {
    // Two views of one partition: the leader that was asked for the end, and the one that leads by the time of the fetch and does not
    // know yet how much was acknowledged.
    let brokers = [(); 2].map(|()| MockCluster::new(1).expect("a broker"));
    let [asked, fetched] = brokers.each_ref().map(|broker| {
        broker.create_topic(stream().as_str(), 1, 1).expect("created");
        let settings = KafkaSettings { request_timeout_ms: 3_000, ..KafkaSettings::new(broker.bootstrap_servers()) };
        (connect(&settings), client_config(&settings, Client::Reader).expect("valid"))
    });
    append(&asked.0, &["a", "b", "c", "d", "e"]).await.expect("appends");
    append(&fetched.0, &["a", "b", "c"]).await.expect("appends");
    let (lagging, mut log) = (fetched.0, asked.0);
    log.readers = Readers::new(fetched.1, log.cluster.clone(), log.incidents.clone(), Arc::new(SystemClock));

    let found = read(&log, 0).await;
    assert_eq!((texts(&found), found.next), (vec!["a".into(), "b".into(), "c".into()], Offset(3)), "no further than what came");
    // Neither the reader that was told of that end nor a new one takes it for the end.
    let late = log.read(&stream(), P0, Offset(3), ALL).await;
    assert!(matches!(&late, Err(LogError::Unavailable(text)) if text.contains("before 5")), "{late:?}");
    // Its watermark rises.
    append(&lagging, &["d", "e"]).await.expect("appends");
    let name = stream();
    let found = eventually(|| log.read(&name, P0, Offset(3), ALL)).await;
    assert_eq!((texts(&found), found.next), (vec!["d".into(), "e".into()], Offset(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_of_an_empty_log_there_is_nothing_to_wait_for() {
    let log = connect(&settings());
    log.create(&stream(), 1).await.expect("creates");
    // One that was never written to, and one that was trimmed to its end.
    for end in [0, 2] {
        assert_eq!(read(&log, end).await, ReadRecords::none(Offset(end)));
        append(&log, &["a", "b"]).await.expect("appends");
        assert_eq!(texts(&read(&log, end).await), ["a", "b"]);
        log.trim(&stream(), P0, Offset(end + 2)).await.expect("trims");
    }
}

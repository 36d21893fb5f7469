//! How topics are set up, and what is refused.

use rand::{
    SeedableRng,
    distr::{Alphanumeric, SampleString},
    rngs::StdRng,
};
use rdkafka::{
    ClientConfig,
    admin::{AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
};

use super::*;
use crate::quarantine::{EntryKind, Quarantine, QuarantineAccount, QuarantineEntry, SUFFIX};

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", broker().bootstrap()).create().expect("a client")
}

async fn create_topic(topic: &str, settings: &[(&str, &str)]) {
    let mut new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let created = admin().create_topics([&new], &AdminOptions::new()).await.expect("answers");
    assert!(created.iter().all(Result::is_ok), "{created:?}");
}

/// The settings that a topic has.
async fn settings_of(topic: &str) -> impl Fn(&str) -> String {
    let described = admin().describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new()).await.expect("answers");
    let resource = described.into_iter().next().expect("one").expect("is there");
    move |name| resource.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_created_with_what_keeps_the_promises() {
    let settings = KafkaSettings { retention_ms: Some(123_456_789), ..settings() };
    let log = connect(&settings);
    log.create(&stream(), 3).await.expect("creates");
    let topic = log.topic(&stream());
    assert_eq!(topic, format!("{}page_views", settings.topic_prefix));
    let value = settings_of(&topic).await;
    for (name, expected) in [
        ("message.timestamp.type", "LogAppendTime"),
        ("cleanup.policy", "delete"),
        ("retention.ms", "123456789"),
        ("retention.bytes", "-1"),
        ("min.insync.replicas", "1"),
        ("unclean.leader.election.enable", "false"),
        ("max.message.bytes", "8454144"),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_would_break_a_promise_is_refused_with_the_settings_name() {
    type Case = (&'static [(&'static str, &'static str)], &'static [&'static str]);
    let cases: [Case; 4] = [
        (&[], &["message.timestamp.type=LogAppendTime", "max.message.bytes=1114112"]),
        (
            &[("message.timestamp.type", "LogAppendTime"), ("max.message.bytes", "2000000"), ("cleanup.policy", "compact")],
            &["cleanup.policy=delete"],
        ),
        (&[("message.timestamp.type", "LogAppendTime"), ("max.message.bytes", "1000")], &["max.message.bytes=1114112"]),
        (&[("max.message.bytes", "2000000")], &["message.timestamp.type=LogAppendTime"]),
    ];
    for (found, advice) in cases {
        let settings = settings();
        let log = connect(&settings);
        let topic = log.topic(&stream());
        create_topic(&topic, found).await;
        let Err(LogError::Misconfigured(text)) = log.create(&stream(), 1).await else { panic!("{found:?} is not refused") };
        let expected = format!("--alter --topic {topic} --add-config {}", advice.join(","));
        assert!(text.ends_with(&expected) && text.contains(&settings.brokers), "{text}");
        let again = log.create(&stream(), 1).await;
        assert!(matches!(again, Err(LogError::Misconfigured(_))), "and stays so: {again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_deletes_nothing_of_its_own_accord_but_events_where_that_is_wanted() {
    for (retention_ms, events_ms) in [(None, "-1"), (Some(86_400_000), "86400000")] {
        let log: Arc<KafkaLog> = Arc::new(connect(&KafkaSettings { retention_ms, ..settings() }));
        log.create(&stream(), 1).await.expect("creates");
        Quarantine::new(log.clone()).create(&stream()).await.expect("creates");
        let topic = log.topic(&stream());
        for (topic, expected_ms) in [(topic.clone(), events_ms), (format!("{topic}{SUFFIX}"), "-1")] {
            let value = settings_of(&topic).await;
            assert_eq!([value("retention.ms"), value("retention.bytes")], [expected_ms, "-1"], "{topic}");
        }
        // What has landed goes all the same.
        append(&log, &["a", "b", "c"]).await.expect("appends");
        log.trim(&stream(), P0, Offset(2)).await.expect("trims");
        assert_eq!(log.bounds(&stream(), P0).await.expect("bounds").start, Offset(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_whose_entries_would_go_is_refused_until_it_is_altered() {
    let log = Arc::new(connect(&settings()));
    let quarantine = Quarantine::new(log.clone());
    quarantine.check(&stream()).await.expect("it is not there, and a check does not create it");
    let topic = format!("{}{SUFFIX}", log.topic(&stream()));
    let (bytes, well) = (TOPIC_BYTES_MAX.to_string(), ("message.timestamp.type", "LogAppendTime"));
    // As it was created once.
    create_topic(&topic, &[well, ("max.message.bytes", &bytes), ("retention.ms", "604800000")]).await;
    for refused in [quarantine.create(&stream()).await, quarantine.check(&stream()).await] {
        let Err(LogError::Misconfigured(text)) = refused else { panic!("{refused:?}") };
        assert!(text.contains("retention.ms = 604800000") && text.ends_with("--add-config retention.ms=-1"), "{text}");
    }
    let altered = AlterConfig::new(ResourceSpecifier::Topic(&topic));
    let altered = altered.set(well.0, well.1).set("max.message.bytes", &bytes).set("retention.ms", "-1");
    admin().alter_configs([&altered], &AdminOptions::new()).await.expect("answers")[0].as_ref().expect("altered");
    // A broker may hear of it a little later.
    let accepted = async { while quarantine.create(&stream()).await.is_err() {} };
    tokio::time::timeout(DEADLINE, accepted).await.expect("is accepted");
    quarantine.check(&stream()).await.expect("is set up well");
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_entries_that_somebody_deleted_are_told_and_not_left_out() {
    let log = Arc::new(connect(&settings()));
    let quarantine = Quarantine::new(log.clone());
    quarantine.create(&stream()).await.expect("creates");
    let rejected = |events| QuarantineEntry {
        kind: EntryKind::Rejected,
        events,
        reason: riomar_schemas::Violation { code: "too_large".into(), pointer: String::new(), detail: "it is".into() },
        received_at_ms: 0,
        raw: None,
        raw_base64: None,
        position: None,
    };
    quarantine.append(&stream(), &[1, 20, 300, 4_000].map(rejected)).await.expect("appends");
    let sums = |rejected, lost| QuarantineAccount { quarantined: 0, rejected, lost };
    assert_eq!(quarantine.account(&stream()).await.expect("sums"), sums(4_321, 0));
    let name = Name::new(format!("{}{SUFFIX}", stream())).expect("valid");
    log.trim(&name, P0, Offset(2)).await.expect("deletes");
    assert_eq!(quarantine.account(&stream()).await.expect("sums"), sums(4_321, 0));
    assert_eq!(Quarantine::new(log).account(&stream()).await.expect("sums"), sums(4_300, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_others_that_is_set_up_well_is_used_and_grows() {
    let log = connect(&settings());
    let topic = log.topic(&stream());
    create_topic(&topic, &[("message.timestamp.type", "LogAppendTime"), ("max.message.bytes", "1114112")]).await;
    assert_eq!(log.partitions(&stream()).await.expect("counts"), 1);
    append(&log, &["a"]).await.expect("needs no create");
    log.create(&stream(), 4).await.expect("adds");
    assert_eq!(log.partitions(&stream()).await.expect("counts"), 4);
    let last = vec![(PartitionId(3), event("b").1)];
    assert_eq!(log.append(&stream(), last).await.expect("appends"), [Offset(0)]);
    let largest = "x".repeat(riomar_schemas::limits::EVENT_BYTES_MAX);
    assert_eq!(append(&log, &[&largest]).await.expect("fits"), [Offset(1)]);

    // Set up worse behind its back: an append says so.
    let worse = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", "1000");
    admin().alter_configs([&worse], &AdminOptions::new()).await.expect("answers")[0].as_ref().expect("altered");
    let noise = Alphanumeric.sample_string(&mut StdRng::seed_from_u64(1), 50_000);
    let refused = async {
        loop {
            if let Err(error) = append(&log, &[&noise]).await {
                return error;
            }
        }
    };
    let refused = tokio::time::timeout(DEADLINE, refused).await.expect("the broker learns of it");
    assert!(matches!(&refused, LogError::Misconfigured(text) if text.contains("max.message.bytes")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_it_at_the_same_time_creates_it_once() {
    let settings = settings();
    let logs = [2, 3, 2, 3].map(|partitions| (connect(&settings), partitions));
    let (stream, creating) = (stream(), logs.iter());
    let creating = creating.map(|(log, partitions)| log.create(&stream, *partitions));
    for created in futures::future::join_all(creating).await {
        created.expect("creates, or finds it");
    }
    assert_eq!(logs[0].0.partitions(&stream).await.expect("counts"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_copies_than_brokers_are_refused() {
    let log = connect(&KafkaSettings { replication: 3, ..settings() });
    let refused = log.create(&stream(), 1).await.expect_err("there is one broker");
    assert!(matches!(&refused, LogError::Misconfigured(text) if text.contains("3 copies")), "{refused}");
}

#[test]
fn settings_that_librdkafka_refuses_are_named() {
    let settings = KafkaSettings { delivery_timeout_ms: u32::MAX, ..KafkaSettings::new("127.0.0.1:1") };
    let error = KafkaLog::connect(settings, Arc::new(SystemClock)).expect_err("no such time");
    assert!(matches!(&error, LogError::Misconfigured(text) if text.contains("message.timeout.ms")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_those_of_every_log_and_one_for_a_record() {
    let log = connect(&settings());
    log.create(&stream(), 1).await.expect("creates");
    let limit = |result: Result<Vec<Offset>, LogError>| match result {
        Err(LogError::LimitExceeded { limit, .. }) => limit,
        other => panic!("{other:?}"),
    };
    let mebibyte = "x".repeat(1 << 20);
    assert_eq!(append(&log, &[mebibyte.as_str(); 32]).await.expect("at the limit").len(), 32);
    assert_eq!(limit(append(&log, &[[mebibyte.as_str(); 32].as_slice(), &["x"]].concat()).await), "APPEND_BYTES_MAX");
    assert_eq!(limit(append(&log, &vec![""; log::APPEND_RECORDS_MAX + 1]).await), "APPEND_RECORDS_MAX");
    assert_eq!(append(&log, &vec![""; log::APPEND_RECORDS_MAX]).await.expect("at the limit").len(), log::APPEND_RECORDS_MAX);
    let largest = "x".repeat(RECORD_BYTES_MAX);
    assert_eq!(append(&log, &[&largest]).await.expect("at the limit").len(), 1);
    assert_eq!(limit(append(&log, &[&format!("{largest}x")]).await), "RECORD_BYTES_MAX");
    assert_eq!(limit(log.create(&stream(), 1_025).await.map(|()| Vec::new())), "STREAM_PARTITIONS_MAX");
}

//! Groups whose members come, leave and fall silent.

use std::collections::HashMap;

use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};

use super::*;
use crate::Share;

/// Settings of a member that is soon missed.
fn missed_soon(settings: KafkaSettings) -> KafkaSettings {
    KafkaSettings { session_timeout_ms: 1_500, request_timeout_ms: 1_000, ..settings }
}

async fn until(member: &mut Membership, wanted: impl FnMut(&Share) -> bool) -> Share {
    tokio::time::timeout(DEADLINE, member.wait_for(wanted)).await.expect("in time").expect("open")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_group_stays_away_has_no_share_and_gets_one_again() {
    let mut broker = KafkaBroker::start().unwrap_or_else(|error| panic!("{error}"));
    let log = connect(&missed_soon(KafkaSettings::new(broker.bootstrap())));
    let name = stream();
    eventually(|| log.create(&name, 2)).await;
    let mut member = log.join("speed", &[stream()]).await.expect("joins");
    until(&mut member, |share| share.len() == 2).await;
    broker.kill().expect("killed");
    until(&mut member, Share::is_empty).await;
    broker.restart().expect("started");
    until(&mut member, |share| share.len() == 2).await;
    broker.kill().expect("killed");
    tokio::time::timeout(DEADLINE, member.leave()).await.expect("leaves, also where there is nobody to tell");
}

/// A member that keeps a share whose place was lost for this long.
fn join_and_keep(log: &KafkaLog, group: &str, kept: Duration) -> Membership {
    let config = client_config(&log.settings, Client::Member(group)).expect("valid");
    crate::kafka::members::join(&config, group, HashMap::from([(log.topic(&stream()), stream())]), kept).expect("joins")
}

/// Waits until a group is divided among members of which none is one of `before`, and returns their ids.
async fn places(brokers: String, group: &'static str, before: &[String]) -> Vec<String> {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
    let client = Arc::new(client);
    let divided = async {
        loop {
            let asked = client.clone();
            let found = tokio::task::spawn_blocking(move || {
                let groups = asked.fetch_group_list(Some(group), Duration::from_secs(5)).ok()?;
                let found = groups.groups().iter().find(|found| found.name() == group && found.state() == "Stable")?;
                Some(found.members().iter().map(|member| member.id().to_owned()).collect::<Vec<_>>())
            });
            match found.await.expect("no panic") {
                Some(found) if !found.is_empty() && !found.iter().any(|member| before.contains(member)) => return found,
                _ => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, divided).await.expect("is divided in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_loses_its_place_works_on_until_it_has_another() {
    let mut broker = KafkaBroker::start().unwrap_or_else(|error| panic!("{error}"));
    let settings = missed_soon(KafkaSettings::new(broker.bootstrap()));
    let (log, name) = (connect(&settings), stream());
    eventually(|| log.create(&name, 2)).await;
    let mut member = join_and_keep(&log, "speed", DEADLINE * 10);
    until(&mut member, |share| share.len() == 2).await;
    // When this one has lost its place, whose session is longer, the other one has for long.
    let patient = connect(&KafkaSettings { session_timeout_ms: 6_000, ..settings });
    let mut witness = join_and_keep(&patient, "witness", Duration::ZERO);
    until(&mut witness, |share| share.len() == 2).await;
    let before = places(broker.bootstrap(), "speed", &[]).await;
    let lost_and_given = async {
        broker.pause().expect("paused");
        until(&mut witness, Share::is_empty).await;
        broker.resume().expect("resumed");
        places(broker.bootstrap(), "speed", &before).await
    };
    tokio::select! {
        share = member.wait_for(|share| share.len() != 2) => panic!("it does not work on: {share:?}"),
        after = lost_and_given => assert_eq!(after.len(), 1, "{after:?}"),
    }
    // What it works on now is its place's, and goes where the group gives it.
    let mut second = join_and_keep(&log, "speed", DEADLINE * 10);
    until(&mut second, |share| share.len() == 1).await;
    until(&mut member, |share| share.len() == 1).await;
    assert!(member.share().is_disjoint(&second.share()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_is_not_waited_for() {
    // Far longer than the deadline: a share that comes in time was left, not missed.
    let settings = KafkaSettings { session_timeout_ms: 600_000, ..settings() };
    let (log, other) = (connect(&settings), connect(&settings));
    log.create(&stream(), 4).await.expect("creates");
    let mut first = log.join("speed", &[stream()]).await.expect("joins");
    until(&mut first, |share| share.len() == 4).await;
    let mut second = other.join("speed", &[stream()]).await.expect("joins");
    until(&mut second, |share| share.len() == 2).await;
    until(&mut first, |share| share.len() == 2).await;
    first.leave().await;
    until(&mut second, |share| share.len() == 4).await;
    let mut third = log.join("speed", &[stream()]).await.expect("joins");
    until(&mut third, |share| share.len() == 2).await;
    drop(second);
    until(&mut third, |share| share.len() == 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stays_cut_off_has_no_share_until_it_is_back() {
    let mut broker = KafkaBroker::start().unwrap_or_else(|error| panic!("{error}"));
    let log = connect(&missed_soon(KafkaSettings::new(broker.bootstrap())));
    let name = stream();
    eventually(|| log.create(&name, 2)).await;
    let mut member = log.join("speed", &[stream()]).await.expect("joins");
    until(&mut member, |share| share.len() == 2).await;
    broker.pause().expect("paused");
    until(&mut member, Share::is_empty).await;
    broker.resume().expect("resumed");
    until(&mut member, |share| share.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_commit_nothing_and_reading_is_not_their_business() {
    let settings = settings();
    let log = connect(&settings);
    log.create(&stream(), 1).await.expect("creates");
    append(&log, &["a", "b"]).await.expect("appends");
    let mut member = log.join("speed", &[stream()]).await.expect("joins");
    until(&mut member, |share| share.len() == 1).await;
    assert_eq!(texts(&read(&log, 0).await), ["a", "b"], "reading has nothing to do with the group");
    drop(member);
    // Who has left leaves a group without members, so this one gets the partition at once.
    let mut next = log.join("speed", &[stream()]).await.expect("joins");
    until(&mut next, |share| share.len() == 1).await;
    let topic = log.topic(&stream());
    let committed = tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &settings.brokers).set("group.id", format!("{}speed", settings.topic_prefix));
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition(&topic, 0);
        consumer.committed_offsets(partitions, DEADLINE).expect("answers").elements()[0].offset()
    });
    assert_eq!(committed.await.expect("no panic"), rdkafka::Offset::Invalid);
}

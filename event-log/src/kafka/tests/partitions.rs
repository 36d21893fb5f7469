//! How many partitions there are, where brokers have not heard of all of them, and where a topic is gone for good.

use rdkafka::{
    ClientConfig,
    admin::{AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr as Response},
};

use super::*;

async fn partitions(log: &KafkaLog) -> u32 {
    log.partitions(&stream()).await.expect("counts")
}

fn is_unknown<T: fmt::Debug>(refused: Result<T, LogError>, number: u32) {
    assert!(matches!(refused, Err(LogError::UnknownPartition { partition: PartitionId(it), .. }) if it == number), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_has_not_heard_of_a_topic_takes_no_partition_away() {
    let brokers = MockCluster::new(1).expect("a cluster");
    brokers.create_topic(stream().as_str(), 4, 1).expect("created");
    let says = |response| brokers.topic_error(stream().as_str(), response).expect("set");
    let log = connect(&KafkaSettings::new(brokers.bootstrap_servers()));
    assert_eq!(partitions(&log).await, 4);
    for _ in 0..2 {
        says(Response::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
        assert_eq!(partitions(&log).await, 4);
        says(Response::RD_KAFKA_RESP_ERR_NO_ERROR);
        assert_eq!(partitions(&log).await, 4);
    }
    let another = connect(&KafkaSettings::new(brokers.bootstrap_servers()));
    says(Response::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    assert_eq!((partitions(&another).await, partitions(&log).await), (0, 4), "who has never heard of any knows of none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_does_not_know_the_end_yet_is_asked_again() {
    let brokers = MockCluster::new(1).expect("a cluster");
    brokers.create_topic(stream().as_str(), 1, 1).expect("created");
    let log = connect(&KafkaSettings::new(brokers.bootstrap_servers()));
    // Two requests are one question: for the start, and for the end.
    brokers.request_errors(RDKafkaApiKey::ListOffsets, &[Response::RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE; 4]);
    let bounds = log.bounds(&stream(), P0).await.expect("it is told in the end");
    assert_eq!(bounds, PartitionBounds { start: Offset(0), end: Offset(0) });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_is_an_error_and_can_be_created_again_with_fewer_partitions() {
    let settings = settings();
    let [log, other] = [connect(&settings), connect(&settings)];
    log.create(&stream(), 3).await.expect("creates");
    append(&log, &["a"]).await.expect("appends");
    assert_eq!((partitions(&log).await, partitions(&other).await), (3, 3));
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &settings.brokers).create().expect("a client");
    let (topic, options) = (log.topic(&stream()), AdminOptions::new());
    let deleted = admin.delete_topics(&[&topic], &options).await.expect("answers");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");

    let gone = async {
        loop {
            match log.bounds(&stream(), PartitionId(2)).await {
                Ok(_) | Err(LogError::Unavailable(_)) => {}
                refused => break refused,
            }
        }
    };
    is_unknown(tokio::time::timeout(DEADLINE, gone).await.expect("its end is told"), 2);
    assert_eq!(partitions(&log).await, 0);
    is_unknown(log.read(&stream(), P0, Offset(0), ALL).await, 0);
    is_unknown(append(&log, &["nowhere"]).await, 0);

    // As another process creates it.
    let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("message.timestamp.type", "LogAppendTime");
    let created = admin.create_topics([&new], &options).await.expect("answers");
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    assert_eq!(eventually(|| append(&log, &["b"])).await, [Offset(0)]);
    assert_eq!(partitions(&log).await, 1);
    // Who has used none of the others since counts them until he does.
    assert_eq!(partitions(&other).await, 3);
    is_unknown(other.bounds(&stream(), PartitionId(2)).await, 2);
    assert_eq!(partitions(&other).await, 1);
}

//! Membership in a consumer group, which divides partitions among processes and does nothing else.
//!
//! A member is a consumer whose partitions are paused as soon as they are assigned, so it reads nothing; it commits nothing either. The
//! group's coordinator notices members that come, leave or fall silent, and partitions that are added, and divides anew. Its thread
//! serves the consumer, whoever is busy elsewhere.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::{RDKafkaErrorCode, RDKafkaRespErr},
};
use riomar_schemas::{Name, PartitionId};
use tokio::sync::{oneshot, watch};

use super::incidents::Quiet;
use crate::membership::{Membership, Share};

/// How long a member that is dropped may go on before it leaves.
const TURN: Duration = Duration::from_millis(50);

/// Joins a group for these topics, each with the stream that it is of.
///
/// # Errors
/// What librdkafka says to the configuration, or that no thread can be started.
pub(super) fn join(config: &ClientConfig, group: &str, topics: HashMap<String, Name>) -> KafkaResult<Membership> {
    let (share, told) = watch::channel(Share::new());
    if topics.is_empty() {
        // A subscription to nothing is refused. The sender stays, as in any membership.
        return Ok(Membership::new(told, share, None));
    }
    let names: Vec<_> = topics.keys().cloned().collect();
    let consumer: BaseConsumer<Member> = config.create_with_context(Member { group: group.to_owned(), topics, share })?;
    consumer.subscribe(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let place = Place { left: Arc::default() };
    let left = place.left.clone();
    let (done, done_leaving) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name("kafka-member".to_owned())
        .spawn(move || {
            let mut told = None;
            while !left.load(Ordering::Relaxed) {
                // There are no records, and trouble with the cluster shows in the share.
                if let Some(Err(error)) = consumer.poll(TURN) {
                    consumer.context().trouble(&error, &mut told);
                }
            }
            consumer.context().share.send_replace(Share::new());
            // It says farewell to the group.
            drop(consumer);
            drop(done);
        })
        .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
    Ok(Membership::new(told, place, Some(done_leaving)))
}

/// Leaves the group when it is dropped.
struct Place {
    left: Arc<AtomicBool>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.left.store(true, Ordering::Relaxed);
    }
}

/// Publishes what a member is assigned.
struct Member {
    group: String,
    topics: HashMap<String, Name>,
    share: watch::Sender<Share>,
}

impl Member {
    /// What the group's coordinator refuses it refuses until somebody allows it, and nothing else tells of that: it is told once.
    fn trouble(&self, error: &KafkaError, told: &mut Option<RDKafkaErrorCode>) {
        use RDKafkaErrorCode as Code;
        let group = &self.group;
        match error.rdkafka_error_code() {
            Some(code @ (Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed)) if *told != Some(code) => {
                *told = Some(code);
                tracing::warn!(group, %error, "Kafka gives this process no share: allow its user to read the group and the topics");
            }
            _ => tracing::debug!(group, %error, "a member of a consumer group"),
        }
    }

    fn streams(&self, partitions: &TopicPartitionList) -> Share {
        let place = |topic: &str, partition| Some((self.topics.get(topic)?.clone(), PartitionId(u32::try_from(partition).ok()?)));
        partitions.elements().iter().filter_map(|element| place(element.topic(), element.partition())).collect()
    }
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        Quiet.log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Quiet.error(error, reason);
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let moved = self.streams(partitions);
        let count = moved.len();
        let outcome = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // The end, so that the group's offset is not asked for, and nothing is fetched before the partitions are paused.
            let assigned = partitions
                .set_all_offsets(Offset::End)
                .and_then(|()| consumer.incremental_assign(partitions))
                .and_then(|()| consumer.pause(partitions));
            self.share.send_modify(|share| share.extend(moved));
            assigned
        } else {
            // First of all nobody works on them any more.
            self.share.send_modify(|share| share.retain(|partition| !moved.contains(partition)));
            consumer.incremental_unassign(partitions)
        };
        let (group, held) = (&self.group, self.share.borrow().len());
        match outcome {
            Ok(()) => tracing::debug!(group, count, held, lost = consumer.assignment_lost(), "the group divided its partitions"),
            Err(error) => tracing::warn!(group, %error, "the group's division could not be taken over"),
        }
    }
}

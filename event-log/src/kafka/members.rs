//! Membership in a consumer group, which divides partitions among processes and does nothing else.
//!
//! A member is a consumer whose partitions are paused as soon as they are assigned, so it reads nothing; it commits nothing either. The
//! group's coordinator notices members that come, leave or fall silent, and partitions that are added, and divides anew. Its thread
//! serves the consumer, whoever is busy elsewhere.
//!
//! A member whose session ends has lost its place, and asks for a new one. It keeps its share meanwhile, for [`KEPT_SESSIONS`] at the
//! most: mostly it is the coordinator that was away, for all members alike, and once it is back it waits a whole session for the places
//! that it remembers, so nobody else would work there for that long. Where others did take the share over, two work on it for a moment,
//! which costs work and changes nothing: what they write is guarded where they write it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
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
/// For so many sessions a member that lost its place keeps its share: one in which the coordinator comes back, one in which that waits for
/// the places that it remembers, and one to spare.
pub(super) const KEPT_SESSIONS: u32 = 3;

/// Joins a group for these topics, each with the stream that it is of. A share whose place was lost is kept for `kept`.
///
/// # Errors
/// What librdkafka says to the configuration, or that no thread can be started.
pub(super) fn join(config: &ClientConfig, group: &str, topics: HashMap<String, Name>, kept: Duration) -> KafkaResult<Membership> {
    let (share, told) = watch::channel(Share::new());
    if topics.is_empty() {
        // A subscription to nothing is refused. The sender stays, as in any membership.
        return Ok(Membership::new(told, share, None));
    }
    let names: Vec<_> = topics.keys().cloned().collect();
    let member = Member { group: group.to_owned(), topics, share, kept, lost_at: Mutex::default() };
    let consumer: BaseConsumer<Member> = config.create_with_context(member)?;
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
                consumer.context().turn(Instant::now());
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
    /// How long a share is kept whose place was lost.
    kept: Duration,
    /// Since when the share has been kept without a place.
    lost_at: Mutex<Option<Instant>>,
}

impl Member {
    /// These are the member's from now on; with the first ones after a loss, none at all among them, it is told all that it has.
    fn assigned(&self, partitions: Share) {
        let kept = self.take_lost().is_some();
        self.share.send_modify(|share| {
            if kept {
                share.clear();
            }
            share.extend(partitions);
        });
    }

    /// These are the member's no more; where they are `lost`, nobody has been given them yet, as far as it knows.
    fn revoked(&self, partitions: &Share, lost: bool, now: Instant) {
        if lost {
            self.lost_at.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(now);
        } else {
            self.share.send_modify(|share| share.retain(|partition| !partitions.contains(partition)));
        }
    }

    /// Lets go of a share that has been kept for long enough.
    fn turn(&self, now: Instant) {
        let lost_at = *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner);
        if lost_at.is_some_and(|lost_at| now.saturating_duration_since(lost_at) >= self.kept) {
            self.take_lost();
            self.share.send_replace(Share::new());
            tracing::debug!(group = self.group, "the group gave no place in time: this member works on nothing");
        }
    }

    fn take_lost(&self) -> Option<Instant> {
        self.lost_at.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

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
        let (count, lost) = (moved.len(), consumer.assignment_lost());
        let outcome = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // The end, so that the group's offset is not asked for, and nothing is fetched before the partitions are paused.
            let assigned = partitions
                .set_all_offsets(Offset::End)
                .and_then(|()| consumer.incremental_assign(partitions))
                .and_then(|()| consumer.pause(partitions));
            self.assigned(moved);
            assigned
        } else {
            // First of all nobody works on them any more, unless it is only the place that is gone.
            self.revoked(&moved, lost, Instant::now());
            consumer.incremental_unassign(partitions)
        };
        let (group, held) = (&self.group, self.share.borrow().len());
        match outcome {
            Ok(()) => tracing::debug!(group, count, held, lost, "the group divided its partitions"),
            Err(error) => tracing::warn!(group, %error, "the group's division could not be taken over"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(partitions: &[u32]) -> Share {
        let stream = Name::new("page_views").expect("valid");
        partitions.iter().map(|partition| (stream.clone(), PartitionId(*partition))).collect()
    }

    fn member() -> (Member, watch::Receiver<Share>) {
        let (share, told) = watch::channel(Share::new());
        let kept = Duration::from_secs(30);
        (Member { group: "speed".into(), topics: HashMap::new(), share, kept, lost_at: Mutex::default() }, told)
    }

    #[test]
    fn what_is_given_and_taken_adds_up() {
        let (member, told) = member();
        let now = Instant::now();
        member.assigned(share(&[0, 1]));
        member.assigned(share(&[2]));
        member.revoked(&share(&[1]), false, now);
        assert_eq!(*told.borrow(), share(&[0, 2]));
        member.turn(now + Duration::from_secs(3_600));
        assert_eq!(*told.borrow(), share(&[0, 2]), "who has its place keeps it");
    }

    #[test]
    fn a_lost_share_is_kept_until_the_next_one_replaces_it() {
        for (next, expected) in [(&[1, 2][..], share(&[1, 2])), (&[0, 1], share(&[0, 1])), (&[], Share::new())] {
            let (member, told) = member();
            let now = Instant::now();
            member.assigned(share(&[0, 1]));
            member.revoked(&share(&[0, 1]), true, now);
            member.turn(now + Duration::from_secs(29));
            assert_eq!(*told.borrow(), share(&[0, 1]));
            member.assigned(share(next));
            assert_eq!(*told.borrow(), expected);
            // It is a place like any other.
            member.turn(now + Duration::from_secs(3_600));
            member.assigned(share(&[7]));
            assert_eq!(*told.borrow(), expected.iter().cloned().chain(share(&[7])).collect());
        }
    }

    #[test]
    fn a_lost_share_is_kept_for_so_long_from_the_first_loss_on() {
        let (member, told) = member();
        let (now, at) = (Instant::now(), |seconds| Duration::from_secs(seconds));
        member.assigned(share(&[0]));
        member.revoked(&share(&[0]), true, now);
        member.revoked(&Share::new(), true, now + at(20));
        member.turn(now + at(30));
        assert_eq!(*told.borrow(), Share::new());
        member.assigned(share(&[3]));
        assert_eq!(*told.borrow(), share(&[3]));
    }
}

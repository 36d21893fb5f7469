//! Asking the cluster: partitions and bounds; creating and trimming topics. Every call has a deadline.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    Offset as KafkaOffset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    error::{KafkaError, KafkaResult},
    metadata::MetadataPartition,
    producer::Producer as _,
    types::RDKafkaErrorCode,
};
use riomar_schemas::{Name, Offset, PartitionId};
use tokio::time::Instant;

use super::{
    KafkaSettings,
    incidents::{Incidents, Quiet},
    producer::{Producer, Sender},
    topics,
};
use crate::{error::LogError, log::PartitionBounds};

/// Between two looks at a topic that is being created.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Within this time every broker has heard of a partition that was created.
const HEARD_WITHIN: Duration = Duration::from_secs(2);
/// What a call may take beyond the client's own deadline before it is given up from outside.
const GRACE: Duration = Duration::from_secs(2);

/// A partition of a stream and where it is in the cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) stream: &'a Name,
    pub(super) topic: &'a str,
    pub(super) partition: PartitionId,
}

impl Place<'_> {
    pub(super) fn unknown(&self) -> LogError {
        LogError::UnknownPartition { stream: self.stream.clone(), partition: self.partition }
    }

    pub(super) fn out_of_range(&self, wanted: Offset, bounds: PartitionBounds) -> LogError {
        let (stream, partition) = (self.stream.clone(), self.partition);
        LogError::OutOfRange { stream, partition, wanted, start: bounds.start, end: bounds.end }
    }

    /// The partition's number as Kafka has it; no stream has so many that it would not fit.
    pub(super) fn number(&self) -> i32 {
        i32::try_from(self.partition.0).unwrap_or(i32::MAX)
    }
}

/// The cluster, as far as a log asks it for something.
pub(super) struct Cluster {
    settings: Arc<KafkaSettings>,
    incidents: Arc<Incidents>,
    producer: Arc<Producer>,
    admin: AdminClient<Quiet>,
    topics: Mutex<HashMap<String, Known>>,
}

/// What is known of a topic. It never has fewer partitions than it had: whoever says so has not heard of them yet, unless they are not
/// found for as long as that may take. Then the topic is another one, or gone, and what was known of it is forgotten.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    partitions: u32,
    checked: bool,
}

impl Cluster {
    pub(super) fn new(
        settings: Arc<KafkaSettings>,
        incidents: Arc<Incidents>,
        producer: Arc<Producer>,
        admin: AdminClient<Quiet>,
    ) -> Self {
        Self { settings, incidents, producer, admin, topics: Mutex::default() }
    }

    /// The time that a call may take.
    pub(super) fn deadline(&self) -> Duration {
        Duration::from_millis(self.settings.request_timeout_ms.into())
    }

    /// The number of partitions of a topic; 0 where there is none of that name. Never fewer than are known: the broker that answers may
    /// be behind. That a topic is gone is told by the first call for one of its partitions.
    pub(super) async fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        let seen = self.look_at(topic).await?;
        Ok(self.learn_partitions(topic, seen))
    }

    /// Makes sure that a partition is there. One that is not is looked for a little longer: somebody may just have created it.
    pub(super) async fn expect(&self, place: Place<'_>) -> Result<(), LogError> {
        if place.partition.0 < self.known(place.topic).partitions {
            return Ok(());
        }
        if self.finds(place).await? { Ok(()) } else { Err(place.unknown()) }
    }

    /// Looks for a partition until a broker has it, or every broker would have heard of it.
    async fn finds(&self, place: Place<'_>) -> Result<bool, LogError> {
        let deadline = Instant::now() + HEARD_WITHIN;
        loop {
            let seen = self.look_at(place.topic).await?;
            if place.partition.0 < seen.partitions {
                self.learn_partitions(place.topic, seen);
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The error for a call that failed. That there is no such partition a client may say from memory, which a broker that was away
    /// for a while has spoiled: so the cluster is asked.
    pub(super) async fn failed(&self, place: Place<'_>, doing: &str, error: KafkaError) -> LogError {
        if is_unknown(&error) {
            match self.finds(place).await {
                Ok(true) => {}
                Ok(false) => {
                    self.forget(place.topic);
                    return place.unknown();
                }
                Err(error) => return error,
            }
        }
        self.incidents.unavailable(doing, error)
    }

    /// The offsets that a partition holds. Its end is the last stable offset: what belongs to a transaction that is not committed
    /// yet, of a producer that is not ours, is not there yet.
    pub(super) async fn bounds(&self, place: Place<'_>) -> Result<PartitionBounds, LogError> {
        self.expect(place).await?;
        let (number, deadline) = (place.number(), Instant::now() + self.deadline());
        let watermarks = loop {
            let (topic, within) = (place.topic.to_owned(), deadline - Instant::now());
            let asked = self.ask(move |sender| sender.client().fetch_watermarks(&topic, number, within)).await;
            match &asked {
                // Another broker leads from now on, or this one has not heard that it does, or does not know the end yet. The client
                // goes by what it remembers until it looks again.
                Err(error) if is_of_a_new_leader(error) && Instant::now() + LOOK_AGAIN < deadline => {
                    self.look_at(place.topic).await?;
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                _ => break asked,
            }
        };
        match watermarks {
            Ok((start, end)) => {
                self.incidents.answered();
                let offset = |offset: i64| Offset(u64::try_from(offset).unwrap_or_default());
                Ok(PartitionBounds { start: offset(start), end: offset(end) })
            }
            Err(error) => Err(self.failed(place, &format!("the bounds of {}/{}", place.topic, place.partition), error).await),
        }
    }

    /// Creates a topic, or adds the partitions that it lacks, and checks how it is set up.
    pub(super) async fn create(&self, topic: &str, partitions: u32) -> Result<(), LogError> {
        let known = self.known(topic);
        if known.checked && known.partitions >= partitions {
            return Ok(());
        }
        let deadline = Instant::now() + self.deadline();
        match self.look_at(topic).await?.partitions {
            0 if partitions == 0 => return Ok(()),
            0 => self.create_topic(topic, partitions).await?,
            _ => {}
        }
        // Another process may have created it just now, with other settings or fewer partitions.
        self.check_settings(topic).await?;
        if self.wait_until_there(topic, 1, deadline).await? < partitions {
            self.add_partitions(topic, partitions).await?;
            self.wait_until_there(topic, partitions, deadline).await?;
        }
        self.learn(topic, |known| known.checked = true);
        Ok(())
    }

    /// Lets go of the records below an offset, which is above the start and not above the end.
    pub(super) async fn trim(&self, place: Place<'_>, below: Offset) -> Result<(), LogError> {
        let doing = || format!("trimming {}/{}", place.topic, place.partition);
        let mut offsets = TopicPartitionList::with_capacity(1);
        let offset = i64::try_from(below.0).unwrap_or(i64::MAX);
        offsets
            .add_partition_offset(place.topic, place.number(), KafkaOffset::Offset(offset))
            .map_err(|error| self.incidents.unavailable(doing(), error))?;
        let options = self.admin_options();
        let trimmed = self.in_time(doing(), self.admin.delete_records(&offsets, &options)).await?;
        for element in trimmed.elements() {
            element.error().map_err(|error| self.incidents.unavailable(doing(), error))?;
        }
        Ok(())
    }

    async fn create_topic(&self, topic: &str, partitions: u32) -> Result<(), LogError> {
        let settings = topics::of_new_topic(topic, &self.settings);
        let replication = TopicReplication::Fixed(self.settings.replication.into());
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        let mut new = NewTopic::new(topic, partitions, replication);
        for (name, value) in &settings {
            new = new.set(name, value);
        }
        let options = self.admin_options();
        let doing = || format!("creating topic {topic}");
        let created = self.in_time(doing(), self.admin.create_topics([&new], &options)).await?;
        match created.into_iter().next() {
            Some(Ok(_)) => {
                // What was known of a topic of this name was known of one that is gone.
                self.forget(topic);
                Ok(())
            }
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None => Ok(()),
            Some(Err((_, RDKafkaErrorCode::InvalidReplicationFactor))) => Err(LogError::Misconfigured(format!(
                "topic {topic} is to have {} copies, but Kafka at {} has fewer brokers: start more, or ask for fewer copies",
                self.settings.replication, self.settings.brokers
            ))),
            Some(Err((_, code))) => Err(self.incidents.unavailable(doing(), code)),
        }
    }

    async fn add_partitions(&self, topic: &str, partitions: u32) -> Result<(), LogError> {
        let new = NewPartitions::new(topic, usize::try_from(partitions).unwrap_or(usize::MAX));
        let options = self.admin_options();
        let doing = || format!("adding partitions to topic {topic}");
        let added = self.in_time(doing(), self.admin.create_partitions([&new], &options)).await?;
        match added.into_iter().next() {
            // Another process was faster; whether it added enough is looked at next.
            Some(Err((_, RDKafkaErrorCode::InvalidPartitions))) | Some(Ok(_)) | None => Ok(()),
            Some(Err((_, code))) => Err(self.incidents.unavailable(doing(), code)),
        }
    }

    async fn check_settings(&self, topic: &str) -> Result<(), LogError> {
        let options = self.admin_options();
        let doing = || format!("the settings of topic {topic}");
        let deadline = Instant::now() + self.deadline();
        let resource = loop {
            let resource = ResourceSpecifier::Topic(topic);
            let described = self.admin.describe_configs([&resource], &options);
            match self.in_time(doing(), described).await?.into_iter().next() {
                Some(Ok(resource)) => break resource,
                // A broker that has not heard of it yet.
                Some(Err(RDKafkaErrorCode::UnknownTopicOrPartition)) if Instant::now() < deadline => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Some(Err(code)) => return Err(self.incidents.unavailable(doing(), code)),
                None => return Err(self.incidents.unavailable(doing(), "they are not told")),
            }
        };
        let found = |name: &str| resource.get(name)?.value.clone();
        let broken = topics::broken(topic, found);
        if !broken.is_empty() {
            return Err(LogError::Misconfigured(topics::advice(&self.settings.brokers, topic, &broken)));
        }
        let early = topics::deletes_early(topic, &self.settings, found);
        if !early.is_empty() {
            tracing::warn!("{}", topics::warning(&self.settings.brokers, topic, &early));
        }
        Ok(())
    }

    /// Waits until so many partitions have a leader; tells how many there are.
    async fn wait_until_there(&self, topic: &str, partitions: u32, deadline: Instant) -> Result<u32, LogError> {
        loop {
            let seen = self.look_at(topic).await?;
            if seen.led >= partitions {
                self.learn_partitions(topic, seen);
                return Ok(seen.partitions);
            }
            if Instant::now() >= deadline {
                let what = format!("{} of {partitions} partitions can be used", seen.led);
                return Err(self.incidents.unavailable(format_args!("creating topic {topic}"), what));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn look_at(&self, topic: &str) -> Result<Seen, LogError> {
        let (name, within) = (topic.to_owned(), self.deadline());
        let seen = self.ask(move |sender| seen(sender, &name, within)).await;
        match seen {
            Ok(seen) => {
                self.incidents.answered();
                Ok(seen)
            }
            Err(error) => Err(self.incidents.unavailable(format_args!("the partitions of topic {topic}"), error)),
        }
    }

    /// Asks something that blocks, on a thread that may.
    async fn ask<T: Send + 'static>(&self, ask: impl FnOnce(&Sender) -> KafkaResult<T> + Send + 'static) -> KafkaResult<T> {
        let sender = self.producer.sender();
        tokio::task::spawn_blocking(move || ask(&sender)).await.unwrap_or(Err(KafkaError::Canceled))
    }

    async fn in_time<T>(&self, doing: String, call: impl Future<Output = KafkaResult<T>>) -> Result<T, LogError> {
        let within = self.deadline() + GRACE;
        match tokio::time::timeout(within, call).await {
            Ok(Ok(answer)) => {
                self.incidents.answered();
                Ok(answer)
            }
            Ok(Err(error)) => Err(self.incidents.unavailable(doing, error)),
            Err(_) => Err(self.incidents.unavailable(doing, format_args!("no answer within {within:?}"))),
        }
    }

    fn admin_options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.deadline())).operation_timeout(Some(self.deadline()))
    }

    fn known(&self, topic: &str) -> Known {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied().unwrap_or_default()
    }

    fn learn<T>(&self, topic: &str, learn: impl FnOnce(&mut Known) -> T) -> T {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        learn(topics.entry(topic.to_owned()).or_default())
    }

    /// Learns how many partitions a broker sees; gives how many there are.
    fn learn_partitions(&self, topic: &str, seen: Seen) -> u32 {
        self.learn(topic, |known| {
            known.partitions = known.partitions.max(seen.partitions);
            known.partitions
        })
    }

    /// Forgets a topic that is not as it was.
    fn forget(&self, topic: &str) {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }
}

/// A topic as a broker sees it.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    partitions: u32,
    /// The partitions, counted from the first, that have a leader.
    led: u32,
}

fn seen(sender: &Sender, topic: &str, within: Duration) -> KafkaResult<Seen> {
    let metadata = sender.client().fetch_metadata(Some(topic), within)?;
    let Some(topic) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(Seen::default()) };
    match topic.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => return Ok(Seen::default()),
        Some(code) => return Err(KafkaError::MetadataFetch(code)),
    }
    let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0);
    let mut led: Vec<_> = led.map(MetadataPartition::id).collect();
    led.sort_unstable();
    let led = led.into_iter().zip(0..).take_while(|(partition, expected)| partition == expected).count();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(Seen { partitions: count(topic.partitions().len()), led: count(led) })
}

/// Whether an error says that a partition is led by another broker than the one that was asked, or by none for now, or by one that has
/// led it for so short a time that it does not know how much was acknowledged.
fn is_of_a_new_leader(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable | Code::OffsetNotAvailable))
}

/// Whether an error says that a topic or partition is not there.
fn is_unknown(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::UnknownTopic))
}

//! Appending: one idempotent producer for all streams.
//!
//! The producer numbers what it sends to a partition and the broker takes it in that order and once, also when a reply is lost and it
//! is sent again. An append ends when the last of its records is reported: all of them durable, or not.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::RDKafkaLogLevel,
    error::KafkaError,
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
    types::RDKafkaErrorCode,
};
use riomar_schemas::{Offset, PartitionId, record::RecordBody};
use tokio::{
    sync::{Notify, oneshot},
    time::timeout_at,
};

use super::{
    codec,
    incidents::{Incidents, Watched},
};

/// Records handed over before other tasks get a turn.
const TURN_RECORDS: usize = 1024;

/// The producer of a log.
pub(super) struct Producer {
    config: ClientConfig,
    incidents: Arc<Incidents>,
    /// Another one takes its place when it breaks: an idempotent producer that has lost count never sends again.
    current: RwLock<Arc<Sender>>,
}

/// The producer's client, which answers questions about the cluster as well.
pub(super) type Sender = ThreadedProducer<Deliveries>;

/// Why an append failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The time for it is over.
    Late,
    /// The client or a broker refused it.
    Kafka(KafkaError),
}

impl Producer {
    /// A producer that finds its brokers when it needs them.
    ///
    /// # Errors
    /// What librdkafka says to the configuration.
    pub(super) fn new(config: ClientConfig, incidents: Arc<Incidents>) -> Result<Self, KafkaError> {
        let current = RwLock::new(Arc::new(sender(&config, &incidents)?));
        Ok(Self { config, incidents, current })
    }

    /// The client of the producer that is used now.
    pub(super) fn sender(&self) -> Arc<Sender> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Appends records to partitions that are there; returns the offset of each once all are durable.
    ///
    /// # Errors
    /// The first failure; nothing was promised then.
    pub(super) async fn append(
        &self,
        topic: &str,
        records: &[(PartitionId, RecordBody)],
        within: Duration,
    ) -> Result<Vec<Offset>, Failure> {
        let sender = self.sender();
        let appended = append(&sender, topic, records, within).await;
        if appended.is_err() {
            self.replace_if_broken(&sender);
        }
        appended
    }

    fn replace_if_broken(&self, broken: &Arc<Sender>) {
        let Some((_, reason)) = broken.client().fatal_error() else { return };
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, broken) {
            return;
        }
        match sender(&self.config, &self.incidents) {
            Ok(new) => {
                tracing::warn!(reason, "the producer broke, and another one takes its place");
                *current = Arc::new(new);
            }
            Err(error) => tracing::error!(reason, %error, "the producer broke, and no other can be made"),
        }
    }
}

fn sender(config: &ClientConfig, incidents: &Arc<Incidents>) -> Result<Sender, KafkaError> {
    config.create_with_context(Deliveries { watched: Watched(incidents.clone()), room: Notify::new() })
}

async fn append(
    sender: &Sender,
    topic: &str,
    records: &[(PartitionId, RecordBody)],
    within: Duration,
) -> Result<Vec<Offset>, Failure> {
    let deadline = tokio::time::Instant::now() + within;
    let (append, done) = Append::new(records.len());
    for (place, (partition, body)) in records.iter().enumerate() {
        let partition = i32::try_from(partition.0).map_err(|_| Failure::Kafka(unknown_partition()))?;
        let delivery = Box::new(Delivery { append: append.clone(), place });
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, delivery).partition(partition);
        record = record.payload(codec::value(body));
        record.headers = codec::headers(body);
        loop {
            // Made before the attempt, so no room that is made behind it goes unnoticed.
            let room = sender.context().room.notified();
            match sender.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    record = refused;
                    timeout_at(deadline, room).await.map_err(|_| Failure::Late)?;
                }
                Err((error, _)) => return Err(Failure::Kafka(error)),
            }
        }
        if place % TURN_RECORDS == TURN_RECORDS - 1 {
            tokio::task::yield_now().await;
        }
    }
    // Every record is reported within the producer's own time, which begins when it is handed over.
    match timeout_at(deadline + within, done).await {
        Ok(Ok(outcome)) => outcome.map_err(Failure::Kafka),
        Ok(Err(_)) | Err(_) => Err(Failure::Late),
    }
}

fn unknown_partition() -> KafkaError {
    KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition)
}

/// An append whose records are under way.
#[derive(Debug)]
struct Append(Mutex<Missing>);

#[derive(Debug)]
struct Missing {
    offsets: Vec<Offset>,
    reports: usize,
    failure: Option<KafkaError>,
    done: Option<oneshot::Sender<Result<Vec<Offset>, KafkaError>>>,
}

impl Append {
    fn new(records: usize) -> (Arc<Self>, oneshot::Receiver<Result<Vec<Offset>, KafkaError>>) {
        let (done, receiver) = oneshot::channel();
        let missing = Missing { offsets: vec![Offset(0); records], reports: records, failure: None, done: Some(done) };
        (Arc::new(Self(Mutex::new(missing))), receiver)
    }

    fn report(&self, place: usize, outcome: Result<Offset, KafkaError>) {
        let mut missing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(offset) => missing.offsets[place] = offset,
            Err(error) => drop(missing.failure.get_or_insert(error)),
        }
        missing.reports -= 1;
        if missing.reports == 0
            && let Some(done) = missing.done.take()
        {
            let offsets = std::mem::take(&mut missing.offsets);
            // Whoever waited may have given up.
            let _ = done.send(missing.failure.take().map_or(Ok(offsets), Err));
        }
    }
}

/// One record of an append.
#[derive(Debug)]
pub(super) struct Delivery {
    append: Arc<Append>,
    place: usize,
}

/// Takes the reports of the records that were sent.
pub(super) struct Deliveries {
    watched: Watched,
    /// Told whenever a report came: there is room again for another record.
    room: Notify,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        self.watched.log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.watched.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let outcome = match result {
            // The broker had the record already, and cannot tell any more where: as good as not acknowledged.
            Ok(message) => u64::try_from(message.offset())
                .map(Offset)
                .map_err(|_| KafkaError::MessageProduction(RDKafkaErrorCode::DuplicateSequenceNumber)),
            Err((error, _)) => Err(error.clone()),
        };
        delivery.append.report(delivery.place, outcome);
        self.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed_out() -> KafkaError {
        KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut)
    }

    #[test]
    fn an_append_is_done_with_its_last_report() {
        let (append, mut done) = Append::new(3);
        append.report(2, Ok(Offset(7)));
        append.report(0, Ok(Offset(5)));
        assert!(done.try_recv().is_err(), "one is missing");
        append.report(1, Ok(Offset(6)));
        assert_eq!(done.try_recv().expect("done").expect("durable"), [5, 6, 7].map(Offset));
    }

    #[test]
    fn c1_one_record_that_is_not_durable_fails_its_append() {
        let (append, mut done) = Append::new(3);
        append.report(0, Ok(Offset(5)));
        append.report(1, Err(timed_out()));
        assert!(done.try_recv().is_err(), "nothing is said while it may still be written");
        append.report(2, Err(KafkaError::Canceled));
        assert_eq!(done.try_recv().expect("done").expect_err("not durable"), timed_out());
    }
}

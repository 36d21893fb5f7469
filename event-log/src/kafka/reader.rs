//! A reader of one partition: a consumer that was given the partition and an offset once, and reads on from there.
//!
//! It never seeks, so what it returns follows on what it returned before. Whether there is nothing more to read is not told by an
//! empty queue, nor by the mere news that the end was reached: that is the end which the broker had that was fetched from, at that
//! time. It may be another broker than the one that was asked for the end, such as a leader that has just been chosen and does not
//! know yet how much was acknowledged. So a reader goes on behind what it has been given or told of by offset, and never further:
//! behind its records, behind the consumer's position (which passes over what a broker keeps for itself), and up to the offset at
//! which the end was reached ([`Ends`]). What is missing up to the end that was asked for is waited for.

use std::time::Duration;

use futures::FutureExt;
use rdkafka::{
    ClientConfig, Offset as KafkaOffset, TopicPartitionList,
    consumer::{Consumer as _, StreamConsumer},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
    types::RDKafkaErrorCode,
};
use riomar_schemas::{Offset, PartitionId, record::Record};
use tokio::time::{Instant, timeout};

use super::{
    codec,
    ends::Ends,
    taken::{Room, Taken},
};

/// The first look at where the consumer stands when nothing comes, and the longest time between two looks.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// After this time in which nothing came of what must be there, another reader is asked.
const PATIENCE: Duration = Duration::from_secs(1);
/// After this time in which nothing came, it is not for being slow.
const SLOW_AT_MOST: Duration = Duration::from_secs(10);

/// Why a reader cannot go on.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The offset is not, or not any more, in the log.
    OutOfRange,
    /// A batch cannot be read.
    Damaged(String),
    /// The client does not work.
    Broken(String),
}

/// How filling ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    /// There is everything that was asked for.
    Done,
    /// Nothing came for too long, from a reader that may have been misled: another one may get it.
    Nothing,
    /// The time is over.
    Late,
}

/// A partition's reader.
pub(super) struct Reader {
    consumer: Option<StreamConsumer<Ends>>,
    topic: String,
    partition: PartitionId,
    /// There is no record from here up to `next`.
    low: Offset,
    next: Offset,
    /// A record that did not fit into the last read.
    held: Option<Record>,
    /// When it was opened, or last gave a record.
    heard: Instant,
    /// When it was used last, in milliseconds since 1970-01-01 UTC.
    pub(super) used_ms: i64,
}

/// What a consumer gave.
enum Received {
    Record(Record),
    /// The broker has nothing more, and there is no record before this offset that did not come.
    End(Offset),
    /// Something that passes: the consumer tries again by itself.
    Hiccup,
}

impl Reader {
    /// A reader that begins at an offset.
    ///
    /// # Errors
    /// [`Trouble::Broken`] where the client cannot be made.
    pub(super) fn open(config: &ClientConfig, topic: &str, partition: PartitionId, from: Offset) -> Result<Self, Trouble> {
        let broken = |error: KafkaError| Trouble::Broken(error.to_string());
        let consumer: StreamConsumer<Ends> = config.create_with_context(Ends::default()).map_err(broken)?;
        let topic = topic.to_owned();
        let (consumer, heard) = (Some(consumer), Instant::now());
        let reader = Self { consumer, topic, partition, low: from, next: from, held: None, heard, used_ms: 0 };
        let number = i32::try_from(partition.0).unwrap_or(i32::MAX);
        let offset = KafkaOffset::Offset(i64::try_from(from.0).unwrap_or(i64::MAX));
        let mut assignment = TopicPartitionList::with_capacity(1);
        assignment.add_partition_offset(&reader.topic, number, offset).map_err(broken)?;
        reader.consumer()?.assign(&assignment).map_err(broken)?;
        Ok(reader)
    }

    /// Whether a read from `from` can go on with it.
    pub(super) fn stands_at(&self, topic: &str, partition: PartitionId, from: Offset) -> bool {
        self.partition == partition && (self.low..=self.next).contains(&from) && self.topic == topic
    }

    /// Whether both read the same partition.
    pub(super) fn reads_as(&self, other: &Self) -> bool {
        self.partition == other.partition && self.topic == other.topic
    }

    /// Whether what did not come in time may be on its way still.
    pub(super) fn may_be_slow(&self) -> bool {
        self.heard.elapsed() < SLOW_AT_MOST
    }

    /// Where it goes on.
    pub(super) fn next(&self) -> Offset {
        self.next
    }

    /// Records where the read that used it ended.
    pub(super) fn stand_behind(&mut self, taken: &Taken) {
        (self.low, self.next) = (taken.behind_records(), taken.next());
    }

    /// Takes what is there already.
    ///
    /// # Errors
    /// The reader is of no use then; what was taken is right.
    pub(super) fn fill_now(&mut self, taken: &mut Taken) -> Result<(), Trouble> {
        self.take_held(taken);
        while !taken.is_full() {
            let consumer = self.consumer()?;
            let Some(received) = consumer.recv().now_or_never() else { break };
            let received = received_of(received, consumer)?;
            self.take(received, taken);
        }
        Ok(())
    }

    /// Takes what there is before `end`, as far as there is room. `is_new`: whether the reader was opened after `end` was asked for, so
    /// that another one would get nothing sooner.
    ///
    /// # Errors
    /// The reader is of no use then; what was taken is right.
    pub(super) async fn fill(
        &mut self,
        taken: &mut Taken,
        end: Offset,
        is_new: bool,
        deadline: Instant,
    ) -> Result<Filled, Trouble> {
        self.take_held(taken);
        let mut look = LOOK.0;
        let mut heard = Instant::now();
        while !taken.is_full() && taken.next() < end {
            let now = Instant::now();
            if now >= deadline {
                return Ok(Filled::Late);
            }
            if !is_new && now - heard >= PATIENCE {
                return Ok(Filled::Nothing);
            }
            let consumer = self.consumer()?;
            let received = match timeout(look.min(deadline - now), consumer.recv()).await {
                Ok(received) => received_of(received, consumer)?,
                Err(_) => Received::Hiccup,
            };
            match received {
                Received::Record(record) => {
                    (look, heard) = (LOOK.0, Instant::now());
                    self.heard = heard;
                    self.take(Received::Record(record), taken);
                    self.fill_now(taken)?;
                }
                // Not up to `end`: what lies between is with another broker, or comes a little later.
                Received::End(offset) => taken.pass(offset),
                Received::Hiccup => {
                    look = (look * 2).min(LOOK.1);
                    self.pass_what_is_not_a_record(taken)?;
                }
            }
        }
        Ok(Filled::Done)
    }

    /// Waits for the first record, and takes it and those that came with it.
    ///
    /// # Errors
    /// The reader is of no use then; what was taken is right.
    pub(super) async fn wait(&mut self, taken: &mut Taken) -> Result<(), Trouble> {
        while taken.is_empty() {
            let consumer = self.consumer()?;
            let received = received_of(consumer.recv().await, consumer)?;
            if matches!(received, Received::Hiccup) {
                // A client that has nothing but trouble to tell of is not asked without a pause.
                tokio::time::sleep(LOOK.0).await;
            }
            self.take(received, taken);
        }
        self.fill_now(taken)
    }

    fn take_held(&mut self, taken: &mut Taken) {
        if let Some(held) = self.held.take() {
            self.take(Received::Record(held), taken);
        }
    }

    fn take(&mut self, received: Received, taken: &mut Taken) {
        match received {
            Received::Record(record) => {
                if let Room::Lacking(record) = taken.take(record) {
                    self.held = Some(record);
                }
            }
            Received::End(offset) => taken.pass(offset),
            Received::Hiccup => {}
        }
    }

    /// Goes on behind what the consumer has passed over.
    fn pass_what_is_not_a_record(&self, taken: &mut Taken) -> Result<(), Trouble> {
        let number = i32::try_from(self.partition.0).unwrap_or(i32::MAX);
        let positions = self.consumer()?.position().map_err(|error| Trouble::Broken(error.to_string()))?;
        let position = positions.find_partition(&self.topic, number).map(|element| element.offset());
        if let Some(KafkaOffset::Offset(offset)) = position
            && let Ok(offset) = u64::try_from(offset)
        {
            taken.pass(Offset(offset));
        }
        Ok(())
    }

    fn consumer(&self) -> Result<&StreamConsumer<Ends>, Trouble> {
        self.consumer.as_ref().ok_or_else(|| Trouble::Broken("it is closed".to_owned()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let consumer = self.consumer.take();
        // Closing a consumer waits for its threads; whoever drops a reader has no time for that.
        let closing = std::thread::Builder::new().name("kafka-reader-closing".to_owned());
        if let Err(error) = closing.spawn(move || drop(consumer)) {
            tracing::warn!(%error, "a reader was closed in place, for want of a thread");
        }
    }
}

fn received_of(received: KafkaResult<BorrowedMessage<'_>>, consumer: &StreamConsumer<Ends>) -> Result<Received, Trouble> {
    use RDKafkaErrorCode as Code;
    match received {
        Ok(message) => {
            codec::record(&message).map(Received::Record).ok_or_else(|| Trouble::Damaged("a record has no offset".to_owned()))
        }
        Err(KafkaError::PartitionEOF(_)) => Ok(consumer.context().take().map_or(Received::Hiccup, Received::End)),
        Err(error @ KafkaError::MessageConsumptionFatal(_)) => Err(Trouble::Broken(error.to_string())),
        Err(KafkaError::MessageConsumption(code)) => match code {
            Code::AutoOffsetReset | Code::OffsetOutOfRange => Err(Trouble::OutOfRange),
            // The client goes on behind a batch that it cannot read.
            Code::BadMessage | Code::BadCompression | Code::NotImplemented | Code::InvalidMessage | Code::MessageSizeTooLarge => {
                Err(Trouble::Damaged(code.to_string()))
            }
            _ => Ok(Received::Hiccup),
        },
        Err(_) => Ok(Received::Hiccup),
    }
}

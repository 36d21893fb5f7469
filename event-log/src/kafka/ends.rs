//! Where a reader has reached the end of its partition.
//!
//! librdkafka tells that the end was reached as an event among the records, in their order, and with the offset that is to be fetched
//! next. So whoever gets the event has got every record before that offset which may be read. The binding drops the offset from its
//! error, but hands the event's text to the client's context before it returns the error; so the offset is taken from the text.
//! Where it cannot be read there, the reader knows of no end, and waits: it takes longer, but nothing is passed over.

use std::sync::{Mutex, PoisonError};

use rdkafka::{ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError, types::RDKafkaErrorCode};
use riomar_schemas::Offset;

use super::incidents::Quiet;

/// What stands before the offset in the text.
const BEFORE_OFFSET: &str = "reached end of partition at offset ";

/// What a reader's client knows of the end of its partition.
#[derive(Debug, Default)]
pub(super) struct Ends {
    reached: Mutex<Option<Offset>>,
}

impl Ends {
    /// The offset of the event that was returned last; only once.
    pub(super) fn take(&self) -> Option<Offset> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Ends {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        Quiet.log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = offset(reason);
        } else {
            Quiet.error(error, reason);
        }
    }
}

impl ConsumerContext for Ends {}

/// The offset in the text of an event.
fn offset(reason: &str) -> Option<Offset> {
    let (_, from) = reason.split_once(BEFORE_OFFSET)?;
    let end = from.find(|character: char| !character.is_ascii_digit()).unwrap_or(from.len());
    from[..end].parse().ok().map(Offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_told_once_and_only_where_the_text_has_it() {
        let (ends, end) = (Ends::default(), || KafkaError::Global(RDKafkaErrorCode::PartitionEOF));
        assert_eq!(ends.take(), None);
        ends.error(end(), "Fetch from broker 1 reached end of partition at offset 95 (HighwaterMark 100)");
        assert_eq!((ends.take(), ends.take()), (Some(Offset(95)), None));
        ends.error(KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), "it reached end of partition at offset 7");
        assert_eq!(ends.take(), None, "another error");
        ends.error(end(), "Fetch from broker 1 reached end of partition at offset 3");
        for text in ["Broker: No more messages", "reached end of partition at offset -1001 (HighwaterMark -1)"] {
            ends.error(end(), text);
            assert_eq!(ends.take(), None, "{text}: not that of an earlier event either");
        }
    }
}

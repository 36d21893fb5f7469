//! Sorting a body's events: which go to the log, which to quarantine, and which are rejected. Pure; no I/O.

use std::sync::Arc;

use bytes::Bytes;
use riomar_schemas::{EventDecoder, PartitionId, Stream, Violation, decode::violation::EVENT_TOO_LARGE, record::RecordBody};

use super::{
    EventError, IngestionSummary, cloudevents,
    format::Format,
    limits::{ERRORS_MAX, IngestionLimits},
    split::{self, Piece},
};
use crate::problem::ApiError;

/// A body's events, by what is to become of them.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// For the log.
    pub(super) records: Vec<(PartitionId, RecordBody)>,
    /// For quarantine: the event as it came, and why.
    pub(super) refused: Vec<(Bytes, Violation)>,
    /// Why events were rejected, where any were.
    pub(super) rejection: Option<Violation>,
    /// What the response says, once all of it is durable.
    pub(super) summary: IngestionSummary,
}

/// Splits a body and checks each event.
///
/// # Errors
/// What refuses the body as a whole.
pub(super) fn sort(stream: &Arc<Stream>, body: &Bytes, format: &Format, limits: &IngestionLimits) -> Result<Sorted, ApiError> {
    let pieces = pieces(body, format, limits.events_max)?;
    let mut sorted = Sorted { records: Vec::with_capacity(pieces.len()), ..Sorted::default() };
    let mut decoder = EventDecoder::new(Arc::clone(stream));
    for (line, raw) in pieces {
        sorted.summary.received += 1;
        if raw.len() > limits.event_bytes() {
            sorted.reject(line, limits);
            continue;
        }
        match check(&mut decoder, stream, format, &raw) {
            Ok((partition, event)) if event.len() <= limits.event_bytes() => {
                sorted.summary.accepted += 1;
                sorted.records.push((partition, RecordBody::Event(event)));
            }
            Ok(_) => sorted.reject(line, limits),
            Err(reason) => {
                sorted.summary.quarantined += 1;
                sorted.tell(line, &reason);
                sorted.refused.push((raw, reason));
            }
        }
    }
    Ok(sorted)
}

fn pieces(body: &Bytes, format: &Format, events_max: usize) -> Result<Vec<Piece>, ApiError> {
    let text = split::trimmed(body);
    match (format, text.first()) {
        (Format::Json | Format::Unknown, Some(b'[')) | (Format::CloudEvents, _) => split::elements(&text, events_max),
        (Format::Lines, _) | (Format::Unknown, None) => split::lines(body, events_max),
        (Format::Json, None) => Err(ApiError::MalformedJson("the body is empty".to_owned())),
        (Format::Unknown, Some(b'{')) if split::is_one_value(&text) => Ok(vec![(1, text)]),
        (Format::Unknown, Some(_)) => split::lines(body, events_max),
        (Format::Json | Format::CloudEvent | Format::CloudEventData(_), _) => Ok(vec![(1, text)]),
    }
}

/// Takes an event out of its envelope and checks it.
fn check(decoder: &mut EventDecoder, stream: &Stream, format: &Format, raw: &Bytes) -> Result<(PartitionId, Bytes), Violation> {
    let event = match format {
        Format::Json | Format::Lines | Format::Unknown => raw.clone(),
        Format::CloudEvent | Format::CloudEvents => cloudevents::unwrap(stream, raw)?,
        Format::CloudEventData(attributes) => attributes.event(stream, raw)?,
    };
    let in_envelope = matches!(format, Format::CloudEvent | Format::CloudEvents);
    let decoded = decoder.decode(&event).map_err(|mut violation| {
        // The pointer is to lead through what was sent, and that is what quarantine keeps.
        if in_envelope {
            violation.pointer.insert_str(0, "/data");
        }
        violation
    })?;
    Ok((decoded.partition, event))
}

impl Sorted {
    fn reject(&mut self, line: u64, limits: &IngestionLimits) {
        let detail = format!("the event has more than {} bytes", limits.event_bytes());
        let reason = Violation { code: EVENT_TOO_LARGE.to_owned(), pointer: String::new(), detail };
        self.summary.rejected += 1;
        self.tell(line, &reason);
        self.rejection = Some(reason);
    }

    fn tell(&mut self, line: u64, reason: &Violation) {
        if self.summary.errors.len() < ERRORS_MAX {
            self.summary.errors.push(EventError { line, reason: reason.clone() });
        } else {
            self.summary.errors_omitted += 1;
        }
    }
}

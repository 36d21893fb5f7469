//! Records as they stand in a topic.
//!
//! ```text
//!            value         headers
//! event      its bytes     not looked at
//! cut        empty         riomar-cut: its number as decimal text
//! ```
//! Keys are not looked at. A record without a value (Kafka's tombstone) is an event without a byte, which does not decode. A record
//! whose header is not a number, that has it twice, or that has a value beside it, is no cut: it is an event of a producer that went
//! round ingestion. Whether a number can be that of a cut is for the reader of epochs to say.

use bytes::Bytes;
use rdkafka::{
    Message,
    message::{Header, Headers, OwnedHeaders},
};
use riomar_schemas::{
    Epoch, Offset,
    record::{Record, RecordBody},
};

/// The header that makes a record a cut.
pub(super) const CUT_HEADER: &str = "riomar-cut";

/// The value of a record.
pub(super) fn value(body: &RecordBody) -> &[u8] {
    match body {
        RecordBody::Event(text) => text,
        RecordBody::Cut(_) => &[],
    }
}

/// The headers of a record.
pub(super) fn headers(body: &RecordBody) -> Option<OwnedHeaders> {
    match body {
        RecordBody::Event(_) => None,
        RecordBody::Cut(cut) => {
            Some(OwnedHeaders::new_with_capacity(1).insert(Header { key: CUT_HEADER, value: Some(&cut.to_string()) }))
        }
    }
}

/// The record that a message is; `None` where its offset is not one.
pub(super) fn record(message: &impl Message) -> Option<Record> {
    let offset = Offset(u64::try_from(message.offset()).ok()?);
    let value = message.payload().unwrap_or_default();
    let cut = message.headers().filter(|_| value.is_empty()).and_then(cut_number);
    let body = cut.map_or_else(|| RecordBody::Event(Bytes::copy_from_slice(value)), |cut| RecordBody::Cut(Epoch(cut)));
    Some(Record { offset, append_time_ms: message.timestamp().to_millis().unwrap_or_default(), body })
}

fn cut_number(headers: &impl Headers) -> Option<u64> {
    let mut found = headers.iter().filter(|header| header.key == CUT_HEADER);
    let (Some(header), None) = (found.next(), found.next()) else { return None };
    let text = str::from_utf8(header.value?).ok()?;
    // A sign is none of ours.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use rdkafka::{Timestamp, message::OwnedMessage};

    use super::*;

    fn message(value: Option<&[u8]>, headers: Option<OwnedHeaders>) -> OwnedMessage {
        let value = value.map(<[u8]>::to_vec);
        OwnedMessage::new(value, Some(b"key".to_vec()), "topic".into(), Timestamp::LogAppendTime(5), 3, 7, headers)
    }

    fn with_header(key: &str, value: Option<&str>) -> Option<OwnedHeaders> {
        Some(OwnedHeaders::new().insert(Header { key: "other", value: Some("9") }).insert(Header { key, value }))
    }

    fn twice(first: &str, second: &str) -> Option<OwnedHeaders> {
        let header = |value| Header { key: CUT_HEADER, value: Some(value) };
        Some(OwnedHeaders::new().insert(header(first)).insert(header(second)))
    }

    #[test]
    fn records_come_back_as_they_were() {
        let event = |text: &'static [u8]| RecordBody::Event(Bytes::from_static(text));
        for body in [event(b"{}"), event(b""), event(&[0, 255]), RecordBody::Cut(Epoch(1)), RecordBody::Cut(Epoch(u64::MAX))] {
            let read = record(&message(Some(value(&body)), headers(&body))).expect("an offset");
            assert_eq!(read, Record { offset: Offset(7), append_time_ms: 5, body });
        }
    }

    #[test]
    fn what_is_not_quite_a_cut_is_an_event() {
        let event = |text: &'static [u8]| RecordBody::Event(Bytes::from_static(text));
        let cases = [
            (message(None, None), event(b"")),
            (message(None, with_header(CUT_HEADER, Some("4"))), RecordBody::Cut(Epoch(4))),
            (message(Some(b"{}"), with_header(CUT_HEADER, Some("4"))), event(b"{}")),
            (message(Some(b""), with_header(CUT_HEADER, Some("-4"))), event(b"")),
            (message(Some(b""), with_header(CUT_HEADER, Some("+4"))), event(b"")),
            (message(Some(b""), with_header(CUT_HEADER, Some("four"))), event(b"")),
            (message(Some(b""), with_header(CUT_HEADER, Some("18446744073709551616"))), event(b"")),
            (message(Some(b""), twice("4", "4")), event(b"")),
            (message(Some(b""), twice("4", "5")), event(b"")),
            (message(Some(b""), twice("four", "4")), event(b"")),
            (message(Some(b""), with_header(CUT_HEADER, Some(""))), event(b"")),
            (message(Some(b""), with_header(CUT_HEADER, None)), event(b"")),
            (message(Some(b""), with_header("riomar-cuts", Some("4"))), event(b"")),
        ];
        for (message, expected) in cases {
            assert_eq!(record(&message).expect("an offset").body, expected, "{message:?}");
        }
    }
}

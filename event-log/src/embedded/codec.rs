//! Keys and values as they stand in fjall.
//!
//! ```text
//! key                                       value
//! 0 'c'                                     commits u64, append time i64      one row, written with every commit
//! 0 's' name                                format u8, id u32, partitions u32
//! 0 't' id u32, partition u32               format u8, start u64              only for a partition that was trimmed
//! 1 id u32, partition u32, offset u64       kind u8, format u8, append time i64, body
//! ```
//! Numbers are big-endian, so fjall's order is the order of offsets. A body is an event's text, or a cut's number as u64. There
//! are no checksums here: fjall keeps one for each block and each journal batch, and checks it whenever it reads from disk.

use bytes::Bytes;
use riomar_schemas::{Epoch, Name, Offset, PartitionId, record::RecordBody};

use crate::log::body_bytes;

/// The version of all values that this build writes.
const FORMAT: u8 = 1;
const META: u8 = 0;
const RECORD: u8 = 1;
const KIND_EVENT: u8 = 0;
const KIND_CUT: u8 = 1;
const HEADER_BYTES: usize = 10;

/// The key of the row that counts commits.
pub const COMMIT_KEY: [u8; 2] = [META, b'c'];
/// What the keys of all streams begin with.
pub const STREAM_PREFIX: [u8; 2] = [META, b's'];

/// A partition of a stream of this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionKey {
    /// The number that the log gave the stream.
    pub stream: u32,
    /// The partition.
    pub partition: PartitionId,
}

/// The key of a record.
pub fn record_key(of: PartitionKey, offset: Offset) -> [u8; 17] {
    let mut key = [0; 17];
    key[0] = RECORD;
    key[1..5].copy_from_slice(&of.stream.to_be_bytes());
    key[5..9].copy_from_slice(&of.partition.0.to_be_bytes());
    key[9..].copy_from_slice(&offset.0.to_be_bytes());
    key
}

/// The offset in a record's key.
pub fn record_offset(key: &[u8]) -> Option<Offset> {
    let offset = key.get(9..)?;
    Some(Offset(u64::from_be_bytes(offset.try_into().ok()?)))
}

/// Writes a record's value over `buffer`.
pub fn encode_record(body: &RecordBody, append_time_ms: i64, buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.reserve(HEADER_BYTES + body_bytes(body));
    let kind = match body {
        RecordBody::Event(_) => KIND_EVENT,
        RecordBody::Cut(_) => KIND_CUT,
    };
    buffer.extend_from_slice(&[kind, FORMAT]);
    buffer.extend_from_slice(&append_time_ms.to_be_bytes());
    match body {
        RecordBody::Event(text) => buffer.extend_from_slice(text),
        RecordBody::Cut(epoch) => buffer.extend_from_slice(&epoch.0.to_be_bytes()),
    }
}

/// A record's append time and body; `None` where this build cannot have written the value.
pub fn decode_record(value: &[u8]) -> Option<(i64, RecordBody)> {
    let (header, body) = value.split_at_checked(HEADER_BYTES)?;
    let append_time_ms = i64::from_be_bytes(header[2..].try_into().ok()?);
    let body = match header[..2] {
        [KIND_EVENT, FORMAT] => RecordBody::Event(Bytes::copy_from_slice(body)),
        [KIND_CUT, FORMAT] => RecordBody::Cut(Epoch(u64::from_be_bytes(body.try_into().ok()?))),
        _ => return None,
    };
    Some((append_time_ms, body))
}

/// The value of [`COMMIT_KEY`].
pub fn encode_commit(commits: u64, append_time_ms: i64) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&commits.to_be_bytes());
    value[8..].copy_from_slice(&append_time_ms.to_be_bytes());
    value
}

/// The number of commits, and the last append time.
pub fn decode_commit(value: &[u8]) -> Option<(u64, i64)> {
    let value: &[u8; 16] = value.try_into().ok()?;
    let (commits, append_time_ms) = value.split_at(8);
    Some((u64::from_be_bytes(commits.try_into().ok()?), i64::from_be_bytes(append_time_ms.try_into().ok()?)))
}

/// The key of a stream.
pub fn stream_key(name: &Name) -> Vec<u8> {
    [&STREAM_PREFIX, name.as_str().as_bytes()].concat()
}

/// The name in a stream's key.
pub fn stream_name(key: &[u8]) -> Option<Name> {
    let name = key.strip_prefix(&STREAM_PREFIX)?;
    Name::new(str::from_utf8(name).ok()?).ok()
}

/// The value of a stream: its number and how many partitions it has.
pub fn encode_stream(id: u32, partitions: u32) -> [u8; 9] {
    let mut value = [FORMAT; 9];
    value[1..5].copy_from_slice(&id.to_be_bytes());
    value[5..].copy_from_slice(&partitions.to_be_bytes());
    value
}

/// A stream's number and how many partitions it has.
pub fn decode_stream(value: &[u8]) -> Option<(u32, u32)> {
    let value: &[u8; 9] = value.try_into().ok()?;
    let numbers = value.strip_prefix(&[FORMAT])?;
    let (id, partitions) = numbers.split_at(4);
    Some((u32::from_be_bytes(id.try_into().ok()?), u32::from_be_bytes(partitions.try_into().ok()?)))
}

/// The key of a trimmed partition's start.
pub fn start_key(of: PartitionKey) -> [u8; 10] {
    let mut key = [META, b't', 0, 0, 0, 0, 0, 0, 0, 0];
    key[2..6].copy_from_slice(&of.stream.to_be_bytes());
    key[6..].copy_from_slice(&of.partition.0.to_be_bytes());
    key
}

/// The value of a trimmed partition's start.
pub fn encode_start(start: Offset) -> [u8; 9] {
    let mut value = [FORMAT; 9];
    value[1..].copy_from_slice(&start.0.to_be_bytes());
    value
}

/// A trimmed partition's start.
pub fn decode_start(value: &[u8]) -> Option<Offset> {
    let start = value.strip_prefix(&[FORMAT])?;
    Some(Offset(u64::from_be_bytes(start.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PartitionKey = PartitionKey { stream: 7, partition: PartitionId(3) };

    #[test]
    fn values_come_back_as_they_were() {
        let mut buffer = Vec::new();
        for body in
            [RecordBody::Event(Bytes::from_static(b"{}")), RecordBody::Event(Bytes::new()), RecordBody::Cut(Epoch(u64::MAX))]
        {
            encode_record(&body, -5, &mut buffer);
            assert_eq!(decode_record(&buffer), Some((-5, body)));
        }
        assert_eq!(decode_commit(&encode_commit(9, i64::MIN)), Some((9, i64::MIN)));
        assert_eq!(decode_stream(&encode_stream(1, 1024)), Some((1, 1024)));
        assert_eq!(decode_start(&encode_start(Offset(12))), Some(Offset(12)));
        let name = Name::new("page_views").expect("valid");
        assert_eq!(stream_name(&stream_key(&name)), Some(name));
        assert_eq!(record_offset(&record_key(KEY, Offset(77))), Some(Offset(77)));
    }

    #[test]
    fn the_order_of_keys_is_the_order_of_offsets() {
        let keys: Vec<_> = [0, 1, 255, 256, 1 << 40, u64::MAX].map(|offset| record_key(KEY, Offset(offset))).into();
        assert!(keys.is_sorted());
        let next = PartitionKey { stream: 7, partition: PartitionId(4) };
        assert!(keys[5] < record_key(next, Offset(0)));
        assert!(start_key(KEY).as_slice() < keys[0].as_slice());
    }

    #[test]
    fn what_this_build_did_not_write_is_not_guessed_at() {
        let mut buffer = Vec::new();
        encode_record(&RecordBody::Cut(Epoch(1)), 0, &mut buffer);
        for (at, byte) in [(0, 9), (1, FORMAT + 1)] {
            let mut other = buffer.clone();
            other[at] = byte;
            assert_eq!(decode_record(&other), None);
        }
        assert_eq!(decode_record(&buffer[..buffer.len() - 1]), None, "a cut's number is 8 bytes");
        assert_eq!(decode_record(&[0, FORMAT, 0]), None);
        assert_eq!(decode_stream(&[FORMAT + 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}

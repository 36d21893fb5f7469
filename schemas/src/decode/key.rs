//! Keys: the digest of an event's id, and the partition that an event belongs to.
//!
//! Both are part of what is stored. They stay as they are for ever: with another partition, a repeated event would no longer meet
//! the one it repeats; with another digest, ids read back from the master dataset would match nothing.
//!
//! The bytes that are hashed are the UTF-8 of a VARCHAR, and the little-endian 64-bit form of an INT or BIGINT.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::Int64Type,
};

use crate::{
    position::PartitionId,
    stream::{ColumnType, Stream},
};

/// The first 16 bytes of the BLAKE3 hash of an event id: equal digests are equal ids.
pub type IdDigest = [u8; 16];

/// The BLAKE3 hash of a key's bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyHash(blake3::Hash);

impl KeyHash {
    /// The hash of a text.
    pub fn of_text(text: &str) -> Self {
        Self(blake3::hash(text.as_bytes()))
    }

    /// The hash of an integer.
    pub fn of_integer(value: i64) -> Self {
        Self(blake3::hash(&value.to_le_bytes()))
    }

    /// The first 16 bytes.
    pub fn digest(self) -> IdDigest {
        let [first, second] = self.halves();
        (u128::from(first) | u128::from(second) << 64).to_le_bytes()
    }

    /// The first 8 bytes as a little-endian number, modulo the number of partitions.
    pub fn partition(self, partitions: u32) -> PartitionId {
        let remainder = self.halves()[0] % u64::from(partitions);
        PartitionId(u32::try_from(remainder).expect("a remainder is smaller than its 32-bit divisor"))
    }

    /// The first two little-endian 64-bit words.
    fn halves(self) -> [u64; 2] {
        let (words, _) = self.0.as_bytes().as_chunks::<8>();
        [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
    }
}

/// The digests of ids as they stand in the master dataset's `dedup_by` column, for reading ids back.
///
/// Element *i* of the result is `None` where the id is null, or where the stream has no `dedup_by`. Texts and integers may come
/// in any of Arrow's layouts (Parquet readers like views and dictionaries).
///
/// # Panics
/// When `ids` is not a column of the type of the stream's `dedup_by` column.
#[must_use]
pub fn id_digests(stream: &Stream, ids: &ArrayRef) -> Vec<Option<IdDigest>> {
    let Some(dedup_by) = stream.dedup_by else { return vec![None; ids.len()] };
    let column_type = match stream.columns[dedup_by].column_type {
        ColumnType::Int => ColumnType::BigInt,
        other => other,
    };
    let ids = cast(ids, &column_type.arrow_type()).expect("the ids are those of the dedup_by column");
    if column_type == ColumnType::BigInt {
        let ids = ids.as_primitive::<Int64Type>();
        ids.iter().map(|id| id.map(|id| KeyHash::of_integer(id).digest())).collect()
    } else {
        let ids = ids.as_string::<i32>();
        ids.iter().map(|id| id.map(|id| KeyHash::of_text(id).digest())).collect()
    }
}

//! States as bytes: what the realtime store keeps for one group.
//!
//! A state is a version byte, then the fields of all aggregates in order. A field is a presence byte, then its value: integers and
//! times as zigzag varints, doubles as 8 bytes, text and sketches with their length in front.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, StructArray},
    datatypes::{DataType, Int64Type},
    record_batch::RecordBatch,
};
use datafusion::{common::exec_err, error::Result, scalar::ScalarValue};

use crate::{position::Epoch, view::View};

mod field;
mod key;

pub(crate) use self::{field::check_type, key::check_type as check_key_type};

/// The version that this build writes.
pub(crate) const VERSION: u8 = 1;

/// The state of one group in one epoch, as the realtime store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedState {
    /// The epoch.
    pub epoch: Epoch,
    /// The group columns as a JSON array: readable, and equal exactly when the groups are equal.
    pub key: String,
    /// The states of all aggregates: a version byte, then each field.
    pub state: Vec<u8>,
}

/// Encodes a batch of [`View::epoch_state_schema`].
///
/// # Errors
/// A state field of a type that has no encoding (the catalog refuses such views).
pub fn encode(view: &View, states: &RecordBatch) -> Result<Vec<EncodedState>> {
    let groups = view.group_names().count();
    let epochs = states.column(0).as_primitive::<Int64Type>();
    let keys = key::Writer::new(&states.columns()[1..=groups])?;
    let mut fields = Vec::new();
    for column in &states.columns()[groups + 1..] {
        for field in column.as_struct().columns() {
            fields.push(field::Writer::new(field)?);
        }
    }
    let encoded = (0..states.num_rows()).map(|row| {
        let mut state = Vec::with_capacity(1 + fields.len() * 6);
        state.push(VERSION);
        fields.iter().for_each(|field| field.write(row, &mut state));
        EncodedState { epoch: Epoch(epochs.value(row).unsigned_abs()), key: keys.key(row), state }
    });
    Ok(encoded.collect())
}

/// Decodes into a batch of [`View::epoch_state_schema`].
///
/// # Errors
/// Bytes or keys that were not written by [`encode`] for this view, or by a later version.
pub fn decode<'a>(view: &View, states: impl IntoIterator<Item = (Epoch, &'a str, &'a [u8])>) -> Result<RecordBatch> {
    let schema = view.epoch_state_schema();
    let groups = view.group_names().count();
    let mut epochs = Vec::new();
    let mut keys = key::Reader::new(&schema.fields()[1..=groups]);
    let state_fields = schema.fields()[groups + 1..].iter().map(|column| match column.data_type() {
        DataType::Struct(fields) => Ok(fields.clone()),
        other => exec_err!("a state is a Struct, not {other}"),
    });
    let state_fields = state_fields.collect::<Result<Vec<_>>>()?;
    let mut readers = state_fields.iter().flat_map(|fields| fields.iter().map(|field| field::Reader::new(field.data_type())));
    let mut readers = readers.by_ref().collect::<Result<Vec<_>>>()?;
    for (epoch, key, state) in states {
        epochs.push(i64::try_from(epoch.0).unwrap_or(i64::MAX));
        keys.read(key)?;
        let Some((&VERSION, mut rest)) = state.split_first() else {
            return exec_err!("a state of version {:?} cannot be read by this build", state.first());
        };
        for reader in &mut readers {
            reader.read(&mut rest)?;
        }
        if !rest.is_empty() {
            return exec_err!("a state has {} bytes too many", rest.len());
        }
    }
    let mut columns: Vec<ArrayRef> = vec![Arc::new(arrow::array::Int64Array::from(epochs))];
    columns.extend(keys.finish()?);
    let mut finished = readers.into_iter().map(field::Reader::finish);
    for fields in state_fields {
        let children = finished.by_ref().take(fields.len()).collect::<Result<Vec<_>>>()?;
        columns.push(Arc::new(StructArray::try_new(fields, children, None)?));
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// An array of values, empty or not.
fn to_array(values: Vec<ScalarValue>, data_type: &DataType) -> Result<ArrayRef> {
    if values.is_empty() { Ok(arrow::array::new_empty_array(data_type)) } else { ScalarValue::iter_to_array(values) }
}

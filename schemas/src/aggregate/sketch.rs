//! Aggregate functions whose state is one sketch: the part that every sketch shares.

use std::{fmt::Debug, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray},
    datatypes::{DataType, Field, FieldRef},
};
use datafusion::{
    common::{ScalarValue, internal_err},
    error::Result,
    logical_expr::{Accumulator, EmitTo, GroupsAccumulator},
};

/// A sketch that values are added to and that merges with others of its kind.
pub(super) trait Sketch: Debug + Send + Sync + Sized + 'static {
    /// Settings beside the data, such as a percentile's rank.
    type Settings: Debug + Clone + Send + Sync + 'static;
    /// A column of values, ready to be read row by row.
    type Values<'a>;

    fn empty() -> Self;
    fn values(arrays: &[ArrayRef]) -> Result<Self::Values<'_>>;
    /// Adds the value in a row; a null changes nothing.
    fn update(&mut self, values: &Self::Values<'_>, row: usize);
    fn merge(&mut self, other: &[u8]) -> Result<()>;
    /// Equal sets of values give equal bytes where the sketch allows it.
    fn to_bytes(&mut self) -> Vec<u8>;
    fn value(this: Option<&mut Self>, settings: &Self::Settings) -> ScalarValue;
    /// Bytes in memory, roughly.
    fn size(&self) -> usize;
}

/// The one state field of every sketch function.
pub(super) fn state_field() -> Vec<FieldRef> {
    vec![Arc::new(Field::new("value[sketch]", DataType::Binary, true))]
}

/// The sketches of many groups; a group without values has none.
#[derive(Debug)]
pub(super) struct SketchGroups<S: Sketch> {
    settings: S::Settings,
    sketches: Vec<Option<Box<S>>>,
    size: usize,
}

impl<S: Sketch> SketchGroups<S> {
    pub(super) fn new(settings: S::Settings) -> Self {
        Self { settings, sketches: Vec::new(), size: 0 }
    }

    fn resize(&mut self, groups: usize) {
        if self.sketches.len() < groups {
            self.sketches.resize_with(groups, || None);
        }
    }

    fn at(&mut self, group: usize) -> &mut S {
        self.sketches[group].get_or_insert_with(|| Box::new(S::empty()))
    }

    fn merge_column(&mut self, states: &ArrayRef, group_indices: impl Iterator<Item = usize>) -> Result<()> {
        let Some(states) = states.as_binary_opt::<i32>() else {
            return internal_err!("a sketch is BINARY, not {}", states.data_type());
        };
        for (row, group) in group_indices.enumerate() {
            if states.is_valid(row) {
                self.at(group).merge(states.value(row))?;
            }
        }
        self.size = self.sketches.iter().flatten().take(64).map(|s| s.size()).sum::<usize>() * (self.sketches.len() / 64 + 1);
        Ok(())
    }

    fn to_states(mut taken: Vec<Option<Box<S>>>) -> ArrayRef {
        let mut states = BinaryBuilder::with_capacity(taken.len(), taken.len() * 64);
        for sketch in &mut taken {
            match sketch {
                Some(sketch) => states.append_value(sketch.to_bytes()),
                None => states.append_null(),
            }
        }
        Arc::new(states.finish())
    }
}

impl<S: Sketch> GroupsAccumulator for SketchGroups<S> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.resize(total_num_groups);
        let column = S::values(values)?;
        for (row, group) in group_indices.iter().enumerate() {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if passes && values[0].is_valid(row) {
                self.at(*group).update(&column, row);
            }
        }
        self.size = self.sketches.iter().flatten().take(64).map(|s| s.size()).sum::<usize>() * (self.sketches.len() / 64 + 1);
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let mut taken = emit_to.take_needed(&mut self.sketches);
        let values = taken.iter_mut().map(|sketch| S::value(sketch.as_deref_mut(), &self.settings));
        ScalarValue::iter_to_array(values)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![Self::to_states(emit_to.take_needed(&mut self.sketches))])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.resize(total_num_groups);
        self.merge_column(&values[0], group_indices.iter().copied())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut one_group_a_row = Self::new(self.settings.clone());
        one_group_a_row.update_batch(values, &(0..rows).collect::<Vec<_>>(), filter, rows)?;
        one_group_a_row.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.size + self.sketches.capacity() * size_of::<Option<Box<S>>>()
    }
}

/// The sketch of one group.
#[derive(Debug)]
pub(super) struct SketchAccumulator<S: Sketch>(SketchGroups<S>);

impl<S: Sketch> SketchAccumulator<S> {
    pub(super) fn new(settings: S::Settings) -> Self {
        let mut groups = SketchGroups::new(settings);
        groups.resize(1);
        Self(groups)
    }
}

impl<S: Sketch> Accumulator for SketchAccumulator<S> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values, &vec![0; values[0].len()], None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(S::value(self.0.sketches[0].as_deref_mut(), &self.0.settings))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + GroupsAccumulator::size(&self.0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(self.0.sketches[0].as_mut().map(|sketch| sketch.to_bytes()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_column(&states[0], std::iter::repeat_n(0, states[0].len()))
    }
}

//! Aggregate functions over states: fold returns one, combine takes and returns them, merge takes them and returns the value.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, StructArray},
    compute,
    datatypes::{DataType, Field, FieldRef, Fields, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::{
    common::{ScalarValue, internal_err},
    error::Result,
    logical_expr::{
        Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
    physical_expr::{PhysicalExpr, aggregate::AggregateFunctionExpr},
};

use super::MergeableAggregate;

/// What a stateful function does with its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Takes the wrapped function's arguments, returns its state.
    Fold,
    /// Takes states, returns a state.
    Combine,
}

/// How a function ends: in the state of its one part, or in a value computed from the values of all parts.
#[derive(Debug, Clone)]
enum End {
    State,
    Value { expression: Arc<dyn PhysicalExpr>, values: SchemaRef },
}

/// One wrapped aggregate function.
#[derive(Debug, Clone)]
struct Part {
    inner: Arc<AggregateFunctionExpr>,
    state_fields: Fields,
}

/// An aggregate function around the states of one aggregate, or of all aggregates of a measure.
#[derive(Debug)]
pub(super) struct StatefulFunction {
    name: String,
    takes: Use,
    parts: Vec<Part>,
    end: End,
    return_type: DataType,
    signature: Signature,
}

impl StatefulFunction {
    pub(super) fn new(takes: Use, aggregate: &MergeableAggregate) -> Self {
        let (suffix, arguments) = match takes {
            Use::Fold => ("state", aggregate.arguments.len()),
            Use::Combine => ("combine", 1),
        };
        Self {
            name: format!("{}_{suffix}:{}", aggregate.function(), aggregate.id),
            takes,
            parts: vec![Part { inner: Arc::clone(&aggregate.inner), state_fields: aggregate.state_fields.clone() }],
            end: End::State,
            return_type: aggregate.state_type(),
            signature: Signature::any(arguments, Volatility::Immutable),
        }
    }

    pub(super) fn merge(
        name: &str,
        aggregates: &[MergeableAggregate],
        expression: Arc<dyn PhysicalExpr>,
        values: SchemaRef,
    ) -> Result<Self> {
        let parts = aggregates.iter().map(|a| Part { inner: Arc::clone(&a.inner), state_fields: a.state_fields.clone() });
        Ok(Self {
            name: name.to_owned(),
            takes: Use::Combine,
            parts: parts.collect(),
            return_type: expression.data_type(&values)?,
            end: End::Value { expression, values },
            signature: Signature::any(aggregates.len(), Volatility::Immutable),
        })
    }
}

impl PartialEq for StatefulFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for StatefulFunction {}

impl Hash for StatefulFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl AggregateUDFImpl for StatefulFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.return_type.clone())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let fields = self.parts.iter().enumerate().flat_map(|(i, part)| {
            let name = args.name;
            part.state_fields
                .iter()
                .map(move |field| Arc::new(Field::new(format!("{name}[{i}.{}]", field.name()), field.data_type().clone(), true)))
        });
        Ok(fields.collect())
    }

    /// Order is part of the arguments (see [`MergeableAggregate::new`]), never of the input.
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let inner = self.parts.iter().map(|part| part.inner.create_accumulator()).collect::<Result<_>>()?;
        Ok(Box::new(StateAccumulator { takes: self.takes, parts: self.parts.clone(), inner, end: self.end.clone() }))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        self.parts.iter().all(|part| part.inner.groups_accumulator_supported())
    }

    fn create_groups_accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let inner = self.parts.iter().map(|part| part.inner.create_groups_accumulator()).collect::<Result<_>>()?;
        Ok(Box::new(StateGroupsAccumulator { takes: self.takes, parts: self.parts.clone(), inner, end: self.end.clone() }))
    }
}

/// The columns of a Struct column, and which rows of it are there: an outer join may have put nulls in place of states.
fn columns_of(states: &ArrayRef) -> Result<(Vec<ArrayRef>, Option<BooleanArray>)> {
    let Some(states) = states.as_struct_opt() else {
        return internal_err!("a state is a Struct, not {}", states.data_type());
    };
    let present = (states.null_count() > 0).then(|| compute::is_not_null(states)).transpose()?;
    Ok((states.columns().to_vec(), present))
}

fn both(left: Option<BooleanArray>, right: Option<&BooleanArray>) -> Result<Option<BooleanArray>> {
    Ok(match (left, right) {
        (Some(left), Some(right)) => Some(compute::and(&left, right)?),
        (Some(one), None) => Some(one),
        (None, other) => other.cloned(),
    })
}

fn only(columns: Vec<ArrayRef>, keep: &BooleanArray) -> Result<Vec<ArrayRef>> {
    columns.iter().map(|column| Ok(compute::filter(column, keep)?)).collect()
}

/// The value of a measure from its parts' values.
fn evaluate_value(expression: &Arc<dyn PhysicalExpr>, values: &SchemaRef, columns: Vec<ArrayRef>) -> Result<ArrayRef> {
    let rows = columns.first().map_or(0, |column| column.len());
    let batch = RecordBatch::try_new(Arc::clone(values), columns)?;
    expression.evaluate(&batch)?.into_array(rows)
}

/// The state of one group.
#[derive(Debug)]
struct StateAccumulator {
    takes: Use,
    parts: Vec<Part>,
    inner: Vec<Box<dyn Accumulator>>,
    end: End,
}

impl Accumulator for StateAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.takes == Use::Fold {
            return self.inner[0].update_batch(values);
        }
        for (inner, states) in self.inner.iter_mut().zip(values) {
            let (mut columns, present) = columns_of(states)?;
            if let Some(present) = present {
                columns = only(columns, &present)?;
            }
            inner.merge_batch(&columns)?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match &self.end {
            End::State => {
                let columns = self.inner[0].state()?.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
                let state = StructArray::try_new(self.parts[0].state_fields.clone(), columns, None)?;
                Ok(ScalarValue::Struct(Arc::new(state)))
            }
            End::Value { expression, values } => {
                let columns = self.inner.iter_mut().map(|inner| inner.evaluate()?.to_array()).collect::<Result<_>>()?;
                ScalarValue::try_from_array(&evaluate_value(expression, values, columns)?, 0)
            }
        }
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.inner.iter().map(|inner| inner.size()).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.iter_mut().map(|inner| inner.state()).collect::<Result<Vec<_>>>().map(|states| states.concat())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let mut rest = states;
        for (inner, part) in self.inner.iter_mut().zip(&self.parts) {
            let (own, others) = rest.split_at(part.state_fields.len());
            inner.merge_batch(own)?;
            rest = others;
        }
        Ok(())
    }
}

/// The states of many groups.
struct StateGroupsAccumulator {
    takes: Use,
    parts: Vec<Part>,
    inner: Vec<Box<dyn GroupsAccumulator>>,
    end: End,
}

impl GroupsAccumulator for StateGroupsAccumulator {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        if self.takes == Use::Fold {
            return self.inner[0].update_batch(values, group_indices, filter, total_num_groups);
        }
        for (inner, states) in self.inner.iter_mut().zip(values) {
            let (columns, present) = columns_of(states)?;
            match both(present, filter)? {
                None => inner.merge_batch(&columns, group_indices, total_num_groups)?,
                Some(keep) => {
                    let kept = group_indices.iter().zip(&keep).filter(|(_, keep)| *keep == Some(true)).map(|(group, _)| *group);
                    inner.merge_batch(
                        &only(columns, &compute::prep_null_mask_filter(&keep))?,
                        &kept.collect::<Vec<_>>(),
                        total_num_groups,
                    )?;
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        match &self.end {
            End::State => {
                let columns = self.inner[0].state(emit_to)?;
                Ok(Arc::new(StructArray::try_new(self.parts[0].state_fields.clone(), columns, None)?))
            }
            End::Value { expression, values } => {
                let columns = self.inner.iter_mut().map(|inner| inner.evaluate(emit_to)).collect::<Result<_>>()?;
                evaluate_value(expression, values, columns)
            }
        }
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.iter_mut().map(|inner| inner.state(emit_to)).collect::<Result<Vec<_>>>().map(|states| states.concat())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        let mut rest = values;
        for (inner, part) in self.inner.iter_mut().zip(&self.parts) {
            let (own, others) = rest.split_at(part.state_fields.len());
            inner.merge_batch(own, group_indices, total_num_groups)?;
            rest = others;
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        if self.takes == Use::Fold {
            return self.inner[0].convert_to_state(values, filter);
        }
        if filter.is_some() || values.iter().any(|states| states.null_count() > 0) {
            // Rows that are left out need an empty state, which only a fresh accumulator knows.
            let mut fresh = Vec::with_capacity(self.parts.len());
            for part in &self.parts {
                fresh.push(part.inner.create_groups_accumulator()?);
            }
            let mut one_group_a_row = Self { takes: self.takes, parts: self.parts.clone(), inner: fresh, end: self.end.clone() };
            let rows = values.first().map_or(0, |column| column.len());
            one_group_a_row.update_batch(values, &(0..rows).collect::<Vec<_>>(), filter, rows)?;
            return one_group_a_row.state(EmitTo::All);
        }
        let columns = values.iter().map(|states| Ok(columns_of(states)?.0)).collect::<Result<Vec<_>>>()?;
        Ok(columns.concat())
    }

    fn size(&self) -> usize {
        self.inner.iter().map(|inner| inner.size()).sum()
    }
}

//! From a column of states to the column of their values.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{array::AsArray, datatypes::DataType};
use datafusion::{
    common::internal_err,
    error::Result,
    logical_expr::{ColumnarValue, EmitTo, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
    physical_expr::aggregate::AggregateFunctionExpr,
    scalar::ScalarValue,
};

use super::MergeableAggregate;

/// A scalar function that evaluates each state on its own.
#[derive(Debug)]
pub(super) struct FinishFunction {
    name: String,
    inner: Arc<AggregateFunctionExpr>,
    signature: Signature,
}

impl FinishFunction {
    pub(super) fn new(aggregate: &MergeableAggregate) -> Self {
        Self {
            name: format!("{}_finish:{}", aggregate.function(), aggregate.id),
            inner: Arc::clone(&aggregate.inner),
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl PartialEq for FinishFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for FinishFunction {}

impl Hash for FinishFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for FinishFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.inner.field().data_type().clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let states = args.args[0].to_array(args.number_rows)?;
        let Some(states) = states.as_struct_opt() else {
            return internal_err!("a state is a Struct, not {}", states.data_type());
        };
        let rows = args.number_rows;
        if self.inner.groups_accumulator_supported() {
            let mut groups = self.inner.create_groups_accumulator()?;
            groups.merge_batch(states.columns(), &(0..rows).collect::<Vec<_>>(), rows)?;
            return Ok(ColumnarValue::Array(groups.evaluate(EmitTo::All)?));
        }
        let mut values = Vec::with_capacity(rows);
        for row in 0..rows {
            let mut one = self.inner.create_accumulator()?;
            one.merge_batch(&states.columns().iter().map(|column| column.slice(row, 1)).collect::<Vec<_>>())?;
            values.push(one.evaluate()?);
        }
        if values.is_empty() {
            return Ok(ColumnarValue::Array(arrow::array::new_empty_array(self.inner.field().data_type())));
        }
        Ok(ColumnarValue::Array(ScalarValue::iter_to_array(values)?))
    }
}

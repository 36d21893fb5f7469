//! `sum` that never wraps: integers are added up as DECIMAL(38, 0), as PostgreSQL adds up BIGINT as NUMERIC.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::{
    common::plan_err,
    error::Result,
    functions_aggregate::sum::sum_udaf,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
};

/// DataFusion's `sum` behind an argument type that holds the sum of 10^19 BIGINTs.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactSum {
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

pub(super) fn udaf() -> Arc<AggregateUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(AggregateUDF::new_from_impl(ExactSum { inner: sum_udaf(), signature }))
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [integer] if integer.is_integer() => Ok(vec![DataType::Decimal128(38, 0)]),
            [DataType::Decimal128(_, scale)] => Ok(vec![DataType::Decimal128(38, *scale)]),
            [other] => self.inner.coerce_types(std::slice::from_ref(other)).or_else(|_| match other {
                DataType::Float16 | DataType::Float32 | DataType::Float64 | DataType::Null => Ok(vec![DataType::Float64]),
                DataType::Duration(_) | DataType::Interval(_) => Ok(vec![other.clone()]),
                _ => plan_err!("sum needs a number, not {other}"),
            }),
            _ => plan_err!("sum takes one argument"),
        }
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.create_sliding_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

//! `approx_percentile_cont` on Apache DataSketches' t-digest of compression 200: exact for few values, rank error below 1 %.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, PrimitiveArray},
    datatypes::{DataType, FieldRef, Float64Type},
};
use datafusion::{
    common::{ScalarValue, plan_err},
    error::{DataFusionError, Result},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
    physical_expr::expressions::Literal,
};
use datasketches::tdigest::TDigestMut;

use super::sketch::{Sketch, SketchAccumulator, SketchGroups, state_field};

/// The t-digest's compression: centroids grow in number with it, errors shrink.
const COMPRESSION: u16 = 200;

#[derive(Debug)]
struct Quantiles(TDigestMut);

impl Sketch for Quantiles {
    /// The rank, 0 to 1.
    type Settings = f64;
    type Values<'a> = &'a PrimitiveArray<Float64Type>;

    #[expect(clippy::expect_used, reason = "COMPRESSION is above the least")]
    fn empty() -> Self {
        Self(TDigestMut::new(COMPRESSION).expect("a valid compression"))
    }

    fn values(arrays: &[ArrayRef]) -> Result<Self::Values<'_>> {
        arrays[0].as_primitive_opt().ok_or_else(|| DataFusionError::Internal("approx_percentile_cont takes DOUBLE".to_owned()))
    }

    fn update(&mut self, values: &Self::Values<'_>, row: usize) {
        self.0.update(values.value(row));
    }

    fn merge(&mut self, other: &[u8]) -> Result<()> {
        let other = TDigestMut::deserialize(other);
        self.0.merge(&other.map_err(|error| DataFusionError::Execution(format!("damaged t-digest: {error}")))?);
        Ok(())
    }

    fn to_bytes(&mut self) -> Vec<u8> {
        self.0.serialize()
    }

    fn value(this: Option<&mut Self>, rank: &f64) -> ScalarValue {
        // The rank was checked to lie within 0 to 1; an empty sketch has no quantile.
        ScalarValue::Float64(this.and_then(|sketch| sketch.0.quantile(*rank).ok().flatten()))
    }

    fn size(&self) -> usize {
        self.0.estimated_size()
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ApproxPercentile {
    signature: Signature,
}

pub(super) fn udaf() -> Arc<AggregateUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(AggregateUDF::new_from_impl(ApproxPercentile { signature }))
}

/// The rank that the literal second argument asks for, turned round for `ORDER BY … DESC`.
fn rank(args: &AccumulatorArgs) -> Result<f64> {
    let literal = args.exprs.get(1).and_then(|expr| expr.downcast_ref::<Literal>());
    let rank = match literal.map(Literal::value) {
        Some(ScalarValue::Float64(Some(rank))) if (0.0..=1.0).contains(rank) => *rank,
        _ => return plan_err!("approx_percentile_cont takes a literal rank from 0 to 1"),
    };
    let descending = args.order_bys.first().is_some_and(|sort| sort.options.descending);
    Ok(if descending { 1.0 - rank } else { rank })
}

impl AggregateUDFImpl for ApproxPercentile {
    fn name(&self) -> &str {
        "approx_percentile_cont"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [values, rank] if (values.is_numeric() || values.is_null()) && rank.is_numeric() => {
                Ok(vec![DataType::Float64, DataType::Float64])
            }
            _ => plan_err!("write approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY a_number)"),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }

    fn state_fields(&self, _args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(state_field())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(SketchAccumulator::<Quantiles>::new(rank(&args)?)))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(SketchGroups::<Quantiles>::new(rank(&args)?)))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How far the rank of an answer is from the one asked for, merged from 50 parts.
    fn rank_error(values: &[f64], rank: f64) -> f64 {
        let mut whole = Quantiles::empty();
        for part in 0..50 {
            let mut digest = Quantiles::empty();
            values.iter().skip(part).step_by(50).for_each(|value| digest.0.update(*value));
            whole.merge(&digest.to_bytes()).expect("a digest");
        }
        let ScalarValue::Float64(Some(answer)) = Quantiles::value(Some(&mut whole), &rank) else { panic!("no answer") };
        let share = |count: usize| count as f64 / values.len() as f64;
        let below = share(values.iter().filter(|value| **value < answer).count());
        let up_to = share(values.iter().filter(|value| **value <= answer).count());
        (below - rank).max(rank - up_to).max(0.0)
    }

    /// What docs/sql.md promises.
    #[test]
    fn the_error_is_what_the_documentation_says() {
        // Multiples of the golden ratio are spread evenly, in no order.
        let spread = |count: u32| (1..=count).map(|i| (f64::from(i) * 0.618_033_988_749_895).fract());
        let heavy = |x: f64| (1.0 - x).powi(-3);
        let steps = |x: f64| (x * 20.0).floor();
        for count in [100, 1_000, 20_000] {
            for (rank, error_max) in [(0.01, 0.0005), (0.1, 0.005), (0.5, 0.005), (0.95, 0.005), (0.99, 0.0005)] {
                let error_max = if count <= 100 { 0.0 } else { error_max };
                for values in [spread(count).collect::<Vec<_>>(), spread(count).map(heavy).collect()] {
                    let error = rank_error(&values, rank);
                    assert!(error <= error_max + 1e-12, "{error} at rank {rank} of {count} values");
                }
                let error = rank_error(&spread(count).map(steps).collect::<Vec<_>>(), rank);
                assert!(error <= 0.015, "{error} at rank {rank} of {count} values that repeat");
            }
            // A twelfth of the values is the same one, among others that differ: what is answered at its edge lies beside it.
            for edge in 0..40 {
                let below = 0.44 + f64::from(edge) / 500.0;
                let pile = |x: f64| if (below..below + 1.0 / 12.0).contains(&x) { below } else { x };
                let error = rank_error(&spread(count).map(pile).collect::<Vec<_>>(), 0.5);
                assert!(error <= 0.06, "{error} at the median of {count} values, with many equal ones from rank {below}");
            }
        }
    }
}

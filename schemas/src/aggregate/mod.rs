//! Mergeable aggregates: fold, combine, finish and merge around any aggregate function of DataFusion.
//!
//! A [`MergeableAggregate`] wraps one aggregate of a view, with its arguments' types and literals. [`stateful`] turns it into
//! aggregate functions that return, or take, the inner function's state as one Struct; [`finish`] turns states into values. The
//! wrapped functions do the work: nothing about sums or sketches is known here.

mod approx_distinct;
mod approx_percentile;
mod exact_sum;
mod finish;
mod sketch;
mod stateful;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use datafusion::{
    common::{DFSchema, plan_err},
    error::Result,
    execution::context::ExecutionProps,
    logical_expr::{
        AggregateUDF, Expr, ExprSchemable, ScalarUDF,
        expr::{AggregateFunction, NullTreatment},
        physical_planning_context::PhysicalPlanningContext,
    },
    physical_expr::{
        PhysicalExpr,
        aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder},
    },
    prelude::ident,
};

use self::{
    finish::FinishFunction,
    stateful::{StatefulFunction, Use},
};
use crate::stream::{OFFSET, PARTITION};

/// Aggregates whose state is bounded and merges: the only ones a view may use.
const MERGEABLE: &[&str] = &[
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
    "covar_samp",
    "covar_pop",
    "corr",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "approx_distinct",
    "approx_percentile_cont",
    "first_value",
    "last_value",
];

/// Those that pick a row by an order.
const ORDERED: &[&str] = &["first_value", "last_value"];

/// Digits of a DECIMAL that may be summed: 38 less the ten of as many values as will ever be added up.
const SUMMED_DIGITS_MAX: u8 = 28;

/// The digits of a DECIMAL as it was before it was widened for the sum; 0 for other types.
fn digits(argument: &Expr, schema: &DFSchema) -> u8 {
    let declared = match argument {
        Expr::Cast(cast) => cast.expr.as_ref(),
        other => other,
    };
    match declared.get_type(schema) {
        Ok(DataType::Decimal128(precision, _)) => precision,
        _ => 0,
    }
}

/// The aggregate functions that Riomar brings, under DataFusion's names: exact integer sums, and compact sketches.
#[must_use]
pub fn functions() -> Vec<Arc<AggregateUDF>> {
    vec![exact_sum::udaf(), approx_distinct::udaf(), approx_percentile::udaf()]
}

/// Why an aggregate cannot be part of a view: what is wrong, and what to do instead.
pub type Refusal = (String, &'static str);

/// One aggregate of a view.
#[derive(Debug, Clone)]
pub struct MergeableAggregate {
    /// Equal exactly for the same aggregate of the same view: the identity of the functions made of it.
    id: String,
    inner: Arc<AggregateFunctionExpr>,
    arguments: Vec<Expr>,
    filter: Option<Expr>,
    state_fields: Fields,
}

impl MergeableAggregate {
    /// Says why `aggregate` does not merge, if it does not.
    #[must_use]
    pub fn refuse(aggregate: &AggregateFunction, schema: &DFSchema) -> Option<Refusal> {
        let name = aggregate.func.name();
        if name == "sum" && aggregate.params.args.first().is_some_and(|argument| digits(argument, schema) > SUMMED_DIGITS_MAX) {
            return Some((
                "sum of a DECIMAL of more than 28 digits may exceed the 38 digits that there are".to_owned(),
                "declare at most DECIMAL(28, …): 10^10 of them can be added up",
            ));
        }
        if aggregate.params.distinct {
            return Some((
                format!("{name}(DISTINCT …) keeps every value it has seen: its state has no bound"),
                "use approx_distinct(…)",
            ));
        }
        if !MERGEABLE.contains(&name) {
            let reason = format!("{name}(…) has no bounded state that merges, so batch and realtime parts could not be added up");
            let alternative = match name {
                "array_agg" | "string_agg" => "query the stream's raw events with it instead",
                "median" | "approx_median" | "percentile_cont" => "use approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY …)",
                _ => "see the list of mergeable aggregates in docs/sql.md",
            };
            return Some((reason, alternative));
        }
        if ORDERED.contains(&name) && aggregate.params.order_by.is_empty() {
            return Some((format!("{name}(…) without an order depends on chance"), "write first_value(x ORDER BY ts)"));
        }
        None
    }

    /// Wraps an aggregate whose arguments have been coerced, over input of `schema`.
    ///
    /// # Errors
    /// What DataFusion says of its arguments.
    pub fn new(id: String, aggregate: &AggregateFunction, schema: &DFSchema) -> Result<Self> {
        let mut aggregate = aggregate.clone();
        let mut arguments = aggregate.params.args.clone();
        let ordered = ORDERED.contains(&aggregate.func.name());
        if ordered {
            // Rows of equal order are told apart by where they stand in the log, so every layer picks the same one.
            for tie_breaker in [PARTITION, OFFSET] {
                aggregate.params.order_by.push(ident(tie_breaker).sort(true, false));
            }
            arguments.extend(aggregate.params.order_by.iter().map(|sort| sort.expr.clone()));
        } else if aggregate.func.name() != "approx_percentile_cont" {
            aggregate.params.order_by.clear();
        }
        if aggregate.params.null_treatment.is_none() {
            aggregate.params.null_treatment = Some(NullTreatment::RespectNulls);
        }
        let filter = aggregate.params.filter.take().map(|filter| *filter);
        let lowered = LoweredAggregateBuilder::new(
            &Expr::AggregateFunction(aggregate),
            schema,
            schema.as_arrow(),
            &ExecutionProps::new(),
            &PhysicalPlanningContext::default(),
        )
        .with_name("value")
        .build()?;
        let state_fields = state_fields(&lowered.aggregate.state_fields()?);
        Ok(Self { id, inner: lowered.aggregate, arguments, filter, state_fields })
    }

    /// The name of the wrapped function, such as `count`.
    #[must_use]
    pub fn function(&self) -> &str {
        self.inner.fun().name()
    }

    /// The type of its state: a Struct of the wrapped function's state fields.
    #[must_use]
    pub fn state_type(&self) -> DataType {
        DataType::Struct(self.state_fields.clone())
    }

    /// The field of its value.
    #[must_use]
    pub fn value_field(&self) -> FieldRef {
        self.inner.field()
    }

    /// Events to a state: an aggregate over event rows.
    #[must_use]
    pub fn fold(&self) -> Expr {
        let fold = Arc::new(AggregateUDF::new_from_impl(StatefulFunction::new(Use::Fold, self)));
        let filter = self.filter.clone().map(Box::new);
        Expr::AggregateFunction(AggregateFunction::new_udf(fold, self.arguments.clone(), false, filter, vec![], None))
    }

    /// States to a state: an aggregate over a column of [`Self::state_type`].
    #[must_use]
    pub fn combine(&self, state: Expr) -> Expr {
        AggregateUDF::new_from_impl(StatefulFunction::new(Use::Combine, self)).call(vec![state])
    }

    /// A state to its value.
    #[must_use]
    pub fn finish(&self, state: Expr) -> Expr {
        ScalarUDF::new_from_impl(FinishFunction::new(self)).call(vec![state])
    }
}

/// The function behind `merge(measure)`: combines the states of all aggregates that a measure uses and finishes them.
///
/// `value` is the measure as an expression over columns named `v0`, `v1`, … of the aggregates' values.
///
/// # Errors
/// An expression that DataFusion refuses.
pub fn merge_function(name: &str, aggregates: &[MergeableAggregate], value: &Expr) -> Result<AggregateUDF> {
    if aggregates.is_empty() {
        return plan_err!("'{name}' is no measure: only measures can be merged");
    }
    let fields =
        aggregates.iter().enumerate().map(|(i, aggregate)| aggregate.value_field().as_ref().clone().with_name(format!("v{i}")));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    let physical: Arc<dyn PhysicalExpr> = datafusion::physical_expr::create_physical_expr(
        value,
        &DFSchema::try_from(schema.clone())?,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )?;
    Ok(AggregateUDF::new_from_impl(StatefulFunction::merge(name, aggregates, physical, Arc::new(schema))?))
}

/// The fields of a state Struct: the part in brackets of DataFusion's `name[part]`, all nullable.
fn state_fields(fields: &[FieldRef]) -> Fields {
    let part = |field: &FieldRef| {
        let name = field.name();
        name.rsplit_once('[').map_or(name.as_str(), |(_, part)| part.trim_end_matches(']')).to_owned()
    };
    let parts: Vec<String> = fields.iter().map(part).collect();
    let unique = parts.iter().enumerate().all(|(i, part)| !parts[..i].contains(part));
    fields
        .iter()
        .zip(parts)
        .enumerate()
        .map(|(i, (field, part))| Field::new(if unique { part } else { format!("f{i}") }, field.data_type().clone(), true))
        .collect()
}

//! Text functions that multiply their input, under a cap.
//!
//! DataFusion's memory pool does not see what a scalar function allocates, and constant expressions are evaluated while a query is
//! still being planned. `replace(replace(…))` or `a || a` over `a || a` would fill the memory within a few levels; here each
//! call first works out how long its result may get.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::{cast, kernels::concat_elements::concat_elements_utf8},
    datatypes::DataType,
};
use datafusion::{
    common::{DFSchema, exec_err, plan_err},
    error::Result,
    logical_expr::{
        ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::BinaryOperator,
};

use super::wrapped::{Around, wrapped};

/// Bytes of text that one call may make for a batch of rows.
pub(crate) const TEXT_BYTES_MAX: usize = 64 << 20;

/// How a result's length depends on the arguments'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    /// As long as all arguments together.
    Sum,
    /// Each byte of the first argument may become the whole third one.
    Product,
}

/// The functions that are capped.
const CAPPED: &[(&str, Growth)] = &[
    ("concat", Growth::Sum),
    ("concat_ws", Growth::Sum),
    ("overlay", Growth::Sum),
    ("array_to_string", Growth::Sum),
    ("replace", Growth::Product),
    ("regexp_replace", Growth::Product),
];

/// The function itself, or its capped form where it multiplies text.
pub(super) fn cap(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match CAPPED.iter().find(|(name, _)| *name == function.name()) {
        Some((_, growth)) => wrapped(function, *growth),
        None => function,
    }
}

/// Refuses to make more than [`TEXT_BYTES_MAX`].
impl Around for Growth {
    fn call(&self, inner: &ScalarUDF, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows.max(1);
        let bytes = |value: &ColumnarValue| match value {
            ColumnarValue::Array(array) => text_bytes(array),
            ColumnarValue::Scalar(scalar) => scalar.to_array().map_or(0, |array| text_bytes(&array)).saturating_mul(rows),
        };
        let longest = |value: Option<&ColumnarValue>| match value {
            Some(ColumnarValue::Array(array)) => text_bytes(array),
            Some(ColumnarValue::Scalar(scalar)) => scalar.to_array().map_or(0, |array| text_bytes(&array)),
            None => 0,
        };
        let result = match self {
            Growth::Sum => args.args.iter().map(bytes).fold(0, usize::saturating_add),
            // An empty pattern matches between all bytes and at both ends.
            Growth::Product => {
                let places = args.args.first().map_or(0, bytes).saturating_add(rows);
                places.saturating_mul(longest(args.args.get(2)).saturating_add(1))
            }
        };
        check(inner.name(), result)?;
        inner.invoke_with_args(args)
    }
}

/// The text in an array, without what is around it.
fn text_bytes(array: &ArrayRef) -> usize {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value_data().len(),
        DataType::LargeUtf8 => array.as_string::<i64>().value_data().len(),
        _ => array.get_array_memory_size(),
    }
}

fn check(function: &str, bytes: usize) -> Result<()> {
    if bytes > TEXT_BYTES_MAX {
        return exec_err!("{function} could make {bytes} bytes of text from a batch of rows, and {TEXT_BYTES_MAX} are allowed");
    }
    Ok(())
}

/// Plans `a || b` over text as a capped function.
#[derive(Debug)]
pub(super) struct ConcatPlanner;

impl ExprPlanner for ConcatPlanner {
    fn plan_binary_op(&self, expression: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if expression.op != BinaryOperator::StringConcat {
            return Ok(PlannerResult::Original(expression));
        }
        let nested = |side: &Expr| side.get_type(schema).is_ok_and(|data_type| data_type.is_nested());
        if nested(&expression.left) || nested(&expression.right) {
            return Ok(PlannerResult::Original(expression));
        }
        let concat = ScalarUDF::new_from_impl(ConcatOperator { signature: Signature::user_defined(Volatility::Immutable) });
        Ok(PlannerResult::Planned(concat.call(vec![expression.left, expression.right])))
    }
}

/// `a || b`: null where one of them is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ConcatOperator {
    signature: Signature,
}

impl ScalarUDFImpl for ConcatOperator {
    fn name(&self) -> &str {
        "concat_operator"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types.iter().find(|data_type| data_type.is_nested() || data_type.is_binary()) {
            Some(other) => plan_err!("|| joins text, not {other}"),
            None => Ok(vec![DataType::Utf8; arg_types.len()]),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let mut bytes = 0;
        for value in &args.args {
            bytes += match value {
                ColumnarValue::Array(array) => text_bytes(array),
                ColumnarValue::Scalar(scalar) => text_bytes(&scalar.to_array()?).saturating_mul(rows),
            };
        }
        check("||", bytes)?;
        let side = |index: usize| -> Result<ArrayRef> { Ok(cast(&args.args[index].to_array(rows)?, &DataType::Utf8)?) };
        let (left, right) = (side(0)?, side(1)?);
        Ok(ColumnarValue::Array(Arc::new(concat_elements_utf8(left.as_string::<i32>(), right.as_string::<i32>())?)))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{execution::runtime_env::RuntimeEnv, prelude::SessionContext};

    use crate::session::session_state;

    async fn answer(sql: &str) -> Result<String, String> {
        let context = SessionContext::new_with_state(session_state(std::sync::Arc::new(RuntimeEnv::default()), 1));
        let batches = async { context.sql(sql).await?.collect().await }.await.map_err(|error| error.to_string())?;
        arrow::util::display::array_value_to_string(batches[0].column(0), 0).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn text_grows_up_to_the_cap() {
        for (sql, expected) in [
            ("SELECT 'a' || 'b' || 1", "ab1"),
            ("SELECT concat('a', NULL, 'b')", "ab"),
            ("SELECT coalesce('a' || NULL, 'null')", "null"),
            ("SELECT replace('banana', 'an', 'o')", "booa"),
            ("SELECT regexp_replace('banana', 'a', 'o', 'g')", "bonono"),
        ] {
            assert_eq!(answer(sql).await.as_deref(), Ok(expected), "{sql}");
        }
        let fifty = "x".repeat(50);
        let growing = (0..6).fold("'x'".to_owned(), |text, _| format!("replace({text}, 'x', '{fifty}')"));
        let steps = (1..40).map(|step| format!(", a{step} AS (SELECT a || a AS a FROM a{})", step - 1)).collect::<String>();
        let doubling = format!("WITH a0 AS (SELECT '{fifty}' AS a){steps} SELECT length(a) FROM a39");
        for sql in [format!("SELECT length({growing})"), doubling] {
            let error = answer(&sql).await.expect_err("too much text");
            assert!(error.contains("are allowed"), "{error}");
        }
    }
}

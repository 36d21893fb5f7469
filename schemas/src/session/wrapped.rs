//! Scalar functions of DataFusion with something done around the call; all else is left to the function itself.

use std::{fmt::Debug, hash::Hash, sync::Arc};

use arrow::datatypes::{DataType, FieldRef};
use datafusion::{
    error::Result,
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature},
};

/// What is done around a call.
pub(super) trait Around: Debug + PartialEq + Eq + Hash + Send + Sync + 'static {
    /// Answers in place of the function, or calls it.
    ///
    /// # Errors
    /// Whatever the function reports; a refusal.
    fn call(&self, inner: &ScalarUDF, args: ScalarFunctionArgs) -> Result<ColumnarValue>;
}

/// A function under its own name, with something around its calls.
pub(super) fn wrapped(inner: Arc<ScalarUDF>, around: impl Around) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Wrapped { inner, around }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Wrapped<A> {
    inner: Arc<ScalarUDF>,
    around: A,
}

impl<A: Around> ScalarUDFImpl for Wrapped<A> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.around.call(&self.inner, args)
    }
}

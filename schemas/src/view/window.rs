//! Windows: which one an event belongs to. All are `[start, end)`, aligned to 1970-01-01 UTC with a floor modulo.

use std::sync::Arc;

use arrow::{
    array::{AsArray, PrimitiveArray},
    datatypes::{DataType, TimestampMicrosecondType},
};
use datafusion::{
    common::ScalarValue,
    error::Result,
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit},
};

use super::{WINDOW_END, WINDOW_START};
use crate::stream::timestamp_type;

/// How events are assigned to windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Windows of `size_us` microseconds that follow one another.
    Tumble {
        /// Microseconds.
        size_us: i64,
    },
}

impl Window {
    /// The start of the (last) window that a moment belongs to: `t − floormod(t, size)`, so times before 1970 work as well.
    #[must_use]
    pub fn start_of(self, time_us: i64) -> i64 {
        match self {
            Self::Tumble { size_us } => time_us - time_us.rem_euclid(size_us),
        }
    }

    /// The distance from one window's start to the next one's, in microseconds.
    #[must_use]
    pub fn step_us(self) -> i64 {
        match self {
            Self::Tumble { size_us } => size_us,
        }
    }

    /// The columns `window_start` and `window_end` of an event with this time.
    pub(super) fn columns(self, event_time: Expr) -> [Expr; 2] {
        let Self::Tumble { size_us } = self;
        let bound = |bound: Bound| {
            let function =
                ScalarUDF::new_from_impl(WindowFunction { bound, signature: Signature::any(2, Volatility::Immutable) });
            function.call(vec![event_time.clone(), lit(size_us)])
        };
        [bound(Bound::Start).alias(WINDOW_START), bound(Bound::End).alias(WINDOW_END)]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bound {
    Start,
    End,
}

/// `window_start(ts, size_us)` and `window_end(ts, size_us)` on TIMESTAMP. (`date_bin` reckons in nanoseconds and so ends in 2262.)
#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowFunction {
    bound: Bound,
    signature: Signature,
}

impl ScalarUDFImpl for WindowFunction {
    fn name(&self) -> &str {
        match self.bound {
            Bound::Start => "riomar_window_start",
            Bound::End => "riomar_window_end",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(timestamp_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = args.args[0].to_array(args.number_rows)?;
        let ColumnarValue::Scalar(ScalarValue::Int64(Some(size_us))) = &args.args[1] else {
            return datafusion::common::internal_err!("a window's size is a literal");
        };
        let window = Window::Tumble { size_us: *size_us };
        let offset = if self.bound == Bound::End { *size_us } else { 0 };
        let bounds: PrimitiveArray<TimestampMicrosecondType> =
            times.as_primitive::<TimestampMicrosecondType>().unary(|time| window.start_of(time) + offset);
        Ok(ColumnarValue::Array(Arc::new(bounds.with_timezone("UTC"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_floor_aligned() {
        let window = Window::Tumble { size_us: 10 };
        for (time, start) in [(0, 0), (9, 0), (10, 10), (-1, -10), (-10, -10), (-11, -20), (25, 20)] {
            assert_eq!(window.start_of(time), start, "{time}");
        }
    }
}

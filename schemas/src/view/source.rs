//! A view's `FROM` clause: one window function over one stream.

use std::sync::Arc;

use arrow::{compute::kernels::cast_utils::parse_interval_month_day_nano, datatypes::IntervalMonthDayNano};
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, Ident, ObjectName, Select, TableAlias, TableFactor, Value,
};

use super::{compile::problem, planning::INPUT, window::Window};
use crate::{definition::Problem, stream::Stream};

/// What a view reads.
pub(super) struct Source {
    pub(super) stream: Arc<Stream>,
    pub(super) window: Window,
}

/// A problem at a name.
fn at(name: &Ident, message: impl Into<String>, hint: &'static str) -> Problem {
    problem(&Expr::Identifier(name.clone()), message, hint)
}

const FORM: &str = "write FROM TUMBLE(stream, event_time_column, INTERVAL '1 minute')";

/// Takes the window function out of the `FROM` clause and puts a plain table in its place.
pub(super) fn take(select: &mut Select, stream: &dyn Fn(&str) -> Option<Arc<Stream>>) -> Result<Source, Problem> {
    let [from] = select.from.as_mut_slice() else {
        return Err(problem(&*select, "a view reads one stream", FORM));
    };
    if !from.joins.is_empty() {
        return Err(problem(&from.joins[0].relation, "a view has no joins", "join in queries over the view"));
    }
    let TableFactor::Table { name, alias, args: Some(args), .. } = &from.relation else {
        return Err(problem(&from.relation, "a view reads a stream through a window", FORM));
    };
    let arguments = args.args.iter().map(argument).collect::<Option<Vec<_>>>();
    let Some(arguments) = arguments else {
        return Err(problem(&from.relation, "the window's arguments are not understood", FORM));
    };
    let function = name.to_string().to_ascii_uppercase();
    match function.as_str() {
        "TUMBLE" => {}
        "HOP" | "SESSION" => return Err(problem(name, format!("{function} windows are not supported yet"), "use TUMBLE")),
        _ => return Err(problem(name, format!("'{name}' is no window function"), FORM)),
    }
    let [source, event_time, size] = arguments.as_slice() else {
        return Err(problem(&from.relation, format!("TUMBLE takes 3 arguments, not {}", arguments.len()), FORM));
    };
    let source = identifier(source).ok_or_else(|| problem(*source, "the first argument of TUMBLE is a stream", FORM))?;
    let found = stream(&source.value)
        .ok_or_else(|| at(source, format!("there is no stream '{}'", source.value), "declare it with CREATE TABLE"))?;
    let declared = &found.columns[found.event_time].name;
    if identifier(event_time).is_none_or(|column| column.value != declared.as_str()) {
        let message = format!("windows go by the stream's event time, which is '{declared}'");
        return Err(problem(*event_time, message, FORM));
    }
    let window = Window::Tumble { size_us: size_us(size)? };
    let name = alias.as_ref().map_or_else(|| source.clone(), |alias| alias.name.clone());
    from.relation = plain_table(name);
    Ok(Source { stream: found, window })
}

fn argument(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
        _ => None,
    }
}

/// An identifier, also where the parser takes a column called like a function for a call without parentheses.
fn identifier(expression: &Expr) -> Option<&Ident> {
    match expression {
        Expr::Identifier(ident) => Some(ident),
        Expr::Function(Function { name, .. }) => name.0.first().and_then(|part| part.as_ident()),
        _ => None,
    }
}

/// The length of `INTERVAL '…'` in microseconds: a fixed, positive one.
fn size_us(expression: &Expr) -> Result<i64, Problem> {
    let refuse = |message: &str, hint: &'static str| problem(expression, message, hint);
    let Expr::Interval(interval) = expression else { return Err(refuse("the window's size is an INTERVAL", FORM)) };
    let Expr::Value(value) = interval.value.as_ref() else { return Err(refuse("the window's size is a literal", FORM)) };
    let text = match &value.value {
        Value::SingleQuotedString(text) => text.clone(),
        Value::Number(text, _) => text.clone(),
        _ => return Err(refuse("the window's size is a literal", FORM)),
    };
    let text = match &interval.leading_field {
        Some(unit) => format!("{text} {unit}"),
        None => text,
    };
    let IntervalMonthDayNano { months, days, nanoseconds } =
        parse_interval_month_day_nano(&text).map_err(|_| refuse("the window's size is not understood", FORM))?;
    if months != 0 {
        return Err(refuse("months and years differ in length", "use days, and roll up in queries with merge(…)"));
    }
    let total_us = i64::from(days).checked_mul(86_400_000_000).and_then(|day_us| day_us.checked_add(nanoseconds / 1_000));
    match total_us {
        Some(total_us) if total_us > 0 && nanoseconds % 1_000 == 0 => Ok(total_us),
        _ => Err(refuse("the window's size is at least one microsecond", FORM)),
    }
}

fn plain_table(alias: Ident) -> TableFactor {
    TableFactor::Table {
        name: ObjectName::from(vec![Ident::new(INPUT)]),
        alias: Some(TableAlias { name: alias, columns: vec![], explicit: true, at: None }),
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}

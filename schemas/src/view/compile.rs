//! From a `CREATE MATERIALIZED VIEW` statement to a [`View`]: what is no view is refused with the reason and the alternative.

use std::{collections::BTreeSet, sync::Arc};

use arrow::datatypes::{DataType, Schema};
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    error::DataFusionError,
    logical_expr::{Aggregate, Expr, LogicalPlan, Volatility},
    sql::sqlparser::ast::{CreateTableOptions, CreateView, GroupByExpr, ObjectName, Query, Select, SetExpr, Spanned, Statement},
};

use super::{Grain, GroupColumn, Role, View, ViewColumn, WINDOW_END, WINDOW_START, planning, source};
use crate::{
    aggregate::MergeableAggregate,
    definition::Problem,
    limits::{VIEW_DIMENSIONS_MAX, VIEW_MEASURES_MAX},
    name::Name,
    session::scan_batches,
    state_codec,
    stream::{APPEND_TIME, EPOCH, EXTRA, Stream, timestamp_type},
};

/// Raised when states of an unchanged definition come to mean something else.
const STATE_VERSION: u32 = 1;

type Outcome<T> = Result<T, Problem>;

/// A problem at the place of a piece of SQL.
pub(super) fn problem<T: Spanned + ?Sized>(at: &T, message: impl Into<String>, hint: impl Into<Option<&'static str>>) -> Problem {
    let start = at.span().start;
    Problem { line: start.line, column: start.column, message: message.into(), hint: hint.into().map(str::to_owned) }
}

/// A problem that DataFusion found, where it says.
fn planning_problem(error: &DataFusionError) -> Problem {
    let start = error.diagnostic().and_then(|diagnostic| diagnostic.span).map(|span| span.start);
    Problem {
        line: start.map_or(0, |start| start.line),
        column: start.map_or(0, |start| start.column),
        message: error.strip_backtrace(),
        hint: None,
    }
}

/// A problem without a place of its own.
fn general(message: impl Into<String>, hint: &str) -> Problem {
    Problem { line: 0, column: 0, message: message.into(), hint: Some(hint.to_owned()) }
}

pub(super) fn compile(statement: &Statement, sql: &str, stream: &dyn Fn(&str) -> Option<Arc<Stream>>) -> Outcome<View> {
    let Statement::CreateView(create) = statement else {
        return Err(problem(statement, "not a CREATE MATERIALIZED VIEW statement", None));
    };
    refuse_clauses(create)?;
    let name = name_of(&create.name)?;
    let mut query = create.query.as_ref().clone();
    refuse_query_clauses(&query)?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(problem(
            create.query.as_ref(),
            "a view is one SELECT",
            "declare one view for each part and combine them in a query",
        ));
    };
    refuse_select_clauses(select)?;
    let source = source::take(select, stream)?;
    let plan = planning::plan(query, input_schema(&source.stream)).map_err(|error| planning_problem(&error))?;
    let parts = Parts::of(&plan)?;
    let fingerprint = fingerprint(statement, &source.stream);
    let pieces = assemble(&parts, &fingerprint, &source)?;
    let view = View {
        name,
        stream: source.stream,
        fingerprint,
        sql: sql.to_owned(),
        window: source.window,
        filter: pieces.filter,
        groups: pieces.groups,
        aggregates: pieces.aggregates,
        columns: pieces.columns,
        state_schema: Arc::new(Schema::empty()),
        epoch_state_schema: Arc::new(Schema::empty()),
        value_schema: Arc::new(Schema::empty()),
    };
    with_schemas(view)
}

fn name_of(name: &ObjectName) -> Outcome<Name> {
    match name.0.as_slice() {
        [part] => match part.as_ident() {
            Some(ident) => Name::new(ident.value.clone()).map_err(|invalid| problem(name, invalid.to_string(), None)),
            None => Err(problem(name, "a view's name is an identifier", None)),
        },
        _ => Err(problem(name, "names have no schema in front", "write the name alone")),
    }
}

fn refuse_clauses(create: &CreateView) -> Outcome<()> {
    let refusal = if !create.materialized {
        Some("write CREATE MATERIALIZED VIEW: Riomar keeps its rows")
    } else if create.or_replace || create.or_alter || create.if_not_exists {
        Some("write CREATE MATERIALIZED VIEW: a changed definition is recomputed by itself")
    } else if !create.columns.is_empty() {
        Some("name the columns in the SELECT with AS")
    } else if create.options != CreateTableOptions::None
        || create.to.is_some()
        || !create.cluster_by.is_empty()
        || create.temporary
    {
        Some("a view takes no options")
    } else {
        None
    };
    match refusal {
        Some(hint) => Err(problem(&create.name, "this form of CREATE VIEW is not supported", hint)),
        None => Ok(()),
    }
}

fn refuse_query_clauses(query: &Query) -> Outcome<()> {
    let in_queries = "put it into the queries over the view";
    if let Some(with) = &query.with {
        return Err(problem(with, "a view has no WITH clause", "write one SELECT over one stream"));
    }
    if let Some(order_by) = &query.order_by {
        return Err(problem(order_by, "a view has no ORDER BY", in_queries));
    }
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return Err(problem(query, "a view has no LIMIT", in_queries));
    }
    Ok(())
}

fn refuse_select_clauses(select: &Select) -> Outcome<()> {
    if let Some(having) = &select.having {
        return Err(problem(
            having,
            "a view has no HAVING: a group that fails it now may pass it with the next event",
            "filter in the queries over the view",
        ));
    }
    if select.distinct.is_some() {
        return Err(problem(select, "a view has no DISTINCT", "group by the columns instead"));
    }
    if let Some(qualify) = &select.qualify {
        return Err(problem(qualify, "a view has no QUALIFY", "rank in the queries over the view"));
    }
    match &select.group_by {
        GroupByExpr::Expressions(groups, modifiers) if !groups.is_empty() && modifiers.is_empty() => Ok(()),
        GroupByExpr::Expressions(groups, _) if groups.is_empty() => {
            Err(problem(select, "a view groups by window_start", "add GROUP BY window_start and the dimensions"))
        }
        _ => Err(problem(
            &select.group_by,
            "ROLLUP, CUBE, GROUPING SETS and GROUP BY ALL are not supported",
            "list the columns; roll up in queries with merge(…)",
        )),
    }
}

/// What a view's SELECT sees: the stream's row, and the window.
fn input_schema(stream: &Stream) -> Schema {
    let window = [WINDOW_START, WINDOW_END].map(|name| Arc::new(arrow::datatypes::Field::new(name, timestamp_type(), false)));
    Schema::new(stream.row_schema().fields().iter().cloned().chain(window).collect::<Vec<_>>())
}

/// The definition's identity: its SQL without layout and comments, and the columns that it reads from.
fn fingerprint(statement: &Statement, stream: &Stream) -> String {
    let text = format!("{STATE_VERSION}.{}\n{}\n{statement}\n{:?}", state_codec::VERSION, stream.name, stream.columns);
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

/// The nodes of a view's plan.
struct Parts<'a> {
    projection: &'a [Expr],
    aggregate: &'a Aggregate,
    filter: Option<&'a Expr>,
}

impl<'a> Parts<'a> {
    fn of(plan: &'a LogicalPlan) -> Outcome<Self> {
        let no_aggregate =
            || general("a view is SELECT … aggregates … GROUP BY window_start, …", "query the stream for raw rows");
        let LogicalPlan::Projection(projection) = plan else { return Err(no_aggregate()) };
        let LogicalPlan::Aggregate(aggregate) = projection.input.as_ref() else { return Err(no_aggregate()) };
        let filter = match aggregate.input.as_ref() {
            LogicalPlan::Filter(filter) => Some(&filter.predicate),
            _ => None,
        };
        Ok(Self { projection: &projection.expr, aggregate, filter })
    }
}

struct Pieces {
    filter: Option<Expr>,
    groups: Vec<GroupColumn>,
    aggregates: Vec<MergeableAggregate>,
    columns: Vec<ViewColumn>,
}

/// Gives each output column its role and each aggregate its mergeable form.
fn assemble(parts: &Parts<'_>, fingerprint: &str, source: &source::Source) -> Outcome<Pieces> {
    let bare = |expression: &Expr| planning::unqualified(expression.clone()).map_err(|error| planning_problem(&error));
    let filter = parts.filter.map(bare).transpose()?;
    let input = datafusion::common::DFSchema::try_from(input_schema(&source.stream)).map_err(|error| planning_problem(&error))?;

    let mut aggregates = Vec::new();
    for (i, expression) in parts.aggregate.aggr_expr.iter().enumerate() {
        let Expr::AggregateFunction(function) = bare(expression)?.unalias_nested().data else {
            return Err(general(format!("'{expression}' is no aggregate function"), "see docs/sql.md"));
        };
        if let Some((reason, alternative)) = MergeableAggregate::refuse(&function, &input) {
            return Err(general(reason, alternative));
        }
        let aggregate =
            MergeableAggregate::new(format!("{fingerprint}/{i}"), &function, &input).map_err(|error| planning_problem(&error))?;
        state_codec::check_type(&aggregate.state_type()).map_err(|message| general(message, "use another aggregate"))?;
        aggregates.push(aggregate);
    }
    let mut groups: Vec<Option<GroupColumn>> = vec![None; parts.aggregate.group_expr.len()];
    let mut columns = Vec::new();
    let mut names = BTreeSet::new();
    for expression in parts.projection {
        let (value, name) = output(expression)?;
        if !names.insert(name.clone()) {
            return Err(general(format!("the column '{name}' is there twice"), "give one of them another name with AS"));
        }
        columns.push(column(parts, &aggregates, &mut groups, value, name)?);
    }
    let groups = parts.aggregate.group_expr.iter().zip(groups).map(|(expression, group)| {
        let mut group = group
            .ok_or_else(|| general(format!("'{expression}' is grouped by but not selected"), "add it to the SELECT list"))?;
        group.expression = bare(expression)?;
        Ok(group)
    });
    let groups = groups.collect::<Outcome<Vec<_>>>()?;
    check_groups(&groups, &columns)?;
    let everything = filter.iter().chain(groups.iter().map(|group| &group.expression));
    let everything = everything.chain(aggregates.iter().flat_map(|a| a.arguments().iter().chain(a.filter())));
    for expression in everything {
        check_deterministic(expression)?;
    }
    Ok(Pieces { filter, groups, aggregates, columns })
}

/// An output column's value and name.
fn output(expression: &Expr) -> Outcome<(&Expr, Name)> {
    let (value, name) = match expression {
        Expr::Alias(alias) => (alias.expr.as_ref(), alias.name.clone()),
        Expr::Column(column) => (expression, column.name.clone()),
        other => (other, other.schema_name().to_string()),
    };
    let name = Name::new(name).map_err(|invalid| general(invalid.to_string(), "name every column of the SELECT with AS"))?;
    Ok((value, name))
}

/// One output column: a group column as it is, or a measure over aggregates alone.
fn column(
    parts: &Parts<'_>,
    aggregates: &[MergeableAggregate],
    groups: &mut [Option<GroupColumn>],
    value: &Expr,
    name: Name,
) -> Outcome<ViewColumn> {
    let schema = &parts.aggregate.schema;
    let group_count = parts.aggregate.group_expr.len();
    let position = |column: &datafusion::common::Column| schema.maybe_index_of_column(column);
    if let Expr::Column(column) = value
        && let Some(index) = position(column).filter(|index| *index < group_count)
    {
        let role = match &parts.aggregate.group_expr[index] {
            Expr::Column(column) if column.name == WINDOW_START => Role::WindowStart,
            Expr::Column(column) if column.name == WINDOW_END => Role::WindowEnd,
            _ => Role::Dimension,
        };
        let data_type = schema.field(index).data_type().clone();
        state_codec::check_key_type(&data_type).map_err(|message| general(message, "cast it to VARCHAR, BIGINT or DECIMAL"))?;
        if groups[index].is_some() {
            return Err(general(format!("'{name}' repeats a group column"), "select each group column once"));
        }
        groups[index] = Some(GroupColumn { name: name.to_string(), expression: value.clone(), role });
        return Ok(ViewColumn { name, role, data_type, measure: None, uses: vec![], approximate: false, by_rank: false });
    }
    let mut uses = Vec::new();
    let mut mixed = false;
    let found = value.apply(|expression| {
        if let Expr::Column(column) = expression {
            match position(column).and_then(|index| index.checked_sub(group_count)) {
                Some(index) if !uses.contains(&index) => uses.push(index),
                Some(_) => {}
                None => mixed = true,
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found.map_err(|error| planning_problem(&error))?;
    if mixed || uses.is_empty() {
        return Err(general(
            format!("'{name}' is neither a group column nor computed from aggregates alone"),
            "compute it in the queries over the view",
        ));
    }
    check_deterministic(value)?;
    let replaced = planning::replace_columns(value.clone(), &|wanted| {
        let index = (0..schema.fields().len()).find(|i| schema.field(*i).name() == wanted)?.checked_sub(group_count)?;
        let used = uses.iter().position(|used| *used == index)?;
        Some(datafusion::prelude::ident(format!("v{used}")))
    });
    let data_type = datafusion::logical_expr::ExprSchemable::get_type(value, schema).map_err(|error| planning_problem(&error))?;
    let uses_any = |functions: &str| uses.iter().any(|index| aggregates[*index].function().starts_with(functions));
    let (approximate, by_rank) = (uses_any("approx_"), uses_any("approx_percentile_cont"));
    let measure = Some(replaced.map_err(|error| planning_problem(&error))?);
    Ok(ViewColumn { name, role: Role::Measure, data_type, measure, uses, approximate, by_rank })
}

fn check_groups(groups: &[GroupColumn], columns: &[ViewColumn]) -> Outcome<()> {
    if !groups.iter().any(|group| group.role == Role::WindowStart) {
        return Err(general("a view groups by window_start", "add window_start to the SELECT list and to GROUP BY"));
    }
    let dimensions = groups.iter().filter(|group| group.role == Role::Dimension).count();
    if dimensions > VIEW_DIMENSIONS_MAX {
        return Err(general(format!("{dimensions} dimensions, and {VIEW_DIMENSIONS_MAX} are allowed"), "split the view"));
    }
    let measures = columns.iter().filter(|column| column.role == Role::Measure).count();
    if measures == 0 || measures > VIEW_MEASURES_MAX {
        return Err(general(
            format!("{measures} measures, and 1 to {VIEW_MEASURES_MAX} are allowed"),
            "a view computes aggregates; split one that has too many",
        ));
    }
    Ok(())
}

/// Both layers must get the same value from the same row, today and in a recompute next year.
fn check_deterministic(expression: &Expr) -> Outcome<()> {
    let mut refused = None;
    let walked = expression.apply(|part| {
        refused = match part {
            Expr::ScalarFunction(function) if function.func.signature().volatility != Volatility::Immutable => Some(general(
                format!("{}() gives another value each time", function.func.name()),
                "use the event's own time and fields",
            )),
            Expr::WindowFunction(_) => Some(general("a view has no window functions", "use them in queries over the view")),
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
                Some(general("a view has no subqueries", "join in queries over the view"))
            }
            Expr::Column(column) if [EPOCH, APPEND_TIME, EXTRA].contains(&column.name.as_str()) => Some(general(
                format!("a view cannot use {}", column.name),
                "use declared columns; declare the field if the stream lacks it",
            )),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    });
    walked.map_err(|error| planning_problem(&error))?;
    refused.map_or(Ok(()), Err)
}

/// The schemas are those of the plans themselves.
fn with_schemas(mut view: View) -> Outcome<View> {
    let schemas = |view: &View| -> datafusion::error::Result<_> {
        let rows = || scan_batches(view.stream.row_schema(), vec![]);
        let states = view.fold(rows()?, Grain::View)?;
        let epoch_states = view.fold(rows()?, Grain::Epoch)?;
        let arrow = |plan: &LogicalPlan| Arc::new(plan.schema().as_arrow().clone());
        let (state_schema, epoch_state_schema) = (arrow(&states), arrow(&epoch_states));
        Ok((state_schema, epoch_state_schema, arrow(&view.finish(states)?)))
    };
    (view.state_schema, view.epoch_state_schema, view.value_schema) = schemas(&view).map_err(|error| planning_problem(&error))?;
    for field in view.value_schema.fields() {
        if matches!(field.data_type(), DataType::Null) {
            return Err(general(format!("'{}' is always null", field.name()), "cast it to a type"));
        }
    }
    Ok(view)
}

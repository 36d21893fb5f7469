//! From a `CREATE MATERIALIZED VIEW` statement to a [`View`]: what is no view is refused with the reason and the alternative.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::{
    common::{
        DFSchema,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Aggregate, Expr, LogicalPlan, Volatility},
    sql::sqlparser::{
        ast::{ObjectName, Query, SetExpr, Spanned, Statement},
        tokenizer::Location,
    },
};

use super::{
    Grain, GroupColumn, Role, View, ViewColumn, WINDOW_END, WINDOW_START, clauses,
    place::{self, Places, planning_problem},
    planning, source,
};
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

/// A result, or what is wrong with the definition.
pub(super) type Outcome<T> = Result<T, Problem>;

/// A problem at the place of a piece of SQL.
pub(super) fn problem<T: Spanned + ?Sized>(at: &T, message: impl Into<String>, hint: impl Into<Option<&'static str>>) -> Problem {
    let start = at.span().start;
    Problem { line: start.line, column: start.column, message: message.into(), hint: hint.into().map(str::to_owned) }
}

/// A problem without a place of its own.
fn general(message: impl Into<String>, hint: &str) -> Problem {
    Problem { line: 0, column: 0, message: message.into(), hint: Some(hint.to_owned()) }
}

pub(super) fn compile(statement: &Statement, sql: &str, stream: &dyn Fn(&str) -> Option<Arc<Stream>>) -> Outcome<View> {
    let Statement::CreateView(create) = statement else {
        return Err(problem(statement, "not a CREATE MATERIALIZED VIEW statement", None));
    };
    clauses::refuse(create)?;
    let name = name_of(&create.name)?;
    let mut query = create.query.as_ref().clone();
    clauses::refuse_in_query(&query)?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(problem(
            create.query.as_ref(),
            "a view is one SELECT",
            "declare one view for each part and combine them in a query",
        ));
    };
    clauses::refuse_in_select(select)?;
    let source = source::take(select, stream)?;
    let places = Places::of(select);
    let plan = |query: Query| planning::plan(query, input_schema(&source.stream));
    let plan = plan(query.clone()).map_err(|error| place::located(&error, &query, &plan))?;
    let parts = Parts::of(&plan)?;
    let fingerprint = fingerprint(statement, &source.stream);
    let pieces = assemble(&parts, &fingerprint, &source, &places)?;
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

    /// The aggregates that an output column is computed from, each once; `None` stands for a group column.
    fn uses(&self, value: &Expr) -> Outcome<Vec<Option<usize>>> {
        let mut uses = Vec::new();
        let walked = value.apply(|expression| {
            if let Expr::Column(column) = expression {
                let position = self.aggregate.schema.maybe_index_of_column(column);
                let used = position.and_then(|index| index.checked_sub(self.aggregate.group_expr.len()));
                if !uses.contains(&used) {
                    uses.push(used);
                }
            }
            Ok(TreeNodeRecursion::Continue)
        });
        walked.map_err(|error| planning_problem(&error))?;
        Ok(uses)
    }
}

struct Pieces {
    filter: Option<Expr>,
    groups: Vec<GroupColumn>,
    aggregates: Vec<MergeableAggregate>,
    columns: Vec<ViewColumn>,
}

/// Gives each output column its role and each aggregate its mergeable form.
fn assemble(parts: &Parts<'_>, fingerprint: &str, source: &source::Source, places: &Places) -> Outcome<Pieces> {
    let bare = |expression: &Expr| planning::unqualified(expression.clone()).map_err(|error| planning_problem(&error));
    let filter = parts.filter.map(bare).transpose()?;
    filter.iter().try_for_each(check_deterministic).map_err(|problem| problem.or_at(places.filter))?;
    let input = DFSchema::try_from(input_schema(&source.stream)).map_err(|error| planning_problem(&error))?;

    let item = |index: usize| places.item(index, parts.projection.len());
    let mut aggregates = Vec::new();
    for (i, expression) in parts.aggregate.aggr_expr.iter().enumerate() {
        let aggregate = mergeable(bare(expression)?, format!("{fingerprint}/{i}"), &input);
        let used_by = || parts.projection.iter().position(|item| parts.uses(item).is_ok_and(|uses| uses.contains(&Some(i))));
        aggregates.push(aggregate.map_err(|problem| problem.or_at(used_by().map_or_else(Location::empty, item)))?);
    }
    let group_exprs = &parts.aggregate.group_expr;
    let mut groups: Vec<Option<GroupColumn>> = vec![None; group_exprs.len()];
    let mut columns = Vec::new();
    for (i, expression) in parts.projection.iter().enumerate() {
        let column = output(expression).and_then(|(value, name)| column(parts, &aggregates, &mut groups, value, name));
        columns.push(column.map_err(|problem| problem.or_at(item(i)))?);
    }
    let groups = group_exprs.iter().zip(groups).enumerate().map(|(i, (expression, group))| {
        let not_selected = || {
            let message = format!("'{}' is grouped by but not selected", bare(expression).as_ref().unwrap_or(expression));
            general(message, "add it to the SELECT list")
        };
        let group = group.ok_or_else(not_selected).and_then(|mut group| {
            group.expression = bare(expression)?;
            check_deterministic(&group.expression)?;
            Ok(group)
        });
        group.map_err(|problem| problem.or_at(places.group(i, group_exprs.len())))
    });
    let groups = groups.collect::<Outcome<Vec<_>>>()?;
    check_groups(&groups, &columns)?;
    Ok(Pieces { filter, groups, aggregates, columns })
}

/// The mergeable form of an aggregate.
fn mergeable(expression: Expr, id: String, input: &DFSchema) -> Outcome<MergeableAggregate> {
    let Expr::AggregateFunction(function) = expression.unalias_nested().data else {
        return Err(general("this is no aggregate function", "see docs/sql.md"));
    };
    if let Some((reason, alternative)) = MergeableAggregate::refuse(&function, input) {
        return Err(general(reason, alternative));
    }
    function.params.args.iter().chain(function.params.filter.as_deref()).try_for_each(check_deterministic)?;
    function.params.order_by.iter().try_for_each(|sort| check_deterministic(&sort.expr))?;
    let aggregate = MergeableAggregate::new(id, &function, input).map_err(|error| planning_problem(&error))?;
    state_codec::check_type(&aggregate.state_type()).map_err(|message| general(message, "use another aggregate"))?;
    Ok(aggregate)
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
    let all = parts.uses(value)?;
    let uses: Vec<usize> = all.iter().copied().flatten().collect();
    if uses.is_empty() || uses.len() < all.len() {
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

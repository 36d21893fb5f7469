//! Where in a view's SELECT an error stands.
//!
//! DataFusion says so for some errors. For the others, the parts of the SELECT are planned one by one: the first that fails in the
//! same words is the one.

use datafusion::{
    error::{DataFusionError, Result},
    logical_expr::LogicalPlan,
    sql::sqlparser::{
        ast::{Expr, GroupByExpr, Ident, Query, Select, SelectItem, SetExpr, Spanned, Value},
        tokenizer::Location,
    },
};

use super::WINDOW_START;
use crate::{definition::Problem, sql_error};

/// Where the parts of a SELECT stand.
#[derive(Debug)]
pub(super) struct Places {
    /// The items of the SELECT list.
    pub(super) items: Vec<Location>,
    /// What it groups by.
    pub(super) groups: Vec<Location>,
    /// What it filters by; empty without a filter.
    pub(super) filter: Location,
}

impl Places {
    /// The places of a SELECT's parts.
    pub(super) fn of(select: &Select) -> Self {
        Self {
            items: select.projection.iter().map(|item| item.span().start).collect(),
            groups: groups_of(select).iter().map(|group| group.span().start).collect(),
            filter: select.selection.as_ref().map(|filter| filter.span().start).unwrap_or_else(Location::empty),
        }
    }

    /// Where an output column stands, of so many; empty where a wildcard stands for several.
    pub(super) fn item(&self, index: usize, of: usize) -> Location {
        self.items.get(index).filter(|_| self.items.len() == of).copied().unwrap_or_else(Location::empty)
    }

    /// Where a group column stands, of so many.
    pub(super) fn group(&self, index: usize, of: usize) -> Location {
        self.groups.get(index).filter(|_| self.groups.len() == of).copied().unwrap_or_else(Location::empty)
    }
}

/// What DataFusion found, where it stands as far as it says.
pub(super) fn planning_problem(error: &DataFusionError) -> Problem {
    Problem::at(sql_error::location(error).unwrap_or_else(Location::empty), sql_error::message(error))
}

/// What DataFusion found while it planned a query: at the place that it names, or at the part that fails in the same words when it is
/// planned alone.
pub(super) fn located(error: &DataFusionError, query: &Query, plan: &dyn Fn(Query) -> Result<LogicalPlan>) -> Problem {
    let problem = planning_problem(error);
    let fails_alike = |part: Query| plan(part).is_err_and(|error| sql_error::message(&error) == problem.message);
    match (problem.line, query.body.as_ref()) {
        (0, SetExpr::Select(select)) => {
            let place = parts(query, select).into_iter().find(|(_, part)| fails_alike(part.clone())).map(|(place, _)| place);
            problem.or_at(place.unwrap_or_else(Location::empty))
        }
        _ => problem,
    }
}

/// Each part of a SELECT as a query of its own.
fn parts(query: &Query, select: &Select) -> Vec<(Location, Query)> {
    let alone = |change: &dyn Fn(&mut Select)| {
        let mut select = select.clone();
        (select.selection, select.group_by) = (None, GroupByExpr::Expressions(vec![], vec![]));
        change(&mut select);
        Query { body: Box::new(SetExpr::Select(Box::new(select))), ..query.clone() }
    };
    let groups: Vec<Expr> = groups_of(select).iter().map(|group| named(group, select)).collect();
    let of_filter = select.selection.iter().map(|filter| {
        let part = alone(&|select| {
            select.projection = vec![SelectItem::UnnamedExpr(Expr::Identifier(Ident::new(WINDOW_START)))];
            select.selection = Some(filter.clone());
        });
        (filter.span().start, part)
    });
    let of_groups = groups_of(select).iter().zip(&groups).map(|(written, group)| {
        (written.span().start, alone(&|select| select.projection = vec![SelectItem::UnnamedExpr(group.clone())]))
    });
    let of_items = select.projection.iter().map(|item| {
        let part = alone(&|select| {
            select.projection = vec![item.clone()];
            select.group_by = GroupByExpr::Expressions(groups.clone(), vec![]);
        });
        (item.span().start, part)
    });
    of_filter.chain(of_groups).chain(of_items).collect()
}

fn groups_of(select: &Select) -> &[Expr] {
    match &select.group_by {
        GroupByExpr::Expressions(groups, _) => groups,
        GroupByExpr::All(_) => &[],
    }
}

/// What a group column is: GROUP BY may name an item of the SELECT list by its number or its alias.
fn named(group: &Expr, select: &Select) -> Expr {
    let expression = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr.clone()),
        _ => None,
    };
    let found = match group {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => {
                number.parse::<usize>().ok().and_then(|number| select.projection.get(number.checked_sub(1)?)).and_then(expression)
            }
            _ => None,
        },
        Expr::Identifier(name) => {
            let aliased =
                |item: &&SelectItem| matches!(item, SelectItem::ExprWithAlias { alias, .. } if alias.value == name.value);
            select.projection.iter().find(aliased).and_then(expression)
        }
        _ => None,
    };
    found.unwrap_or_else(|| group.clone())
}

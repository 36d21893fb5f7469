//! Clauses of SQL that a view does not have: each is refused with the reason and the alternative.

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{CreateTableOptions, CreateView, Expr, GroupByExpr, Query, Select, SelectItem};

use super::compile::{Outcome, problem};
use crate::definition::Problem;

/// Refuses what a `CREATE VIEW` may say and a view does not know.
pub(super) fn refuse(create: &CreateView) -> Outcome<()> {
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

/// Refuses what stands around the SELECT.
pub(super) fn refuse_in_query(query: &Query) -> Outcome<()> {
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

/// Refuses clauses of the SELECT, and columns of the same name.
pub(super) fn refuse_in_select(select: &Select) -> Outcome<()> {
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
    refuse_repeated_names(select)?;
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

/// The columns of a view have different names.
fn refuse_repeated_names(select: &Select) -> Outcome<()> {
    let mut names = BTreeSet::new();
    for item in &select.projection {
        let name = match item {
            SelectItem::ExprWithAlias { alias, .. } => alias,
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => name,
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) if !parts.is_empty() => &parts[parts.len() - 1],
            _ => continue,
        };
        if !names.insert(&name.value) {
            let message = format!("the column '{}' is there twice", name.value);
            return Err(Problem::at(name.span.start, message).hint("give one of them another name with AS"));
        }
    }
    Ok(())
}

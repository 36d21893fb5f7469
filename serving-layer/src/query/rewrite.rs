//! `merge(measure)` in a query: the measure's own aggregate over its states, in place of a function that SQL does not know.
//!
//! In each SELECT that merges, the view is replaced by its twin that carries state columns, under the same name; the call becomes
//! a call of the view's merge function on those columns.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
};

use datafusion::{
    logical_expr::AggregateUDF,
    sql::sqlparser::ast::{
        Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Query, Select, SelectItem, SetExpr,
        TableAlias, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
    },
};
use riomar_schemas::{Catalog, View, view::TWIN_SUFFIX};

use super::error::QueryError;

/// The name of a view's twin.
pub(super) fn twin(view: &str) -> String {
    format!("{view}{TWIN_SUFFIX}")
}

/// What a rewritten query needs in its session.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    pub(super) functions: Vec<Arc<AggregateUDF>>,
    /// Views whose twin is read.
    pub(super) twins: BTreeSet<String>,
}

/// Rewrites every `merge(…)` of a query.
pub(super) fn rewrite(query: &mut Query, catalog: &Catalog) -> Result<Rewritten, QueryError> {
    let mut rewriter = Rewriter { catalog, expressions: BTreeSet::new(), done: Rewritten::default() };
    if let ControlFlow::Break(error) = VisitMut::visit(query, &mut rewriter) {
        return Err(error);
    }
    match Visit::visit(query, &mut Leftover) {
        ControlFlow::Continue(()) => Ok(rewriter.done),
        ControlFlow::Break(()) => Err(QueryError::InvalidSql(
            "merge(measure) stands in the SELECT list, in HAVING or in ORDER BY, over a view named in FROM".to_owned(),
        )),
    }
}

fn is_merge(function: &Function) -> bool {
    function.name.0.len() == 1 && function.name.0[0].as_ident().is_some_and(|name| name.value.eq_ignore_ascii_case("merge"))
}

/// Finds a merge that was not rewritten.
struct Leftover;

impl Visitor for Leftover {
    type Break = ();

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        match expression {
            Expr::Function(function) if is_merge(function) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

struct Rewriter<'a> {
    catalog: &'a Catalog,
    /// The names of common table expressions: what they hide is not merged.
    expressions: BTreeSet<String>,
    done: Rewritten,
}

impl VisitorMut for Rewriter<'_> {
    type Break = QueryError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<QueryError> {
        let named = query.with.iter().flat_map(|with| &with.cte_tables).map(|expression| expression.alias.name.value.clone());
        self.expressions.extend(named);
        ControlFlow::Continue(())
    }

    /// Inner queries come first, so that a merge belongs to the nearest SELECT around it.
    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<QueryError> {
        self.rewrite_in(select, |select, calls| {
            for item in &mut select.projection {
                let measure = unnamed_merge(item);
                VisitMut::visit(item, calls)?;
                if let (Some(name), SelectItem::UnnamedExpr(expr)) = (measure, &*item) {
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', name) };
                }
            }
            match &mut select.having {
                Some(having) => VisitMut::visit(having, calls),
                None => ControlFlow::Continue(()),
            }
        })
    }

    /// ORDER BY stands around the SELECT whose groups it sorts.
    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<QueryError> {
        match (query.body.as_mut(), &mut query.order_by) {
            (SetExpr::Select(select), Some(order_by)) => self.rewrite_in(select, |_, calls| VisitMut::visit(order_by, calls)),
            _ => ControlFlow::Continue(()),
        }
    }
}

impl Rewriter<'_> {
    /// Rewrites the merges of a part of a SELECT, then has the SELECT read the twins of the views that they merge.
    fn rewrite_in(
        &mut self,
        select: &mut Select,
        part: impl FnOnce(&mut Select, &mut Calls<'_>) -> ControlFlow<QueryError>,
    ) -> ControlFlow<QueryError> {
        let mut views = views_of(select, self.catalog);
        views.retain(|_, view| !self.expressions.contains(view.name().as_str()));
        let mut calls = Calls { views: &views, functions: Vec::new(), merged: BTreeSet::new() };
        part(select, &mut calls)?;
        let Calls { functions, merged, .. } = calls;
        if merged.is_empty() {
            return ControlFlow::Continue(());
        }
        let wildcard = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
        if select.projection.iter().any(wildcard) {
            return ControlFlow::Break(QueryError::InvalidSql("merge(…) goes with named columns, not with *".to_owned()));
        }
        for table in select
            .from
            .iter_mut()
            .flat_map(|from| std::iter::once(&mut from.relation).chain(from.joins.iter_mut().map(|join| &mut join.relation)))
        {
            use_twin(table, &merged, &views, &mut self.done.twins);
        }
        self.done.functions.extend(functions);
        ControlFlow::Continue(())
    }
}

/// The views in a FROM clause, by the name that the query calls them.
fn views_of(select: &Select, catalog: &Catalog) -> BTreeMap<String, Arc<View>> {
    let relations =
        select.from.iter().flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
    let named = relations.filter_map(|relation| {
        let (table, called) = table_names(relation)?;
        Some((called, Arc::clone(catalog.view(&table)?)))
    });
    named.collect()
}

/// The name of a plain table, and what the query calls it. A view's twin goes by the view's name.
fn table_names(relation: &TableFactor) -> Option<(String, String)> {
    let TableFactor::Table { name, alias, args: None, .. } = relation else { return None };
    let table = name.0.first()?.as_ident()?.value.as_str();
    let table = table.strip_suffix(TWIN_SUFFIX).unwrap_or(table).to_owned();
    let called = alias.as_ref().map_or_else(|| table.clone(), |alias| alias.name.value.clone());
    Some((table, called))
}

fn use_twin(
    relation: &mut TableFactor,
    merged: &BTreeSet<String>,
    views: &BTreeMap<String, Arc<View>>,
    twins: &mut BTreeSet<String>,
) {
    let Some((table, called)) = table_names(relation) else { return };
    if !merged.contains(&called) || !views.contains_key(&called) {
        return;
    }
    if let TableFactor::Table { name, alias, .. } = relation {
        *name = ObjectName::from(vec![Ident::with_quote('"', twin(&table))]);
        alias.get_or_insert_with(|| TableAlias {
            name: Ident::with_quote('"', called),
            columns: vec![],
            explicit: true,
            at: None,
        });
        twins.insert(table);
    }
}

/// The measure's name, where the whole item is `merge(measure)`: its column is called so.
fn unnamed_merge(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(Expr::Function(function)) if is_merge(function) => argument(function).map(|(_, measure)| measure),
        _ => None,
    }
}

/// The argument of `merge(measure)` or `merge(view.measure)`.
fn argument(function: &Function) -> Option<(Option<String>, String)> {
    let FunctionArguments::List(list) = &function.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(measure)))] => Some((None, measure.value.clone())),
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::CompoundIdentifier(parts)))] => match parts.as_slice() {
            [view, measure] => Some((Some(view.value.clone()), measure.value.clone())),
            _ => None,
        },
        _ => None,
    }
}

/// Replaces the calls in one SELECT.
struct Calls<'a> {
    views: &'a BTreeMap<String, Arc<View>>,
    functions: Vec<Arc<AggregateUDF>>,
    /// What the query calls the views that are merged.
    merged: BTreeSet<String>,
}

impl Calls<'_> {
    fn replace(&mut self, function: &mut Function) -> Result<(), QueryError> {
        let invalid = |message: String| QueryError::InvalidSql(message);
        let plain = matches!(&function.args, FunctionArguments::List(list) if list.duplicate_treatment.is_none() && list.clauses.is_empty());
        if !plain || !function.within_group.is_empty() || function.null_treatment.is_some() || function.over.is_some() {
            return Err(invalid(format!("'{function}': merge takes one measure and nothing else")));
        }
        let (qualifier, measure) = argument(function)
            .ok_or_else(|| invalid(format!("'{function}': merge takes one measure of a view, as in merge(visitors)")))?;
        let candidates = self.views.iter().filter(|(called, view)| match &qualifier {
            Some(qualifier) => *called == qualifier,
            None => view.column(&measure).is_some(),
        });
        let (called, view) = match candidates.collect::<Vec<_>>().as_slice() {
            [(called, view)] => ((*called).clone(), Arc::clone(view)),
            [] => return Err(invalid(format!("merge({measure}): no view in FROM has that measure"))),
            _ => return Err(invalid(format!("merge({measure}): several views have it; write merge(view.{measure})"))),
        };
        let merge = view.merge_function(&measure)?;
        function.name = ObjectName::from(vec![Ident::with_quote('"', merge.function.name())]);
        if let FunctionArguments::List(list) = &mut function.args {
            let column =
                |name: &String| Expr::CompoundIdentifier(vec![Ident::with_quote('"', &called), Ident::with_quote('"', name)]);
            list.args = merge.arguments.iter().map(|name| FunctionArg::Unnamed(FunctionArgExpr::Expr(column(name)))).collect();
        }
        self.functions.push(merge.function);
        self.merged.insert(called);
        Ok(())
    }
}

impl VisitorMut for Calls<'_> {
    type Break = QueryError;

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<QueryError> {
        match expression {
            Expr::Function(function) if is_merge(function) => match self.replace(function) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            },
            _ => ControlFlow::Continue(()),
        }
    }
}

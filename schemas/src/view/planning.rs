//! Planning a view's `SELECT` over its stream's row schema.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::{
    common::{
        Column, TableReference,
        config::ConfigOptions,
        plan_err,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    datasource::{empty::EmptyTable, provider_as_source},
    error::Result,
    execution::SessionState,
    logical_expr::{
        AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
        planner::{ContextProvider, ExprPlanner},
    },
    sql::{
        planner::{ParserOptions, SqlToRel},
        sqlparser::ast::Query,
    },
};

use crate::session::planning_state;

/// The name that a view's input has while its `SELECT` is planned.
pub(crate) const INPUT: &str = "riomar_input";

/// Plans and analyses a query over one table, [`INPUT`], of this schema.
pub(super) fn plan(query: Query, input: Schema) -> Result<LogicalPlan> {
    let state = planning_state();
    let provider = InputOnly { state, source: provider_as_source(Arc::new(EmptyTable::new(Arc::new(input)))) };
    let options = ParserOptions::from(&state.config_options().sql_parser);
    let statement = datafusion::sql::sqlparser::ast::Statement::Query(Box::new(query));
    let plan = SqlToRel::new_with_options(&provider, options).sql_statement_to_plan(statement)?;
    state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})
}

/// Drops table names: a view has one input, so a column's name says it all.
pub(super) fn unqualified(expression: Expr) -> Result<Expr> {
    expression
        .transform(|expression| {
            Ok(match expression {
                Expr::Column(column) => Transformed::yes(Expr::Column(Column::new_unqualified(column.name))),
                other => Transformed::no(other),
            })
        })
        .data()
}

/// Replaces the columns that `replacement` knows by name.
pub(super) fn replace_columns(expression: Expr, replacement: &dyn Fn(&str) -> Option<Expr>) -> Result<Expr> {
    expression
        .transform(|expression| {
            Ok(match &expression {
                Expr::Column(column) => match replacement(&column.name) {
                    Some(replaced) => Transformed::new(replaced, true, datafusion::common::tree_node::TreeNodeRecursion::Jump),
                    None => Transformed::no(expression),
                },
                _ => Transformed::no(expression),
            })
        })
        .data()
}

/// Knows the functions of a session and one table.
struct InputOnly<'a> {
    state: &'a SessionState,
    source: Arc<dyn TableSource>,
}

impl ContextProvider for InputOnly<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        if name.table() == INPUT {
            Ok(Arc::clone(&self.source))
        } else {
            plan_err!("a view reads one stream; '{name}' is another table")
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn get_variable_field(&self, _names: &[String]) -> Option<FieldRef> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}

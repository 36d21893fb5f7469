//! The gate: one read-only query over views and streams passes, everything else is refused before it is planned.
//!
//! SQL text is hostile. DataFusion on its own would write files (`COPY`), read them (external and URL tables), and overflow the
//! stack on long flat expressions; so the statement is checked against a list of what is allowed, and its length is limited.

use std::{collections::BTreeSet, ops::ControlFlow};

use datafusion::sql::sqlparser::{
    ast::{Query, SetExpr, Statement, TableFactor, Visit, Visitor},
    dialect::PostgreSqlDialect,
    parser::Parser,
    tokenizer::Tokenizer,
};

use super::error::QueryError;

/// Bytes of SQL text.
pub(super) const SQL_BYTES_MAX: usize = 64 << 10;
/// Tokens of SQL text, white space not counted: `1+1+…` grows the stack with each term.
pub(super) const SQL_TOKENS_MAX: usize = 4_000;
/// How deeply expressions and queries may be nested.
const SQL_NESTING_MAX: usize = 50;

/// A query that may be planned.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) query: Box<Query>,
    /// Every name that stands where a table may stand; common table expressions are among them.
    pub(super) relations: BTreeSet<String>,
}

/// Parses and checks SQL text.
pub(super) fn admit(sql: &str) -> Result<Admitted, QueryError> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(QueryError::TooLarge { what: "the SQL text is too long", limit_name: "sql_bytes_max", limit: SQL_BYTES_MAX });
    }
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(|error| QueryError::InvalidSql(error.to_string()))?;
    let words = tokens.iter().filter(|token| !matches!(token.token, datafusion::sql::sqlparser::tokenizer::Token::Whitespace(_)));
    if words.count() > SQL_TOKENS_MAX {
        return Err(QueryError::TooLarge { what: "the SQL text has too many tokens", limit_name: "sql_tokens_max", limit: SQL_TOKENS_MAX });
    }
    let parsed = Parser::new(&dialect).with_recursion_limit(SQL_NESTING_MAX).with_tokens_with_locations(tokens).parse_statements();
    let mut statements = parsed.map_err(|error| QueryError::InvalidSql(error.to_string()))?;
    let query = match (statements.pop(), statements.is_empty()) {
        (Some(Statement::Query(query)), true) => query,
        (Some(_), true) => return Err(QueryError::NotAllowed("only a SELECT query is allowed: nothing can be written here".to_owned())),
        (Some(_), false) => return Err(QueryError::NotAllowed("one statement at a time".to_owned())),
        (None, _) => return Err(QueryError::InvalidSql("the SQL text is empty: send a SELECT query".to_owned())),
    };
    let mut check = Check { relations: BTreeSet::new() };
    match query.visit(&mut check) {
        ControlFlow::Continue(()) => Ok(Admitted { query, relations: check.relations }),
        ControlFlow::Break(refusal) => Err(QueryError::NotAllowed(refusal)),
    }
}

/// Walks a query: collects relations, stops at what is not allowed.
struct Check {
    relations: BTreeSet<String>,
}

impl Visitor for Check {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        if !query.locks.is_empty() {
            return ControlFlow::Break("FOR UPDATE and FOR SHARE lock nothing here: leave them out".to_owned());
        }
        if query.with.as_ref().is_some_and(|with| with.recursive) {
            return ControlFlow::Break("recursive queries are not allowed: they may never end".to_owned());
        }
        match query.body.as_ref() {
            SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::SetOperation { .. } | SetExpr::Values(_) => ControlFlow::Continue(()),
            _ => ControlFlow::Break("only SELECT and VALUES are allowed: nothing can be written here".to_owned()),
        }
    }

    fn pre_visit_select(&mut self, select: &datafusion::sql::sqlparser::ast::Select) -> ControlFlow<String> {
        match select.into {
            Some(_) => ControlFlow::Break("SELECT INTO would write: leave INTO out".to_owned()),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<String> {
        match table {
            TableFactor::Table { name, args: None, .. } => {
                if let [part] = name.0.as_slice()
                    && let Some(ident) = part.as_ident()
                {
                    self.relations.insert(ident.value.clone());
                    return ControlFlow::Continue(());
                }
                ControlFlow::Break(format!("'{name}': views and streams have plain names"))
            }
            TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } => ControlFlow::Continue(()),
            other => ControlFlow::Break(format!("'{other}': table functions are not allowed in queries")),
        }
    }
}

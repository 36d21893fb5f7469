//! The gate: one read-only query over views and streams passes, everything else is refused before it is planned.
//!
//! SQL text is hostile. DataFusion on its own would write files (`COPY`), read them (external and URL tables), and overflow the
//! stack on long flat expressions; so the statement is checked against a list of what is allowed, and its length is limited.

use std::{
    collections::{BTreeSet, HashMap},
    ops::ControlFlow,
};

use datafusion::sql::sqlparser::{
    ast::{ObjectName, Query, SetExpr, Statement, TableFactor, Visit, Visitor},
    dialect::PostgreSqlDialect,
    parser::{Parser, ParserError},
    tokenizer::{Token, Tokenizer},
};

use super::error::QueryError;

/// Bytes of SQL text.
pub(super) const SQL_BYTES_MAX: usize = 64 << 10;
/// Tokens of SQL text, white space not counted: `1+1+…` grows the stack with each term.
pub(super) const SQL_TOKENS_MAX: usize = 4_000;
/// Tables that a query may read, each as often as it is read: a common table expression that is used twice is planned twice, and so
/// a few dozen of them, each used twice by the next, would be planned 2^n times.
pub(super) const SQL_RELATIONS_MAX: u64 = 256;
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
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(ParserError::from)?;
    let words = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
    let begins_with = words.clone().next().map(|token| token.token.to_string().to_ascii_uppercase()).unwrap_or_default();
    if words.count() > SQL_TOKENS_MAX {
        return Err(QueryError::TooLarge {
            what: "the SQL text has too many tokens",
            limit_name: "sql_tokens_max",
            limit: SQL_TOKENS_MAX,
        });
    }
    let parser = Parser::new(&dialect).with_recursion_limit(SQL_NESTING_MAX);
    let mut statements = parser.with_tokens_with_locations(tokens).parse_statements()?;
    let query = match (statements.pop(), statements.is_empty()) {
        (Some(Statement::Query(query)), true) => query,
        (Some(_), true) => return Err(QueryError::NotAllowed(instead_of(&begins_with))),
        (Some(_), false) => return Err(QueryError::NotAllowed("one SELECT at a time: send the others by themselves".to_owned())),
        (None, _) => return Err(QueryError::InvalidSql("the SQL text is empty: send a SELECT query".to_owned())),
    };
    let mut check = Check { relations: BTreeSet::new(), weights: HashMap::new() };
    match query.visit(&mut check) {
        ControlFlow::Continue(()) => Ok(Admitted { query, relations: check.relations }),
        ControlFlow::Break(refusal) => Err(QueryError::NotAllowed(refusal)),
    }
}

/// What to do instead of a statement that is no query.
fn instead_of(statement: &str) -> String {
    let instead = match statement {
        // A plan names files of the server, and functions that exist in no query.
        "EXPLAIN" => "send the query itself: the receipt of its answer says what it read",
        "SHOW" | "DESCRIBE" | "DESC" => "GET /v1/views and GET /v1/streams list what there is, with columns and types",
        "SET" | "RESET" => "a query has no settings: its limits stand in the configuration of the server",
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" => {
            "there are no transactions: each SELECT stands by itself, and its receipt says what it read"
        }
        "CREATE" | "DROP" | "ALTER" => "streams and views are declared in the *.sql files that the server starts with",
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "TRUNCATE" | "COPY" => {
            "nothing can be written in SQL: events are sent to POST /v1/streams/{stream}/events and never changed"
        }
        _ => return "only one SELECT over views and streams is allowed".to_owned(),
    };
    format!("{statement} is not allowed, only one SELECT over views and streams: {instead}")
}

/// Walks a query: collects relations, stops at what is not allowed.
struct Check {
    relations: BTreeSet<String>,
    /// How many tables each common table expression reads in the end.
    weights: HashMap<String, u64>,
}

impl Check {
    /// How many tables a query reads, with what its common table expressions read.
    fn weight(&self, query: &impl Visit) -> u64 {
        let mut read = Read(Vec::new());
        let _ = query.visit(&mut read);
        read.0.iter().map(|name| self.weights.get(name).copied().unwrap_or(1)).fold(1, u64::saturating_add)
    }
}

/// Collects the names of tables, as often as they are read.
struct Read(Vec<String>);

impl Visitor for Read {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        self.0.extend(name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.clone()));
        ControlFlow::Continue(())
    }
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
        for expression in query.with.iter().flat_map(|with| &with.cte_tables) {
            let weight = self.weight(&expression.query).max(self.weights.get(&expression.alias.name.value).copied().unwrap_or(0));
            self.weights.insert(expression.alias.name.value.clone(), weight);
        }
        if self.weight(&query.body) > SQL_RELATIONS_MAX {
            return ControlFlow::Break(format!(
                "the query reads more than {SQL_RELATIONS_MAX} tables, common table expressions counted each time"
            ));
        }
        match query.body.as_ref() {
            SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::SetOperation { .. } | SetExpr::Values(_) => {
                ControlFlow::Continue(())
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_query_passes_and_nothing_else() {
        for sql in ["SELECT 1", "select * from a join b using (x);", "WITH c AS (SELECT 1) SELECT * FROM c UNION ALL VALUES (2)"]
        {
            assert!(admit(sql).is_ok(), "{sql}");
        }
        for (sql, code) in [
            ("", "invalid_sql"),
            ("SELEC 1", "invalid_sql"),
            ("SELECT 1; SELECT 2", "sql_not_allowed"),
            ("COPY (SELECT 1) TO 'x.csv'", "sql_not_allowed"),
            ("SET a = 1", "sql_not_allowed"),
            ("SELECT 1 INTO t", "sql_not_allowed"),
            ("SELECT * FROM t FOR UPDATE", "sql_not_allowed"),
            ("SELECT * FROM generate_series(1, 2)", "sql_not_allowed"),
            ("SELECT * FROM a.b", "sql_not_allowed"),
            ("WITH RECURSIVE c AS (SELECT 1) SELECT * FROM c", "sql_not_allowed"),
        ] {
            assert_eq!(admit(sql).expect_err(sql).code(), code, "{sql}");
        }
    }

    #[test]
    fn what_is_no_query_is_told_what_to_do_instead() {
        for (sql, expected) in [
            ("EXPLAIN SELECT 1", "EXPLAIN is not allowed, only one SELECT over views and streams: send the query itself"),
            ("explain analyze select 1", "EXPLAIN is not allowed"),
            ("SHOW TABLES", "GET /v1/views and GET /v1/streams list"),
            ("-- tables\nSHOW ALL", "SHOW is not allowed"),
            ("DESCRIBE traffic", "GET /v1/views"),
            (
                "SET datafusion.execution.batch_size = 1",
                "SET is not allowed, only one SELECT over views and streams: a query has no settings",
            ),
            ("BEGIN", "there are no transactions"),
            ("DROP TABLE traffic", "*.sql files"),
            ("INSERT INTO traffic VALUES (1)", "POST /v1/streams/{stream}/events"),
            ("VACUUM", "only one SELECT over views and streams is allowed"),
        ] {
            let error = admit(sql).expect_err(sql);
            assert_eq!(error.code(), "sql_not_allowed", "{sql}: {error}");
            assert!(error.to_string().contains(expected), "{sql}: {error}");
        }
    }

    #[test]
    fn limits_hold_at_the_limit_and_beyond() {
        let padded = |bytes: usize| format!("SELECT 1{}", " ".repeat(bytes - 8));
        assert!(admit(&padded(SQL_BYTES_MAX)).is_ok());
        assert_eq!(admit(&padded(SQL_BYTES_MAX + 1)).expect_err("too long").code(), "query_too_large");
        // SELECT, then n numbers with n − 1 signs in between.
        let sum = |numbers: usize| format!("SELECT {}", vec!["1"; numbers].join("+"));
        assert!(admit(&sum(SQL_TOKENS_MAX / 2)).is_ok());
        assert_eq!(admit(&sum(SQL_TOKENS_MAX / 2 + 1)).expect_err("too many tokens").code(), "query_too_large");
    }

    #[test]
    fn common_table_expressions_may_not_multiply() {
        let doubling = |levels: usize| {
            let steps = (1..=levels).map(|i| format!(", c{i} AS (SELECT x FROM c{} UNION ALL SELECT x FROM c{0})", i - 1));
            format!("WITH c0 AS (SELECT 1 AS x){} SELECT count(*) FROM c{levels}", steps.collect::<String>())
        };
        assert!(admit(&doubling(5)).is_ok());
        assert_eq!(admit(&doubling(30)).expect_err("2^30 tables").code(), "sql_not_allowed");
    }
}

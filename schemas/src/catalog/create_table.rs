//! From a `CREATE TABLE` statement to a stream.

mod column_type;
mod options;

use datafusion::sql::sqlparser::{
    ast::{ColumnDef, ColumnOption, CreateTable, CreateTableOptions, Spanned, helpers::stmt_create_table::CreateTableBuilder},
    tokenizer::Location,
};

use self::options::Options;
use super::source::Source;
use crate::{
    definition::Problem,
    limits::STREAM_COLUMNS_MAX,
    name::Name,
    stream::{Column, Stream},
};

/// Names that windows give to columns of views.
const WINDOW_COLUMNS: [&str; 2] = ["window_start", "window_end"];
const FORM: &str = "a stream is written CREATE TABLE name (columns) WITH (options)";

/// Compiles a stream; finds all that is wrong with its columns, or else all that is wrong with its options.
pub(super) fn compile(table: &CreateTable, name: Name, source: &Source<'_>) -> Result<Stream, Vec<Problem>> {
    let mut problems = Vec::new();
    problems.extend(other_clause(table, source));
    let columns = columns(&table.columns, source, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let options = Options::read(&table.table_options, &columns, table.name.span().start)?;
    Ok(Stream::new(
        name,
        columns,
        options.event_time,
        options.dedup_by,
        options.dedup_epochs,
        options.dedup_ids_max,
        options.partition_by,
        options.partitions,
        source.sql.to_owned(),
    ))
}

/// The first clause that no stream has.
fn other_clause(table: &CreateTable, source: &Source<'_>) -> Option<Problem> {
    let has_options = matches!(table.table_options, CreateTableOptions::None | CreateTableOptions::With(_));
    let plain = CreateTableBuilder::new(table.name.clone()).columns(table.columns.clone()).build();
    let plain = CreateTable { table_options: table.table_options.clone(), ..plain };
    if has_options && *table == plain {
        return None;
    }
    let after_name = table.name.span().start;
    let known = [
        (table.or_replace, "OR REPLACE", "OR", source.start),
        (table.if_not_exists, "IF NOT EXISTS", "IF", source.start),
        (table.temporary, "TEMPORARY", "TABLE", source.start),
        (table.external, "EXTERNAL", "EXTERNAL", source.start),
        (table.query.is_some(), "AS SELECT", "AS", after_name),
        (table.like.is_some(), "LIKE", "LIKE", after_name),
        (table.inherits.is_some(), "INHERITS", "INHERITS", after_name),
        (table.partition_by.is_some(), "PARTITION BY", "PARTITION", after_name),
        (table.order_by.is_some(), "ORDER BY", "ORDER", after_name),
    ];
    if let Some(constraint) = table.constraints.first() {
        let text = constraint.to_string();
        let word = first_word(&text);
        return Some(refused_constraint(&text, source.word(word, after_name)));
    }
    let clause = known.into_iter().find(|(present, ..)| *present);
    Some(clause.map_or_else(
        || Problem::at(source.start, "a stream has columns and options, and no other clauses").hint(FORM),
        |(_, clause, word, from)| Problem::at(source.word(word, from), format!("a stream takes no {clause}")).hint(FORM),
    ))
}

fn columns(definitions: &[ColumnDef], source: &Source<'_>, problems: &mut Vec<Problem>) -> Vec<Column> {
    if let Some(first_over) = definitions.get(STREAM_COLUMNS_MAX) {
        let message = format!("a stream has at most {STREAM_COLUMNS_MAX} columns, this one has {}", definitions.len());
        problems.push(Problem::at(first_over.name.span.start, message));
        return Vec::new();
    }
    if definitions.is_empty() {
        problems.push(Problem::at(Location::empty(), "a stream needs columns").hint(FORM));
    }
    let mut columns: Vec<Column> = Vec::with_capacity(definitions.len());
    for definition in definitions {
        match column(definition, source) {
            Ok(column) if columns.iter().any(|other| other.name == column.name) => {
                problems.push(Problem::at(definition.name.span.start, format!("column '{}' is declared twice", column.name)));
            }
            Ok(column) => columns.push(column),
            Err(problem) => problems.push(problem),
        }
    }
    columns
}

fn column(definition: &ColumnDef, source: &Source<'_>) -> Result<Column, Problem> {
    let location = definition.name.span.start;
    let name = column_name(&definition.name.value, location)?;
    let type_location = source.behind(location);
    let column_type = column_type::compile(&definition.data_type).map_err(|refused| refused.at(type_location))?;
    let mut nullable = None;
    for option in &definition.options {
        let text = option.to_string();
        let at = source.word(first_word(&text), type_location);
        let null = match (&option.name, &option.option) {
            (None, ColumnOption::Null) => true,
            (None, ColumnOption::NotNull) => false,
            _ => return Err(refused_constraint(&text, at)),
        };
        if nullable.replace(null).is_some() {
            return Err(Problem::at(at, format!("column '{name}' says twice whether it may be null")));
        }
    }
    Ok(Column { name, column_type, not_null: nullable == Some(false) })
}

fn column_name(text: &str, location: Location) -> Result<Name, Problem> {
    let name = Name::new(text).map_err(|invalid| {
        Problem::at(location, invalid.to_string()).hint("a column is named like the event's field; others are kept in _extra")
    })?;
    if WINDOW_COLUMNS.contains(&name.as_str()) {
        return Err(Problem::at(location, format!("column name '{name}' is kept for the windows of views")));
    }
    Ok(name)
}

/// A constraint or column option that no stream has.
fn refused_constraint(text: &str, location: Location) -> Problem {
    let word = first_word(text);
    let (clause, hint) = match word {
        "PRIMARY" => ("PRIMARY KEY", "to leave out duplicates, name the column in WITH (dedup_by = '…')"),
        "UNIQUE" => ("UNIQUE", "to leave out duplicates, name the column in WITH (dedup_by = '…')"),
        "DEFAULT" => ("DEFAULT", "an absent field is null; use coalesce() in the view"),
        "CHECK" => ("CHECK", "filter in the view with WHERE"),
        "REFERENCES" | "FOREIGN" => ("foreign key", "streams stand by themselves"),
        "GENERATED" => ("GENERATED", "compute it in the view"),
        other => (other, "a column is written: name TYPE [NOT NULL]"),
    };
    Problem::at(location, format!("a stream takes no {clause}")).hint(hint)
}

fn first_word(text: &str) -> &str {
    text.split([' ', '(']).next().unwrap_or(text)
}

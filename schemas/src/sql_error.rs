//! What DataFusion says is wrong with SQL, in the words of whoever wrote it.
//!
//! DataFusion's texts name Arrow's types, its own steps of planning, and what functions and tables are called inside Riomar. None
//! of that is in the user's SQL, so none of it is in Riomar's errors.

use std::borrow::Cow;

use datafusion::{
    common::{Column, SchemaError, utils::datafusion_strsim::levenshtein},
    error::DataFusionError,
    sql::sqlparser::{parser::ParserError, tokenizer::Location},
};

use crate::view::{INPUT, STATE_PREFIX, TWIN_SUFFIX, merge::MERGE_PREFIX};

/// Columns that an error lists; a table with more is not listed.
const COLUMNS_LISTED_MAX: usize = 24;
/// Edits that a slip of the pen is away from what was meant.
const SLIP_EDITS_MAX: usize = 2;

/// Words that say where in DataFusion an error was found.
const NOISE: [&str; 8] = [
    "Error during planning: ",
    "Execution error: ",
    "This feature is not implemented: ",
    "Schema error: ",
    "Arrow error: ",
    "Internal error: ",
    "While expanding wildcard, ",
    "riomar.public.",
];
/// What is before these says the same in other words.
const PREFACES: [&str; 2] = ["coercion failed with: ", "must be in GROUP BY or an aggregate function: "];
/// Where what follows is of no use to whoever wrote the SQL.
const TAILS: [&str; 4] =
    [" No function matches the given name", ", currently only \"", " Consider aliasing", "\nThis issue was likely caused"];

/// What is wrong, without the place.
#[must_use]
pub fn message(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::SchemaError(error, _) => schema_message(error),
        DataFusionError::SQL(error, _) => syntax(error).0,
        DataFusionError::Internal(text) => plain(text),
        root => plain(&root.message()),
    }
}

/// Where it stands in the SQL, as far as DataFusion knows: line and column, counted from 1.
#[must_use]
pub fn location(error: &DataFusionError) -> Option<Location> {
    let start = error.diagnostic()?.span?.start;
    (start.line > 0).then(|| Location::new(start.line, start.column))
}

/// What does not parse, and where. The parser puts the place at the end of its message, and has none where the statement just stops.
#[must_use]
pub fn syntax(error: &ParserError) -> (String, Option<Location>) {
    let message = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => "the statement is nested too deeply",
    };
    let placed = message.rsplit_once(" at Line: ").and_then(|(text, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((text, Location::new(line.parse().ok()?, column.parse().ok()?)))
    });
    let (text, location) = placed.map_or((message, None), |(text, location)| (text, Some(location)));
    (text.replace("found: EOF", "found: the end of the statement"), location)
}

fn schema_message(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let wanted = field.flat_name();
            let columns = valid_fields.iter().filter(|column| !column.name.starts_with(STATE_PREFIX));
            let nearest =
                columns.clone().map(|column| (levenshtein(&column.name, &field.name), column)).min_by_key(|near| near.0);
            let hint = match nearest {
                Some((edits, column)) if edits <= SLIP_EDITS_MAX => format!(": did you mean '{}'?", name_like(column, field)),
                _ if (1..=COLUMNS_LISTED_MAX).contains(&columns.clone().count()) => {
                    format!(": there are {}", columns.map(|column| name_like(column, field)).collect::<Vec<_>>().join(", "))
                }
                _ => String::new(),
            };
            plain(&format!("there is no column '{wanted}'{hint}"))
        }
        SchemaError::AmbiguousReference { field } => {
            format!("several tables have a column '{0}': write table.{0}", field.name)
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            plain(&format!("the column '{name}' is there twice: give one of them another name with AS"))
        }
    }
}

/// A column as the wanted one was written: with its table or without.
fn name_like(column: &Column, wanted: &Column) -> String {
    if wanted.relation.is_some() { column.flat_name() } else { column.name.clone() }
}

/// A text of DataFusion without what only DataFusion and Riomar know.
fn plain(text: &str) -> String {
    let mut text = text.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default().to_owned();
    for preface in PREFACES {
        if let Some((_, behind)) = text.split_once(preface) {
            text = behind.to_owned();
        }
    }
    for tail in TAILS {
        text.truncate(text.find(tail).unwrap_or(text.len()));
    }
    for noise in NOISE {
        text = text.replace(noise, "");
    }
    let text = text.replace("Timestamp(µs, \"UTC\")", "TIMESTAMP").replace("count(Int64(1))", "count(*)");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    in_users_words(text.trim_end_matches(['.', ' ']))
}

/// Replaces internal names, word by word.
fn in_users_words(text: &str) -> String {
    let is_word = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | ':' | '/' | '$');
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|character| is_word(character) != is_word(first)).unwrap_or(rest.len());
        let (run, behind) = rest.split_at(end);
        rest = behind;
        if !is_word(first) {
            told.push_str(run);
            continue;
        }
        let word = run.trim_end_matches([':', '/']);
        told.push_str(&users_word(word));
        told.push_str(&run[word.len()..]);
        if word.starts_with(MERGE_PREFIX) {
            // What it is called with are columns of states.
            rest = behind_arguments(rest);
        }
    }
    told
}

/// The text behind a call's arguments.
fn behind_arguments(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return &text[at + usize::from(character == ')')..];
        }
    }
    ""
}

/// What users call the thing that has this name inside.
fn users_word(word: &str) -> Cow<'_, str> {
    let is_fingerprint = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(of) = word.strip_prefix(MERGE_PREFIX) {
        // View, fingerprint and measure; names may hold '_' themselves.
        let measure = of.split('_').scan(0, |at, part| {
            let behind = *at + part.len() + 1;
            *at = behind;
            Some((part, behind))
        });
        let measure = measure.filter(|(part, _)| is_fingerprint(part)).filter_map(|(_, behind)| of.get(behind..)).last();
        return format!("merge({})", measure.unwrap_or("…")).into();
    }
    if let Some((function, id)) = word.split_once(':')
        && id.split_once('/').is_some_and(|(fingerprint, _)| is_fingerprint(fingerprint))
    {
        return function.rsplit_once('_').map_or(function, |(function, _use)| function).into();
    }
    if let Some(state) = word.strip_prefix(STATE_PREFIX) {
        return state.split_once('_').map_or(state, |(_index, function)| function).into();
    }
    match word.strip_suffix(TWIN_SUFFIX).unwrap_or(word) {
        "concat_operator" => "||",
        INPUT => "the stream",
        "Utf8" | "LargeUtf8" | "Utf8View" => "VARCHAR",
        "Boolean" => "BOOLEAN",
        "Int32" => "INT",
        "Int64" => "BIGINT",
        "Float64" => "DOUBLE",
        "Decimal128" => "DECIMAL",
        "Date32" => "DATE",
        other => other,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_names_are_told_as_users_know_them() {
        for (text, expected) in [
            ("riomar_merge_by_hour_0123456789abcdef_p95_bytes(t._state_0_x, f(1)) failed", "merge(p95_bytes) failed"),
            ("sum_state:0123456789abcdef/12: overflow", "sum: overflow"),
            (
                "approx_distinct_finish:0123456789abcdef/0(traffic._state_3_approx_distinct)",
                "approx_distinct(traffic.approx_distinct)",
            ),
            ("table 'riomar.public.traffic$states' of riomar_input", "table 'traffic' of the stream"),
            (
                "cannot add Utf8 and Decimal128(38, 4) or Timestamp(µs, \"UTC\")",
                "cannot add VARCHAR and DECIMAL(38, 4) or TIMESTAMP",
            ),
            ("http://a/b: 10:00:00", "http://a/b: 10:00:00"),
        ] {
            assert_eq!(plain(text), expected);
        }
    }
}

//! The `WITH (…)` options of a stream.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::{
    ast::{CreateTableOptions, Expr, Spanned, SqlOption, Value},
    tokenizer::Location,
};

use crate::{
    definition::Problem,
    limits::STREAM_PARTITIONS_MAX,
    stream::{Column, ColumnType},
};

const EVENT_TIME: &str = "event_time";
const DEDUP_BY: &str = "dedup_by";
const DEDUP_EPOCHS: &str = "dedup_epochs";
const DEDUP_IDS_MAX: &str = "dedup_ids_max";
const PARTITION_BY: &str = "partition_by";
const PARTITIONS: &str = "partitions";
const KNOWN: [&str; 6] = [EVENT_TIME, DEDUP_BY, DEDUP_EPOCHS, DEDUP_IDS_MAX, PARTITION_BY, PARTITIONS];

/// The column that identifies events where `dedup_by` does not say otherwise.
const EVENT_ID: &str = "event_id";
/// The value of `dedup_by` that switches the search for duplicates off.
const NONE: &str = "none";
const DEDUP_EPOCHS_DEFAULT: u64 = 60;
const DEDUP_EPOCHS_MAX: u64 = 10_000;
/// Ids of one partition: two thirds of a gigabyte.
const DEDUP_IDS_MAX_DEFAULT: u64 = 16_000_000;
const DEDUP_IDS_MAX_MAX: u64 = 1_000_000_000;
const PARTITIONS_DEFAULT: u32 = 4;

/// Types whose values identify events and choose partitions.
const KEY_TYPES: [ColumnType; 3] = [ColumnType::Varchar, ColumnType::BigInt, ColumnType::Int];

/// What the options say, columns as indices.
#[derive(Debug)]
pub(super) struct Options {
    pub event_time: usize,
    pub dedup_by: Option<usize>,
    pub dedup_epochs: u64,
    pub dedup_ids_max: u64,
    pub partition_by: Option<usize>,
    pub partitions: u32,
}

/// The text of an option's value, and where it stands.
struct Given {
    text: String,
    location: Location,
}

impl Options {
    /// Reads the options over these columns; an option that is lacking is missed at `statement`.
    pub fn read(options: &CreateTableOptions, columns: &[Column], statement: Location) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let given = given(options, &mut problems);
        let mut keep = |problem: Problem| problems.push(problem);
        let event_time = event_time(&given, columns, statement).map_err(&mut keep).ok();
        let dedup_by = dedup_by(&given, columns, statement).map_err(&mut keep).ok();
        let dedup_epochs = number(&given, DEDUP_EPOCHS, DEDUP_EPOCHS_DEFAULT, DEDUP_EPOCHS_MAX).map_err(&mut keep).ok();
        let dedup_ids_max = number(&given, DEDUP_IDS_MAX, DEDUP_IDS_MAX_DEFAULT, DEDUP_IDS_MAX_MAX).map_err(&mut keep).ok();
        for option in [DEDUP_EPOCHS, DEDUP_IDS_MAX] {
            if let (Some(None), Some(value)) = (dedup_by, given.get(option)) {
                let problem = Problem::at(value.location, format!("{option} says nothing without dedup_by"));
                let hint = format!("name the column that identifies an event in dedup_by, or leave {option} out");
                keep(problem.hint(hint));
            }
        }
        let partition_by = match given.get(PARTITION_BY) {
            Some(value) => key_column(PARTITION_BY, value, columns).map(Some).map_err(&mut keep).ok(),
            None => dedup_by,
        };
        let partitions = number(&given, PARTITIONS, PARTITIONS_DEFAULT, STREAM_PARTITIONS_MAX).map_err(&mut keep).ok();
        match (event_time, dedup_by, dedup_epochs, dedup_ids_max, partition_by, partitions) {
            (Some(event_time), Some(dedup_by), Some(dedup_epochs), Some(dedup_ids_max), Some(partition_by), Some(partitions))
                if problems.is_empty() =>
            {
                Ok(Self { event_time, dedup_by, dedup_epochs, dedup_ids_max, partition_by, partitions })
            }
            _ => Err(problems),
        }
    }
}

/// The options as written, by name.
fn given(options: &CreateTableOptions, problems: &mut Vec<Problem>) -> BTreeMap<&'static str, Given> {
    let mut given = BTreeMap::new();
    let CreateTableOptions::With(options) = options else { return given };
    for option in options {
        let SqlOption::KeyValue { key, value } = option else {
            problems.push(Problem::at(option.span().start, "an option is written name = value"));
            continue;
        };
        let location = key.span.start;
        let Some(known) = KNOWN.into_iter().find(|known| *known == key.value) else {
            let problem = Problem::at(location, format!("'{}' is not an option of a stream", key.value));
            problems.push(problem.hint(format!("options are {}", KNOWN.join(", "))));
            continue;
        };
        let text = match value {
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => Some(text.clone()),
                Value::Number(number, _) => Some(number.to_string()),
                _ => None,
            },
            _ => None,
        };
        let Some(text) = text else {
            let problem = Problem::at(value.span().start, format!("the value of '{known}' is neither a text nor a number"));
            problems.push(problem.hint(format!("put it in quotes: {known} = '{value}'")));
            continue;
        };
        if given.insert(known, Given { text, location: value.span().start }).is_some() {
            problems.push(Problem::at(location, format!("option '{known}' is given twice")));
        }
    }
    given
}

fn event_time(given: &BTreeMap<&str, Given>, columns: &[Column], statement: Location) -> Result<usize, Problem> {
    let Some(value) = given.get(EVENT_TIME) else {
        let candidate = columns.iter().find(|column| column.column_type == ColumnType::Timestamp && column.not_null);
        let example = candidate.map_or("…", |column| column.name.as_str());
        return Err(Problem::at(statement, "a stream needs the option event_time")
            .hint(format!("name its TIMESTAMP NOT NULL column: WITH (event_time = '{example}')")));
    };
    let index = column(EVENT_TIME, value, columns)?;
    if columns[index].column_type != ColumnType::Timestamp || !columns[index].not_null {
        let message = format!("event_time names '{}', which is not TIMESTAMP NOT NULL", value.text);
        return Err(Problem::at(value.location, message).hint("every event needs its time"));
    }
    Ok(index)
}

fn dedup_by(given: &BTreeMap<&str, Given>, columns: &[Column], statement: Location) -> Result<Option<usize>, Problem> {
    match given.get(DEDUP_BY) {
        Some(value) if value.text == NONE => Ok(None),
        Some(value) => key_column(DEDUP_BY, value, columns).map(Some),
        None if columns.iter().any(|column| column.name.as_str() == EVENT_ID) => {
            let default = Given { text: EVENT_ID.to_owned(), location: statement };
            let problem = |problem: Problem| {
                problem.hint("declare it as VARCHAR, BIGINT or INT, or keep duplicates with dedup_by = 'none'")
            };
            key_column(DEDUP_BY, &default, columns).map(Some).map_err(problem)
        }
        None => Ok(None),
    }
}

/// The column that an option names.
fn column(option: &str, value: &Given, columns: &[Column]) -> Result<usize, Problem> {
    let index = columns.iter().position(|column| column.name.as_str() == value.text);
    index.ok_or_else(|| Problem::at(value.location, format!("{option} names '{}', which is not a column", value.text)))
}

/// The column that an option names, whose values must be able to be keys.
fn key_column(option: &str, value: &Given, columns: &[Column]) -> Result<usize, Problem> {
    let index = column(option, value, columns)?;
    let column_type = columns[index].column_type;
    if KEY_TYPES.contains(&column_type) {
        return Ok(index);
    }
    let message = format!("{option} names '{}', which is {column_type}", value.text);
    Err(Problem::at(value.location, message).hint("name a column of type VARCHAR, BIGINT or INT"))
}

/// A number from 1 to `max`.
fn number<N>(given: &BTreeMap<&str, Given>, option: &str, default: N, max: N) -> Result<N, Problem>
where
    N: std::str::FromStr + PartialOrd + From<u8> + std::fmt::Display,
{
    let Some(value) = given.get(option) else { return Ok(default) };
    match value.text.parse::<N>() {
        Ok(number) if number >= N::from(1) && number <= max => Ok(number),
        _ => Err(Problem::at(value.location, format!("{option} is '{}', and must be a number from 1 to {max}", value.text))),
    }
}

//! The catalog, through its front door: SQL in, streams, views or errors out.

use std::path::Path;

use super::*;
use crate::stream::{Column, ColumnType};

const STREAM: &str = "CREATE TABLE s (ts TIMESTAMP NOT NULL, event_id VARCHAR, n INT) WITH (event_time = 'ts')";
const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT window_start, count(*) AS hits
    FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start";

/// The errors of one file, one a line.
fn errors(files: &[(&str, &str)]) -> String {
    match Catalog::parse(files.iter().copied()) {
        Ok(_) => "accepted".to_owned(),
        Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[track_caller]
fn check(sql: &str, expected: &str) {
    assert_eq!(errors(&[("f.sql", sql)]), expected, "{sql}");
}

/// `expected` for columns put into an otherwise valid stream: `x` stands at line 2, column 3.
#[track_caller]
fn check_columns(columns: &str, expected: &str) {
    check(&format!("CREATE TABLE s (ts TIMESTAMP NOT NULL,\n  {columns}) WITH (event_time = 'ts')"), expected);
}

/// `expected` for options of an otherwise valid stream: they begin at line 2, column 3.
#[track_caller]
fn check_options(options: &str, expected: &str) {
    let columns = "ts TIMESTAMP NOT NULL, late TIMESTAMP, event_id VARCHAR, n BIGINT, d DOUBLE";
    check(&format!("CREATE TABLE s ({columns}) WITH (\n  {options})"), expected);
}

fn stream(sql: &str) -> Arc<Stream> {
    let catalog = Catalog::parse([("f.sql", sql)]).expect("valid");
    Arc::clone(catalog.streams().next().expect("one stream"))
}

#[test]
fn a_stream_is_what_its_statement_says() {
    let sql = "CREATE TABLE everything (
        event_id BIGINT NOT NULL, a VARCHAR, b TEXT NULL, c STRING, d BOOLEAN, e INT, f INTEGER, g DOUBLE, h DOUBLE PRECISION,
        i DECIMAL(18,2), j NUMERIC(5), k TIMESTAMP NOT NULL, l DATE, m JSON
    ) WITH (event_time = 'k', partition_by = 'e', partitions = '7', dedup_epochs = 3,
        dedup_ids_max = 9)";
    let stream = stream(&format!("-- a comment with a ; in it\n{sql} ;\n"));
    let types: Vec<_> = stream.columns.iter().map(|column| column.column_type.to_string()).collect();
    let expected = "BIGINT VARCHAR VARCHAR VARCHAR BOOLEAN INT INT DOUBLE DOUBLE DECIMAL(18,2) DECIMAL(5,0) TIMESTAMP DATE JSON";
    assert_eq!(types.join(" "), expected);
    let not_null: Vec<_> = stream.columns.iter().filter(|column| column.not_null).map(|column| column.name.as_str()).collect();
    assert_eq!(not_null, ["event_id", "k"]);
    assert_eq!((stream.event_time, stream.dedup_by, stream.partition_by), (11, Some(0), Some(5)));
    assert_eq!((stream.dedup_epochs, stream.dedup_ids_max, stream.partitions), (3, 9, 7));
    assert_eq!(stream.sql, sql);
}

#[test]
fn options_have_defaults() {
    let with_id = stream(STREAM);
    assert_eq!((with_id.dedup_by, with_id.dedup_epochs, with_id.partition_by, with_id.partitions), (Some(1), 60, Some(1), 4));
    assert_eq!(with_id.dedup_ids_max, 16_000_000);
    let without_id = stream("CREATE TABLE s (ts TIMESTAMP NOT NULL, n INT) WITH (event_time = 'ts')");
    assert_eq!((without_id.dedup_by, without_id.partition_by), (None, None));
    let off = stream("CREATE TABLE s (ts TIMESTAMP NOT NULL, event_id INT) WITH (event_time = 'ts', dedup_by = 'none')");
    assert_eq!((off.dedup_by, off.partition_by), (None, None));
    let other = stream("CREATE TABLE s (ts TIMESTAMP NOT NULL, event_id INT, n INT) WITH (event_time = 'ts', dedup_by = 'n')");
    assert_eq!((other.dedup_by, other.partition_by), (Some(2), Some(2)));
}

#[test]
fn options_are_checked() {
    let names = "options are event_time, dedup_by, dedup_epochs, dedup_ids_max, partition_by, partitions";
    check_options("event_time = 'ts'", "accepted");
    check_options("event_time = 'ts', kind = 'x'", &format!("f.sql:2:22: 'kind' is not an option of a stream ({names})"));
    check_options("event_time = 'ts', event_time = 'ts'", "f.sql:2:22: option 'event_time' is given twice");
    check_options(
        "event_time = ts",
        "f.sql:1:14: a stream needs the option event_time (name its TIMESTAMP NOT NULL column: WITH (event_time = 'ts'))\n\
         f.sql:2:16: the value of 'event_time' is neither a text nor a number (put it in quotes: event_time = 'ts')",
    );
    check_options("event_time = 'time'", "f.sql:2:16: event_time names 'time', which is not a column");
    for column in ["late", "n"] {
        let expected = "which is not TIMESTAMP NOT NULL (every event needs its time)";
        check_options(&format!("event_time = '{column}'"), &format!("f.sql:2:16: event_time names '{column}', {expected}"));
    }
    let keys = "(name a column of type VARCHAR, BIGINT or INT)";
    check_options("event_time = 'ts', dedup_by = 'd'", &format!("f.sql:2:33: dedup_by names 'd', which is DOUBLE {keys}"));
    check_options(
        "event_time = 'ts', partition_by = 'ts'",
        &format!("f.sql:2:37: partition_by names 'ts', which is TIMESTAMP {keys}"),
    );
    check_options("event_time = 'ts', partition_by = 'none'", "f.sql:2:37: partition_by names 'none', which is not a column");
    for partitions in ["0", "1025", "'many'"] {
        let text = partitions.trim_matches('\'');
        let expected = format!("f.sql:2:35: partitions is '{text}', and must be a number from 1 to 1024");
        check_options(&format!("event_time = 'ts', partitions = {partitions}"), &expected);
    }
    let epochs = "f.sql:2:37: dedup_epochs is '10001', and must be a number from 1 to 10000";
    check_options("event_time = 'ts', dedup_epochs = 10001", epochs);
    check_options("event_time = 'ts', dedup_ids_max = 1000000000", "accepted");
    let ids = "f.sql:2:38: dedup_ids_max is '1000000001', and must be a number from 1 to 1000000000";
    check_options("event_time = 'ts', dedup_ids_max = 1000000001", ids);
    check_options(
        "event_time = 'ts', dedup_by = 'none', dedup_ids_max = 5",
        "f.sql:2:57: dedup_ids_max says nothing without dedup_by \
         (name the column that identifies an event in dedup_by, or leave dedup_ids_max out)",
    );
    check_options(
        "event_time = 'ts', dedup_by = 'none', dedup_epochs = 5",
        "f.sql:2:56: dedup_epochs says nothing without dedup_by \
         (name the column that identifies an event in dedup_by, or leave dedup_epochs out)",
    );
    check(
        "CREATE TABLE s (event_id JSON, ts TIMESTAMP NOT NULL) WITH (event_time = 'ts')",
        "f.sql:1:14: dedup_by names 'event_id', which is JSON \
         (declare it as VARCHAR, BIGINT or INT, or keep duplicates with dedup_by = 'none')",
    );
    check(
        "CREATE TABLE s (at TIMESTAMP NOT NULL)",
        "f.sql:1:14: a stream needs the option event_time (name its TIMESTAMP NOT NULL column: WITH (event_time = 'at'))",
    );
}

#[test]
fn columns_are_checked() {
    check_columns("x VARCHAR NULL", "accepted");
    let twice = "(to leave out duplicates, name the column in WITH (dedup_by = '…'))";
    check_columns("x INT PRIMARY KEY", &format!("f.sql:2:9: a stream takes no PRIMARY KEY {twice}"));
    check_columns("x INT NOT NULL UNIQUE", &format!("f.sql:2:18: a stream takes no UNIQUE {twice}"));
    check_columns("x INT, PRIMARY KEY (x)", &format!("f.sql:2:10: a stream takes no PRIMARY KEY {twice}"));
    check_columns(
        "x INT DEFAULT 5",
        "f.sql:2:9: a stream takes no DEFAULT (an absent field is null; use coalesce() in the view)",
    );
    check_columns("x INT CHECK (x > 5)", "f.sql:2:9: a stream takes no CHECK (filter in the view with WHERE)");
    check_columns("x INT REFERENCES t (x)", "f.sql:2:9: a stream takes no foreign key (streams stand by themselves)");
    check_columns("x INT NULL NOT NULL", "f.sql:2:14: column 'x' says twice whether it may be null");
    check_columns("x INT, y INT, x BIGINT", "f.sql:2:17: column 'x' is declared twice");
    for name in ["window_start", "window_end"] {
        check_columns(&format!("{name} INT"), &format!("f.sql:2:3: column name '{name}' is kept for the windows of views"));
    }
    for name in ["_offset", "\"X\"", "userId", "\"a b\""] {
        let expected = format!(
            "f.sql:2:3: '{}' is not a valid name: use a lower-case letter, then letters, digits or '_', 64 bytes at the most \
             (a column is named like the event's field; others are kept in _extra)",
            name.trim_matches('"')
        );
        check_columns(&format!("{name} INT"), &expected);
    }
    let many: Vec<_> = (0..512).map(|i| format!("c{i} INT")).collect();
    check_columns(&many[..511].join(", "), "accepted");
    let column = 3 + many[..511].join(", ").len() + 2;
    check_columns(&many.join(", "), &format!("f.sql:2:{column}: a stream has at most 512 columns, this one has 513"));
}

#[test]
fn types_are_checked() {
    for (refused, shown, hint) in [
        ("VARCHAR(10)", "VARCHAR(10)", "use VARCHAR; its length is not limited"),
        ("UUID", "UUID", "use VARCHAR; its length is not limited"),
        ("BOOL", "BOOL", "use BOOLEAN"),
        ("SMALLINT", "SMALLINT", "use INT"),
        ("REAL", "REAL", "use DOUBLE"),
        ("TIMESTAMPTZ", "TIMESTAMPTZ", "use TIMESTAMP; every moment is kept in UTC, to the microsecond"),
        (
            "TIMESTAMP WITH TIME ZONE",
            "TIMESTAMP WITH TIME ZONE",
            "use TIMESTAMP; every moment is kept in UTC, to the microsecond",
        ),
        ("JSONB", "JSONB", "use JSON"),
        ("INT[]", "INT[]", "use JSON"),
        ("BYTEA", "BYTEA", "types are VARCHAR, BOOLEAN, INT, BIGINT, DOUBLE, DECIMAL(p,s), TIMESTAMP, DATE and JSON"),
    ] {
        check_columns(&format!("x {refused}"), &format!("f.sql:2:5: type {shown} is not supported ({hint})"));
    }
    check_columns("x DECIMAL(38,38)", "accepted");
    check_columns(
        "x NUMERIC",
        "f.sql:2:5: DECIMAL needs its number of digits (such as DECIMAL(18,2): 18 digits, 2 of them behind the point)",
    );
    for digits in ["(39,2)", "(0)", "(2,3)", "(5,-1)", "(300)"] {
        let hint = "it has 1 to 38 digits, and no more behind the point than in all";
        let shown = digits.replace(", ", ",");
        check_columns(&format!("x DECIMAL{digits}"), &format!("f.sql:2:5: DECIMAL{shown} is not supported ({hint})"));
    }
}

#[test]
fn other_clauses_and_statements_are_refused() {
    let form = "(a stream is written CREATE TABLE name (columns) WITH (options))";
    let rest = "(ts TIMESTAMP NOT NULL) WITH (event_time = 'ts')";
    check(&format!("CREATE TABLE IF NOT EXISTS s {rest}"), &format!("f.sql:1:14: a stream takes no IF NOT EXISTS {form}"));
    check(&format!("CREATE OR REPLACE TABLE s {rest}"), &format!("f.sql:1:8: a stream takes no OR REPLACE {form}"));
    check(&format!("CREATE TEMPORARY TABLE s {rest}"), &format!("f.sql:1:18: a stream takes no TEMPORARY {form}"));
    check(&format!("CREATE TABLE s {rest} AS SELECT 1"), &format!("f.sql:1:65: a stream takes no AS SELECT {form}"));
    check(
        &format!("CREATE TABLE s {rest} ON COMMIT DROP"),
        &format!("f.sql:1:1: a stream has columns and options, and no other clauses {form}"),
    );
    check("CREATE TABLE s", &format!("f.sql:1:1: a stream needs columns {form}"));
    let statement = "this statement defines neither a stream nor a view \
        (write CREATE TABLE … WITH (…) or CREATE MATERIALIZED VIEW … AS SELECT …)";
    for sql in ["SELECT 1", "DROP TABLE s", "INSERT INTO s VALUES (1)", "COPY s FROM '/etc/passwd'", "CREATE SCHEMA x"] {
        check(&format!("\n  {sql}"), &format!("f.sql:2:3: {statement}"));
    }
    check("CREATE VIEW v AS SELECT 1", "f.sql:1:1: a view must be materialized (write CREATE MATERIALIZED VIEW)");
}

#[test]
fn syntax_errors_have_their_place_and_hide_nothing() {
    check("CREATE TABLE s (ts TIMESTAMP,\n  é 'x')", "f.sql:2:5: Expected: a data type name, found: 'x'");
    check(
        "CREATE TABLE s (ts TIMESTAMP",
        "f.sql:1:29: Expected: ',' or ')' after column definition, found: the end of the statement",
    );
    check("CREATE TABLE s (ts TIMESTAMP); 'open", "f.sql:1:32: Unterminated string literal");
    check("CREATE MATERIALIZED VIEW v AS SELECT 1 2", "f.sql:1:40: Expected: end of statement, found: 2");
    let deep = format!("CREATE MATERIALIZED VIEW v AS SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    check(&deep, "f.sql:1:1: the statement is nested too deeply");
    let files = [("b.sql", "DROP TABLE x;\nCREATE TABLE;\n;;SELECT 1"), ("a.sql", "FOO"), ("empty.sql", " -- nothing\n;")];
    let found = errors(&files);
    let places: Vec<_> = found.lines().map(|line| line.split_once(": ").expect("a place").0).collect();
    assert_eq!(places, ["a.sql:1:1", "b.sql:1:1", "b.sql:2:13", "b.sql:3:3"], "{found}");
}

#[test]
fn names_are_checked_and_unique() {
    let longest = "s".repeat(48);
    let with_name = |name: &str| STREAM.replace("TABLE s ", &format!("TABLE {name} "));
    check(&with_name(&longest), "accepted");
    check(&with_name(&format!("{longest}s")), &format!("f.sql:1:14: '{longest}s' is longer than 48 bytes"));
    check(&with_name("s__quarantine"), "f.sql:1:14: 's__quarantine' ends in '__quarantine', which is kept for quarantines");
    check(&with_name("public.s"), "f.sql:1:14: 'public.s' is not a single name (leave out database and schema)");
    let invalid = "is not a valid name: use a lower-case letter, then letters, digits or '_', 64 bytes at the most";
    check(&with_name("PageViews"), &format!("f.sql:1:14: 'PageViews' {invalid}"));
    let hint = "(streams and views share their names: choose another one)";
    assert_eq!(
        errors(&[("a.sql", STREAM), ("b.sql", STREAM)]),
        format!("b.sql:1:14: 's' is already defined at a.sql:1:14 {hint}")
    );
    let view_s = VIEW.replace("VIEW v ", "VIEW s ");
    // Streams come first wherever they stand.
    assert_eq!(
        errors(&[("a.sql", &view_s), ("b.sql", STREAM)]),
        format!("a.sql:1:26: 's' is already defined at b.sql:1:14 {hint}")
    );
    let twice = format!("{STREAM};\n{VIEW};\n{VIEW}");
    check(&twice, &format!("f.sql:4:26: 'v' is already defined at f.sql:2:26 {hint}"));
}

#[test]
fn views_do_not_depend_on_the_order_of_files() {
    for files in [[("a.sql", VIEW), ("b.sql", STREAM)], [("b.sql", STREAM), ("a.sql", VIEW)]] {
        let catalog = Catalog::parse(files).expect("valid");
        let stream = Name::new("s").expect("valid");
        assert_eq!(catalog.views_of(&stream).map(|view| view.name().as_str()).collect::<Vec<_>>(), ["v"]);
        assert_eq!(catalog.view("v").expect("declared").sql(), VIEW);
        assert!(catalog.stream("v").is_none() && catalog.view("s").is_none() && catalog.stream("No name!").is_none());
    }
}

#[test]
fn a_view_is_not_blamed_for_its_refused_stream() {
    let refused = STREAM.replace("'ts'", "'at'");
    check(&format!("{refused};\n{VIEW}"), "f.sql:1:84: event_time names 'at', which is not a column");
    let found = errors(&[("f.sql", VIEW)]);
    assert!(found.contains("f.sql:2:17: there is no stream 's'"), "{found}");
}

#[test]
fn the_sample_definitions_load() {
    let catalog = Catalog::load(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(catalog.streams().map(|stream| stream.name.as_str()).collect::<Vec<_>>(), ["page_views"]);
    let views: Vec<_> = catalog.views().map(|view| view.name().as_str()).collect();
    assert_eq!(views, ["errors_by_minute", "traffic_by_minute", "visitors_by_hour"]);
    let stream = catalog.stream("page_views").expect("declared");
    assert_eq!(
        stream.columns[stream.event_time],
        Column { name: Name::new("ts").expect("valid"), column_type: ColumnType::Timestamp, not_null: true }
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    let missing = Catalog::load(Path::new("/nowhere/at/all")).expect_err("missing");
    assert!(missing[0].to_string().starts_with("/nowhere/at/all: cannot be read: "), "{missing:?}");
    let large = " ".repeat((1 << 20) + 1);
    assert_eq!(errors(&[("f.sql", &large[1..])]), "accepted");
    assert_eq!(errors(&[("f.sql", &large)]), "f.sql: cannot be read: it is larger than 1048576 bytes");
}

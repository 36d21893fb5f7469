//! C3 in one place: an answer equals the view's SQL over exactly the events before its receipt's positions.

use crate::{
    answer::Answer,
    catalog::RollUp,
    client::Client,
    oracle::{LogPartition, OracleView, compare, evaluate, kept},
};

/// How a view is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Ask {
    /// `POST /v1/sql`.
    Sql,
    /// `GET /v1/views/{view}/rows`.
    Rows,
}

/// Asks for all of a view. The log may be read after the answer: what is behind the receipt's positions does not count.
///
/// # Errors
/// No answer.
pub async fn ask(client: &Client, view: &str, ask: Ask) -> Result<Answer, String> {
    match ask {
        Ask::Sql => client.sql(&format!("SELECT * FROM {view}")).await.answer(),
        Ask::Rows => client.rows(view).await.answer(),
    }
}

/// Holds an answer against the log.
///
/// # Errors
/// The differences in words.
pub fn check_answer(view: &OracleView, of: &str, answer: &Answer, log: &[LogPartition]) -> Result<(), String> {
    let through = answer.through(of, log.len());
    let rows = kept(view.stream, log, &through);
    let expected = evaluate(view, &rows).map_err(|error| format!("the oracle's SQL: {error}"))?;
    let context = || {
        let ends: Vec<_> = log.iter().map(|partition| partition.records.len()).collect();
        format!("{} through {through:?} of {ends:?}, receipt {:?}", view.name, answer.receipt)
    };
    compare(view, &expected, answer).map_err(|differences| format!("{}: {differences}", context()))
}

/// Asks for a view and holds the answer against the log, which `read_log` reads after the answer.
///
/// # Errors
/// No answer, or the differences in words.
pub async fn check_view(
    client: &Client,
    view: &OracleView,
    how: Ask,
    read_log: impl AsyncFnOnce() -> Vec<LogPartition>,
) -> Result<Answer, String> {
    let answer = ask(client, view.name, how).await.map_err(|error| format!("{}: {error}", view.name))?;
    check_answer(view, view.name, &answer, &read_log().await)?;
    Ok(answer)
}

/// Asks for a roll-up and holds the answer against the log.
///
/// # Errors
/// No answer, or the differences in words.
pub async fn check_roll_up(
    client: &Client,
    roll_up: &RollUp,
    read_log: impl AsyncFnOnce() -> Vec<LogPartition>,
) -> Result<(), String> {
    let answer = client.sql(roll_up.sql).await.answer().map_err(|error| format!("{}: {error}", roll_up.sql))?;
    check_answer(&roll_up.equals, roll_up.of, &answer, &read_log().await)
}

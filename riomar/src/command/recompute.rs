//! `riomar recompute [VIEW…] [--full]`: starts a run and follows it to its end.

use std::{sync::Arc, time::Duration};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use riomar_batch_layer::runs::{RunState, ViewOutcome, ViewResult};
use riomar_event_log::Clock;
use serde::Deserialize;
use serde_json::json;

use super::{CommandError, Outcome};
use crate::{
    cli::ClientArgs,
    client::{Answer, Client, ClientError},
    output,
};

/// How often the run is asked for.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Answers in a row that may fail to come before following ends. The run itself goes on.
const FAILURES_MAX: u32 = 10;

/// Arguments of `recompute`.
#[derive(Debug, Args)]
pub struct RecomputeArgs {
    /// The views; all where none is named
    #[arg(value_name = "VIEW")]
    pub views: Vec<String>,
    /// Compute every state afresh from the master dataset, instead of adding what is new
    #[arg(long)]
    pub full: bool,
    /// Where the platform is, and how to print.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// A run as the platform tells of it, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Run {
    id: String,
    views: Vec<String>,
    state: RunState,
    view: Option<String>,
    rows_total: u64,
    rows_read: u64,
    results: Vec<ViewResult>,
    error: Option<String>,
}

/// Runs `recompute`.
///
/// # Errors
/// A view that does not exist, a run that is in progress already, or a platform that does not answer.
pub async fn run(args: RecomputeArgs, clock: Arc<dyn Clock>) -> Result<Outcome, CommandError> {
    let client = args.client.client()?;
    let started = client.post(&["v1", "batch", "runs"], &json!({ "views": args.views, "full": args.full })).await?;
    let started: Run = started.read()?;
    let (run, answer) = follow(&client, &started, &*clock).await?;
    if args.client.json {
        output::print(&format!("{}\n", answer.text.trim_end()))?;
    } else {
        let headings = ["view", "outcome", "generation", "cut", "groups", "rows read", "took"];
        output::print(&output::table(&headings, &[2, 3, 4, 5, 6], run.results.iter().map(row)))?;
    }
    if run.state == RunState::Done {
        return Ok(Outcome::Done);
    }
    output::note(&output::printable(run.error.as_deref().unwrap_or("the run failed")));
    output::note(match run.state {
        RunState::Unknown => "`riomar status` shows which generations serve; `riomar recompute` starts another run",
        _ => "the generations before keep serving",
    });
    Ok(Outcome::Incomplete)
}

/// Asks for a run until it is through, and shows how far it is.
async fn follow(client: &Client, started: &Run, clock: &dyn Clock) -> Result<(Run, Answer), CommandError> {
    let bar = ProgressBar::no_length();
    let mut failures = 0;
    let outcome = loop {
        match client.get(&["v1", "batch", "runs", &started.id], &[]).await {
            Ok(answer) => {
                failures = 0;
                let run: Run = answer.read()?;
                show(&bar, &run);
                if run.state.is_final() || run.state == RunState::Unknown {
                    break Ok((run, answer));
                }
            }
            Err(error) if error.retry().is_some() && failures < FAILURES_MAX => failures += 1,
            Err(error) => break Err(lost(started, error)),
        }
        clock.sleep(ASK_EVERY).await;
    };
    bar.finish_and_clear();
    outcome
}

/// Why a run that was accepted cannot be followed any more, and what is known of it.
fn lost(started: &Run, error: ClientError) -> CommandError {
    let id = output::printable(&started.id);
    let known = "what it has published stays, and otherwise the generations before keep serving. `riomar status` shows which generations \
                 serve; `riomar recompute` starts another run";
    CommandError::Other(match &error {
        ClientError::Refused(problem) if problem.status == 404 => {
            format!(
                "run {id} was accepted, and is not known any more: its process was probably started again, which ends its runs; {known}"
            )
        }
        error => format!("run {id} was accepted, and cannot be followed ({error}). It may go on; {known}"),
    })
}

fn show(bar: &ProgressBar, run: &Run) {
    let what = match run.state {
        RunState::Queued => "queued".to_owned(),
        RunState::Cutting => "cutting the log".to_owned(),
        RunState::Landing => "waiting until landing has passed the cut".to_owned(),
        RunState::Folding | RunState::Publishing => run.view.clone().unwrap_or_default(),
        RunState::Done | RunState::Failed | RunState::Unknown => String::new(),
    };
    let template = if run.rows_total > 0 { "{bar:30} {human_pos}/{human_len} rows  {msg}" } else { "{spinner} {msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar.set_length(run.rows_total);
    bar.set_position(run.rows_read.min(run.rows_total));
    bar.set_message(format!("{what}  ({} of {} views done)", run.results.len(), run.views.len()));
}

fn row(result: &ViewResult) -> Vec<String> {
    let (outcome, numbers) = match &result.outcome {
        ViewOutcome::Published { generation, groups, full, rows } => {
            let how = if *full { "published, computed afresh" } else { "published" };
            (how.to_owned(), [*generation, *groups, *rows].map(output::grouped))
        }
        ViewOutcome::LostRace => ("another run published first".to_owned(), Default::default()),
        ViewOutcome::UpToDate => ("was up to date".to_owned(), Default::default()),
        ViewOutcome::Failed { .. } => ("failed".to_owned(), Default::default()),
    };
    let [generation, groups, rows] = numbers;
    vec![result.view.to_string(), outcome, generation, result.cut.to_string(), groups, rows, output::duration_ms(result.took_ms)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_read_well() {
        let text = r#"[{"view":"v","outcome":{"published":{"generation":3,"groups":1200,"full":true,"rows":5000}},"cut":4,"took_ms":1500},
            {"view":"w","outcome":"up_to_date","cut":4,"took_ms":2}]"#;
        let results: Vec<ViewResult> = serde_json::from_str(text).expect("results");
        assert_eq!(row(&results[0]), ["v", "published, computed afresh", "3", "4", "1,200", "5,000", "1.5 s"]);
        assert_eq!(row(&results[1]), ["w", "was up to date", "", "4", "", "", "2 ms"]);
    }

    /// A platform that gives these answers, one after the other, and the rest of what it was asked.
    async fn platform(answers: Vec<(&'static str, String)>) -> (String, tokio::task::JoinHandle<usize>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let serving = tokio::spawn(async move {
            let mut asked = 0;
            for (status, body) in answers {
                let (mut connection, _) = listener.accept().await.expect("a connection");
                let mut head = [0; 4096];
                assert!(connection.read(&mut head).await.expect("a request") > 0);
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                connection.write_all((head + &body).as_bytes()).await.expect("answered");
                asked += 1;
            }
            asked
        });
        (url, serving)
    }

    fn told(state: &str, error: Option<&str>) -> String {
        let run = json!({"id": "7", "views": ["v"], "state": state, "view": null, "rows_total": 0, "rows_read": 0, "results": [],
            "error": error});
        run.to_string()
    }

    #[tokio::test]
    async fn a_run_that_nobody_knows_of_any_more_is_told_of_as_far_as_it_is_known() {
        let clock: Arc<dyn Clock> = Arc::new(riomar_event_log::SystemClock);
        let args = |url: String| RecomputeArgs { views: Vec::new(), full: false, client: ClientArgs { url, json: false } };
        let unknown = json!({"status": 404, "code": "unknown_run", "title": "Unknown run", "detail": "there is no run 7"});
        let answers = vec![
            ("202 Accepted", told("queued", None)),
            ("200 OK", told("landing", None)),
            ("404 Not Found", unknown.to_string()),
        ];
        let (url, serving) = platform(answers).await;
        let error = run(args(url), clock.clone()).await.expect_err("it is lost").to_string();
        assert!(error.contains("run 7 was accepted, and is not known any more") && error.contains("riomar status"), "{error}");
        assert_eq!(serving.await.expect("served"), 3);
        // A run whose process is silent is not waited for.
        let answers = vec![("202 Accepted", told("queued", None)), ("200 OK", told("unknown", Some("nothing is heard")))];
        let (url, serving) = platform(answers).await;
        assert_eq!(run(args(url), clock).await.expect("told"), Outcome::Incomplete);
        assert_eq!(serving.await.expect("served"), 2);
    }
}

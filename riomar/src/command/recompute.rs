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
    client::{Answer, Client},
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
    output::note("the generations before keep serving");
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
                if run.state.is_final() {
                    break Ok((run, answer));
                }
            }
            Err(error) if error.retry().is_some() && failures < FAILURES_MAX => failures += 1,
            Err(error) => break Err(error.into()),
        }
        clock.sleep(ASK_EVERY).await;
    };
    bar.finish_and_clear();
    outcome
}

fn show(bar: &ProgressBar, run: &Run) {
    let what = match run.state {
        RunState::Queued => "queued".to_owned(),
        RunState::Cutting => "cutting the log".to_owned(),
        RunState::Landing => "waiting until landing has passed the cut".to_owned(),
        RunState::Folding | RunState::Publishing => run.view.clone().unwrap_or_default(),
        RunState::Done | RunState::Failed => String::new(),
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
}

//! `riomar accept-loss STREAM`: lets landing go on behind records that the log lost before they landed, once a person has said so.

use std::io::{self, BufRead, IsTerminal};

use clap::Args;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::{CommandError, Outcome};
use crate::{cli::ClientArgs, output};

/// What is to be typed.
const YES: &str = "yes";

/// Arguments of `accept-loss`.
#[derive(Debug, Args)]
pub struct AcceptLossArgs {
    /// The stream
    pub stream: String,
    /// Accept what this partition lost; without it, what every partition lost
    #[arg(long, value_name = "NUMBER")]
    pub partition: Option<u32>,
    /// Accept without asking
    #[arg(long)]
    pub yes: bool,
    /// Where the platform is, and how to print.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What a stream has lost, as the platform tells it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Losses {
    /// What landing waits for.
    pub waiting: Vec<Lost>,
    /// What was accepted.
    pub accepted: Vec<Lost>,
}

/// Offsets of a partition that are lost.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Lost {
    /// The partition.
    pub partition: u32,
    /// The first of them.
    pub from: u64,
    /// The first one behind them.
    pub to: u64,
    /// Their number.
    pub offsets: u64,
    /// When the loss was accepted; nothing where it was not.
    pub accepted_at: String,
}

/// Runs `accept-loss`; incomplete where somebody has yet to say yes, or where more was lost meanwhile.
///
/// # Errors
/// A stream that does not exist, a platform that does not answer or has another role, or a loss that is another one by now.
pub async fn run(args: AcceptLossArgs) -> Result<Outcome, CommandError> {
    let client = args.client.client()?;
    let path = ["v1", "streams", &args.stream, "losses"];
    let answer = client.get(&path, &[]).await?;
    let mut losses: Losses = answer.read()?;
    losses.waiting.retain(|lost| args.partition.is_none_or(|partition| lost.partition == partition));
    if losses.waiting.is_empty() {
        let text = if args.client.json { answer.text.trim_end().to_owned() } else { format!("nothing of {} waits", args.stream) };
        output::print(&format!("{text}\n"))?;
        return Ok(Outcome::Done);
    }
    if !args.client.json {
        output::print(&table(&losses.waiting))?;
        output::note(
            "The log let go of these offsets before they landed. Once that is accepted, no answer counts their events any more, and they \
             cannot be had back. Where the producers still have them, they can be sent again.",
        );
    }
    if !args.yes && !confirmed().await? {
        output::note("nothing was accepted");
        return Ok(Outcome::Incomplete);
    }
    let ranges: Vec<_> =
        losses.waiting.iter().map(|lost| json!({"partition": lost.partition, "from": lost.from, "to": lost.to})).collect();
    let answer = client.post(&path, &json!({ "accept": ranges })).await?;
    let left: Losses = answer.read()?;
    if args.client.json {
        output::print(&format!("{}\n", answer.text.trim_end()))?;
    } else {
        output::print("accepted: the stream lands on within seconds, and the next run publishes generations again\n")?;
    }
    if left.waiting.is_empty() {
        return Ok(Outcome::Done);
    }
    output::note(&format!("more is lost: {}", left.waiting.iter().map(Lost::told).collect::<Vec<_>>().join("; ")));
    Ok(Outcome::Incomplete)
}

/// Asks a person, where there is one.
async fn confirmed() -> Result<bool, CommandError> {
    if !io::stdin().is_terminal() {
        output::note("nobody is there to be asked: repeat the command with --yes");
        return Ok(false);
    }
    output::note(&format!("Type {YES} to accept the loss:"));
    let (send, answer) = oneshot::channel();
    // A thread that nobody waits for, so that Ctrl-C ends the command while it reads.
    std::thread::Builder::new().name("question".to_owned()).spawn(move || {
        let mut line = String::new();
        let _ = send.send(io::stdin().lock().read_line(&mut line).map(|_| line));
    })?;
    let line = answer.await.map_err(|_| CommandError::Other("the answer could not be read".to_owned()))??;
    Ok(line.trim() == YES)
}

fn table(lost: &[Lost]) -> String {
    let row =
        |lost: &Lost| vec![lost.partition.to_string(), lost.from.to_string(), lost.to.to_string(), output::grouped(lost.offsets)];
    output::table(&["partition", "from offset", "up to, without", "offsets"], &[0, 1, 2, 3], lost.iter().map(row))
}

impl Lost {
    /// In words.
    #[must_use]
    pub fn told(&self) -> String {
        format!("offsets {} to {} of partition {}", self.from, self.to, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_shown_before_it_is_accepted() {
        let text = r#"{"waiting":[{"partition":3,"from":1000,"to":2500,"offsets":1500}],
            "accepted":[{"partition":0,"from":1,"to":2,"offsets":1,"epoch":9,"accepted_at":"2026-11-20T10:00:00.000Z"}]}"#;
        let losses: Losses = serde_json::from_str(text).expect("losses");
        let shown = table(&losses.waiting);
        for part in ["3", "1000", "2500", "1,500"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert_eq!(losses.waiting[0].told(), "offsets 1000 to 2500 of partition 3");
        assert_eq!(losses.accepted[0].accepted_at, "2026-11-20T10:00:00.000Z");
    }
}

//! `riomar status`: whether the platform is ready, every process, every stream's account, and every view's generation, lag and audits.

mod processes;

use std::{collections::BTreeMap, fmt::Write as _};

use clap::Args;
use riomar_schemas::Receipt;
use serde::Deserialize;
use serde_json::value::RawValue;

use self::processes::Processes;
use super::{
    CommandError, Outcome,
    accept_loss::{Losses, Lost},
    audit::names,
};
use crate::{
    cli::ClientArgs,
    client::{Answer, Client, ClientError},
    output,
};

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where the platform is, and how to print.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What the platform depends on, and whether that is there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Readiness {
    status: String,
    checks: Vec<Check>,
}

/// One thing that the platform depends on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Check {
    name: String,
    ok: bool,
    detail: String,
}

/// A stream as the platform describes it, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct StreamStatus {
    /// Its name.
    pub name: String,
    /// Its account.
    pub account: Account,
    /// What the log lost before it landed.
    pub losses: Losses,
}

/// What was received, and what became of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Events that came.
    pub received: u64,
    /// Events in the log.
    pub accepted: u64,
    /// Events in quarantine.
    pub quarantined: u64,
    /// Events refused and not kept.
    pub rejected: u64,
    /// Events in the master dataset.
    pub landed: u64,
    /// Events that landing left out.
    pub duplicates: u64,
    /// Events that have not landed.
    pub in_flight: u64,
    /// Offsets that were lost before they landed, and whose loss was accepted.
    pub lost: u64,
    /// Entries of quarantine that were deleted before they were counted.
    pub quarantine_lost: u64,
    /// Landed events that were late.
    pub late: Late,
    /// Whether both sums come out.
    pub adds_up: bool,
}

/// How many events were late, and how late.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Late {
    /// Number of late events.
    pub count: u64,
    /// How far the latest of them was behind, in seconds.
    pub lateness_max_seconds: u64,
}

/// A view as the platform describes it, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ViewStatus {
    name: String,
    stream: String,
    generation: Option<Generation>,
    freshness: Freshness,
    last_audit: Option<LastAudit>,
    last_hand_over_audit: Option<LastAudit>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Generation {
    generation: u64,
    cut: u64,
    groups: u64,
    age_seconds: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Freshness {
    receipt: Receipt,
    lag_records: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LastAudit {
    generation: u64,
    equal: bool,
}

/// Runs `status`; incomplete where the platform is not ready, where nobody has one of the roles, where records were lost, or where an
/// account does not add up.
///
/// # Errors
/// A platform that does not answer.
pub async fn run(args: StatusArgs) -> Result<Outcome, CommandError> {
    let client = args.client.client()?;
    let readiness = client.readiness().await?;
    let ready: Readiness = readiness.read()?;
    let heard = match client.get(&["v1", "processes"], &[]).await {
        Ok(heard) => Some(heard),
        // Without the object store nothing is heard of the others; what else is known is told all the same.
        Err(error @ ClientError::Refused(_)) => {
            output::note(&format!("the processes are not known: {error}"));
            None
        }
        Err(error) => return Err(error.into()),
    };
    let processes: Option<Processes> = heard.as_ref().map(Answer::read).transpose()?;
    if !args.client.json {
        let processes = processes.as_ref().map(Processes::lines).unwrap_or_default();
        output::print(&format!("{}\n{processes}\n", ready.lines()))?;
    }
    let (streams, views) = (describe(&client, "streams").await?, describe(&client, "views").await?);
    let accounts = streams.iter().map(Answer::read).collect::<Result<Vec<StreamStatus>, _>>()?;
    if args.client.json {
        let raw = |answer: &Answer| RawValue::from_string(answer.text.clone()).ok();
        let all = |answers: &[Answer]| -> Vec<Box<RawValue>> { answers.iter().filter_map(raw).collect() };
        let answer = serde_json::json!({
            "readiness": raw(&readiness), "deployment": heard.as_ref().and_then(raw), "streams": all(&streams), "views": all(&views),
        });
        output::print(&format!("{answer}\n"))?;
    } else {
        let views = views.iter().map(Answer::read).collect::<Result<Vec<ViewStatus>, _>>()?;
        output::print(&format!("{}\n{}", streams_table(&accounts), views_table(&views)))?;
    }
    for stream in accounts.iter().filter(|stream| stream.account.quarantine_lost > 0) {
        output::note(&stream.told_quarantine_lost());
    }
    let halted: Vec<_> = accounts.iter().filter(|stream| !stream.losses.waiting.is_empty()).collect();
    for stream in &halted {
        output::note(&stream.told_lost());
    }
    let odd = |stream: &&StreamStatus| !stream.account.adds_up && stream.losses.waiting.is_empty();
    let odd: Vec<&str> = accounts.iter().filter(odd).map(|stream| stream.name.as_str()).collect();
    if odd.is_empty() {
        let lacks_a_role = processes.is_none_or(|all| all.lacks_a_role());
        let incomplete = ready.is_unready() || lacks_a_role || !halted.is_empty();
        return Ok(if incomplete { Outcome::Incomplete } else { Outcome::Done });
    }
    output::note(&format!("the account does not add up: {}. Events may be missing; please report this", odd.join(", ")));
    Ok(Outcome::Incomplete)
}

impl Readiness {
    fn is_unready(&self) -> bool {
        self.status == "unready"
    }

    /// The status, and what is not there.
    fn lines(&self) -> String {
        let mut lines = format!("{}\n", output::printable(&self.status));
        for check in self.checks.iter().filter(|check| !check.ok) {
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "  {}: {}", output::printable(&check.name), output::printable(&check.detail));
        }
        lines
    }
}

impl StreamStatus {
    /// What was lost and not accepted, and what to do.
    fn told_lost(&self) -> String {
        let name = output::printable(&self.name);
        let lost: Vec<_> = self.losses.waiting.iter().map(Lost::told).collect();
        format!("{name}: the log lost {} before they landed; `riomar accept-loss {name}` says what can be done", lost.join("; "))
    }

    /// What was deleted from quarantine, and what that means.
    fn told_quarantine_lost(&self) -> String {
        let (name, entries) = (output::printable(&self.name), output::grouped(self.account.quarantine_lost));
        format!(
            "{name}: {entries} entries of its quarantine were deleted, so what was received, quarantined and rejected is at least what \
             stands above; nothing is wrong with what was accepted"
        )
    }
}

async fn describe(client: &Client, kind: &str) -> Result<Vec<Answer>, CommandError> {
    let mut answers = Vec::new();
    for name in names(client, kind).await? {
        answers.push(client.get(&["v1", kind, &name], &[]).await?);
    }
    Ok(answers)
}

fn streams_table(streams: &[StreamStatus]) -> String {
    let headings = [
        "stream",
        "received",
        "accepted",
        "quarantined",
        "rejected",
        "landed",
        "duplicates",
        "in flight",
        "lost",
        "late",
        "adds up",
    ];
    let row = |stream: &StreamStatus| {
        let account = &stream.account;
        let at_least = |number: u64| match account.quarantine_lost {
            0 => output::grouped(number),
            _ => format!("at least {}", output::grouped(number)),
        };
        let late = match account.late.count {
            0 => "0".to_owned(),
            count => format!("{}, up to {}", output::grouped(count), output::duration_ms(lateness_ms(&account.late))),
        };
        let mut row = vec![output::printable(&stream.name)];
        row.extend([
            at_least(account.received),
            output::grouped(account.accepted),
            at_least(account.quarantined),
            at_least(account.rejected),
            output::grouped(account.landed),
            output::grouped(account.duplicates),
            output::grouped(account.in_flight),
            output::grouped(account.lost),
            late,
            if account.adds_up { "yes" } else { "NO" }.to_owned(),
        ]);
        row
    };
    output::table(&headings, &[1, 2, 3, 4, 5, 6, 7, 8, 9], streams.iter().map(row))
}

fn views_table(views: &[ViewStatus]) -> String {
    let headings = [
        "view",
        "stream",
        "generation",
        "cut",
        "groups",
        "published",
        "lag",
        "watermark",
        "answers lack",
        "last audit",
        "last hand-over",
    ];
    output::table(&headings, &[2, 3, 4, 6], views.iter().map(ViewStatus::row))
}

impl ViewStatus {
    fn row(&self) -> Vec<String> {
        let mut row = vec![output::printable(&self.name), output::printable(&self.stream)];
        match &self.generation {
            Some(current) => {
                row.extend([current.generation, current.cut, current.groups].map(output::grouped));
                row.push(match current.age_seconds {
                    0 => "just now".to_owned(),
                    seconds => format!("{} ago", output::duration_ms(seconds.saturating_mul(1_000))),
                });
            }
            None => row.extend(["none yet", "", "", ""].map(str::to_owned)),
        }
        row.push(output::grouped(self.freshness.lag_records.values().sum()));
        row.push(self.watermark());
        row.extend([self.lacks(), audit(self.last_audit.as_ref()), audit(self.last_hand_over_audit.as_ref())]);
        row
    }

    /// The event time that every partition has reached.
    fn watermark(&self) -> String {
        let receipt =
            self.freshness.receipt.views.iter().find(|(name, _)| name.as_str() == self.name).map(|(_, receipt)| receipt);
        output::printable(receipt.and_then(|receipt| receipt.watermark.as_deref()).unwrap_or_default())
    }

    /// What an answer would lack now, beside the records that it lags behind.
    fn lacks(&self) -> String {
        match self.freshness.receipt.degraded.first() {
            Some(lack) => format!("degraded: {}", output::printable(&lack.detail)),
            None => "nothing".to_owned(),
        }
    }
}

fn audit(last: Option<&LastAudit>) -> String {
    match last {
        Some(audit) if audit.equal => format!("generation {}: equal", audit.generation),
        Some(audit) => format!("generation {}: DIFFERS", audit.generation),
        None => "never".to_owned(),
    }
}

/// The greatest lateness in milliseconds.
#[must_use]
pub fn lateness_ms(late: &Late) -> i64 {
    i64::try_from(late.lateness_max_seconds.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

//! `riomar audit [VIEW…]`: compares what is served with a full recompute over the same events.

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{CommandError, Outcome};
use crate::{cli::ClientArgs, client::Client, output};

/// Differences that are shown of a view; `--json` has more.
const DIFFERENCES_SHOWN: usize = 10;

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// The views; all where none is named
    #[arg(value_name = "VIEW")]
    pub views: Vec<String>,
    /// Where the platform is, and how to print.
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Report {
    view: String,
    generation: u64,
    cut: u64,
    took_ms: i64,
    groups: u64,
    differing: u64,
    differences: Vec<Difference>,
    degraded: Vec<Lack>,
}

/// What the answer lacked.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lack {
    detail: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Difference {
    group: Vec<(String, String)>,
    column: Option<String>,
    left: Option<String>,
    right: Option<String>,
}

/// Runs `audit`; incomplete where a view differs, or where an answer lacked its realtime view.
///
/// # Errors
/// A view that does not exist, or a platform that does not answer.
pub async fn run(args: AuditArgs) -> Result<Outcome, CommandError> {
    let client = args.client.client()?;
    let views = if args.views.is_empty() { names(&client, "views").await? } else { args.views };
    let (mut answers, mut reports) = (Vec::new(), Vec::new());
    for view in &views {
        let answer = client.post(&["v1", "views", view, "audit"], &serde_json::json!({})).await?;
        reports.push(answer.read::<Report>()?);
        answers.push(answer.text);
    }
    if args.client.json {
        let answers: Vec<&RawValue> = answers.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
        output::print(&format!("{}\n", serde_json::json!({ "audits": answers })))?;
    } else {
        let headings = ["view", "generation", "cut", "groups", "differing", "took"];
        output::print(&output::table(&headings, &[1, 2, 3, 4, 5], reports.iter().map(Report::row)))?;
        reports.iter().for_each(Report::explain);
    }
    let complete = reports.iter().all(|report| report.differing == 0 && report.degraded.is_empty());
    Ok(if complete { Outcome::Done } else { Outcome::Incomplete })
}

/// The names of all streams or all views.
pub async fn names(client: &Client, kind: &str) -> Result<Vec<String>, CommandError> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let answer = client.get(&["v1", kind], &[]).await?;
    let mut list: std::collections::BTreeMap<String, Vec<Named>> = answer.read()?;
    Ok(list.remove(kind).unwrap_or_default().into_iter().map(|named| named.name).collect())
}

impl Report {
    fn row(&self) -> Vec<String> {
        let numbers = [self.generation, self.cut, self.groups, self.differing].map(output::grouped);
        let [generation, cut, groups, differing] = numbers;
        vec![output::printable(&self.view), generation, cut, groups, differing, output::duration_ms(self.took_ms)]
    }

    fn explain(&self) {
        for lack in &self.degraded {
            output::note(&output::printable(&format!(
                "{}: the audit is incomplete, the answer lacked something: {}",
                self.view, lack.detail
            )));
        }
        for difference in self.differences.iter().take(DIFFERENCES_SHOWN) {
            let group: Vec<String> = difference.group.iter().map(|(column, value)| format!("{column}={value}")).collect();
            let column = difference.column.as_deref().unwrap_or("the whole group");
            let value = |side: &Option<String>| side.clone().unwrap_or_else(|| "nothing".to_owned());
            let text = format!(
                "{} {}: {column} is {} in the master dataset, {} is served",
                self.view,
                group.join(" "),
                value(&difference.left),
                value(&difference.right)
            );
            output::note(&output::printable(&text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_understood() {
        let text = r#"{"view":"v","generation":3,"cut":4,"finished_at_ms":9,"took_ms":1500,"groups":1200,"differing":1,
            "differences":[{"group":[["path","/"]],"column":"hits","left":"7","right":"8"}]}"#;
        let report: Report = serde_json::from_str(text).expect("report");
        assert_eq!(report.row(), ["v", "3", "4", "1,200", "1", "1.5 s"]);
        assert_eq!(report.differences.len(), 1);
    }
}

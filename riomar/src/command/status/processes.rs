//! The processes of a deployment, as `status` shows them.

use std::fmt::Write as _;

use serde::Deserialize;

use super::Check;
use crate::output;

/// The processes, as far as they are shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Processes {
    processes: Vec<Process>,
    missing_roles: Vec<String>,
    left_out: u64,
}

/// A process as it told of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Process {
    state: String,
    heard_seconds_ago: i64,
    host: String,
    pid: u32,
    version: String,
    roles: Vec<String>,
    address: Option<String>,
    up_seconds: i64,
    status: String,
    checks: Vec<Check>,
    ingest: Option<Ingest>,
    speed: Option<Speed>,
    batch: Option<Batch>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ingest {
    accepts: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Speed {
    partitions: Vec<Partition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Partition {
    lag_records: Option<u64>,
    lag_seconds: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Batch {
    leads: bool,
    run: Option<Run>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Run {
    state: String,
    view: Option<String>,
}

impl Processes {
    /// Whether no process has one of the roles.
    pub(super) fn lacks_a_role(&self) -> bool {
        !self.missing_roles.is_empty()
    }

    /// A table, and what is missing.
    pub(super) fn lines(&self) -> String {
        let headings = ["process", "roles", "address", "version", "up", "heard", "state", "does"];
        let mut lines = output::table(&headings, &[], self.processes.iter().map(Process::row));
        for role in &self.missing_roles {
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "missing: no process has the role {}", output::printable(role));
        }
        if self.left_out > 0 {
            let _ = writeln!(lines, "{} more are not shown", output::grouped(self.left_out));
        }
        lines
    }
}

impl Process {
    fn row(&self) -> Vec<String> {
        let printable = |text: &str| output::printable(text);
        vec![
            format!("{}/{}", printable(&self.host), self.pid),
            printable(&self.roles.join(", ")),
            printable(self.address.as_deref().unwrap_or_default()),
            printable(&self.version),
            seconds(self.up_seconds),
            format!("{} ago", seconds(self.heard_seconds_ago)),
            self.state(),
            self.work(),
        ]
    }

    fn is_silent(&self) -> bool {
        self.state == "silent"
    }

    /// Whether it can do its work, and why not.
    fn state(&self) -> String {
        if self.is_silent() {
            return "SILENT: gone, frozen, or without the object store".to_owned();
        }
        let missing = self.checks.iter().filter(|check| !check.ok);
        let missing: Vec<_> = missing.map(|check| format!("{}: {}", check.name, check.detail)).collect();
        let status = output::printable(&self.status);
        if missing.is_empty() { status } else { format!("{status}: {}", output::printable(&missing.join("; "))) }
    }

    /// What it does. What a silent one did is in others' hands by now.
    fn work(&self) -> String {
        if self.is_silent() {
            return String::new();
        }
        let ingest =
            self.ingest.as_ref().map(|ingest| if ingest.accepts { "accepts events" } else { "REFUSES events" }.to_owned());
        let work = [ingest, self.speed.as_ref().map(Speed::work), self.batch.as_ref().map(Batch::work)];
        work.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

impl Speed {
    fn work(&self) -> String {
        let partitions = match self.partitions.len() {
            1 => "folds 1 partition".to_owned(),
            count => format!("folds {count} partitions"),
        };
        let lags: Option<Vec<u64>> = self.partitions.iter().map(|partition| partition.lag_records).collect();
        let behind = match lags.map(|lags| lags.iter().sum::<u64>()) {
            None => ", how far behind is not known yet".to_owned(),
            Some(0) => String::new(),
            Some(records) => {
                let longest = self.partitions.iter().filter_map(|partition| partition.lag_seconds).fold(0.0, f64::max);
                #[expect(clippy::cast_possible_truncation, reason = "a cast of floats saturates")]
                let longest = output::duration_ms((longest * 1000.0) as i64);
                format!(", {} records or {longest} behind", output::grouped(records))
            }
        };
        partitions + &behind
    }
}

impl Batch {
    fn work(&self) -> String {
        let place = if self.leads { "leads" } else { "stands by" };
        match &self.run {
            None => place.to_owned(),
            Some(Run { state, view: Some(view) }) => format!("{place}, {} {}", output::printable(state), output::printable(view)),
            Some(Run { state, view: None }) => format!("{place}, {}", output::printable(state)),
        }
    }
}

fn seconds(seconds: i64) -> String {
    match seconds {
        0..=59 => format!("{seconds} s"),
        longer => output::duration_ms(longer.saturating_mul(1_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_told_in_rows() {
        let text = r#"{"processes":[
            {"id":"1","state":"heard","heard_seconds_ago":3,"host":"a","pid":7,"version":"0.1.0","roles":["batch"],
             "address":"http://0.0.0.0:8080","up_seconds":65,"status":"ready","checks":[{"name":"log","ok":true,"required":true}],
             "ingest":null,"speed":null,"batch":{"leads":true,"run":{"id":"x","state":"folding","view":"traffic"}}},
            {"id":"2","state":"silent","heard_seconds_ago":45,"host":"b","pid":8,"version":"0.1.0","roles":["batch"],
             "address":null,"up_seconds":5,"status":"ready","checks":[],"batch":{"leads":true,"run":null}},
            {"id":"3","state":"heard","heard_seconds_ago":0,"host":"c","pid":9,"version":"0.1.0","roles":["ingest","speed"],
             "address":"http://c:1","up_seconds":5,"status":"unready",
             "checks":[{"name":"log","ok":false,"required":true,"detail":"it does not answer"}],"ingest":{"accepts":false},
             "speed":{"partitions":[{"lag_records":1200,"lag_seconds":2.5},{"lag_records":4,"lag_seconds":0.1}]},"batch":null},
            {"id":"4","state":"heard","heard_seconds_ago":1}],
            "missing_roles":["serve"],"left_out":2}"#;
        let processes: Processes = serde_json::from_str(text).expect("processes");
        let rows: Vec<_> = processes.processes.iter().map(Process::row).collect();
        assert_eq!(
            rows[0],
            ["a/7", "batch", "http://0.0.0.0:8080", "0.1.0", "1 min 5 s", "3 s ago", "ready", "leads, folding traffic"]
        );
        assert_eq!(rows[1][4..], ["5 s", "45 s ago", "SILENT: gone, frozen, or without the object store", ""]);
        assert_eq!(
            rows[2][6..],
            ["unready: log: it does not answer", "REFUSES events; folds 2 partitions, 1,204 records or 2.5 s behind"]
        );
        assert_eq!(rows[3][7], "", "a version that says nothing of this");
        let lines = processes.lines();
        assert!(lines.ends_with("missing: no process has the role serve\n2 more are not shown\n"), "{lines}");
        assert!(processes.lacks_a_role());
    }

    #[test]
    fn a_lag_that_is_not_known_is_not_taken_for_none() {
        for (text, expected) in [
            (r#"{"partitions":[{"lag_records":0,"lag_seconds":0.0}]}"#, "folds 1 partition"),
            (r#"{"partitions":[{"lag_records":null},{"lag_records":5}]}"#, "folds 2 partitions, how far behind is not known yet"),
            (r#"{"partitions":[]}"#, "folds 0 partitions"),
        ] {
            assert_eq!(serde_json::from_str::<Speed>(text).expect("a role").work(), expected);
        }
    }
}

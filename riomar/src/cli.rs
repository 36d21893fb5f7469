//! The command line: what it looks like. What each command does is in [`crate::command`].

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::command;

/// Riomar: analytics over events, exact from the first second to the last year.
#[derive(Debug, Parser)]
#[command(
    name = "riomar",
    version,
    about,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done; 1 it could not be done, or not all of it; 2 the command line was not understood."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a platform with live sample traffic and watch it
    Demo(command::demo::DemoArgs),
    /// Start the platform
    Up(command::up::UpArgs),
    /// Send events from a file, one JSON object a line
    Send(command::send::SendArgs),
    /// Run a query and print its rows
    Sql(command::sql::SqlArgs),
    /// Cut the log now, recompute views and publish new generations
    Recompute(command::recompute::RecomputeArgs),
    /// Compare what is served with a full recompute over the same events
    Audit(command::audit::AuditArgs),
    /// Show every process of the deployment, every stream's account and every view's generation
    Status(command::status::StatusArgs),
    /// Tell by the exit code whether a process can do its work
    Ready(command::ready::ReadyArgs),
    /// Try every part that the configuration names, and say what to do about those that fail
    Doctor(command::doctor::DoctorArgs),
    /// Show events that were not accepted, with the reason
    Quarantine(command::quarantine::QuarantineArgs),
    /// Let landing go on behind records that the log lost before they landed
    AcceptLoss(command::accept_loss::AcceptLossArgs),
    /// Check the configuration and the definitions
    #[command(subcommand)]
    Config(command::config::ConfigCommand),
}

/// Where a platform finds what it needs; shared by `up`, `demo` and `config check`.
#[derive(Debug, Clone, Default, Args)]
pub struct PlatformArgs {
    /// Read the configuration from FILE
    #[arg(long, value_name = "FILE", env = "RIOMAR_CONFIG")]
    pub config: Option<PathBuf>,
    /// Keep all data in DIR
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Read streams and views from the *.sql files of DIR
    #[arg(long, value_name = "DIR")]
    pub schemas: Option<PathBuf>,
    /// Listen on ADDR, such as 127.0.0.1:8080; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
}

impl PlatformArgs {
    /// The flags that were given: key, flag and value.
    #[must_use]
    pub fn flags(&self) -> Vec<(&'static str, &'static str, String)> {
        let path = |path: &PathBuf| path.display().to_string();
        let given = [
            ("data", "--data", self.data.as_ref().map(path)),
            ("schemas", "--schemas", self.schemas.as_ref().map(path)),
            ("serving.http", "--http", self.http.map(|address| address.to_string())),
        ];
        given.into_iter().filter_map(|(key, flag, value)| Some((key, flag, value?))).collect()
    }
}

/// How client commands find the platform and write their answer.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// Where the platform is
    #[arg(long, value_name = "URL", env = "RIOMAR_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// Print the answer as JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// How the journal is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How `up` and `demo` write the journal.
#[derive(Debug, Clone, Args)]
pub struct JournalArgs {
    /// Write the journal as text or as JSON
    #[arg(long, value_enum, default_value = "text", hide_possible_values = true)]
    pub log_format: LogFormat,
    /// What the journal tells: error, warn, info, debug, trace, or per module ("info,riomar_speed_layer=debug")
    #[arg(long, value_name = "FILTER", env = "RIOMAR_LOG")]
    pub log: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("riomar").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_of_the_manual_is_understood() {
        for line in [
            "demo",
            "demo --for 60s --rate 2000 --http 127.0.0.1:0 --data d --seed 7",
            "demo --late 0.1 --late-max 6h --duplicates 0 --broken 0.5",
            "up",
            "up --config riomar.toml --data d --schemas s --http 0.0.0.0:8080 --log-format json",
            "send page_views events.ndjson",
            "send page_views - --url http://host:1 --json --retry-for 2m",
            "sql SELECT",
            "sql SELECT --json --url http://host:1",
            "recompute",
            "recompute traffic_by_minute other --full",
            "audit",
            "audit traffic_by_minute --json",
            "up --role ingest",
            "up --role speed,serve",
            "status --json",
            "ready --url http://host:1",
            "doctor --config riomar.toml --json",
            "quarantine page_views --limit 5",
            "accept-loss page_views",
            "accept-loss page_views --partition 3 --yes --json --url http://host:1",
            "config check --config riomar.toml",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).err().map(|error| error.to_string()).unwrap_or_default());
        }
    }

    #[test]
    fn what_is_wrong_is_refused_with_exit_code_2() {
        for line in [
            "nonsense",
            "demo --rate 0",
            "demo --rate fast",
            "demo --late 1.5",
            "demo --for 60",
            "up --http here",
            "up extra",
            "up --role cook",
            "send page_views",
            "send page_views file --in-flight 3",
            "sql",
            "quarantine",
            "quarantine page_views --limit 0",
            "accept-loss",
            "accept-loss page_views --partition -1",
            "config",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn version_and_help_are_no_errors() {
        for line in ["--version", "--help", "sql --help", "up --version"] {
            assert_eq!(parse(line).expect_err("shown").exit_code(), 0, "{line}");
        }
    }

    #[test]
    fn flags_name_configuration_keys() {
        let line = "up --data d --http 127.0.0.1:0";
        let Command::Up(up) = parse(line).expect("valid").command else { panic!("not up") };
        let keys: Vec<_> = crate::config::KEYS.iter().map(|key| key.name).collect();
        let flags = up.platform.flags();
        assert_eq!(flags.len(), 2);
        assert!(flags.iter().all(|(key, ..)| keys.contains(key)));
    }
}

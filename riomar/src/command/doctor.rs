//! `riomar doctor`: tries each part that a configuration names, and says what to do about those that do not work.

mod objects;

use std::{sync::Arc, time::Duration};

use clap::Args;
use riomar_event_log::{Clock, LogError, quarantine::Quarantine};
use riomar_schemas::{Catalog, PartitionId};
use serde::Serialize;

use super::{CommandError, Outcome, config};
use crate::{
    cli::PlatformArgs,
    config::{Config, LogKind, RealtimeKind},
    output,
    platform::seams,
};

/// How long one part may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// The folder of the objects that are written and removed again.
const PROBES: &str = "doctor";

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Where the platform finds what it needs.
    #[command(flatten)]
    pub platform: PlatformArgs,
    /// Print as JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// What came of trying one part.
#[derive(Debug, Serialize)]
struct Finding {
    part: &'static str,
    ok: bool,
    /// What was tried with success, or what is wrong and what to do.
    detail: String,
}

/// Runs `doctor`. Nothing is started; the object that it writes it removes again, and it creates no directory but that of the objects.
///
/// # Errors
/// A configuration or definitions that are refused.
pub async fn run(args: DoctorArgs, clock: Arc<dyn Clock>) -> Result<Outcome, CommandError> {
    let config = config::load(&args.platform, Config::new())?.config;
    let catalog = config::load_catalog(&config.schemas).await?;
    let (streams, views) = config::names(&catalog);
    let findings = [
        found("definitions", async { Ok(format!("streams: {}; views: {}", streams.join(", "), views.join(", "))) }, &*clock)
            .await,
        found("log", log(&config, &catalog, &clock), &*clock).await,
        found("objects", objects::works(&config), &*clock).await,
        found("realtime views", realtime(&config, &catalog), &*clock).await,
    ];
    if args.json {
        output::print(&format!("{}\n", serde_json::json!({ "findings": findings })))?;
    } else {
        let row = |finding: &Finding| {
            let state = if finding.ok { "works" } else { "FAILS" };
            vec![finding.part.to_owned(), state.to_owned(), output::printable(&finding.detail)]
        };
        output::print(&output::table(&["part", "", "detail"], &[], findings.iter().map(row)))?;
    }
    Ok(if findings.iter().all(|finding| finding.ok) { Outcome::Done } else { Outcome::Incomplete })
}

/// Tries one part, but not for long.
async fn found(part: &'static str, trial: impl Future<Output = Result<String, String>>, clock: &dyn Clock) -> Finding {
    let tried = tokio::select! {
        tried = trial => tried,
        () = clock.sleep(PATIENCE) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    let ok = tried.is_ok();
    Finding { part, ok, detail: tried.unwrap_or_else(|detail| detail) }
}

/// Whether the log answers for every stream. Topics that are not there are created by the first start.
async fn log(config: &Config, catalog: &Catalog, clock: &Arc<dyn Clock>) -> Result<String, String> {
    let directory = config.data.join(seams::LOG);
    if config.log.kind == LogKind::Embedded && !directory.exists() {
        return Ok(format!("the first start creates {}", directory.display()));
    }
    let log = match seams::log(config, Arc::clone(clock)).await {
        Ok(log) => log,
        Err(LogError::Locked { path }) => return Ok(format!("a running platform has {path} open: ask it with `riomar status`")),
        Err(error) => return Err(error.to_string()),
    };
    let quarantine = Quarantine::new(Arc::clone(&log));
    let mut missing = Vec::new();
    let mut partitions = 0;
    for stream in catalog.streams() {
        let present = log.partitions(&stream.name).await.map_err(|error| error.to_string())?;
        for partition in (0..present).map(PartitionId) {
            log.bounds(&stream.name, partition).await.map_err(|error| error.to_string())?;
        }
        if present > 0 {
            // What is there already is checked, and only topics that lack partitions are changed.
            log.create(&stream.name, present).await.map_err(|error| error.to_string())?;
        } else {
            missing.push(stream.name.to_string());
        }
        quarantine.check(&stream.name).await.map_err(|error| error.to_string())?;
        partitions += present;
    }
    let place = match config.log.kind {
        LogKind::Embedded => directory.display().to_string(),
        LogKind::Kafka => config.log.brokers.clone(),
    };
    let to_come = if missing.is_empty() { String::new() } else { format!("; the first start creates {}", missing.join(", ")) };
    Ok(format!("{place}: {partitions} partitions{to_come}"))
}

/// Whether the realtime store answers.
async fn realtime(config: &Config, catalog: &Catalog) -> Result<String, String> {
    let store = seams::realtime(config, PROBES).map_err(|error| error.to_string())?;
    if let Some(view) = catalog.views().next() {
        store.entry(view, PartitionId(0)).await.map_err(|error| error.to_string())?;
    }
    Ok(match config.realtime.kind {
        RealtimeKind::Memory => "in the memory of the process".to_owned(),
        RealtimeKind::Redis => format!("{:?} answers", config.realtime.url),
    })
}

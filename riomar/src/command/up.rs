//! `riomar up`: starts the platform and runs it until it is asked to stop.

use std::{net::SocketAddr, pin::pin, sync::Arc};

use clap::Args;
use riomar_event_log::Clock;
use riomar_schemas::Catalog;
use riomar_serving_layer::roles::Roles;
use tokio::net::TcpListener;

use super::{CommandError, Outcome, config, interrupted};
use crate::{
    cli::{JournalArgs, PlatformArgs},
    config::{Config, LogKind, RealtimeKind},
    journal, output,
    platform::{Front, Platform, PlatformError, Settings},
};

/// What the journal tells unless it is asked for more: Riomar's own events, and what fails in the libraries below it.
const JOURNAL: &str = "error,riomar=info";

/// Arguments of `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Where the platform finds what it needs.
    #[command(flatten)]
    pub platform: PlatformArgs,
    /// Do only this work: ingest, speed, batch, serve, or several of them with commas between
    #[arg(long, value_name = "ROLES", default_value = "all")]
    pub role: Roles,
    /// How the journal is written.
    #[command(flatten)]
    pub journal: JournalArgs,
}

/// Runs `up`.
///
/// # Errors
/// A configuration or definitions that are refused, a data directory or an address that cannot be used.
pub async fn run(args: UpArgs, clock: Arc<dyn Clock>) -> Result<Outcome, CommandError> {
    journal::start(&args.journal, JOURNAL).map_err(PlatformError::from)?;
    let config = config::load(&args.platform, Config::new())?.config;
    let catalog = Arc::new(config::load_catalog(&config.schemas).await?);
    // The address before the data: the commonest mistake is found before anything is touched.
    let (listener, address) = listen(config.serving.http).await?;
    let front = Front::open(listener, Settings::of(&config).server, Arc::clone(&clock))?;
    tracing::info!(%address, "listening; /readyz says what the start waits for");
    // One for both: a signal that comes between two of them would be nobody's.
    let mut interrupted = pin!(interrupted());
    let platform = tokio::select! {
        platform = Platform::configured(&config, args.role.clone(), Arc::clone(&catalog), clock, front.start()) => platform?,
        // What is waited for may be long in coming.
        () = &mut interrupted => {
            front.close().await?;
            output::note("stopped before it began");
            return Ok(Outcome::Done);
        }
    };
    output::print(&started(&config, &args.role, &catalog, address))?;
    platform.run_behind(front, interrupted).await?;
    output::note("stopped");
    Ok(Outcome::Done)
}

/// Listens on an address; port 0 takes a free one, which is given back.
///
/// # Errors
/// [`PlatformError::Listen`].
pub async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), PlatformError> {
    let failed = |source| PlatformError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// One line for each fact of a start.
fn started(config: &Config, roles: &Roles, catalog: &Catalog, address: SocketAddr) -> String {
    let (streams, views) = config::names(catalog);
    let realtime = match config.realtime.kind {
        RealtimeKind::Memory => "in memory".to_owned(),
        RealtimeKind::Redis => format!("in Redis, {:?}", config.realtime.url),
    };
    let log = match config.log.kind {
        LogKind::Embedded => "embedded".to_owned(),
        LogKind::Kafka => format!("in Kafka, {}", config.log.brokers),
    };
    let facts = [
        ("riomar", env!("CARGO_PKG_VERSION").to_owned()),
        ("roles", roles.to_string()),
        ("log", log),
        ("data", config.data.display().to_string()),
        ("master", config.master.url.place(&config.data)),
        ("realtime", realtime),
        ("streams", streams.join(", ")),
        ("views", views.join(", ")),
        ("batch", format!("every {}", config.batch.every)),
        ("http", format!("http://{address}")),
    ];
    facts.iter().map(|(name, fact)| format!("{name:<10}{fact}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_says_what_to_do() {
        let (_listener, address) = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let error = listen(address).await.expect_err("taken").to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--http"), "{error}");
    }
}

//! `riomar demo`: a platform with live sample traffic, and a table to watch it.

use std::{
    io::{IsTerminal, stdout},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use console::Term;
use riomar_event_log::Clock;
use riomar_schemas::Catalog;
use riomar_serving_layer::roles::Roles;
use tokio::sync::watch;

use super::{CommandError, Outcome, config, interrupted, up::listen};
use crate::{
    cli::{JournalArgs, PlatformArgs},
    client::Client,
    config::{Config, ConfigError, Fault, Interval},
    demo::{
        DEFINITIONS, STREAM, VIEW,
        feed::{Fed, feed},
        freshness::{Freshness, Probe},
        screen::{Frame, Screen},
        traffic::{Shape, Traffic},
        watch::Watcher,
    },
    journal, output,
    platform::{self, Front, Platform, PlatformError, Settings},
};

/// How often the table is drawn on a terminal.
const DRAW_EVERY: Duration = Duration::from_millis(500);
/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// What the journal tells unless it is asked for more. Its lines tear the table apart, so it is only what is wrong.
const JOURNAL: &str = "error,riomar=warn";

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the platform finds what it needs.
    #[command(flatten)]
    pub platform: PlatformArgs,
    /// End by itself after this time, such as 60s
    #[arg(long = "for", value_name = "DURATION")]
    pub run_for: Option<Interval>,
    /// Events a second
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub rate: u64,
    /// Share of events that come late, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    pub late: f64,
    /// How late they are at the most
    #[arg(long, value_name = "DURATION", default_value = "3h")]
    pub late_max: Interval,
    /// Share of events that come twice, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, value_parser = share)]
    pub duplicates: f64,
    /// Share of events that break their schema, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    pub broken: f64,
    /// Number of different visitors
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub visitors: u32,
    /// The seed of the traffic: the same seed gives the same visits
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How the journal is written.
    #[command(flatten)]
    pub journal: JournalArgs,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("write a share from 0 to 1, such as 0.05".to_owned()),
    }
}

/// Runs `demo`.
///
/// # Errors
/// A configuration that is refused, a data directory or an address that cannot be used.
pub async fn run(args: DemoArgs, clock: Arc<dyn Clock>) -> Result<Outcome, CommandError> {
    journal::start(&args.journal, JOURNAL).map_err(PlatformError::from)?;
    let config = config::load(&args.platform, Config::demo())?.config;
    let catalog = Arc::new(catalog(&args).await?);
    let continues = config.data.join("log").exists();
    let (listener, address) = listen(config.serving.http).await?;
    let front = Front::open(listener, Settings::of(&config).server, Arc::clone(&clock))?;
    let platform = Platform::configured(&config, Roles::all(), catalog, Arc::clone(&clock), front.start()).await?;
    let url = format!("http://{address}");
    output::print(&introduction(&args, &config, address, continues))?;
    let (stop, stopped) = watch::channel(false);
    let running = platform.run_behind(front, platform::stopped(stopped));
    let showing = async {
        let shown = tokio::select! {
            shown = show(&args, &platform, &url, &clock) => shown,
            () = interrupted() => Ok(()),
            () = run_for(&args, &*clock) => Ok(()),
        };
        // Where the platform has ended already there is nobody left to tell.
        let _ = stop.send(true);
        shown
    };
    let (ended, shown) = tokio::join!(running, showing);
    ended?;
    shown?;
    output::note(&format!("stopped; the data is in {}, and `riomar demo` continues there", config.data.display()));
    Ok(Outcome::Done)
}

async fn run_for(args: &DemoArgs, clock: &dyn Clock) {
    match args.run_for {
        Some(interval) => clock.sleep(interval.duration()).await,
        None => std::future::pending().await,
    }
}

/// The demo's own definitions, or those of the directory that was named.
async fn catalog(args: &DemoArgs) -> Result<Catalog, ConfigError> {
    let refused = |messages: Vec<String>| ConfigError {
        faults: messages.into_iter().map(|message| Fault { origin: None, key: None, message }).collect(),
    };
    let Some(directory) = &args.platform.schemas else {
        return Catalog::parse(DEFINITIONS).map_err(|errors| refused(errors.iter().map(ToString::to_string).collect()));
    };
    let catalog = config::load_catalog(directory).await?;
    match (catalog.stream(STREAM), catalog.view(VIEW)) {
        (Some(_), Some(_)) => Ok(catalog),
        _ => Err(refused(vec![format!(
            "the sample traffic needs the stream {STREAM} and the view {VIEW}, which {} does not define: leave --schemas out, or run \
             `riomar up --schemas {}`",
            directory.display(),
            directory.display()
        )])),
    }
}

fn introduction(args: &DemoArgs, config: &Config, address: SocketAddr, continues: bool) -> String {
    let percent = |share: f64| share * 100.0;
    let at = if address.port() == 8080 { String::new() } else { format!(" --url http://{address}") };
    // As it was called: the binary of a fresh build is on nobody's path.
    let riomar = std::env::args().next().unwrap_or_else(|| "riomar".to_owned());
    format!(
        "riomar demo {}\n\
         data      {} ({})\n\
         http      http://{address}\n\
         traffic   {} events/s: {} % late by up to {}, {} % twice, {} % broken\n\
         batch     a new generation every {}\n\n\
         Try it in another terminal:\n  \
           {riomar} sql \"SELECT path, merge(hits) AS hits, merge(visitors) AS visitors FROM {VIEW} GROUP BY path ORDER BY hits DESC LIMIT 5\"{at}\n  \
           curl -s 'http://{address}/v1/views/{VIEW}/rows?limit=5'\n  \
           {riomar} status{at}\n\n\
         Ctrl-C stops.\n\n",
        env!("CARGO_PKG_VERSION"),
        config.data.display(),
        if continues { "continues where it stopped" } else { "new" },
        output::grouped(args.rate),
        percent(args.late),
        args.late_max,
        percent(args.duplicates),
        percent(args.broken),
        config.batch.every,
    )
}

/// Feeds the platform and shows what comes of it; ends only with an error.
async fn show(args: &DemoArgs, platform: &Platform, url: &str, clock: &Arc<dyn Clock>) -> Result<(), CommandError> {
    let client = Client::new(url)?;
    let view = platform.catalog().view(VIEW).ok_or_else(|| CommandError::Other(format!("there is no view {VIEW}")))?;
    let engine = platform.services().query.clone();
    let (fed, feeding) = watch::channel(Fed::default());
    let (fresh, freshness) = watch::channel(Freshness::default());
    let started_ms = clock.now_ms();
    let traffic = Traffic::new(args.seed, format!("{started_ms:x}"), shape(args));
    let feed = feed(client.clone(), traffic, args.rate, Arc::clone(clock), fed);
    let (log, clock) = (Arc::clone(platform.log()), Arc::clone(clock));
    let probe = Probe { engine: engine.clone(), log, view: Arc::clone(view), clock: Arc::clone(&clock) };
    let probe = probe.run(feeding.clone(), fresh);
    let watcher = Watcher { client, engine, view: Arc::clone(view) };
    let draw = draw(&watcher, Frame { url: url.to_owned(), ..Frame::default() }, &*clock, feeding, freshness);
    tokio::select! {
        // Both end only with the other side of their channels.
        () = async { tokio::join!(feed, probe); } => Ok(()),
        drawn = draw => drawn,
    }
}

fn shape(args: &DemoArgs) -> Shape {
    Shape {
        late: args.late,
        late_max_ms: args.late_max.as_millis(),
        duplicates: args.duplicates,
        broken: args.broken,
        visitors: usize::try_from(args.visitors).unwrap_or(usize::MAX),
    }
}

/// Draws frames for ever; ends where nobody reads them any more.
async fn draw(
    watcher: &Watcher,
    mut frame: Frame,
    clock: &dyn Clock,
    feeding: watch::Receiver<Fed>,
    freshness: watch::Receiver<Freshness>,
) -> Result<(), CommandError> {
    let terminal = stdout().is_terminal();
    let started_ms = clock.now_ms();
    let mut screen = Screen::default();
    loop {
        clock.sleep(if terminal { DRAW_EVERY } else { LINE_EVERY }).await;
        let looked = watcher.look(clock.now_ms(), &mut frame).await;
        frame.trouble = feeding.borrow().failing.clone().or(looked.err());
        frame.running_ms = clock.now_ms() - started_ms;
        frame.fresh_ms = freshness.borrow().median_ms();
        let width = usize::from(Term::stdout().size().1);
        output::print(&if terminal { screen.redraw(&frame.table(), width) } else { frame.line() })?;
    }
}

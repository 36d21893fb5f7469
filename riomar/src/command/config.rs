//! `riomar config check`: what is in effect, where it comes from, and everything that is wrong with it.

use std::path::Path;

use clap::{Args, Subcommand};
use riomar_schemas::Catalog;
use serde_json::json;

use super::{CommandError, Outcome};
use crate::{
    cli::PlatformArgs,
    config::{Config, ConfigError, Fault, KEYS, Resolved, Sources, resolve},
    output,
};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the effective configuration and check it together with the definitions
    Check(CheckArgs),
}

/// Arguments of `config check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub platform: PlatformArgs,
    /// Print as JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Reads the configuration that the arguments describe on top of `defaults`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(args: &PlatformArgs, defaults: Config) -> Result<Resolved, ConfigError> {
    let sources = Sources::gather(args.config.as_deref(), args.flags())?;
    resolve(defaults, &sources)
}

/// Where the rows come from that each view's algebra is tried on: the same at every start.
const ALGEBRA_SEED: u64 = 0x5249_4f4d_4152;

/// Reads the definitions of a directory, and tries each view's algebra on generated rows.
///
/// # Errors
/// Everything that is wrong with them.
pub async fn load_catalog(directory: &Path) -> Result<Catalog, ConfigError> {
    let fault = |message: String| Fault { origin: None, key: None, message };
    if !directory.is_dir() {
        let message = format!(
            "{} is no directory: write CREATE TABLE and CREATE MATERIALIZED VIEW statements into *.sql files there, or name another \
             directory with --schemas. `riomar demo` needs none",
            directory.display()
        );
        return Err(ConfigError { faults: vec![fault(message)] });
    }
    let catalog = Catalog::load(directory)
        .map_err(|errors| ConfigError { faults: errors.iter().map(|error| fault(error.to_string())).collect() })?;
    if catalog.streams().next().is_none() {
        let message = format!(
            "{} declares no stream: write CREATE TABLE statements into *.sql files there, or name another with --schemas",
            directory.display()
        );
        return Err(ConfigError { faults: vec![fault(message)] });
    }
    let mut faults = Vec::new();
    for view in catalog.views() {
        if let Err(problem) = view.check_homomorphism(ALGEBRA_SEED).await {
            let hint = problem.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            faults.push(fault(format!("{}{hint}", problem.message)));
        }
    }
    if faults.is_empty() { Ok(catalog) } else { Err(ConfigError { faults }) }
}

/// Runs `config check`.
///
/// # Errors
/// Output that cannot be written. What is wrong with the configuration is printed.
pub async fn check(args: &CheckArgs) -> Result<Outcome, CommandError> {
    let resolved = load(&args.platform, Config::new());
    // Where the configuration itself is wrong, its directory may be the wrong one, so the definitions are looked at only if it is named.
    let directory = match (&resolved, &args.platform.schemas) {
        (Ok(resolved), _) => Some(resolved.config.schemas.clone()),
        (Err(_), named) => named.clone(),
    };
    let catalog = match directory {
        Some(directory) => Some(load_catalog(&directory).await),
        None => None,
    };
    let mut faults = Vec::new();
    faults.extend(resolved.as_ref().err().into_iter().flat_map(|error| error.faults.clone()));
    faults.extend(catalog.as_ref().and_then(|catalog| catalog.as_ref().err()).into_iter().flat_map(|error| error.faults.clone()));
    let catalog = catalog.and_then(Result::ok);
    if args.json {
        print_json(resolved.as_ref().ok(), catalog.as_ref(), &faults)?;
    } else {
        print_text(resolved.as_ref().ok(), catalog.as_ref())?;
        faults.iter().for_each(|fault| output::note(&output::printable(&fault.to_string())));
    }
    if faults.is_empty() {
        return Ok(Outcome::Done);
    }
    let noun = if faults.len() == 1 { "error" } else { "errors" };
    output::note(&format!("{} {noun}", faults.len()));
    Ok(Outcome::Incomplete)
}

fn print_text(resolved: Option<&Resolved>, catalog: Option<&Catalog>) -> Result<(), CommandError> {
    if let Some(resolved) = resolved {
        let row = |key: &crate::config::Key| {
            vec![key.name.to_owned(), key.toml(&resolved.config), resolved.origins[key.name].to_string()]
        };
        output::print(&output::table(&["key", "value", "from"], &[], KEYS.iter().map(row)))?;
    }
    if let Some(catalog) = catalog {
        let (streams, views) = names(catalog);
        output::print(&format!("streams: {}\nviews: {}\n", streams.join(", "), views.join(", ")))?;
    }
    Ok(())
}

fn print_json(resolved: Option<&Resolved>, catalog: Option<&Catalog>, faults: &[Fault]) -> Result<(), CommandError> {
    let keys = resolved.map(|resolved| {
        let key = |key: &crate::config::Key| json!({"key": key.name, "value": (key.get)(&resolved.config), "from": resolved.origins[key.name].to_string()});
        KEYS.iter().map(key).collect::<Vec<_>>()
    });
    let (streams, views) = catalog.map(names).unzip();
    let errors: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let answer = json!({"keys": keys, "streams": streams, "views": views, "errors": errors});
    Ok(output::print(&format!("{answer}\n"))?)
}

/// The names of all streams and of all views.
#[must_use]
pub fn names(catalog: &Catalog) -> (Vec<String>, Vec<String>) {
    (
        catalog.streams().map(|stream| stream.name.to_string()).collect(),
        catalog.views().map(|view| view.name().to_string()).collect(),
    )
}

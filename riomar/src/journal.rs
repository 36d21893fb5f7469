//! The journal: what the platform tells about itself, on the standard error.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter, fmt,
    util::{SubscriberInitExt, TryInitError},
};

use crate::cli::{JournalArgs, LogFormat};

/// Why the journal cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The filter is not understood.
    #[error(
        "'{filter}' is no journal filter ({reason}): write error, warn, info, debug or trace, or \"info,riomar_speed_layer=debug\""
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process writes a journal already.
    #[error(transparent)]
    Second(#[from] TryInitError),
}

/// Starts the journal; `default_filter` is used where the arguments say nothing.
///
/// # Errors
/// A filter that is not understood.
pub fn start(args: &JournalArgs, default_filter: &str) -> Result<(), JournalError> {
    let filter = args.log.as_deref().unwrap_or(default_filter);
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| JournalError::Filter { filter: filter.to_owned(), reason: error.to_string() })?;
    let journal = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => journal.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?,
        LogFormat::Json => journal.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

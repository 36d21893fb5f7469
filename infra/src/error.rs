//! What can go wrong with a service; each kind names what the caller can do next.

use std::{io, time::Duration};

/// A service that could not be started, reached or signalled.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Its program is not on this machine.
    #[error("'{program}' is not on PATH: install it, e.g. `{install}`")]
    Missing {
        /// The program.
        program: String,
        /// A command that installs it.
        install: String,
    },
    /// It ended before it answered.
    #[error("'{program}' ended before it answered; its output was:\n{output}")]
    Ended {
        /// The program.
        program: String,
        /// The last lines that it wrote.
        output: String,
    },
    /// It did not do in time what it was asked to do.
    #[error("'{program}' did not {what} within {waited:?}; its output was:\n{output}")]
    Deadline {
        /// The program.
        program: String,
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// The last lines that it wrote.
        output: String,
    },
    /// It is not running: start it again with `restart`.
    #[error("'{program}' is not running")]
    NotRunning {
        /// The program.
        program: String,
    },
    /// It answered a command with an error.
    #[error("refused: {0}")]
    Refused(String),
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// Adds to an I/O error what was being done.
pub(crate) trait Doing<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, ServiceError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, ServiceError> {
        self.map_err(|source| ServiceError::Io { doing: doing(), source })
    }
}

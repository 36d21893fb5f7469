//! The commands: one file each, with its arguments and what it does.

pub mod accept_loss;
pub mod audit;
pub mod config;
pub mod demo;
pub mod doctor;
mod interrupt;
pub mod quarantine;
pub mod ready;
pub mod recompute;
pub mod send;
pub mod sql;
pub mod status;
pub mod up;

use std::{io, process::ExitCode, sync::Arc};

use riomar_event_log::Clock;

use crate::{
    cli::{Cli, ClientArgs, Command},
    client::{Client, ClientError, send::SendError},
    config::ConfigError,
    output,
    platform::PlatformError,
};

pub use interrupt::interrupted;

/// How a command ended that could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it: exit code 0.
    Done,
    /// Not all of it, and the output says what is lacking: exit code 1.
    Incomplete,
}

/// Why a command could not do its work: exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The platform did not answer, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Sending ended early.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The configuration was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The platform cannot start.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// Writing the answer failed.
    #[error("writing the output failed: {0}")]
    Output(#[from] io::Error),
    /// Anything else, in words that say what to do next.
    #[error("{0}")]
    Other(String),
}

/// Runs a command to its end.
pub async fn run(cli: Cli, clock: Arc<dyn Clock>) -> ExitCode {
    let result = match cli.command {
        Command::Demo(args) => demo::run(args, clock).await,
        Command::Up(args) => up::run(args, clock).await,
        Command::Config(config::ConfigCommand::Check(args)) => config::check(&args).await,
        client => unless_interrupted(run_client(client, clock)).await,
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Incomplete) => ExitCode::FAILURE,
        // Whoever closed the pipe has read enough.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("riomar: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run_client(command: Command, clock: Arc<dyn Clock>) -> Result<Outcome, CommandError> {
    match command {
        Command::Send(args) => send::run(args, clock).await,
        Command::Sql(args) => sql::run(args).await,
        Command::Recompute(args) => recompute::run(args, clock).await,
        Command::Audit(args) => audit::run(args).await,
        Command::AcceptLoss(args) => accept_loss::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Doctor(args) => doctor::run(args, clock).await,
        Command::Ready(args) => ready::run(args).await,
        Command::Quarantine(args) => quarantine::run(args).await,
        Command::Demo(_) | Command::Up(_) | Command::Config(_) => Ok(Outcome::Done),
    }
}

/// Ends a client command at Ctrl-C. What it has asked the platform to do goes on there.
async fn unless_interrupted(work: impl Future<Output = Result<Outcome, CommandError>>) -> Result<Outcome, CommandError> {
    tokio::select! {
        result = work => result,
        () = interrupted() => {
            output::note("interrupted");
            Ok(Outcome::Incomplete)
        }
    }
}

impl ClientArgs {
    /// The client that these arguments describe.
    fn client(&self) -> Result<Client, CommandError> {
        Ok(Client::new(&self.url)?)
    }
}

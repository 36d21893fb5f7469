//! `riomar ready`: whether a process can do the work of its roles, as an exit code for health checks.

use clap::Args;

use super::{CommandError, Outcome};
use crate::{cli::ClientArgs, client::ClientError, output};

/// Arguments of `ready`.
#[derive(Debug, Args)]
pub struct ReadyArgs {
    /// Where the process is, and how to print.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Runs `ready`.
///
/// # Errors
/// A process that does not answer.
pub async fn run(args: ReadyArgs) -> Result<Outcome, CommandError> {
    match args.client.client()?.get(&["readyz"], &[]).await {
        Ok(answer) => {
            output::print(&if args.client.json { format!("{}\n", answer.text) } else { "ready\n".to_owned() })?;
            Ok(Outcome::Done)
        }
        Err(ClientError::Refused(problem)) if problem.status == 503 => {
            output::note(&format!("not ready: {}/readyz says what is lacking", args.client.url.trim_end_matches('/')));
            Ok(Outcome::Incomplete)
        }
        Err(error) => Err(error.into()),
    }
}

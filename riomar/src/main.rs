//! `riomar`.

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use riomar::{cli::Cli, command};
use riomar_event_log::SystemClock;

/// Batches of rows are made and dropped all the time, by every thread: the system's allocator would take a fifth of the work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Stack of each worker thread. Planning a query recurses as deeply as its expressions are nested; unused stack costs nothing.
const STACK_BYTES: usize = 16 << 20;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("riomar: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(command::run(cli, Arc::new(SystemClock)));
    // Reading the standard input cannot be interrupted, and must not hold up the end.
    runtime.shutdown_background();
    code
}

//! The accounts of all streams as metrics, taken again and again, so that one that does not add up is seen without being asked for.

use std::{future::Future, pin::pin, time::Duration};

use futures::future::{Either, select};

use crate::{app::AppState, metrics, streams};

/// How often the accounts are taken. Each reads what the log got since the last one, and what quarantine got.
const TAKE_EVERY: Duration = Duration::from_secs(15);

/// Takes the account of each stream, tells it, and waits, until `shutdown` is over.
pub async fn run(state: AppState, shutdown: impl Future<Output = ()> + Send) {
    let mut shutdown = pin!(shutdown);
    loop {
        let round = async {
            for stream in state.catalog.streams() {
                let account = streams::account(&state, stream).await;
                if let Err(error) = &account {
                    tracing::debug!(stream = %stream.name, %error, "the account cannot be taken");
                }
                metrics::account(&stream.name, account.ok().as_ref());
            }
            state.clock.sleep(TAKE_EVERY).await;
        };
        if matches!(select(&mut shutdown, Box::pin(round)).await, Either::Left(_)) {
            return;
        }
    }
}

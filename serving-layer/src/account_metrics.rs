//! The accounts of all streams as metrics, taken again and again, so that one that does not add up is seen without being asked for.

use std::{collections::BTreeMap, future::Future, pin::pin, time::Duration};

use futures::future::{Either, select};

use crate::{app::AppState, metrics, streams};

/// How often the accounts are taken. Each reads what the log got since the last one, and what quarantine got.
const TAKE_EVERY: Duration = Duration::from_secs(15);

/// Takes the account of each stream, tells it, and waits, until `shutdown` is over.
pub async fn run(state: AppState, shutdown: impl Future<Output = ()> + Send) {
    let mut shutdown = pin!(shutdown);
    // The partitions that something was told of.
    let mut told = BTreeMap::new();
    loop {
        let round = async {
            for stream in state.catalog.streams() {
                match streams::account(&state, stream).await {
                    Ok((account, offsets)) => {
                        metrics::account(&stream.name, Some(&account));
                        offsets.iter().for_each(|offsets| metrics::offsets(&stream.name, offsets));
                        let partitions: Vec<_> = offsets.into_iter().map(|offsets| offsets.partition).collect();
                        told.insert(stream.name.clone(), partitions);
                    }
                    Err(error) => {
                        tracing::debug!(stream = %stream.name, %error, "the account cannot be taken");
                        metrics::account(&stream.name, None);
                        let partitions = told.remove(&stream.name).unwrap_or_default();
                        partitions.into_iter().for_each(|partition| metrics::offsets_unknown(&stream.name, partition));
                    }
                }
            }
            state.clock.sleep(TAKE_EVERY).await;
        };
        if matches!(select(&mut shutdown, Box::pin(round)).await, Either::Left(_)) {
            return;
        }
    }
}

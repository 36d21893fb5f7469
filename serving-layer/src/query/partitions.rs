//! How many partitions the streams have, also while the log does not answer.
//!
//! A log never loses partitions, so a number that was true once names partitions that are there. One that was added since is left out
//! by an answer until the log tells of it: the answer's receipt does not name it, so the answer is exact over what its receipt names.
//! Only a generation may not know of more partitions than the receipt does: it adds its own ([`super::snapshot`]).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use riomar_event_log::Log;
use riomar_schemas::{Catalog, Name};
use tokio::task::AbortHandle;

/// How long a query waits for the log to tell.
const ANSWER_WAIT_MAX: Duration = Duration::from_millis(100);

/// The numbers of partitions that are known.
#[derive(Debug, Clone)]
pub(super) struct Partitions {
    log: Arc<dyn Log>,
    known: Arc<Mutex<HashMap<Name, Known>>>,
}

#[derive(Debug, Default)]
struct Known {
    count: u32,
    /// The question that the log was asked last; there is one at a time.
    asking: Option<AbortHandle>,
}

impl Partitions {
    /// Of streams that have been created in the log as the catalog declares them.
    pub(super) fn new(log: Arc<dyn Log>, catalog: &Catalog) -> Self {
        let declared = |count| Known { count, asking: None };
        let known = catalog.streams().map(|stream| (stream.name.clone(), declared(stream.partitions))).collect();
        Self { log, known: Arc::new(Mutex::new(known)) }
    }

    /// The number of a stream's partitions: as the log tells it now, or as it was known to be, where the log takes its time.
    pub(super) async fn count(&self, stream: &Name) -> u32 {
        let known = match self.lock().get(stream) {
            Some(Known { count, asking: Some(asking) }) if !asking.is_finished() => return *count,
            known => known.map_or(0, |known| known.count),
        };
        let mut asking = self.clone().ask(stream.clone()).boxed();
        // A log in this process tells at once. Another one is waited for a little, and goes on to be asked behind the query's back.
        if let Some(count) = (&mut asking).now_or_never() {
            return count;
        }
        let answer = tokio::spawn(asking);
        self.lock().entry(stream.clone()).or_default().asking = Some(answer.abort_handle());
        tokio::time::timeout(ANSWER_WAIT_MAX, answer).await.ok().and_then(Result::ok).unwrap_or(known)
    }

    /// Asks the log, and gives what is known then.
    async fn ask(self, stream: Name) -> u32 {
        let told = self.log.partitions(&stream).await.unwrap_or_else(|error| {
            tracing::debug!(%stream, %error, "the log does not tell how many partitions there are");
            0
        });
        let mut all = self.lock();
        let known = all.entry(stream).or_default();
        known.count = known.count.max(told);
        known.count
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use riomar_schemas::{PartitionId, record::RecordBody};
    use serde_json::json;

    use super::*;
    use crate::testing::{Fault, Platform};

    const JSON: (&str, &str) = ("content-type", "application/json");

    /// The answer to a query over HTTP: the number of events, and what the receipt names.
    async fn asked(platform: &Platform) -> (u64, Vec<(String, u64)>) {
        let sql = json!({"sql": "SELECT coalesce(sum(hits), 0) AS hits FROM traffic"}).to_string();
        let reply = platform.post("/v1/sql", &[JSON], sql).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        let answer = reply.json();
        let through = answer["receipt"]["views"]["traffic"]["through"].as_object().expect("positions").clone();
        let through = through.into_iter().map(|(partition, offset)| (partition, offset.as_u64().expect("an offset")));
        (answer["rows"][0][0].as_u64().expect("a number"), through.collect())
    }

    #[tokio::test]
    async fn views_are_answered_while_the_log_is_away() {
        let platform = Platform::new().await;
        platform.publish("1").await;
        let known = asked(&platform).await;
        assert_eq!((known.0, known.1.len()), (1, 4), "{known:?}");
        for fault in [Fault::Refuses, Fault::Hangs] {
            platform.faulty_log.faults.set(Some(fault));
            assert_eq!(asked(&platform).await, known, "{fault:?}");
        }
    }

    #[tokio::test]
    async fn c3_a_partition_that_only_the_generation_knows_of_is_in_the_receipt() {
        let platform = Platform::new().await;
        let stream = platform.services.stream("page_views").expect("a stream").name.clone();
        // Another process, of a newer catalog, adds a partition; this one hears of it from the generation alone.
        platform.log.create(&stream, 5).await.expect("created");
        let event = r#"{"event_id":"5","ts":"2026-11-20T10:00:00Z","path":"/","visitor":"v","status":200}"#;
        platform.log.append(&stream, vec![(PartitionId(4), RecordBody::Event(event.into()))]).await.expect("appended");
        platform.publish("1").await;
        platform.faulty_log.faults.set(Some(Fault::Refuses));
        let (hits, through) = asked(&platform).await;
        assert_eq!(hits, 2);
        // The event, and the cut behind it.
        assert_eq!(through.iter().find(|(partition, _)| partition == "4"), Some(&("4".to_owned(), 2)), "{through:?}");
    }

    #[tokio::test]
    async fn a_partition_that_was_added_is_learnt_of_when_the_log_answers() {
        let platform = Platform::new().await;
        let stream = platform.services.stream("page_views").expect("a stream").name.clone();
        let partitions = Partitions::new(platform.faulty_log.clone(), &platform.services.catalog);
        platform.log.create(&stream, 6).await.expect("created");
        platform.faulty_log.faults.set(Some(Fault::Refuses));
        assert_eq!(partitions.count(&stream).await, 4, "as it is declared");
        platform.faulty_log.faults.set(None);
        assert_eq!(partitions.count(&stream).await, 6);
        platform.faulty_log.faults.set(Some(Fault::Hangs));
        assert_eq!(partitions.count(&stream).await, 6, "as it was known");
        platform.faulty_log.faults.set(None);
        platform.log.create(&stream, 7).await.expect("created");
        assert_eq!(partitions.count(&stream).await, 6, "one question at a time, and the last one has not been answered");
    }
}

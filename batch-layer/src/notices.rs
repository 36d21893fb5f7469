//! What the processes of a deployment tell of themselves: a small object for each, which it alone writes, again and again.
//!
//! No two clocks are compared. How long ago a notice was written is the difference between two times of the store, that of the notice
//! and that of the reader's own last one, and what has passed on the reader's clock since it wrote that. Whoever is killed writes no
//! more: it is silent after [`SILENT_AFTER_MS`], nobody tells of it after [`FORGOTTEN_AFTER_MS`], and whoever starts next removes what
//! it left. So there are never more notices than processes that began within that time, and those that run.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{Error, ObjectStoreExt, PutPayload, path::Path};
use riomar_schemas::paths;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{context::Context, error::BatchError, objects};

/// How often a process tells of itself.
pub const TELL_EVERY: Duration = Duration::from_secs(10);
/// Without a word for so long, in milliseconds, a process counts as silent: it is gone, frozen, or cannot write to the object store.
pub const SILENT_AFTER_MS: i64 = 30_000;
/// Without a word for so long, in milliseconds, a process is not told of any more.
pub const FORGOTTEN_AFTER_MS: i64 = 300_000;
/// Notices that are read at the most; of more than these the newest are.
pub const NOTICES_MAX: usize = 500;
/// Notices that are read at once.
const READS_AT_ONCE: usize = 16;

/// What a process told of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The process.
    pub id: String,
    /// How long ago it was told, in milliseconds.
    pub age_ms: i64,
    /// What was told; null where this version cannot read it.
    pub process: Value,
}

impl Notice {
    /// Whether nothing was heard of the process for too long.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.age_ms >= SILENT_AFTER_MS
    }
}

/// What the processes of a deployment told of themselves.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// The notices that are not forgotten.
    pub notices: Vec<Notice>,
    /// Those above [`NOTICES_MAX`] that were not read.
    pub left_out: usize,
}

/// A notice as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// By the clock of the process that tells, and for that process alone.
    told_at_ms: i64,
    process: Value,
}

/// A moment by the store's clock and by this process's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    store_ms: i64,
    own_ms: i64,
}

impl Moment {
    /// How long ago something was stored.
    pub(crate) fn age_ms(self, stored_ms: i64, now_ms: i64) -> i64 {
        let store_now_ms = self.store_ms.saturating_add(now_ms.saturating_sub(self.own_ms).max(0));
        store_now_ms.saturating_sub(stored_ms).max(0)
    }
}

/// Tells what a process has to tell of itself, and reads what the others told.
#[derive(Debug)]
pub struct Notices {
    context: Context,
    own: Path,
}

impl Notices {
    /// The notices of a deployment, for the process with this id.
    #[must_use]
    pub fn new(context: Context, id: Uuid) -> Self {
        Self { context, own: paths::process(&id.to_string()) }
    }

    /// Tells what there is to tell now. One attempt: the next time is never far.
    ///
    /// # Errors
    /// [`BatchError::Store`]; it may have been told all the same.
    pub async fn tell(&self, process: Value) -> Result<(), BatchError> {
        let stored = Stored { told_at_ms: self.context.clock.now_ms(), process };
        let text = objects::json(&self.own, &stored)?;
        let told = self.context.store.put(&self.own, PutPayload::from_bytes(text)).await;
        told.map(drop).map_err(BatchError::store(&self.own))
    }

    /// Takes back what was told: the process stops.
    ///
    /// # Errors
    /// [`BatchError::Store`]; the process is forgotten then like one that was killed.
    pub async fn withdraw(&self) -> Result<(), BatchError> {
        match self.context.store.delete(&self.own).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(BatchError::store(&self.own)(error)),
        }
    }

    /// Reads every notice that is not forgotten; `None` where this process has told nothing yet, and so has no age to compare with.
    ///
    /// # Errors
    /// [`BatchError::Store`], [`BatchError::Damaged`].
    pub async fn all(&self) -> Result<Option<Heard>, BatchError> {
        let Some(moment) = self.moment().await? else { return Ok(None) };
        let mut found = self.list(moment, |age_ms| age_ms < FORGOTTEN_AFTER_MS).await?;
        found.sort_unstable_by_key(|(_, age_ms)| *age_ms);
        let left_out = found.len().saturating_sub(NOTICES_MAX);
        found.truncate(NOTICES_MAX);
        let reading = stream::iter(found).map(|(path, _)| async move { self.notice(&path, moment).await });
        // One that is gone by now was taken back.
        let notices = reading.buffer_unordered(READS_AT_ONCE).try_filter_map(async |notice| Ok(notice)).try_collect().await?;
        Ok(Some(Heard { notices, left_out }))
    }

    /// Removes the notices that nobody tells of any more. Does nothing before this process has told of itself.
    ///
    /// # Errors
    /// [`BatchError::Store`], [`BatchError::Damaged`].
    pub async fn remove_forgotten(&self) -> Result<(), BatchError> {
        let Some(moment) = self.moment().await? else { return Ok(()) };
        for (path, _) in self.list(moment, |age_ms| age_ms >= FORGOTTEN_AFTER_MS).await? {
            objects::delete(&self.context, &path).await?;
        }
        Ok(())
    }

    /// When this process last told of itself: what is stored is as old as the difference. `None` where it has told nothing yet.
    ///
    /// # Errors
    /// [`BatchError::Store`], [`BatchError::Damaged`].
    pub(crate) async fn moment(&self) -> Result<Option<Moment>, BatchError> {
        let Some((store_ms, text)) = self.read(&self.own).await? else { return Ok(None) };
        let own: Stored = serde_json::from_slice(&text).map_err(|error| BatchError::damaged(&self.own, error))?;
        Ok(Some(Moment { store_ms, own_ms: own.told_at_ms }))
    }

    /// The notices of a certain age, with their age.
    async fn list(&self, moment: Moment, of_age: impl Fn(i64) -> bool) -> Result<Vec<(Path, i64)>, BatchError> {
        let now_ms = self.context.clock.now_ms();
        let found = objects::list(&self.context, &paths::processes()).await?;
        let aged = found.into_iter().map(|meta| (meta.location, moment.age_ms(meta.last_modified.timestamp_millis(), now_ms)));
        Ok(aged.filter(|(_, age_ms)| of_age(*age_ms)).collect())
    }

    async fn notice(&self, path: &Path, moment: Moment) -> Result<Option<Notice>, BatchError> {
        let Some((stored_ms, text)) = self.read(path).await? else { return Ok(None) };
        let age_ms = moment.age_ms(stored_ms, self.context.clock.now_ms());
        let process = serde_json::from_slice(&text).map_or(Value::Null, |stored: Stored| stored.process);
        let id = path.filename().unwrap_or_default().trim_end_matches(".json").to_owned();
        Ok(Some(Notice { id, age_ms, process }))
    }

    /// An object, and when the store says that it was written, in milliseconds.
    async fn read(&self, path: &Path) -> Result<Option<(i64, bytes::Bytes)>, BatchError> {
        let found = match self.context.store.get(path).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(BatchError::store(path)(error)),
        };
        let stored_ms = found.meta.last_modified.timestamp_millis();
        Ok(Some((stored_ms, found.bytes().await.map_err(BatchError::store(path))?)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStore;
    use riomar_event_log::clock::ManualClock;
    use serde_json::json;

    use super::*;
    use crate::testing::{Fault, FaultStore, Fixture, memory};

    const NOW_MS: i64 = 1_795_168_800_000;

    /// The notices as a process sees them whose clock shows `now_ms`, and that clock.
    async fn process(store: Arc<dyn ObjectStore>, id: u128, now_ms: i64) -> (Notices, ManualClock) {
        let clock = ManualClock::new(now_ms);
        let context = Fixture::new().await.layer(store).context().clone();
        let context = Context { clock: Arc::new(clock.clone()), ..context };
        (Notices::new(context, Uuid::from_u128(id)), clock)
    }

    async fn heard(notices: &Notices) -> Vec<(Value, bool)> {
        let heard = notices.all().await.expect("reads").expect("it has told of itself");
        assert_eq!(heard.left_out, 0);
        let mut heard: Vec<_> = heard.notices.iter().map(|notice| (notice.process.clone(), notice.is_silent())).collect();
        heard.sort_by_key(|(process, _)| process.to_string());
        heard
    }

    #[test]
    fn an_age_is_a_difference_of_the_stores_times_and_of_the_readers() {
        // The reader's clock is an hour fast; it told of itself when the store's showed 1,000.
        let moment = Moment { store_ms: 1_000, own_ms: 3_601_000 };
        for (stored_ms, now_ms, age_ms) in [
            (1_000, 3_601_000, 0),
            (1_000, 3_609_000, 8_000),
            (9_000, 3_609_000, 0),
            (-29_000, 3_601_000, 30_000),
            // Told just now, and the reader's clock was set back.
            (9_000, 3_605_000, 0),
            (1_000, 3_600_000, 0),
        ] {
            assert_eq!(moment.age_ms(stored_ms, now_ms), age_ms, "{stored_ms} {now_ms}");
        }
    }

    #[tokio::test]
    async fn clocks_that_differ_by_hours_make_nobody_silent() {
        let store = memory();
        let (one, clock) = process(store.clone(), 1, NOW_MS).await;
        let (other, _) = process(store.clone(), 2, NOW_MS - 7_200_000).await;
        assert!(one.all().await.expect("reads").is_none(), "it has nothing to compare with");
        one.tell(json!("one")).await.expect("tells");
        other.tell(json!("other")).await.expect("tells");
        let both = [(json!("one"), false), (json!("other"), false)];
        assert_eq!((heard(&one).await, heard(&other).await), (both.to_vec(), both.to_vec()));
        // Nothing more is heard of anybody, not even of the reader itself.
        clock.advance(Duration::from_millis(SILENT_AFTER_MS as u64 + 20_000));
        assert_eq!(heard(&one).await, [(json!("one"), true), (json!("other"), true)]);
        assert_eq!(heard(&other).await, both, "what one clock shows is nothing to the others");
        other.withdraw().await.expect("takes back");
        other.withdraw().await.expect("has nothing left to take back");
        assert_eq!(heard(&one).await, [(json!("one"), true)]);
        assert!(other.all().await.expect("reads").is_none());
    }

    #[tokio::test]
    async fn whoever_is_silent_for_long_is_forgotten_and_removed() {
        let store = memory();
        let (gone, _) = process(store.clone(), 1, NOW_MS).await;
        let (reader, clock) = process(store.clone(), 2, NOW_MS).await;
        reader.remove_forgotten().await.expect("does nothing");
        gone.tell(json!("gone")).await.expect("tells");
        reader.tell(json!("reader")).await.expect("tells");
        reader.remove_forgotten().await.expect("does nothing");
        assert_eq!(heard(&reader).await.len(), 2);
        clock.advance(Duration::from_millis(FORGOTTEN_AFTER_MS as u64 + 20_000));
        assert!(heard(&reader).await.is_empty());
        reader.remove_forgotten().await.expect("removes");
        assert!(gone.all().await.expect("reads").is_none(), "its object is gone");
        gone.tell(json!("woke up")).await.expect("tells");
        assert_eq!(heard(&gone).await, [(json!("woke up"), false)]);
    }

    #[tokio::test]
    async fn what_another_version_wrote_is_told_of_without_its_words() {
        let store = memory();
        let (one, _) = process(store.clone(), 1, NOW_MS).await;
        one.tell(json!("one")).await.expect("tells");
        store.put(&paths::process("later"), PutPayload::from_static(b"{}")).await.expect("stored");
        assert_eq!(heard(&one).await, [(json!("one"), false), (Value::Null, false)]);
    }

    #[tokio::test]
    async fn a_store_that_fails_is_asked_once() {
        let fault = Fault { at: 0, after_effect: false, for_good: true };
        let (one, _) = process(FaultStore::new(memory(), fault), 1, NOW_MS).await;
        assert!(matches!(one.tell(json!("one")).await, Err(BatchError::Store { .. })));
        assert!(matches!(one.withdraw().await, Err(BatchError::Store { .. })));
    }
}

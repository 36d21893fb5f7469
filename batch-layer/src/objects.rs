//! Small objects: read whole, created once, and never changed.
//!
//! A store may lose its answer after it did what it was asked. [`create_if_absent`] therefore asks again, and where it is told then that
//! there is such an object, it reads back what is there and compares. So the content must tell the writer's own object from anybody
//! else's: it carries an identifier, or it is the same for all writers.

use std::time::Duration;

use bytes::Bytes;
use object_store::{Error, ObjectMeta, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};
use serde::Serialize;
use uuid::Uuid;

use crate::{context::Context, error::BatchError};

/// How often one operation is tried.
const ATTEMPTS_MAX: u32 = 5;
/// The longest wait before the second attempt; before each further one it is twice as long. The shortest is half of that.
const BACKOFF: Duration = Duration::from_millis(50);

/// What became of [`create_if_absent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// The object is there with the given content.
    Created,
    /// The object is there with other content, which came first.
    Exists,
}

/// The JSON text of a small object, for its path.
///
/// # Errors
/// [`BatchError::Damaged`] where it has none.
pub fn json(path: &Path, object: &impl Serialize) -> Result<Bytes, BatchError> {
    serde_json::to_vec(object).map(Bytes::from).map_err(|error| BatchError::damaged(path, error))
}

/// Creates an object unless there is one.
///
/// # Errors
/// [`BatchError::Store`] where the outcome is still unknown after all attempts: the object may be created even later.
pub async fn create_if_absent(context: &Context, path: &Path, content: Bytes) -> Result<Creation, BatchError> {
    let mut attempts = Attempts::new(context, path);
    loop {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let failure = match context.store.put_opts(path, PutPayload::from_bytes(content.clone()), options).await {
            Ok(_) => return Ok(Creation::Created),
            Err(error) => error,
        };
        // After any other failure what can be read need not stay: a file may have its name, and a power failure takes it away again.
        // The store vouches for what it says is there. It may be the echo of our own request, sent again here or by its client.
        if matches!(failure, Error::AlreadyExists { .. })
            && let Ok(Some(found)) = read_once(context, path).await
        {
            return Ok(if found == content { Creation::Created } else { Creation::Exists });
        }
        attempts.failed(failure).await?;
    }
}

/// Writes an object, whether it is there or not. Only one process may ever write to the path.
///
/// # Errors
/// [`BatchError::Store`]; it may be written all the same.
pub async fn overwrite(context: &Context, path: &Path, content: Bytes) -> Result<(), BatchError> {
    let mut attempts = Attempts::new(context, path);
    loop {
        match context.store.put(path, PutPayload::from_bytes(content.clone())).await {
            Ok(_) => return Ok(()),
            Err(error) => attempts.failed(error).await?,
        }
    }
}

/// Reads an object; `None` where there is none.
///
/// # Errors
/// [`BatchError::Store`].
pub async fn read(context: &Context, path: &Path) -> Result<Option<Bytes>, BatchError> {
    let mut attempts = Attempts::new(context, path);
    loop {
        match read_once(context, path).await {
            Ok(found) => return Ok(found),
            Err(error) => attempts.failed(error).await?,
        }
    }
}

/// Whether there is such an object.
///
/// # Errors
/// [`BatchError::Store`].
pub async fn exists(context: &Context, path: &Path) -> Result<bool, BatchError> {
    let mut attempts = Attempts::new(context, path);
    loop {
        match context.store.head(path).await {
            Ok(_) => return Ok(true),
            Err(Error::NotFound { .. }) => return Ok(false),
            Err(error) => attempts.failed(error).await?,
        }
    }
}

/// The objects in a folder, not those in folders below it, in order of their paths.
///
/// # Errors
/// [`BatchError::Store`].
pub async fn list(context: &Context, folder: &Path) -> Result<Vec<ObjectMeta>, BatchError> {
    let mut attempts = Attempts::new(context, folder);
    loop {
        match context.store.list_with_delimiter(Some(folder)).await {
            Ok(mut found) => {
                found.objects.sort_unstable_by(|a, b| a.location.cmp(&b.location));
                return Ok(found.objects);
            }
            Err(Error::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => attempts.failed(error).await?,
        }
    }
}

/// Removes an object; does nothing where there is none.
///
/// # Errors
/// [`BatchError::Store`].
pub async fn delete(context: &Context, path: &Path) -> Result<(), BatchError> {
    let mut attempts = Attempts::new(context, path);
    loop {
        match context.store.delete(path).await {
            Ok(()) | Err(Error::NotFound { .. }) => return Ok(()),
            Err(error) => attempts.failed(error).await?,
        }
    }
}

async fn read_once(context: &Context, path: &Path) -> Result<Option<Bytes>, Error> {
    match context.store.get(path).await {
        Ok(found) => found.bytes().await.map(Some),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Counts the attempts of one operation.
struct Attempts<'a> {
    context: &'a Context,
    path: &'a Path,
    failed: u32,
}

impl<'a> Attempts<'a> {
    fn new(context: &'a Context, path: &'a Path) -> Self {
        Self { context, path, failed: 0 }
    }

    /// Waits before the next attempt, or gives up.
    async fn failed(&mut self, error: Error) -> Result<(), BatchError> {
        self.failed += 1;
        if is_permanent(&error) || self.failed >= ATTEMPTS_MAX {
            return Err(BatchError::store(self.path)(error));
        }
        // Not worth a line of its own: where all attempts fail, whoever asked says so.
        tracing::debug!(path = %self.path, failed = self.failed, %error, "the object store failed; trying again");
        self.context.clock.sleep(backoff(self.failed, self.context.fresh_ids.next())).await;
        Ok(())
    }
}

/// Whether the same request fails again, however often it is sent.
fn is_permanent(error: &Error) -> bool {
    matches!(
        error,
        Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::InvalidPath { .. }
            | Error::UnknownConfigurationKey { .. }
            // Of a creation: the place for it is absent, such as a bucket. Elsewhere it is an answer, and no failure.
            | Error::NotFound { .. }
    )
}

/// The wait after so many failures. Those who failed together do not come back together: `chance` says when.
fn backoff(failed: u32, chance: Uuid) -> Duration {
    let longest = BACKOFF * 2_u32.pow(failed - 1);
    let share = f64::from(chance.as_u128() as u16) / f64::from(u16::MAX);
    longest.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fault, FaultStore, Fixture, memory};

    #[tokio::test]
    async fn creates_once_whatever_is_lost() {
        let fixture = Fixture::new().await;
        let path = Path::from("a/b.json");
        let (mine, other) = (Bytes::from_static(b"mine"), Bytes::from_static(b"other"));
        for fault in (0..4).flat_map(Fault::all) {
            let store = memory();
            let layer = fixture.layer(FaultStore::new(store.clone(), fault));
            let created = create_if_absent(layer.context(), &path, mine.clone()).await;
            if !fault.for_good {
                assert_eq!(created.expect("survives one failure"), Creation::Created, "{fault:?}");
            } else if let Ok(creation) = created {
                assert_eq!(creation, Creation::Created, "{fault:?}");
            }
            let healthy = fixture.layer(store);
            let found = read(healthy.context(), &path).await.expect("reads");
            let late = create_if_absent(healthy.context(), &path, other.clone()).await.expect("creates");
            assert_eq!(late == Creation::Exists, found == Some(mine.clone()), "{fault:?}");
        }
    }

    /// A file that has its name, though its directory could not be made durable, is not created yet.
    #[tokio::test]
    async fn what_failed_is_created_again_and_not_only_looked_at() {
        let fixture = Fixture::new().await;
        let store = FaultStore::new(memory(), Fault { at: 0, after_effect: true, for_good: false });
        let layer = fixture.layer(store.clone());
        let created = create_if_absent(layer.context(), &Path::from("a/b.json"), Bytes::from_static(b"x")).await;
        assert_eq!(created.expect("survives one failure"), Creation::Created);
        assert_eq!(store.operations(), 3, "created, told that it is there, and read");
    }

    #[tokio::test]
    async fn reads_lists_and_deletes() {
        let fixture = Fixture::new().await;
        let context = fixture.layer(memory()).context().clone();
        let path = Path::from("a/b.json");
        assert_eq!(read(&context, &path).await.expect("reads"), None);
        assert!(!exists(&context, &path).await.expect("looks"));
        create_if_absent(&context, &path, Bytes::from_static(b"x")).await.expect("creates");
        assert!(exists(&context, &path).await.expect("looks"));
        assert_eq!(list(&context, &Path::from("a")).await.expect("lists").len(), 1);
        delete(&context, &path).await.expect("deletes");
        delete(&context, &path).await.expect("does nothing");
        assert!(list(&context, &Path::from("a")).await.expect("lists").is_empty());
    }

    #[test]
    fn waits_grow_are_bounded_and_differ() {
        for failed in 1..ATTEMPTS_MAX {
            let longest = BACKOFF * 2_u32.pow(failed - 1);
            let waits = [0, 1 << 12, 1 << 15, u128::from(u16::MAX)].map(|chance| backoff(failed, Uuid::from_u128(chance)));
            assert!(waits.is_sorted_by(|one, next| one < next), "{waits:?}");
            assert_eq!((waits[0], waits[3]), (longest / 2, longest));
        }
    }

    #[test]
    fn what_stays_wrong_is_not_tried_again() {
        let (path, source) = (String::new, || "x".into());
        for error in [
            Error::PermissionDenied { path: path(), source: source() },
            Error::Unauthenticated { path: path(), source: source() },
            Error::NotFound { path: path(), source: source() },
        ] {
            assert!(is_permanent(&error), "{error:?}");
        }
        assert!(!is_permanent(&Error::Generic { store: "S3", source: source() }));
        assert!(!is_permanent(&Error::AlreadyExists { path: path(), source: source() }), "the echo of our own request");
    }
}

//! The deployment's id: what tells its realtime states from those of another one, or of one that was begun afresh.
//!
//! It is in the object store, and only realtime views need it. So nobody waits for it: while the store does not answer, the realtime
//! store is one that is not available, and what does without it goes on.

use std::{sync::Arc, time::Duration};

use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, path::Path};
use riomar_event_log::Clock;
use riomar_schemas::paths;
use serde::{Deserialize, Serialize};
use tokio::sync::SetOnce;

use super::{
    PlatformError,
    supervise::{Stop, stopped},
};
use crate::objects::may_pass;

/// The wait before a store that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How long a start waits for the answer.
const START_TIME_MAX: Duration = Duration::from_secs(5);

/// What the object holds.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    id: String,
}

/// The deployment whose objects these are.
#[derive(Debug)]
pub struct Deployment {
    objects: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    /// Becomes the id where there is none yet.
    fresh: String,
    id: SetOnce<String>,
}

impl Deployment {
    pub fn new(objects: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>, fresh: String) -> Self {
        Self { objects, clock, fresh, id: SetOnce::new() }
    }

    /// The id, once it is known.
    pub fn id(&self) -> Option<&str> {
        self.id.get().map(String::as_str)
    }

    /// Waits until the id is known.
    pub async fn known(&self) {
        self.id.wait().await;
    }

    /// Asks for the id, but not for long: a store that does not answer is asked again by [`Self::find`].
    ///
    /// # Errors
    /// A store that refuses, or an object that cannot be read.
    pub async fn begin(&self) -> Result<(), PlatformError> {
        let asked = tokio::select! {
            asked = self.ask() => asked,
            () = self.clock.sleep(START_TIME_MAX) => Ok(()),
        };
        match asked {
            Err(error) if may_pass(&error) => Ok(()),
            asked => asked.map_err(|error| PlatformError::Deployment(format!("{}: {error}", paths::deployment()))),
        }
    }

    /// Asks until the id is known, or until it is asked to stop. One line in the journal where that begins, and one where it ends.
    pub async fn find(&self, stop: Stop) {
        if self.id().is_some() {
            return;
        }
        tracing::warn!("the object store has not told the deployment's id: realtime views wait for it, everything else goes on");
        let mut last = String::new();
        let found = async {
            while let Err(error) = self.ask().await {
                let cause = error.to_string();
                // What will not pass by itself is told when it begins; the rest is in the line above.
                if !may_pass(&error) && cause != last {
                    tracing::error!(cause, "the deployment's id can be neither read nor written; it is tried again");
                }
                last = cause;
                self.clock.sleep(ASK_AGAIN).await;
            }
        };
        tokio::select! {
            () = found => tracing::info!("the deployment's id is known: realtime views are available"),
            () = stopped(stop) => {}
        }
    }

    /// Asks once. Whose the id is makes no difference, so neither does a reply that was lost.
    async fn ask(&self) -> Result<(), Error> {
        let path = paths::deployment();
        let stored = self.created(&path).await?;
        let stored: Stored = serde_json::from_slice(&stored).map_err(unreadable)?;
        // Where it is known already, it is this one.
        let _ = self.id.set(stored.id);
        Ok(())
    }

    async fn created(&self, path: &Path) -> Result<bytes::Bytes, Error> {
        let text = serde_json::to_vec(&Stored { id: self.fresh.clone() }).map_err(unreadable)?;
        match self.objects.put_opts(path, PutPayload::from(text), PutMode::Create.into()).await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
        self.objects.get(path).await?.bytes().await
    }
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::Generic { store: "deployment", source: error.into() }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use riomar_event_log::SystemClock;

    use super::*;

    #[tokio::test]
    async fn the_first_id_stays() {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let deployment = |fresh: &str| Deployment::new(objects.clone(), Arc::new(SystemClock), fresh.to_owned());
        for fresh in ["a", "b"] {
            let deployment = deployment(fresh);
            assert_eq!(deployment.id(), None);
            deployment.begin().await.expect("asked");
            assert_eq!(deployment.id(), Some("a"));
        }
        let damaged = PutPayload::from_static(b"{}");
        objects.put(&paths::deployment(), damaged).await.expect("stored");
        let error = deployment("c").begin().await.expect_err("it is no id").to_string();
        assert!(error.contains("deployment.json"), "{error}");
    }
}

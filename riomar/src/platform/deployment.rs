//! The deployment's id: what tells its realtime states from those of another one, or of one that was begun afresh.

use std::time::Duration;

use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, path::Path};
use riomar_event_log::Clock;
use riomar_schemas::paths;
use serde::{Deserialize, Serialize};

use super::PlatformError;
use crate::objects::may_pass;

/// The wait before a store that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What the object holds.
#[derive(Debug, Serialize, Deserialize)]
struct Deployment {
    id: String,
}

/// The id of the deployment whose objects these are; `fresh` becomes it where there is none yet. Waits for a store that does not
/// answer.
pub async fn id(objects: &dyn ObjectStore, clock: &dyn Clock, fresh: String) -> Result<String, PlatformError> {
    let path = paths::deployment();
    let failed = |error: &dyn std::fmt::Display| PlatformError::Deployment(format!("{path}: {error}"));
    let text = serde_json::to_vec(&Deployment { id: fresh }).map_err(|error| failed(&error))?;
    loop {
        match created(objects, &path, text.clone()).await {
            Ok(stored) => {
                let deployment: Deployment = serde_json::from_slice(&stored).map_err(|error| failed(&error))?;
                return Ok(deployment.id);
            }
            Err(error) if may_pass(&error) => {
                tracing::warn!(%error, "the object store does not answer; the platform waits for it before it starts");
                clock.sleep(ASK_AGAIN).await;
            }
            Err(error) => return Err(failed(&error)),
        }
    }
}

/// The object's content. Whose it is makes no difference, so neither does a reply that was lost.
async fn created(objects: &dyn ObjectStore, path: &Path, text: Vec<u8>) -> Result<bytes::Bytes, Error> {
    match objects.put_opts(path, PutPayload::from(text), PutMode::Create.into()).await {
        Ok(_) | Err(Error::AlreadyExists { .. }) => {}
        Err(error) => return Err(error),
    }
    objects.get(path).await?.bytes().await
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use riomar_event_log::SystemClock;

    use super::*;

    #[tokio::test]
    async fn the_first_id_stays() {
        let objects = InMemory::new();
        assert_eq!(id(&objects, &SystemClock, "a".to_owned()).await.expect("an id"), "a");
        assert_eq!(id(&objects, &SystemClock, "b".to_owned()).await.expect("an id"), "a");
    }
}

//! The deployment's id: what tells its realtime states from those of another one, or of one that was begun afresh.

use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use riomar_schemas::paths;
use serde::{Deserialize, Serialize};

use super::PlatformError;

/// What the object holds.
#[derive(Debug, Serialize, Deserialize)]
struct Deployment {
    id: String,
}

/// The id of the deployment whose objects these are; `fresh` becomes it where there is none yet.
pub async fn id(objects: &dyn ObjectStore, fresh: String) -> Result<String, PlatformError> {
    let path = paths::deployment();
    let failed = |error: &dyn std::fmt::Display| PlatformError::Deployment(format!("{path}: {error}"));
    let text = serde_json::to_vec(&Deployment { id: fresh }).map_err(|error| failed(&error))?;
    match objects.put_opts(&path, PutPayload::from(text), PutMode::Create.into()).await {
        Ok(_) | Err(Error::AlreadyExists { .. }) => {}
        Err(error) => return Err(failed(&error)),
    }
    let stored = objects.get(&path).await.map_err(|error| failed(&error))?.bytes().await.map_err(|error| failed(&error))?;
    let deployment: Deployment = serde_json::from_slice(&stored).map_err(|error| failed(&error))?;
    Ok(deployment.id)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn the_first_id_stays() {
        let objects = InMemory::new();
        assert_eq!(id(&objects, "a".to_owned()).await.expect("an id"), "a");
        assert_eq!(id(&objects, "b".to_owned()).await.expect("an id"), "a");
    }
}

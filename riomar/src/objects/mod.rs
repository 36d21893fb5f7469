//! Where the master dataset and the generations live: in a directory of this machine, or in a bucket of S3 or of what speaks its
//! protocol.

mod answer;
mod bucket;
mod durable_files;
mod error;
mod s3;

use std::{path::PathBuf, sync::Arc};

use object_store::{Error, ObjectStore};

pub use durable_files::DurableFiles;
pub use error::ObjectsError;
pub use s3::S3Limits;

use crate::config::{Config, MasterUrl};

/// Opens the object store of a configuration. S3's credentials come from the process's environment, in the variables that AWS's own
/// tools read, or from the role of the machine.
///
/// S3 is asked for one small object. What is wrong for good is an error; where there is no answer, that is logged and the store is
/// given all the same, so that a platform can start before its store is there: [`may_pass`] tells such errors from others.
///
/// # Errors
/// What is wrong for good, and what to do about it.
pub async fn open(config: &Config) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
    // Variables that are not Unicode cannot be meant here.
    let environment: Vec<(String, String)> =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    open_with(config, &environment, S3Limits::default()).await
}

/// As [`open`], with the environment and the patience handed in.
///
/// # Errors
/// As [`open`].
pub async fn open_with(
    config: &Config,
    environment: &[(String, String)],
    limits: S3Limits,
) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
    match &config.master.url {
        MasterUrl::S3 { bucket, prefix } => s3::open(&config.master, bucket, prefix, environment, limits).await,
        MasterUrl::DataDirectory => open_directory(config.data.join(MasterUrl::FOLDER)).await,
        MasterUrl::Directory(directory) => open_directory(directory.clone()).await,
    }
}

async fn open_directory(path: PathBuf) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
    let opened = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || DurableFiles::open(&path)).await
    };
    match opened.map_err(std::io::Error::other).flatten() {
        Ok(files) => Ok(Arc::new(files)),
        Err(source) => Err(ObjectsError::Directory { path, source }),
    }
}

/// Whether a store that failed like this may answer later, by itself: it is down, slow or cannot be reached. A directory that fails
/// needs somebody to look at it.
#[must_use]
pub fn may_pass(error: &Error) -> bool {
    matches!(error, Error::Generic { store: s3::STORE, .. }) && answer::refusal(error).is_none()
}

#[cfg(test)]
mod tests;

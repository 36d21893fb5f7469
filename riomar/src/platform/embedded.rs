//! The platform that needs no service: everything it keeps is in one data directory.
//!
//! ```text
//! {data}/log/        the embedded log
//! {data}/objects/    master dataset and generations, unless master.url names another place
//! {data}/spill/      what queries and recomputes cannot hold in memory; emptied at every start
//! ```

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt, path::Path, sync::Arc};

use riomar_batch_layer::FreshIds;
use riomar_event_log::{Clock, EmbeddedLog, LogError};
use riomar_schemas::Catalog;
use riomar_speed_layer::{MemoryStore, RealtimeStore, RedisLimits, RedisStore, RedisTls};

use super::{Parts, Platform, PlatformError, Settings, deployment};
use crate::{
    config::{Config, LogKind, RealtimeKind},
    durable_files::DurableFiles,
};

/// The folder for what does not fit into memory.
const SPILL: &str = "spill";

impl Platform {
    /// Opens the platform that a configuration describes. Waits while the log recovers what was written last.
    ///
    /// # Errors
    /// A directory that cannot be used, that another process uses, or that holds damaged files.
    pub async fn embedded(config: &Config, catalog: Arc<Catalog>, clock: Arc<dyn Clock>) -> Result<Self, PlatformError> {
        let opened = {
            let (config, clock) = (config.clone(), Arc::clone(&clock));
            tokio::task::spawn_blocking(move || open_files(&config, clock)).await
        };
        let (log, objects) = opened.map_err(|error| LogError::Unavailable(error.to_string()))??;
        let fresh_ids = FreshIds::random();
        let deployment = deployment::id(&objects, fresh_ids.next().simple().to_string()).await?;
        let realtime: Arc<dyn RealtimeStore> = match config.realtime.kind {
            RealtimeKind::Memory => Arc::new(MemoryStore::new()),
            RealtimeKind::Redis => {
                let (address, tls) = (config.realtime.url.address(), RedisTls::default());
                Arc::new(RedisStore::connect(address, &tls, &deployment, RedisLimits::default())?)
            }
        };
        let settings = Settings {
            spill: Some(config.data.join(SPILL)),
            process_id: fresh_ids.next().as_u64_pair().0,
            ..Settings::of(config)
        };
        let parts = Parts { catalog, log: log.clone(), objects: Arc::new(objects), realtime, clock, settings };
        let mut platform = Self::open(parts).await?;
        platform.own_log = Some(log);
        Ok(platform)
    }
}

/// The log first: its lock keeps every other process away from the directory.
fn open_files(config: &Config, clock: Arc<dyn Clock>) -> Result<(Arc<EmbeddedLog>, DurableFiles), PlatformError> {
    let data = &config.data;
    private_directory(data).map_err(directory(data))?;
    let log = match config.log.kind {
        LogKind::Embedded => EmbeddedLog::open(&data.join("log"), clock)?,
    };
    let spill = data.join(SPILL);
    match std::fs::remove_dir_all(&spill) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(directory(&spill)(error)),
        _ => private_directory(&spill).map_err(directory(&spill))?,
    }
    let objects = config.master.url.directory(data);
    let objects = DurableFiles::open(&objects).map_err(directory(&objects))?;
    Ok((Arc::new(log), objects))
}

/// Creates a directory that only its owner may look into. One that is there stays as it is.
fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn directory(path: &Path) -> impl FnOnce(io::Error) -> PlatformError {
    let path = path.to_owned();
    move |source| PlatformError::Directory { path, source }
}

//! Why a platform cannot start; each says what to do about it.

use std::{io, net::SocketAddr, path::PathBuf};

use riomar_batch_layer::BatchError;
use riomar_event_log::LogError;
use riomar_schemas::Name;
use riomar_serving_layer::roles::Roles;

use crate::{journal::JournalError, objects::ObjectsError};

/// An error of starting the platform.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// A directory cannot be used.
    #[error("the directory {path} cannot be used: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The object store cannot be opened.
    #[error("master.url: {0}")]
    Objects(#[from] ObjectsError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The realtime store's certificates cannot be used.
    #[error("realtime: {0}")]
    Realtime(#[from] riomar_speed_layer::RedisTlsError),
    /// A client certificate without its key, or the other way round.
    #[error("realtime.client_certificate and realtime.client_key go together: set both, or neither")]
    HalfACertificate,
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {}", why_not(.source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Roles that the configuration has no room for.
    #[error("--role {roles}: {reason}")]
    Roles {
        /// The roles.
        roles: Roles,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// A stream is declared with fewer partitions than it has.
    #[error(
        "stream {stream} has {present} partitions and is declared with {declared}: partitions may only grow, so declare at least {present}"
    )]
    FewerPartitions {
        /// The stream.
        stream: Name,
        /// The partitions in its log.
        present: u32,
        /// The partitions declared.
        declared: u32,
    },
    /// A stream's declaration no longer fits what has landed.
    #[error(transparent)]
    Schema(BatchError),
    /// The deployment's id can be neither read nor written.
    #[error("the deployment has no id: {0}")]
    Deployment(String),
    /// The query engine cannot be set up.
    #[error("the query engine cannot be set up: {0}")]
    Engine(String),
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The server stopped.
    #[error("the HTTP server failed: {0}")]
    Server(io::Error),
}

fn why_not(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there. Choose another with --http, such as --http 127.0.0.1:0 for a free one".to_owned()
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need privileges. Choose another with --http".to_owned(),
        _ => format!("{error}. Choose another with --http"),
    }
}

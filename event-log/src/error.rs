//! What can go wrong with a log; each kind names what the caller can do next.

use riomar_schemas::{Name, Offset, PartitionId};

/// An error of a log, or of what its readers stand on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The offset is no longer, or not yet, in the log. Never skipped silently: read the master dataset instead.
    #[error("offset {wanted} of {stream}/{partition} is not in the log, which holds {start} to {end}")]
    OutOfRange {
        /// The stream.
        stream: Name,
        /// The partition.
        partition: PartitionId,
        /// The offset asked for.
        wanted: Offset,
        /// The lowest offset held.
        start: Offset,
        /// The offset behind the last one held.
        end: Offset,
    },
    /// No such stream or partition.
    #[error("the log has no {stream}/{partition}")]
    UnknownPartition {
        /// The stream.
        stream: Name,
        /// The partition.
        partition: PartitionId,
    },
    /// Another process has the data directory open.
    #[error("{path} is in use by another process: stop it, or choose another directory with --data")]
    Locked {
        /// The directory, and the process where it is known.
        path: String,
    },
    /// The call is larger than a limit allows, and always will be: make it smaller. Nothing of it was taken.
    #[error("{limit} is {max}, but this call needs {found}")]
    LimitExceeded {
        /// The limit's name.
        limit: &'static str,
        /// What the call needs.
        found: u64,
        /// What the limit allows.
        max: u64,
    },
    /// More ids would have to be remembered than the stream allows: nothing of the step has happened.
    #[error(
        "{stream}/{partition} needs {found} ids to tell duplicates from new events, and its dedup_ids_max is {max}: raise it (some 40 \
         bytes of memory an id, in landing and in the speed layer), or lower its dedup_epochs"
    )]
    TooManyIds {
        /// The stream.
        stream: Name,
        /// The partition.
        partition: PartitionId,
        /// Ids that it needs, if each event of the step brings one.
        found: u64,
        /// Ids that it may have.
        max: u64,
    },
    /// The log cannot take or give records now; the same call may succeed later. Nothing of a failed append was acknowledged.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// The disk of the log is full: make room, then the same call succeeds. Nothing of a failed append was acknowledged.
    #[error("the log has no room: {cause}")]
    DiskFull {
        /// The disk, and what it lacks.
        cause: String,
        /// A write ended half-way: the log takes nothing until it is opened again, room or not.
        reopen: bool,
    },
    /// A setting of the log, or of the service behind it, would break a promise: change it as the text says.
    #[error("{0}")]
    Misconfigured(String),
    /// What the log holds is damaged: it is never skipped over.
    #[error("the log is damaged: {0}")]
    Damaged(String),
    /// The master dataset or the object store behind a reader failed.
    #[error("reading history failed: {0}")]
    History(String),
}

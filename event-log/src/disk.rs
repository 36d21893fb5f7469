//! The room that is left on the disk of a directory.

use std::{io, path::Path};

/// Bytes that this process may still write on the disk of a directory.
///
/// # Errors
/// Whatever the operating system reports, such as a directory that is not there.
pub fn free_bytes(directory: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

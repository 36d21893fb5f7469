//! The lock that keeps a directory to one log at a time.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use super::store::io_error;
use crate::error::LogError;

/// How long the lock is waited for. A process that has just ended may still be on its way out, and a program that another thread is
/// about to start holds all that is open here until it has begun.
const WAIT_MAX: Duration = Duration::from_secs(2);
const TRY_EVERY: Duration = Duration::from_millis(20);

/// Holds the directory's `LOCK` file; the operating system lets go of it even when the process is killed.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock and writes this process's pid into the file. Blocks for up to two seconds.
    ///
    /// # Errors
    /// [`LogError::Locked`] where another log holds it; [`LogError::Unavailable`] where the file cannot be written.
    pub fn take(directory: &Path) -> Result<Self, LogError> {
        let path = directory.join("LOCK");
        let context = |error| io_error(&path, &error);
        // Not truncated: what it holds is the other process's pid until the lock is ours.
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(context)?;
        let deadline = Instant::now() + WAIT_MAX;
        let taken = loop {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(TRY_EVERY),
                taken => break taken,
            }
        };
        match taken {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(context(error)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let known = file.read_to_string(&mut holder).is_ok() && holder.trim().parse::<u32>().is_ok();
                let holder = if known { format!(" (process {})", holder.trim()) } else { String::new() };
                return Err(LogError::Locked { path: format!("{}{holder}", directory.display()) });
            }
        }
        file.set_len(0).map_err(context)?;
        file.seek(SeekFrom::Start(0)).map_err(context)?;
        writeln!(file, "{}", std::process::id()).map_err(context)?;
        Ok(Self { _file: file })
    }
}

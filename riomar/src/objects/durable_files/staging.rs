//! The folders for files that have no name among the objects yet: one for each store that is open.
//!
//! ```text
//! {root}/.staging/LOCK        held while a store is opened
//! {root}/.staging/{n}/LOCK    held for as long as the store is open
//! {root}/.staging/{n}/{m}     a file without a name
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
};

use super::staged::Staged;

/// The folder of all of them.
pub const STAGING: &str = ".staging";
const LOCK: &str = "LOCK";

/// The folder of one open store. What is in it when its process ends has no name, so nobody refers to it: the next store that is
/// opened removes it.
#[derive(Debug)]
pub struct Staging {
    folder: PathBuf,
    count: AtomicU64,
    /// The operating system lets go of the lock even when the process is killed.
    _lock: File,
}

impl Staging {
    /// Takes a folder of its own below `root`, and removes those of stores that are no longer open.
    pub fn open(root: &Path) -> io::Result<Self> {
        let all = root.join(STAGING);
        fs::create_dir_all(&all)?;
        // Between its creation and its lock a folder looks abandoned, so stores are opened one after the other.
        let door = lock_file(&all)?;
        door.lock()?;
        for entry in fs::read_dir(&all)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && is_abandoned(&entry.path())? {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let folder = new_folder(&all)?;
        let lock = lock_file(&folder)?;
        lock.try_lock()?;
        Ok(Self { folder, count: AtomicU64::new(0), _lock: lock })
    }

    /// A new file without a name.
    pub fn stage(&self) -> io::Result<Staged> {
        Staged::create(&self.folder, &self.count)
    }

    /// The number of files that have no name yet.
    #[cfg(test)]
    pub fn files(&self) -> usize {
        fs::read_dir(&self.folder).expect("a folder").count() - 1
    }

    /// Where they are.
    #[cfg(test)]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn lock_file(folder: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(folder.join(LOCK))
}

/// Whether no open store holds a folder.
fn is_abandoned(folder: &Path) -> io::Result<bool> {
    match File::open(folder.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(lock) => match lock.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        },
    }
}

/// Creates the first folder whose number is free.
fn new_folder(all: &Path) -> io::Result<PathBuf> {
    let mut number = 0_u64;
    loop {
        let folder = all.join(number.to_string());
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

//! Folders that belong to one open store or process each, side by side in one that many share.
//!
//! ```text
//! {shared}/LOCK        held while a folder is taken
//! {shared}/{n}/LOCK    held for as long as the folder is somebody's
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

const LOCK: &str = "LOCK";

/// A folder of one's own. Nobody else refers to what is in it: when its owner ends, however it ends, the next one to take a folder
/// removes it.
#[derive(Debug)]
pub struct OwnFolder {
    path: PathBuf,
    /// The operating system lets go of the lock even when the process is killed.
    _lock: File,
}

impl OwnFolder {
    /// Takes a folder below `shared`, which is created if it is absent, and removes those whose owners have ended.
    ///
    /// # Errors
    /// A directory that cannot be created or written.
    pub fn take(shared: &Path) -> io::Result<Self> {
        fs::create_dir_all(shared)?;
        // Between its creation and its lock a folder looks abandoned, so folders are taken one after the other.
        let door = lock_file(shared)?;
        door.lock()?;
        for entry in fs::read_dir(shared)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && is_abandoned(&entry.path())? {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let path = new_folder(shared)?;
        let lock = lock_file(&path)?;
        lock.try_lock()?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn lock_file(folder: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(folder.join(LOCK))
}

/// Whether no owner holds a folder.
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
fn new_folder(shared: &Path) -> io::Result<PathBuf> {
    let mut number = 0_u64;
    loop {
        let folder = shared.join(number.to_string());
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_removed_once_their_owners_have_ended() {
        let shared = tempfile::tempdir().expect("a directory");
        let [one, other] = [(); 2].map(|()| OwnFolder::take(shared.path()).expect("a folder"));
        for folder in [&one, &other] {
            fs::write(folder.path().join("file"), "kept").expect("writes");
        }
        let left = one.path().to_owned();
        drop(one);
        let next = OwnFolder::take(shared.path()).expect("a folder");
        assert!(!left.join("file").exists() && other.path().join("file").exists());
        assert_ne!(next.path(), other.path());
    }
}

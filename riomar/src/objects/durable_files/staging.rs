//! The files that have no name among the objects yet, in a folder of each open store's own.

use std::{io, path::Path, sync::atomic::AtomicU64};

use super::staged::Staged;
use crate::own_folder::OwnFolder;

/// What holds the folders of all open stores.
pub const STAGING: &str = ".staging";

/// The folder of one open store. What is in it when its process ends has no name, so nobody refers to it.
#[derive(Debug)]
pub struct Staging {
    folder: OwnFolder,
    count: AtomicU64,
}

impl Staging {
    /// Takes a folder below `root`.
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { folder: OwnFolder::take(&root.join(STAGING))?, count: AtomicU64::new(0) })
    }

    /// A new file without a name.
    pub fn stage(&self) -> io::Result<Staged> {
        Staged::create(self.folder.path(), &self.count)
    }

    /// The number of files that have no name yet.
    #[cfg(test)]
    pub fn files(&self) -> usize {
        std::fs::read_dir(self.folder.path()).expect("a folder").count() - 1
    }

    /// Where they are.
    #[cfg(test)]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

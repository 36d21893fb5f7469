//! Files that have no name among the objects yet.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use object_store::PutPayload;

/// A file in the staging folder. Dropping it removes it from there; an object that it became stays.
#[derive(Debug)]
pub struct Staged {
    file: File,
    path: PathBuf,
}

impl Staged {
    /// An empty file; `count` numbers the files of the folder.
    pub fn create(folder: &Path, count: &AtomicU64) -> io::Result<Self> {
        let path = folder.join(count.fetch_add(1, Ordering::Relaxed).to_string());
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path })
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `payload` at an offset.
    pub fn write_all(&self, payload: &PutPayload, mut offset: u64) -> io::Result<()> {
        for piece in payload {
            self.file.write_all_at(piece, offset)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Fills it with the content of another file.
    pub fn copy_from(&self, source: &Path) -> io::Result<()> {
        io::copy(&mut File::open(source)?, &mut &self.file).map(|_| ())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a rename it is no longer there; whatever else is left, the next start removes.
        let _ = fs::remove_file(&self.path);
    }
}

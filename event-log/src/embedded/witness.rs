//! The witness of what was committed, beside the database.
//!
//! fjall cuts its journal at the first entry that it cannot read, which is right for a write that a crash tore, and silent where
//! acknowledged records stood behind. So the number of each commit is written to a file of its own, after the commit's fsync: a
//! recovery that finds fewer commits has lost some, and says so. The file is not synced with each commit: after a loss of power
//! it may be older than the database, never newer.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    path::Path,
};

use super::store::io_error;
use crate::error::LogError;

/// The name of the file.
pub const FILE: &str = "COMMITTED";

/// The file with the number of the last commit.
#[derive(Debug)]
pub struct Witness {
    file: File,
}

impl Witness {
    /// Opens the file, and tells what it says: 0 where it is new, or was torn by a loss of power.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] where the file cannot be read or created.
    pub fn open(directory: &Path) -> Result<(Self, u64), LogError> {
        let path = directory.join(FILE);
        let context = |error| io_error(&path, &error);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(context)?;
        let mut content = [0; 16];
        let commits = match file.read_exact(&mut content) {
            Ok(()) => decode(content),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(context(error)),
        };
        Ok((Self { file }, commits.unwrap_or_default()))
    }

    /// Records the number of a commit that is durable.
    ///
    /// # Errors
    /// Whatever the operating system reports.
    pub fn record(&mut self, commits: u64) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&encode(commits))
    }

    /// Makes what it says durable.
    ///
    /// # Errors
    /// Whatever the operating system reports.
    pub fn sync(&self) -> std::io::Result<()> {
        self.file.sync_all()
    }
}

/// The number and its complement, so that a torn or zeroed file is not taken for a number.
fn encode(commits: u64) -> [u8; 16] {
    let mut content = [0; 16];
    content[..8].copy_from_slice(&commits.to_be_bytes());
    content[8..].copy_from_slice(&(!commits).to_be_bytes());
    content
}

fn decode(content: [u8; 16]) -> Option<u64> {
    let (commits, complement) = content.split_at(8);
    let commits = u64::from_be_bytes(commits.try_into().ok()?);
    (complement == (!commits).to_be_bytes()).then_some(commits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_recorded_last() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut witness, commits) = Witness::open(directory.path()).expect("opens");
        assert_eq!(commits, 0);
        witness.record(7).expect("writes");
        witness.record(8).expect("writes");
        assert_eq!(Witness::open(directory.path()).expect("opens").1, 8);
        std::fs::write(directory.path().join(FILE), [0; 16]).expect("writes");
        assert_eq!(Witness::open(directory.path()).expect("opens").1, 0, "zeroes are no number");
    }
}

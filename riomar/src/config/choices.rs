//! Choices between implementations of a seam. What this build does not hold is refused by name.

use std::path::{Path, PathBuf};

use riomar_speed_layer::{InvalidRedisAddress, RedisAddress};
use url::Url;

use super::setting::{Notation, Setting};

/// Which log the platform stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// In the data directory.
    Embedded,
}

/// Where realtime views live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RealtimeKind {
    /// In the memory of this process; rebuilt at every start.
    Memory,
    /// In Redis.
    Redis,
}

/// Where the master dataset and the generations live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterUrl {
    /// In the folder `objects` of the data directory.
    DataDirectory,
    /// In a directory of this machine.
    Directory(PathBuf),
}

impl MasterUrl {
    /// The directory, given the data directory.
    #[must_use]
    pub fn directory(&self, data: &Path) -> PathBuf {
        match self {
            Self::DataDirectory => data.join("objects"),
            Self::Directory(directory) => directory.clone(),
        }
    }
}

impl Setting for LogKind {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            "kafka" => Err("\"kafka\" is not supported by this build: use \"embedded\"".to_owned()),
            _ => Err(format!("'{text}' is no kind of log: use \"embedded\"")),
        }
    }

    fn show(&self) -> String {
        "embedded".to_owned()
    }
}

impl Setting for RealtimeKind {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "memory" => Ok(Self::Memory),
            "redis" => Ok(Self::Redis),
            _ => Err(format!("'{text}' is no kind of realtime store: use \"memory\" or \"redis\"")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Memory => "memory".to_owned(),
            Self::Redis => "redis".to_owned(),
        }
    }
}

impl Setting for MasterUrl {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::DataDirectory);
        }
        let url = Url::parse(text).map_err(|error| format!("'{text}' is not a URL ({error}): write file:///absolute/path"))?;
        match url.scheme() {
            "file" => url.to_file_path().map(Self::Directory).map_err(|()| format!("'{text}' must be file:///absolute/path")),
            scheme => Err(format!("'{scheme}://' is not supported by this build: use file:///absolute/path")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::DataDirectory => String::new(),
            Self::Directory(directory) => {
                Url::from_file_path(directory).map_or_else(|()| directory.display().to_string(), String::from)
            }
        }
    }
}

/// The address of a Redis server or of a cluster. Its password never shows.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(RedisAddress);

impl RedisUrl {
    /// The server on this machine, at its usual port.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a constant; a test reads it")]
    pub fn local() -> Self {
        Self("redis://127.0.0.1:6379/0".parse().expect("a constant address"))
    }

    /// The address, for the client.
    #[must_use]
    pub fn address(&self) -> &RedisAddress {
        &self.0
    }
}

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.0, f)
    }
}

impl Setting for RedisUrl {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: InvalidRedisAddress| error.to_string())
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_build_does_not_hold_is_refused_by_name() {
        let message = LogKind::read("kafka").expect_err("kafka");
        assert!(message.contains("not supported by this build"), "{message}");
        for text in ["s3://bucket/prefix", "gs://bucket", "http://host/x"] {
            let message = MasterUrl::read(text).expect_err(text);
            assert!(message.contains("not supported by this build"), "{message}");
        }
    }

    #[test]
    fn a_master_url_names_a_directory() {
        assert_eq!(MasterUrl::read(""), Ok(MasterUrl::DataDirectory));
        assert_eq!(MasterUrl::DataDirectory.directory(Path::new("/d")), Path::new("/d/objects"));
        let url = MasterUrl::read("file:///srv/a%20b").expect("file");
        assert_eq!(url, MasterUrl::Directory("/srv/a b".into()));
        assert_eq!(MasterUrl::read(&url.show()), Ok(url));
        assert!(MasterUrl::read("objects").is_err());
    }

    #[test]
    fn a_password_never_shows() {
        for text in ["redis://me:hunter2@host:6379/0", "rediss-cluster://me:hunter2@one:7000,two:7000"] {
            let url = RedisUrl::read(text).expect("url");
            assert_eq!(url.show(), text.replace("hunter2", "***"));
            assert!(!format!("{url:?}").contains("hunter2"), "{url:?}");
        }
        for text in ["redis//me:hunter2@host", "http://me:hunter2@host", "redis://me:hunter2@one,two"] {
            let message = RedisUrl::read(text).expect_err("no address of Redis");
            assert!(!message.contains("hunter2") && message.contains("redis://user:password@host"), "{message}");
        }
        assert_eq!(RedisUrl::read(&RedisUrl::local().show()), Ok(RedisUrl::local()));
    }
}

//! Choices between implementations of a seam. What this build does not hold is refused by name.

use std::path::{Path, PathBuf};

use object_store::path::Path as ObjectPath;
use riomar_speed_layer::{InvalidRedisAddress, RedisAddress};
use url::Url;

use super::setting::{Notation, Setting};

/// Which log the platform stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// In the data directory.
    Embedded,
    /// In Apache Kafka, or what speaks its protocol.
    Kafka,
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
    /// In the folder [`Self::FOLDER`] of the data directory.
    DataDirectory,
    /// In a directory of this machine.
    Directory(PathBuf),
    /// In a bucket of S3, or of what speaks its protocol.
    S3 {
        /// The bucket.
        bucket: String,
        /// What all keys begin with.
        prefix: ObjectPath,
    },
}

impl MasterUrl {
    /// The folder of the data directory.
    pub const FOLDER: &str = "objects";

    /// For people: the directory, given the data directory, or the URL.
    #[must_use]
    pub fn place(&self, data: &Path) -> String {
        match self {
            Self::DataDirectory => data.join(Self::FOLDER).display().to_string(),
            Self::Directory(directory) => directory.display().to_string(),
            Self::S3 { .. } => self.show(),
        }
    }
}

/// Reads the URL of a bucket, or of a part of it.
fn s3(url: &Url) -> Result<MasterUrl, String> {
    let expected = "write s3://bucket or s3://bucket/prefix";
    // What is behind the scheme is not repeated where it may hold credentials.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong here: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned());
    }
    if url.port().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{expected}; another address than AWS's belongs into master.s3_endpoint"));
    }
    let bucket = url.host_str().unwrap_or_default();
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(valid) {
        return Err(format!("'{bucket}' is not the name of a bucket (3 to 63 small letters, digits, '-' or '.'): {expected}"));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'=' | b'/');
    if !url.path().bytes().all(plain) {
        return Err(format!("a prefix has letters, digits, '-', '_', '.' and '=' between its slashes: {expected}"));
    }
    let prefix = ObjectPath::parse(url.path()).map_err(|error| format!("{error}: {expected}"))?;
    Ok(MasterUrl::S3 { bucket: bucket.to_owned(), prefix })
}

impl Setting for LogKind {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            "kafka" => Ok(Self::Kafka),
            _ => Err(format!("'{text}' is no kind of log: use \"embedded\" or \"kafka\"")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Embedded => "embedded".to_owned(),
            Self::Kafka => "kafka".to_owned(),
        }
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
        let expected = "file:///absolute/path or s3://bucket/prefix";
        // The text is not repeated: it may hold a password.
        let url = Url::parse(text).map_err(|error| format!("this is not a URL ({error}): write {expected}"))?;
        match url.scheme() {
            "file" => url.to_file_path().map(Self::Directory).map_err(|()| format!("'{text}' must be file:///absolute/path")),
            "s3" => s3(&url),
            scheme => Err(format!("'{scheme}://' is not supported by this build: use {expected}")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::DataDirectory => String::new(),
            Self::Directory(directory) => {
                Url::from_file_path(directory).map_or_else(|()| directory.display().to_string(), String::from)
            }
            Self::S3 { bucket, prefix } if prefix.is_root() => format!("s3://{bucket}"),
            Self::S3 { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
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
        assert!(LogKind::read("pulsar").expect_err("pulsar").contains("\"kafka\""));
        for text in ["gs://bucket", "http://host/x"] {
            let message = MasterUrl::read(text).expect_err(text);
            assert!(message.contains("not supported by this build"), "{message}");
        }
    }

    #[test]
    fn a_master_url_names_a_directory() {
        assert_eq!(MasterUrl::read(""), Ok(MasterUrl::DataDirectory));
        assert_eq!(MasterUrl::DataDirectory.place(Path::new("/d")), "/d/objects");
        let url = MasterUrl::read("file:///srv/a%20b").expect("file");
        assert_eq!(url, MasterUrl::Directory("/srv/a b".into()));
        assert_eq!(url.place(Path::new("/d")), "/srv/a b");
        assert_eq!(MasterUrl::read(&url.show()), Ok(url));
        assert!(MasterUrl::read("objects").is_err());
    }

    #[test]
    fn a_master_url_names_a_bucket() {
        for (text, bucket, prefix, shown) in [
            ("s3://bucket", "bucket", "", "s3://bucket"),
            ("s3://bucket/", "bucket", "", "s3://bucket"),
            ("s3://my.bucket-1/a/b/", "my.bucket-1", "a/b", "s3://my.bucket-1/a/b"),
        ] {
            let url = MasterUrl::read(text).expect(text);
            assert_eq!(url, MasterUrl::S3 { bucket: bucket.to_owned(), prefix: ObjectPath::from(prefix) }, "{text}");
            assert_eq!((url.show(), url.place(Path::new("/d"))), (shown.to_owned(), shown.to_owned()));
            assert_eq!(MasterUrl::read(shown), Ok(url));
        }
        for text in [
            "s3://",
            "s3:///x",
            "s3://My_Bucket",
            "s3://ab",
            "s3://bucket:9000/x",
            "s3://bucket/x?y",
            "s3://bucket/a//b",
            "s3://bucket/a b",
        ] {
            assert!(MasterUrl::read(text).expect_err(text).contains("s3://bucket"), "{text}");
        }
        for text in ["s3://key:hunter2@bucket/x", "s3//key:hunter2@bucket"] {
            assert!(!MasterUrl::read(text).expect_err(text).contains("hunter2"), "{text}");
        }
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

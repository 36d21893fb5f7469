//! Where a bucket of S3 is, beyond its name.

use url::Url;

use super::setting::{Notation, Setting};

/// The address of an S3 that is not AWS's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct S3Endpoint(Option<Url>);

impl S3Endpoint {
    /// The address; `None` for AWS.
    #[must_use]
    pub fn url(&self) -> Option<&Url> {
        self.0.as_ref()
    }
}

impl Setting for S3Endpoint {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        // The text is not repeated: it may hold a password.
        let expected = "write https://host:port, or http://host:port where nothing is encrypted";
        let url = Url::parse(text).map_err(|error| format!("this is not a URL ({error}): {expected}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(format!("this is not an address of HTTP: {expected}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("credentials do not belong here: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned());
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("there may be nothing behind the host and the port: {expected}"));
        }
        Ok(Self(Some(url)))
    }

    fn show(&self) -> String {
        self.0.as_ref().map_or_else(String::new, |url| url.as_str().trim_end_matches('/').to_owned())
    }
}

/// The region of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct S3Region(Option<String>);

impl S3Region {
    /// Its name; `None` for the one of the environment.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl Setting for S3Region {
    const NOTATION: Notation = Notation::String;

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self(None)),
            _ if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') => Ok(Self(Some(text.to_owned()))),
            _ => Err(format!("'{text}' is no region: write one such as eu-central-1")),
        }
    }

    fn show(&self) -> String {
        self.0.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_nothing_else() {
        assert_eq!(S3Endpoint::read("").expect("AWS").url(), None);
        for text in ["http://127.0.0.1:9000", "https://minio.example"] {
            assert_eq!(S3Endpoint::read(text).expect(text).show(), text);
        }
        for text in ["minio:9000", "ftp://minio", "http://minio/bucket", "http://minio?x", "http://", "9000"] {
            assert!(S3Endpoint::read(text).expect_err(text).contains("https://"), "{text}");
        }
        for text in ["http://me:hunter2@minio", "http//me:hunter2@minio"] {
            assert!(!S3Endpoint::read(text).expect_err(text).contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_region_is_one_word() {
        assert_eq!(S3Region::read("").expect("the environment's").name(), None);
        assert_eq!(S3Region::read("eu-central-1").expect("a region").name(), Some("eu-central-1"));
        assert!(S3Region::read("eu central").is_err());
    }
}

//! Why an object store cannot be opened; each says what to do about it.

use std::{io, path::PathBuf};

/// An object store that cannot be opened, until somebody does something about it.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// A directory that cannot be created or written.
    #[error("the directory {path} cannot be used: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody says who this process is.
    #[error(
        "there are no credentials for s3://{bucket}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role gives them ({detail})"
    )]
    NoCredentials {
        /// The bucket.
        bucket: String,
        /// What was tried last.
        detail: String,
    },
    /// The credentials are wrong or have expired.
    #[error(
        "the credentials are not accepted for s3://{bucket}: correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN if they are temporary ({detail})"
    )]
    Credentials {
        /// The bucket.
        bucket: String,
        /// What S3 answered.
        detail: String,
    },
    /// The credentials are right, and not enough.
    #[error(
        "access to s3://{bucket} is denied: allow s3:ListBucket on it, and s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on what is in it ({detail})"
    )]
    Denied {
        /// The bucket.
        bucket: String,
        /// What S3 answered.
        detail: String,
    },
    /// There is no such bucket.
    #[error("there is no bucket '{bucket}' at {place}: create it, or correct master.url ({detail})")]
    NoBucket {
        /// The bucket.
        bucket: String,
        /// The endpoint.
        place: String,
        /// What S3 answered.
        detail: String,
    },
    /// The bucket is in another region.
    #[error("s3://{bucket} is not in the region '{region}': set master.s3_region to the one it is in ({detail})")]
    Region {
        /// The bucket.
        bucket: String,
        /// The region that requests were signed for.
        region: String,
        /// What S3 answered.
        detail: String,
    },
    /// It refuses for another reason.
    #[error("{place} refuses requests for s3://{bucket}: {detail}")]
    Refused {
        /// The bucket.
        bucket: String,
        /// The endpoint.
        place: String,
        /// What it answered.
        detail: String,
    },
}

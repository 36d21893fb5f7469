//! Opening a bucket: the client, how patient it is, who it says it is, and one request to see whether that is right.

use std::{sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut},
    path::Path,
};
use riomar_schemas::paths;

use super::{
    ObjectsError,
    answer::{Refusal, detail, refusal},
    bucket::Bucket,
};
use crate::config::Master;

/// What `object_store` calls S3 in its errors.
pub const STORE: &str = "S3";
/// The region of requests when nobody names one.
const REGION: &str = "us-east-1";
/// Where S3 is when nobody names an endpoint.
const AWS: &str = "AWS";

/// The variables that say who asks and where, of those that AWS's own tools read. Others would be a second way to configure.
const VARIABLES: &[(&str, AmazonS3ConfigKey)] = &[
    ("AWS_ACCESS_KEY_ID", AmazonS3ConfigKey::AccessKeyId),
    ("AWS_SECRET_ACCESS_KEY", AmazonS3ConfigKey::SecretAccessKey),
    ("AWS_SESSION_TOKEN", AmazonS3ConfigKey::Token),
    ("AWS_DEFAULT_REGION", AmazonS3ConfigKey::Region),
    ("AWS_REGION", AmazonS3ConfigKey::Region),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
    ("AWS_METADATA_ENDPOINT", AmazonS3ConfigKey::MetadataEndpoint),
];

/// How patient the client is with S3. What fails beyond that is tried again by the layers, which know what may be done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct S3Limits {
    /// How long one request may take, with its whole body.
    pub request_time_max: Duration,
    /// How long a connection may take to open.
    pub connect_time_max: Duration,
    /// How often a request is sent again that failed in passing.
    pub retries_max: usize,
    /// The wait before it is sent again the first time; each further one is longer, and left to chance.
    pub backoff_first: Duration,
    /// The longest of these waits.
    pub backoff_max: Duration,
    /// How long after its beginning a request may be sent again.
    pub retry_time_max: Duration,
    /// How long the request may take with which the store is opened.
    pub probe_time_max: Duration,
}

impl Default for S3Limits {
    fn default() -> Self {
        Self {
            request_time_max: Duration::from_secs(30),
            connect_time_max: Duration::from_secs(5),
            retries_max: 4,
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            retry_time_max: Duration::from_secs(60),
            probe_time_max: Duration::from_secs(15),
        }
    }
}

/// Opens a bucket, and asks for one small object in it.
pub async fn open(
    master: &Master,
    bucket: &str,
    prefix: &Path,
    environment: &[(String, String)],
    limits: S3Limits,
) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
    let place = master.s3_endpoint.url().map_or_else(|| AWS.to_owned(), ToString::to_string);
    let builder = builder(master, bucket, environment, limits);
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region).unwrap_or_default();
    let client =
        builder.build().map_err(|error| ObjectsError::NoCredentials { bucket: bucket.to_owned(), detail: detail(&error) })?;
    known(&client, bucket, limits).await?;
    let store = Bucket::new(client, bucket, prefix);
    let probe = tokio::time::timeout(limits.probe_time_max, store.get(&paths::deployment())).await;
    let error = match probe {
        Ok(Ok(_) | Err(Error::NotFound { .. })) => return Ok(Arc::new(store)),
        Ok(Err(error)) => error,
        Err(_) => Error::Generic { store: STORE, source: format!("no answer within {:?}", limits.probe_time_max).into() },
    };
    let (bucket, detail) = (bucket.to_owned(), detail(&error));
    Err(match refusal(&error) {
        None => {
            tracing::warn!(%store, place, error = detail, "the object store does not answer; what needs it waits for it");
            return Ok(Arc::new(store));
        }
        Some(Refusal::Credentials) => ObjectsError::Credentials { bucket, detail },
        Some(Refusal::Denied) => ObjectsError::Denied { bucket, detail },
        Some(Refusal::NoBucket) => ObjectsError::NoBucket { bucket, place, detail },
        Some(Refusal::Region) => ObjectsError::Region { bucket, region, detail },
        Some(Refusal::Other) => ObjectsError::Refused { bucket, place, detail },
    })
}

fn builder(master: &Master, bucket: &str, environment: &[(String, String)], limits: S3Limits) -> AmazonS3Builder {
    let value = |name: &str| environment.iter().find(|(variable, value)| variable == name && !value.is_empty());
    let mut builder = AmazonS3Builder::new().with_region(REGION);
    for (variable, key) in VARIABLES {
        if let Some((_, value)) = value(variable) {
            builder = builder.with_config(*key, value);
        }
    }
    if let Some(region) = master.s3_region.name() {
        builder = builder.with_region(region);
    }
    let mut options = ClientOptions::new().with_timeout(limits.request_time_max).with_connect_timeout(limits.connect_time_max);
    if let Some(endpoint) = master.s3_endpoint.url() {
        // Without encryption only where somebody wrote so.
        options = options.with_allow_http(endpoint.scheme() == "http");
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
    }
    builder.with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch).with_client_options(options).with_retry(
        RetryConfig {
            backoff: BackoffConfig { init_backoff: limits.backoff_first, max_backoff: limits.backoff_max, base: 2.0 },
            max_retries: limits.retries_max,
            retry_timeout: limits.retry_time_max,
        },
    )
}

/// Whether there are credentials, whoever gives them.
async fn known(client: &AmazonS3, bucket: &str, limits: S3Limits) -> Result<(), ObjectsError> {
    let none = |detail: String| ObjectsError::NoCredentials { bucket: bucket.to_owned(), detail };
    match tokio::time::timeout(limits.probe_time_max, client.credentials().get_credential()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(none(detail(&error))),
        Err(_) => Err(none(format!("no role was given within {:?}", limits.probe_time_max))),
    }
}

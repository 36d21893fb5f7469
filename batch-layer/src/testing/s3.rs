//! A bucket of an S3 server over HTTP, through the client that the platform uses as well.

use std::{sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, S3ConditionalPut},
};
use riomar_infra::S3Server;

/// How patient the client is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct S3Client {
    /// How often it sends a request again by itself.
    pub retries_max: usize,
    /// How long it waits for an answer.
    pub request_time_max: Duration,
}

impl Default for S3Client {
    fn default() -> Self {
        Self { retries_max: 3, request_time_max: Duration::from_secs(60) }
    }
}

pub(crate) fn bucket(server: &S3Server, client: S3Client) -> Arc<dyn ObjectStore> {
    let (init_backoff, max_backoff) = (Duration::from_millis(1), Duration::from_millis(5));
    let store = AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_region(server.region())
        .with_bucket_name(server.bucket())
        .with_access_key_id(server.access_key())
        .with_secret_access_key(server.secret_key())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(RetryConfig {
            backoff: BackoffConfig { init_backoff, max_backoff, base: 2.0 },
            max_retries: client.retries_max,
            retry_timeout: Duration::from_secs(60),
        })
        .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout(client.request_time_max));
    Arc::new(store.build().expect("a client"))
}

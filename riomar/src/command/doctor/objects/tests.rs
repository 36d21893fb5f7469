//! Stores that create once, that overwrite, and that only look before they write.

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutOptions, PutResult,
    Result, memory::InMemory,
};
use riomar_infra::S3Server;

use super::*;
use crate::config::{MasterUrl, Setting};

/// How a store creates.
#[derive(Debug, Clone, Copy)]
enum Creates {
    /// It writes over what is there.
    Ignoring,
    /// It looks whether something is there, and writes a moment later.
    LookingFirst,
}

/// A store that does not create once.
#[derive(Debug)]
struct Careless(InMemory, Creates);

impl fmt::Display for Careless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Careless({})", self.0)
    }
}

#[async_trait]
impl ObjectStore for Careless {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if let (Creates::LookingFirst, PutMode::Create) = (self.1, &options.mode) {
            let there = self.0.head(location).await.is_ok();
            tokio::task::yield_now().await;
            if there {
                return Err(Error::AlreadyExists { path: location.to_string(), source: "it is there".into() });
            }
        }
        self.0.put_opts(location, payload, PutOptions { mode: PutMode::Overwrite, ..options }).await
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

async fn left(store: &dyn ObjectStore) -> usize {
    store.list_with_delimiter(Some(&Path::from(PROBES))).await.expect("lists").objects.len()
}

#[tokio::test]
async fn a_store_that_lets_two_creations_succeed_is_found_out() {
    let fresh_ids = FreshIds::random();
    let sound = InMemory::new();
    tried(&sound, &fresh_ids).await.expect("it creates once");
    assert_eq!(left(&sound).await, 0);
    for (creates, told) in
        [(Creates::Ignoring, "ignores If-None-Match"), (Creates::LookingFirst, "4 of 4 creations of one object at the same time")]
    {
        let store = Careless(InMemory::new(), creates);
        let error = tried(&store, &fresh_ids).await.expect_err("it does not create once");
        assert!(error.contains(told) && error.contains("Choose a store"), "{error}");
        assert_eq!(left(&store).await, 0, "{creates:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_in_use_pass() {
    let (directory, server) = (tempfile::tempdir().expect("a directory"), S3Server::start().expect("a server"));
    let mut config = Config::new();
    config.data = directory.path().to_owned();
    assert!(works(&config).await.expect("it creates once").contains("also when creations race"));
    config.master.url = MasterUrl::read(&format!("s3://{}/doctor", server.bucket())).expect("a URL");
    config.master.s3_endpoint = Setting::read(&server.endpoint()).expect("a URL");
    let store = objects::open_with(&config, &server.environment(), objects::S3Limits::default()).await.expect("it answers");
    tried(&*store, &FreshIds::random()).await.expect("it creates once");
}

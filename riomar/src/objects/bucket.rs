//! A part of a bucket as an object store: what the platform needs beyond `object_store`'s client of S3.

use std::fmt;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, aws::AmazonS3, path::Path, prefix::PrefixStore,
};

use super::answer::told;

/// The objects of a bucket below a prefix.
#[derive(Debug)]
pub struct Bucket {
    name: String,
    prefix: Path,
    inner: PrefixStore<AmazonS3>,
}

impl Bucket {
    pub fn new(client: AmazonS3, name: &str, prefix: &Path) -> Self {
        Self { name: name.to_owned(), prefix: prefix.clone(), inner: PrefixStore::new(client, prefix.clone()) }
    }

    async fn get(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.inner.get_opts(location, options).await.map_err(|error| told(error, location))?;
        // The store below gives the path in the bucket.
        found.meta.location = location.clone();
        Ok(found)
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.name, self.prefix)
    }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await.map_err(|error| told(error, location))
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await.map_err(|error| told(error, location))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let looks_only = options.head;
        match self.get(location, options.clone()).await {
            // The answer to HEAD has no words, so it does not say what is absent: the object, or the whole bucket.
            Err(Error::NotFound { .. }) if looks_only => self.get(location, GetOptions { head: false, ..options }).await,
            outcome => outcome,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations).map_err(|error| told(error, &Path::default())).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = prefix.cloned().unwrap_or_default();
        self.inner.list(prefix).map_err(move |error| told(error, &folder)).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = prefix.cloned().unwrap_or_default();
        self.inner.list_with_offset(prefix, offset).map_err(move |error| told(error, &folder)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let folder = prefix.cloned().unwrap_or_default();
        self.inner.list_with_delimiter(prefix).await.map_err(|error| told(error, &folder))
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await.map_err(|error| told(error, from))
    }
}

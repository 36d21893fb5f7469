//! The object store seam, with its errors counted and the outcome of the last write noted.

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart, path::Path,
};
use riomar_serving_layer::probes::WriteHealth;

use super::Errors;

pub(super) const ERRORS: Errors = Errors {
    name: "riomar_object_store_errors_total",
    operations: &["put", "multipart", "get", "delete", "list", "copy", "rename"],
    kinds: &["unavailable", "permission_denied", "unauthenticated", "other"],
};

/// An object store whose errors are counted.
#[derive(Debug)]
pub(in crate::platform) struct MeteredObjects {
    inner: Arc<dyn ObjectStore>,
    writes: WriteHealth,
}

impl MeteredObjects {
    /// Stands before `inner`, and notes in `writes` how its writes end.
    pub(in crate::platform) fn new(inner: Arc<dyn ObjectStore>, writes: WriteHealth) -> Self {
        ERRORS.begin();
        Self { inner, writes }
    }
}

impl fmt::Display for MeteredObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

fn kind(error: &Error) -> Option<&'static str> {
    match error {
        Error::NotFound { .. } | Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. } => None,
        Error::Generic { .. } => Some("unavailable"),
        Error::PermissionDenied { .. } => Some("permission_denied"),
        Error::Unauthenticated { .. } => Some("unauthenticated"),
        _ => Some("other"),
    }
}

fn count(operation: &'static str, error: &Error) {
    ERRORS.count(operation, kind(error));
}

/// Notes how a write ended.
fn written<T>(writes: &WriteHealth, outcome: Result<T>) -> Result<T> {
    match &outcome {
        Ok(_) => writes.succeeded(),
        Err(error) if kind(error).is_some() => writes.failed(error),
        // That it is there already says nothing of whether another could be written.
        Err(_) => {}
    }
    outcome
}

fn counted<T>(operation: &'static str, outcome: Result<T>) -> Result<T> {
    outcome.inspect_err(|error| count(operation, error))
}

/// A stream whose errors are counted while it is read.
fn counted_stream<T: Send + 'static>(
    operation: &'static str,
    stream: BoxStream<'static, Result<T>>,
) -> BoxStream<'static, Result<T>> {
    stream.inspect_err(move |error| count(operation, error)).boxed()
}

#[async_trait]
impl ObjectStore for MeteredObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        written(&self.writes, counted("put", self.inner.put_opts(location, payload, options).await))
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = written(&self.writes, counted("multipart", self.inner.put_multipart_opts(location, options).await))?;
        Ok(Box::new(MeteredUpload { inner, writes: self.writes.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = counted("get", self.inner.get_opts(location, options).await)?;
        // What comes after the head may fail as well.
        found.payload = match found.payload {
            GetResultPayload::Stream(bytes) => GetResultPayload::Stream(counted_stream("get", bytes)),
            file @ GetResultPayload::File(..) => file,
        };
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        counted("get", self.inner.get_ranges(location, ranges).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        counted_stream("delete", self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        counted_stream("list", self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        counted_stream("list", self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        counted("list", self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        counted("copy", self.inner.copy_opts(from, to, options).await)
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        counted("rename", self.inner.rename_opts(from, to, options).await)
    }
}

/// An upload in parts whose errors are counted.
#[derive(Debug)]
struct MeteredUpload {
    inner: Box<dyn MultipartUpload>,
    writes: WriteHealth,
}

#[async_trait]
impl MultipartUpload for MeteredUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, writes) = (self.inner.put_part(data), self.writes.clone());
        Box::pin(async move { written(&writes, counted("multipart", part.await)) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        written(&self.writes, counted("multipart", self.inner.complete().await))
    }

    async fn abort(&mut self) -> Result<()> {
        counted("multipart", self.inner.abort().await)
    }
}

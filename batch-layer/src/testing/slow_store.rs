//! An object store that takes its time, before and after it does what it was asked.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result, path::Path,
};
use riomar_event_log::Clock;

/// How long the next request takes to take effect, and then to be answered.
type Delays = dyn Fn() -> (Duration, Duration) + Send + Sync;

pub(crate) struct SlowStore {
    inner: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    delays: Box<Delays>,
}

impl SlowStore {
    pub(crate) fn new(
        inner: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        delays: impl Fn() -> (Duration, Duration) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { inner, clock, delays: Box::new(delays) })
    }

    async fn slowly<T>(&self, operation: impl Future<Output = T>) -> T {
        let (before, after) = (self.delays)();
        self.clock.sleep(before).await;
        let result = operation.await;
        self.clock.sleep(after).await;
        result
    }
}

impl fmt::Debug for SlowStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SlowStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlowStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for SlowStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.slowly(self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.slowly(self.inner.put_multipart_opts(location, options)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.slowly(self.inner.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.slowly(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.slowly(self.inner.copy_opts(from, to, options)).await
    }
}

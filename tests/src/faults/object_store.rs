//! The object store seam with faults.

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart, path::Path,
};

use super::{CrashPoints, Dead};

/// An object store whose process can be killed.
#[derive(Debug)]
pub struct FaultObjectStore {
    inner: Arc<dyn ObjectStore>,
    points: CrashPoints,
}

impl FaultObjectStore {
    /// Stands before `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, points: CrashPoints) -> Self {
        Self { inner, points }
    }
}

impl fmt::Display for FaultObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with faults", self.inner)
    }
}

fn dead(dead: Dead) -> Error {
    Error::Generic { store: "fault", source: Box::new(dead) }
}

/// A list that fails when the process is dead.
fn guarded<T: Send + 'static>(points: CrashPoints, list: BoxStream<'static, Result<T>>) -> BoxStream<'static, Result<T>> {
    list.map(move |item| points.alive().map_err(dead).and(item)).boxed()
}

#[async_trait]
impl ObjectStore for FaultObjectStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.points.durable(format!("put {location}"), dead, self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.points.alive().map_err(dead)?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(FaultUpload { inner, location: location.clone(), points: self.points.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.points.alive().map_err(dead)?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.points.alive().map_err(dead)?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, points) = (self.inner.clone(), self.points.clone());
        let delete = move |location: Path| {
            let (inner, points) = (inner.clone(), points.clone());
            async move {
                let name = format!("delete {location}");
                let one = futures::stream::iter([Ok(location)]).boxed();
                let deleted = async { inner.delete_stream(one).try_collect::<Vec<_>>().await };
                points.durable(name, dead, deleted).await.map(|mut deleted| deleted.remove(0))
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        guarded(self.points.clone(), self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        guarded(self.points.clone(), self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.points.alive().map_err(dead)?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.points.durable(format!("copy to {to}"), dead, self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.points.durable(format!("rename to {to}"), dead, self.inner.rename_opts(from, to, options)).await
    }
}

/// An upload in parts: only its completion is durable.
#[derive(Debug)]
struct FaultUpload {
    inner: Box<dyn MultipartUpload>,
    location: Path,
    points: CrashPoints,
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (points, part) = (self.points.clone(), self.inner.put_part(data));
        Box::pin(async move {
            points.alive().map_err(dead)?;
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.points.durable(format!("complete {}", self.location), dead, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.points.alive().map_err(dead)?;
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Moment;
    use object_store::{ObjectStoreExt, memory::InMemory};

    #[tokio::test]
    async fn a_lost_reply_leaves_its_effect_and_the_next_process_sees_it() {
        let disk: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let process = FaultObjectStore::new(disk.clone(), CrashPoints::armed(1, Moment::AfterLostReply));
        let path = |name: &str| Path::from(name);
        process.put(&path("a"), "1".into()).await.expect("the first operation passes");
        process.put(&path("b"), "2".into()).await.expect_err("the reply is lost");
        process.get(&path("a")).await.expect_err("the dead read nothing");
        assert!(process.list(None).next().await.is_some_and(|item| item.is_err()));
        process.delete(&path("a")).await.expect_err("nor do they delete");
        let next = FaultObjectStore::new(disk, CrashPoints::default());
        let names: Vec<_> = next.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.expect("alive");
        assert_eq!(names, ["a", "b"]);
    }

    #[tokio::test]
    async fn an_upload_counts_when_it_completes() {
        let points = CrashPoints::default();
        let store = FaultObjectStore::new(Arc::new(InMemory::new()), points.clone());
        let mut upload = store.put_multipart(&Path::from("a")).await.expect("alive");
        upload.put_part("1".into()).await.expect("alive");
        assert_eq!(points.operations(), Vec::<String>::new());
        upload.complete().await.expect("alive");
        store.delete(&Path::from("a")).await.expect("alive");
        assert_eq!(points.operations(), ["complete a", "delete a"]);
    }
}

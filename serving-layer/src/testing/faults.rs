//! The seams of a test's platform, which do what they are asked until they are told otherwise.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, path::Path,
};
use riomar_event_log::{Log, LogError, Membership, PartitionBounds, ReadLimit, ReadRecords};
use riomar_schemas::{Epoch, Name, Offset, PartitionId, View, record::RecordBody, state_codec::EncodedState};
use riomar_speed_layer::{Entry, RealtimePart, RealtimeStore, StoreError, WriteOutcome};

/// What a seam does instead of what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not answer.
    Hangs,
    /// It says that it cannot.
    Refuses,
    /// It holds what cannot be read.
    Damaged,
}

/// What is wrong with calls of one kind.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Option<Fault>>);

impl Faults {
    pub(crate) fn set(&self, fault: Option<Fault>) {
        *self.0.lock().expect("not poisoned") = fault;
    }

    /// The fault of a call that begins now; never, where it hangs.
    async fn now(&self) -> Option<Fault> {
        let fault = *self.0.lock().expect("not poisoned");
        if fault == Some(Fault::Hangs) { std::future::pending().await } else { fault }
    }
}

/// A log whose answers may be kept from coming. What was appended stays.
#[derive(Debug)]
pub(crate) struct FaultyLog {
    inner: Arc<dyn Log>,
    pub(crate) faults: Faults,
}

impl FaultyLog {
    pub(crate) fn new(inner: Arc<dyn Log>) -> Self {
        Self { inner, faults: Faults::default() }
    }

    async fn check(&self) -> Result<(), LogError> {
        match self.faults.now().await {
            None => Ok(()),
            Some(_) => Err(LogError::Unavailable("as it was told to".to_owned())),
        }
    }
}

#[async_trait]
impl Log for FaultyLog {
    async fn create(&self, stream: &Name, partitions: u32) -> Result<(), LogError> {
        self.check().await?;
        self.inner.create(stream, partitions).await
    }

    async fn append(&self, stream: &Name, records: Vec<(PartitionId, RecordBody)>) -> Result<Vec<Offset>, LogError> {
        self.check().await?;
        self.inner.append(stream, records).await
    }

    async fn read(&self, stream: &Name, partition: PartitionId, from: Offset, limit: ReadLimit) -> Result<ReadRecords, LogError> {
        self.check().await?;
        self.inner.read(stream, partition, from, limit).await
    }

    async fn bounds(&self, stream: &Name, partition: PartitionId) -> Result<PartitionBounds, LogError> {
        self.check().await?;
        self.inner.bounds(stream, partition).await
    }

    async fn partitions(&self, stream: &Name) -> Result<u32, LogError> {
        self.check().await?;
        self.inner.partitions(stream).await
    }

    async fn trim(&self, stream: &Name, partition: PartitionId, below: Offset) -> Result<(), LogError> {
        self.check().await?;
        self.inner.trim(stream, partition, below).await
    }

    async fn join(&self, group: &str, streams: &[Name]) -> Result<Membership, LogError> {
        self.check().await?;
        self.inner.join(group, streams).await
    }
}

/// A realtime store whose reads and writes may fail, and that counts how often states were read.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn RealtimeStore>,
    pub(crate) reads: Faults,
    pub(crate) writes: Faults,
    pub(crate) states_read: AtomicU64,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn RealtimeStore>) -> Self {
        Self { inner, reads: Faults::default(), writes: Faults::default(), states_read: AtomicU64::new(0) }
    }
}

async fn store_check(faults: &Faults) -> Result<(), StoreError> {
    match faults.now().await {
        None => Ok(()),
        Some(Fault::Damaged) => Err(StoreError::Damaged("as it was told to".to_owned())),
        Some(_) => Err(StoreError::Unavailable("as it was told to".to_owned())),
    }
}

#[async_trait]
impl RealtimeStore for FaultyStore {
    async fn entry(&self, view: &View, partition: PartitionId) -> Result<Option<Entry>, StoreError> {
        store_check(&self.reads).await?;
        self.inner.entry(view, partition).await
    }

    async fn states(
        &self,
        view: &View,
        partition: PartitionId,
        keys: &[(Epoch, &str)],
    ) -> Result<(Option<Entry>, Vec<Option<Vec<u8>>>), StoreError> {
        store_check(&self.reads).await?;
        self.inner.states(view, partition, keys).await
    }

    async fn write(
        &self,
        view: &View,
        partition: PartitionId,
        expected: &Entry,
        next: &Entry,
        states: &[EncodedState],
    ) -> Result<WriteOutcome, StoreError> {
        store_check(&self.writes).await?;
        self.inner.write(view, partition, expected, next, states).await
    }

    async fn reset(
        &self,
        view: &View,
        partition: PartitionId,
        expected: Option<&Entry>,
        next: &Entry,
    ) -> Result<WriteOutcome, StoreError> {
        store_check(&self.writes).await?;
        self.inner.reset(view, partition, expected, next).await
    }

    async fn remove_below(&self, view: &View, partition: PartitionId, floor: Epoch) -> Result<(), StoreError> {
        store_check(&self.writes).await?;
        self.inner.remove_below(view, partition, floor).await
    }

    async fn read(&self, view: &View, partition: PartitionId, from: Epoch) -> Result<Option<RealtimePart>, StoreError> {
        store_check(&self.reads).await?;
        self.states_read.fetch_add(1, Ordering::SeqCst);
        self.inner.read(view, partition, from).await
    }
}

/// An object store whose reads and writes may fail. Lists are always answered.
#[derive(Debug)]
pub(crate) struct FaultyObjects {
    inner: Arc<dyn ObjectStore>,
    pub(crate) reads: Faults,
    pub(crate) writes: Faults,
}

impl FaultyObjects {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, reads: Faults::default(), writes: Faults::default() }
    }
}

async fn object_check(faults: &Faults, path: &Path) -> object_store::Result<()> {
    let refused = || object_store::Error::PermissionDenied { path: path.to_string(), source: "as it was told to".into() };
    faults.now().await.map_or(Ok(()), |_| Err(refused()))
}

impl fmt::Display for FaultyObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for FaultyObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        object_check(&self.writes, location).await?;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        object_check(&self.writes, location).await?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        object_check(&self.reads, location).await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        object_check(&self.writes, to).await?;
        self.inner.copy_opts(from, to, options).await
    }
}

//! An object store that fails at a chosen operation.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, path::Path,
};

/// Which operation fails, counted from 0, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The first operation that fails.
    pub at: u64,
    /// Whether it takes effect all the same.
    pub after_effect: bool,
    /// Whether every operation after it fails as well, as if the process had died.
    pub for_good: bool,
}

impl Fault {
    pub(crate) fn never() -> Self {
        Self { at: u64::MAX, after_effect: false, for_good: false }
    }

    /// Every way to fail at operation `at`.
    pub(crate) fn all(at: u64) -> impl Iterator<Item = Self> {
        [(false, false), (true, false), (false, true), (true, true)].into_iter().map(move |(after_effect, for_good)| Self {
            at,
            after_effect,
            for_good,
        })
    }
}

#[derive(Debug)]
pub(crate) struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    fault: Fault,
    operations: AtomicU64,
}

#[derive(PartialEq, Eq)]
enum Fate {
    Works,
    FailsBefore,
    FailsAfter,
}

fn failure() -> Error {
    Error::Generic { store: "fault", source: "injected".into() }
}

impl FaultStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, fault: Fault) -> Arc<Self> {
        Arc::new(Self { inner, fault, operations: AtomicU64::new(0) })
    }

    /// How many operations there were.
    pub(crate) fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    fn fate(&self) -> Fate {
        let operation = self.operations.fetch_add(1, Ordering::SeqCst);
        if operation == self.fault.at && self.fault.after_effect {
            Fate::FailsAfter
        } else if operation == self.fault.at || operation > self.fault.at && self.fault.for_good {
            Fate::FailsBefore
        } else {
            Fate::Works
        }
    }

    async fn attempt<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        match self.fate() {
            Fate::Works => operation.await,
            Fate::FailsBefore => Err(failure()),
            Fate::FailsAfter => {
                let _ = operation.await;
                Err(failure())
            }
        }
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.attempt(self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.attempt(self.inner.put_multipart_opts(location, options)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.attempt(self.inner.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.fate() {
            Fate::Works => self.inner.delete_stream(locations),
            Fate::FailsBefore => futures::stream::iter([Err(failure())]).boxed(),
            Fate::FailsAfter => self.inner.delete_stream(locations).map(|_| Err(failure())).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fate() {
            Fate::Works => self.inner.list(prefix),
            _ => futures::stream::iter([Err(failure())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.attempt(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.attempt(self.inner.copy_opts(from, to, options)).await
    }
}

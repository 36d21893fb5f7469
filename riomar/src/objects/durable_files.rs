//! Objects in a directory that survive a power failure.
//!
//! `object_store`'s own [`LocalFileSystem`] leaves it to the kernel when its files reach the disk, so after a power failure an object
//! that was already relied on may be gone, or be there and empty. Here an object is written beside the others and synced, then gets
//! its name in one step, and then the directory is synced. Only after that does the caller hear of it. Reading is left to
//! [`LocalFileSystem`].

mod staged;
mod staging;
mod upload;

use std::{
    collections::HashSet,
    fmt, fs, io,
    ops::Range,
    path::{Path as FilePath, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, future, stream::BoxStream};
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, local::LocalFileSystem, path::Path,
};

use staged::Staged;
use staging::{STAGING, Staging};
use upload::DurableUpload;

/// How many directories are remembered as synced; when there are more, all are forgotten and synced again when they are met.
const SYNCED_DIRECTORIES_MAX: usize = 10_000;

/// An object store in a directory, whose writes are durable once they return.
#[derive(Debug, Clone)]
pub struct DurableFiles {
    inner: Arc<LocalFileSystem>,
    files: Arc<Files>,
}

/// The part that blocking tasks share.
#[derive(Debug)]
struct Files {
    root: PathBuf,
    staging: Staging,
    synced: Mutex<HashSet<PathBuf>>,
}

impl DurableFiles {
    /// The objects in `root`, which is created if it is absent. Any number of stores may be open there, in one process or in several
    /// of one machine.
    ///
    /// # Errors
    /// A directory that cannot be created or written.
    pub fn open(root: &FilePath) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        let staging = Staging::open(&root)?;
        sync_directory(&root)?;
        let inner = LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?;
        let files = Files { root, staging, synced: Mutex::new(HashSet::new()) };
        Ok(Self { inner: Arc::new(inner), files: Arc::new(files) })
    }

    /// The answer to a write that is done.
    async fn written(&self, location: &Path) -> PutResult {
        let e_tag = self.inner.head(location).await.ok().and_then(|meta| meta.e_tag);
        PutResult { e_tag, version: None }
    }

    /// Makes the names in an object's directory durable.
    async fn sync_names(&self, location: &Path) -> Result<()> {
        let path = self.inner.path_to_filesystem(location)?;
        let files = Arc::clone(&self.files);
        blocking(location, move || sync_directory(path.parent().unwrap_or(&files.root))).await
    }
}

impl Files {
    fn stage(&self) -> io::Result<Staged> {
        self.staging.stage()
    }

    /// Gives a staged file its name. On success the file, its name and every directory above it are durable.
    fn publish(&self, staged: &Staged, destination: &FilePath, mode: &PutMode) -> io::Result<()> {
        staged.file().sync_all()?;
        let directory = destination.parent().unwrap_or(&self.root);
        self.durable_directory(directory)?;
        let named = match mode {
            // Unlike a rename, a link fails where the name is taken.
            PutMode::Create => fs::hard_link(staged.path(), destination),
            _ => fs::rename(staged.path(), destination),
        };
        match named {
            // The one who came first may not have synced yet, and the caller is going to rely on that object.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => sync_directory(directory).and(Err(error)),
            Err(error) => Err(error),
            Ok(()) => sync_directory(directory),
        }
    }

    /// Creates a directory, with those above it, so that a power failure does not take it away again.
    fn durable_directory(&self, directory: &FilePath) -> io::Result<()> {
        if self.synced().contains(directory) {
            return Ok(());
        }
        fs::create_dir_all(directory)?;
        let above: Vec<&FilePath> = directory.ancestors().take_while(|path| path.starts_with(&self.root)).collect();
        // The name of each directory stands in the one above it.
        above.iter().skip(1).rev().try_for_each(|path| sync_directory(path))?;
        let mut synced = self.synced();
        if synced.len() >= SYNCED_DIRECTORIES_MAX {
            synced.clear();
        }
        synced.insert(directory.to_owned());
        Ok(())
    }

    fn synced(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        // A set of paths is whole whatever panicked beside it.
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sync_directory(directory: &FilePath) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

/// Runs file operations where they do not hold up the other tasks of the process.
async fn blocking<T: Send + 'static>(location: &Path, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let outcome = tokio::task::spawn_blocking(work).await?;
    outcome.map_err(|source| failed(location, source))
}

fn failed(location: &Path, source: io::Error) -> Error {
    let path = location.to_string();
    match source.kind() {
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        io::ErrorKind::NotFound => Error::NotFound { path, source: source.into() },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: source.into() },
        _ => Error::Generic { store: "durable files", source: source.into() },
    }
}

/// Whether this is an object, or a folder of objects, and not what has no name yet.
fn is_object(location: &Path) -> bool {
    location.as_ref().split('/').next() != Some(STAGING)
}

fn objects_only(list: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    list.filter(|found| future::ready(found.as_ref().map_or(true, |object| is_object(&object.location)))).boxed()
}

fn not_implemented(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "durable files".to_owned() }
}

impl fmt::Display for DurableFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "durable files in {}", self.files.root.display())
    }
}

#[async_trait]
impl ObjectStore for DurableFiles {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if matches!(options.mode, PutMode::Update(_)) || !options.attributes.is_empty() {
            return Err(not_implemented("conditional updates and attributes"));
        }
        let destination = self.inner.path_to_filesystem(location)?;
        let files = Arc::clone(&self.files);
        let write = move || {
            let staged = files.stage()?;
            staged.write_all(&payload, 0)?;
            files.publish(&staged, &destination, &options.mode)
        };
        blocking(location, write).await?;
        Ok(self.written(location).await)
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        if !options.attributes.is_empty() {
            return Err(not_implemented("attributes"));
        }
        let files = Arc::clone(&self.files);
        let staged = blocking(location, move || files.stage()).await?;
        Ok(Box::new(DurableUpload::new(self.clone(), location.clone(), staged)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    /// A deletion that a power failure undoes is repeated by whoever found the object superfluous, so it is not synced.
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        objects_only(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        objects_only(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut found = self.inner.list_with_delimiter(prefix).await?;
        found.objects.retain(|object| is_object(&object.location));
        found.common_prefixes.retain(is_object);
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (source, destination) = (self.inner.path_to_filesystem(from)?, self.inner.path_to_filesystem(to)?);
        let files = Arc::clone(&self.files);
        let copy = move || {
            let staged = files.stage()?;
            staged.copy_from(&source)?;
            let mode = if options.mode == CopyMode::Create { PutMode::Create } else { PutMode::Overwrite };
            files.publish(&staged, &destination, &mode)
        };
        blocking(to, copy).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let destination = self.inner.path_to_filesystem(to)?;
        let files = Arc::clone(&self.files);
        blocking(to, move || files.durable_directory(destination.parent().unwrap_or(&files.root))).await?;
        self.inner.rename_opts(from, to, options).await?;
        self.sync_names(to).await?;
        self.sync_names(from).await
    }
}

#[cfg(test)]
mod tests;

//! Uploads in parts.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use object_store::{Error, MultipartUpload, PutMode, PutPayload, PutResult, Result, UploadPart, path::Path};

use super::{DurableFiles, blocking, staged::Staged};

/// An object that is being written in parts; it appears with [`MultipartUpload::complete`].
#[derive(Debug)]
pub struct DurableUpload {
    store: DurableFiles,
    location: Path,
    staged: Option<Arc<Staged>>,
    length_bytes: u64,
}

impl DurableUpload {
    pub fn new(store: DurableFiles, location: Path, staged: Staged) -> Self {
        Self { store, location, staged: Some(Arc::new(staged)), length_bytes: 0 }
    }

    fn ended(&self) -> Error {
        Error::Generic { store: "durable files", source: format!("the upload of {} has ended", self.location).into() }
    }
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let offset = self.length_bytes;
        self.length_bytes += data.content_length() as u64;
        let Some(staged) = self.staged.clone() else {
            return futures::future::ready(Err(self.ended())).boxed();
        };
        let location = self.location.clone();
        async move { blocking(&location, move || staged.write_all(&data, offset)).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let staged = self.staged.take().ok_or_else(|| self.ended())?;
        let destination = self.store.inner.path_to_filesystem(&self.location)?;
        let files = Arc::clone(&self.store.files);
        blocking(&self.location, move || files.publish(&staged, &destination, &PutMode::Overwrite)).await?;
        Ok(self.store.written(&self.location).await)
    }

    async fn abort(&mut self) -> Result<()> {
        self.staged.take().map(drop).ok_or_else(|| self.ended())
    }
}

//! Writing one Parquet file to the object store, row group by row group.

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use object_store::{buffered::BufWriter, path::Path};
use parquet::{
    arrow::AsyncArrowWriter,
    basic::{Compression, ZstdLevel},
    file::{metadata::KeyValue, properties::WriterProperties},
};

use crate::{context::Context, error::BatchError};

/// Rows of one row group: small enough to skip by its statistics, large enough to compress well.
const ROW_GROUP_ROWS_MAX: usize = 128 * 1024;
/// Bytes of one encoded row group, for rows that are wide.
const ROW_GROUP_BYTES_MAX: usize = 64 << 20;

/// A Parquet file that is being written. It appears in the store, whole, with [`ParquetFile::finish`], and not at all without.
pub struct ParquetFile {
    path: Path,
    rows: u64,
    writer: AsyncArrowWriter<BufWriter>,
}

impl ParquetFile {
    /// Starts a file at a path that nobody else writes to.
    ///
    /// # Errors
    /// A schema that Parquet cannot hold.
    pub fn create(context: &Context, path: Path, schema: SchemaRef, metadata: Vec<KeyValue>) -> Result<Self, BatchError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES_MAX))
            .set_created_by("riomar".to_owned())
            .set_key_value_metadata(Some(metadata))
            .build();
        let target = BufWriter::new(context.store.clone(), path.clone());
        let writer =
            AsyncArrowWriter::try_new(target, schema, Some(properties)).map_err(|error| BatchError::parquet(&path, error))?;
        Ok(Self { path, rows: 0, writer })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// The object store's, or rows of another schema. The file is then lost.
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<(), BatchError> {
        self.rows += rows.num_rows() as u64;
        self.writer.write(rows).await.map_err(|error| BatchError::parquet(&self.path, error))
    }

    /// Number of rows so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes the end of the file; gives its path and its size in bytes.
    ///
    /// # Errors
    /// The object store's. The file is then lost.
    pub async fn finish(mut self) -> Result<(Path, u64), BatchError> {
        self.writer.finish().await.map_err(|error| BatchError::parquet(&self.path, error))?;
        Ok((self.path, self.writer.bytes_written() as u64))
    }
}

//! The master dataset of a stream as it is at one version.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use datafusion::{
    common::ScalarValue,
    error::Result,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit},
    prelude::ident,
};
use riomar_event_log::Loss;
use riomar_schemas::{
    Epoch, Offset, PartitionId, ReaderPosition, Stream, paths,
    stream::{EPOCH, OFFSET, PARTITION},
};

use super::{
    action::{LOSS, Line, parse_app_id, set_loss},
    data_file::{DataFile, FileStats},
    partition::LandedPartition,
};
use crate::scan::{ScanFile, scan_files};

/// For how long it is remembered when a file was removed, which is as long as Delta's checkpoints do. Its object is gone by then.
const REMOVED_REMEMBERED_MS: i64 = 7 * 86_400_000;

/// One version of a stream's master dataset.
#[derive(Debug, Clone)]
pub struct MasterSnapshot {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Counts the commits, from 0.
    pub version: u64,
    /// What has landed of each partition; a partition that nothing has landed of is absent.
    pub partitions: BTreeMap<PartitionId, LandedPartition>,
    /// What the log lost before it landed, by partition and in order of offsets; only what was accepted.
    pub losses: Arc<BTreeMap<PartitionId, Vec<Loss>>>,
    /// The files that hold the rows, by name.
    pub files: BTreeMap<String, DataFile>,
    /// Files that no longer belong to the dataset, with the time at which they were removed, in milliseconds since 1970-01-01 UTC.
    pub removed: Arc<BTreeMap<String, i64>>,
    /// The schema as Delta writes it.
    pub(super) schema_text: String,
    /// The identifier of the table.
    pub(super) table_id: String,
}

/// Which rows of a master dataset to read; what is `None` does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowSelection {
    /// Rows of these epochs.
    pub epochs: Option<Range<Epoch>>,
    /// Rows of this partition.
    pub partition: Option<PartitionId>,
    /// Rows at these offsets.
    pub offsets: Option<Range<Offset>>,
    /// Rows with an event time in this range, in microseconds since 1970-01-01 UTC.
    pub event_time_us: Option<Range<i64>>,
}

impl RowSelection {
    /// All rows of epochs before a cut.
    #[must_use]
    pub fn before(cut: Epoch) -> Self {
        Self::epochs(Epoch(0)..cut)
    }

    /// The rows of some epochs.
    #[must_use]
    pub fn epochs(epochs: Range<Epoch>) -> Self {
        Self { epochs: Some(epochs), ..Self::default() }
    }

    fn filters(&self, event_time: &str) -> impl Iterator<Item = Expr> {
        let within = |column: &str, range: Range<Expr>| ident(column).gt_eq(range.start).and(ident(column).lt(range.end));
        let long = |number: u64| lit(i64::try_from(number).unwrap_or(i64::MAX));
        let time = |number: i64| lit(ScalarValue::TimestampMicrosecond(Some(number), Some("UTC".into())));
        let partition =
            self.partition.map(|PartitionId(number)| ident(PARTITION).eq(lit(i32::try_from(number).unwrap_or(i32::MAX))));
        let offsets = self.offsets.clone().map(|range| within(OFFSET, long(range.start.0)..long(range.end.0)));
        let epochs = self.epochs.clone().map(|range| within(EPOCH, long(range.start.0)..long(range.end.0)));
        let times = self.event_time_us.clone().map(|range| within(event_time, time(range.start)..time(range.end)));
        [partition, offsets, epochs, times].into_iter().flatten()
    }
}

impl MasterSnapshot {
    /// The dataset before its first commit is read.
    pub(super) fn empty(stream: Arc<Stream>) -> Self {
        Self {
            stream,
            version: 0,
            partitions: BTreeMap::new(),
            losses: Arc::default(),
            files: BTreeMap::new(),
            removed: Arc::default(),
            schema_text: String::new(),
            table_id: String::new(),
        }
    }

    /// The name of the column with the event time.
    #[must_use]
    pub fn event_time(&self) -> &str {
        self.stream.columns[self.stream.event_time].name.as_str()
    }

    /// How far landing has come in a partition; offset 0 and epoch 0 where nothing has landed.
    #[must_use]
    pub fn position(&self, partition: PartitionId) -> ReaderPosition {
        self.partitions.get(&partition).map(|landed| landed.position).unwrap_or_default()
    }

    /// What was lost of a partition, in order of offsets.
    #[must_use]
    pub fn losses_of(&self, partition: PartitionId) -> &[Loss] {
        self.losses.get(&partition).map_or(&[], Vec::as_slice)
    }

    /// A plan that reads the selected rows in the stream's row schema, in no particular order.
    ///
    /// # Errors
    /// A plan that DataFusion refuses.
    pub fn scan(&self, selection: &RowSelection) -> Result<LogicalPlan> {
        let folder = paths::master(&self.stream.name);
        let file = |file: &DataFile| ScanFile {
            path: folder.clone().join(file.name.as_str()),
            bytes: file.bytes,
            ranges: file.stats.ranges(self.event_time()),
        };
        let files = self.files.values().map(file).collect();
        let rows = scan_files(self.stream.name.as_str(), self.stream.row_schema().clone(), files)?;
        match selection.filters(self.event_time()).reduce(Expr::and) {
            Some(filter) => LogicalPlanBuilder::from(rows).filter(filter)?.build(),
            None => Ok(rows),
        }
    }

    /// Takes over one action of a commit.
    pub(super) fn apply(&mut self, line: Line) {
        if let Some(meta_data) = line.meta_data {
            self.schema_text = meta_data.schema_string;
            self.table_id = meta_data.id;
        }
        if let Some(txn) = line.txn
            && let Some((partition, what)) = parse_app_id(&txn.app_id)
        {
            let is_loss = what.starts_with(LOSS) && {
                let losses = Arc::make_mut(&mut self.losses).entry(partition).or_default();
                set_loss(losses, what, txn.version)
            };
            if !is_loss {
                self.partitions.entry(partition).or_default().set(what, txn.version);
            }
        }
        if let Some(add) = line.add {
            let event_time = self.stream.columns[self.stream.event_time].name.as_str();
            let stats = add.stats.as_deref().map(|text| FileStats::from_delta(text, event_time)).unwrap_or_default();
            let bytes = u64::try_from(add.size).unwrap_or_default();
            let file = DataFile { name: add.path, bytes, created_at_ms: add.modification_time, stats };
            self.files.insert(file.name.clone(), file);
        }
        if let Some(remove) = line.remove {
            self.files.remove(&remove.path);
            let removed_ms = remove.deletion_timestamp.unwrap_or_default();
            let removed = Arc::make_mut(&mut self.removed);
            removed.retain(|_, before_ms| removed_ms - *before_ms < REMOVED_REMEMBERED_MS);
            removed.insert(remove.path, removed_ms);
        }
    }
}

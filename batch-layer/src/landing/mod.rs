//! Landing: copies the log of a stream into its master dataset, each record exactly once.
//!
//! One commit holds the rows and the positions they reach, and is refused unless the dataset still stands where the rows begin.
//! So everything may be repeated: after any error landing forgets what it holds and begins again at the stored positions.
//!
//! Nothing is skipped. A partition whose next record the log no longer holds is halted, and the others land on ([`crate::losses`]).

mod halted;
mod lag;
mod limits;
mod partition;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::future::{Either, join_all, select};
use riomar_event_log::{
    EpochReader, History, Log, LogError, ReadLimit,
    quarantine::{EntryKind, Quarantine, QuarantineEntry},
    reader::Undecodable,
};
use riomar_schemas::{Offset, PartitionId, ReaderPosition, Stream};

use self::{halted::Halted, lag::Lags, partition::PartitionBuffer};
pub use self::{
    limits::{Buffered, Decision, LandingLimits, decide},
    partition::LATE_AFTER_US,
};
use crate::{
    context::Context,
    cuts::Cuts,
    error::BatchError,
    losses,
    master::{Change, DataFile, DataFileWriter, LandedPartition, Master},
    telemetry,
};

/// How often the log is asked for new partitions.
const PARTITIONS_CHECK_MS: i64 = 2_000;
/// How long landing waits after an error.
const ERROR_WAIT: Duration = Duration::from_secs(1);

/// What one step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LandingStep {
    /// Records read, kept or not, cuts included.
    pub records: u64,
    /// The version of the master dataset that a commit of this step made.
    pub committed: Option<u64>,
}

/// What landing works with, beside the stream's own master dataset.
#[derive(Debug, Clone)]
pub struct LandingParts {
    /// Object store and clock.
    pub context: Context,
    /// The log.
    pub log: Arc<dyn Log>,
    /// The past of the stream, for the readers.
    pub history: Arc<dyn History>,
    /// Where cuts are recorded.
    pub cuts: Arc<Cuts>,
}

/// Landing of one stream. Any number may run; the master dataset lets only one of them commit the same records.
#[derive(Debug)]
pub struct Landing {
    parts: LandingParts,
    quarantine: Quarantine,
    master: Arc<Master>,
    limits: LandingLimits,
    partitions: BTreeMap<PartitionId, PartitionBuffer>,
    halted: Halted,
    partitions_checked_ms: Option<i64>,
    buffered: Buffered,
    lags: Lags,
}

impl Landing {
    /// Landing of the stream of a master dataset. Nothing is read before the first step.
    #[must_use]
    pub fn new(parts: LandingParts, master: Arc<Master>, limits: LandingLimits) -> Self {
        Self {
            quarantine: Quarantine::new(parts.log.clone()),
            lags: Lags::new(master.stream().name.clone()),
            parts,
            halted: Halted::default(),
            master,
            limits,
            partitions: BTreeMap::new(),
            partitions_checked_ms: None,
            buffered: Buffered::default(),
        }
    }

    fn stream(&self) -> &Arc<Stream> {
        self.master.stream()
    }

    /// Reads what is there, and commits if that is due.
    ///
    /// # Errors
    /// Any; the next step begins again at the stored positions.
    pub async fn step(&mut self) -> Result<LandingStep, BatchError> {
        let result = self.try_step().await;
        self.lags.report(self.parts.log.as_ref(), self.parts.context.clock.as_ref()).await;
        self.forget_after(result)
    }

    /// Commits what is buffered.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub async fn flush(&mut self) -> Result<Option<u64>, BatchError> {
        let result = self.commit().await;
        self.forget_after(result)
    }

    /// Steps until `shutdown` is ready, then commits what is buffered.
    pub async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        let clock = self.parts.context.clock.clone();
        let mut shutdown = Box::pin(shutdown);
        loop {
            let wait = match self.step().await {
                Ok(LandingStep { records: 0, .. }) => Duration::from_millis(self.limits.idle_wait_ms),
                Ok(_) => Duration::ZERO,
                Err(error) => {
                    telemetry::landing_failed(&self.stream().name);
                    tracing::error!(stream = %self.stream().name, %error, "landing failed; beginning again at the stored positions");
                    ERROR_WAIT
                }
            };
            let ended = match wait {
                Duration::ZERO => futures::FutureExt::now_or_never(&mut shutdown).is_some(),
                wait => matches!(select(&mut shutdown, clock.sleep(wait)).await, Either::Left(_)),
            };
            if ended {
                break;
            }
        }
        // What was acknowledged while this was waiting is read once more, so that a stop leaves little to land.
        let last = match self.step().await {
            Ok(_) => self.flush().await,
            Err(error) => Err(error),
        };
        if let Err(error) = last {
            tracing::warn!(stream = %self.stream().name, %error, "the last commit failed; its records land after the next start");
        }
    }

    fn forget_after<T>(&mut self, result: Result<T, BatchError>) -> Result<T, BatchError> {
        if result.is_err() {
            self.partitions.clear();
            self.partitions_checked_ms = None;
            self.buffered = Buffered::default();
        }
        result
    }

    async fn try_step(&mut self) -> Result<LandingStep, BatchError> {
        self.open_partitions().await?;
        let (records, lost) = self.read().await?;
        let now_ms = self.parts.context.clock.now_ms();
        let committed = match decide(&self.buffered, &self.limits, now_ms) {
            Decision::Keep if lost.is_empty() => None,
            _ => self.commit().await?,
        };
        // What they had read before is committed. Whether they are halted is found when partitions are looked for again.
        self.partitions.retain(|id, _| !lost.contains(id));
        Ok(LandingStep { records, committed })
    }

    /// Opens a reader for each partition that has none and lacks nothing.
    async fn open_partitions(&mut self) -> Result<(), BatchError> {
        let now_ms = self.parts.context.clock.now_ms();
        if self.partitions_checked_ms.is_some_and(|checked| now_ms - checked < PARTITIONS_CHECK_MS) {
            return Ok(());
        }
        let stream = self.stream().clone();
        let mut bounds = BTreeMap::new();
        for id in self.parts.cuts.partitions(&stream).await? {
            bounds.insert(id, self.parts.log.bounds(&stream.name, id).await?);
        }
        let missing: Vec<_> = bounds.keys().filter(|id| !self.partitions.contains_key(id)).copied().collect();
        let mut lost = Vec::new();
        if !missing.is_empty() {
            // Behind the log's bounds: what has gone by then and is not known to have landed is lost.
            let snapshot = self.master.snapshot().await?;
            let starts: Vec<_> = missing.iter().map(|id| (*id, bounds[id].start)).collect();
            lost = losses::lost(&starts, &snapshot);
            for id in missing {
                let landed = self.landed(id, snapshot.partitions.get(&id)).await?;
                self.lags.landed(id, landed.position.offset);
                if lost.iter().all(|range| range.partition != id) {
                    telemetry::landed(&stream.name, [(id, &landed)]);
                    let partition = self.open(id, landed).await?;
                    self.partitions.insert(id, partition);
                }
            }
        }
        self.halted.observe(&stream.name, bounds.keys().copied(), &lost, now_ms);
        self.partitions_checked_ms = Some(now_ms);
        Ok(())
    }

    /// What has landed of a partition.
    async fn landed(&self, id: PartitionId, landed: Option<&LandedPartition>) -> Result<LandedPartition, BatchError> {
        match landed {
            Some(landed) => Ok(*landed),
            None => {
                let epoch = self.parts.cuts.first_epoch(&self.stream().name, id).await?;
                Ok(LandedPartition::starting_at(ReaderPosition { offset: Offset(0), epoch }))
            }
        }
    }

    async fn open(&self, id: PartitionId, landed: LandedPartition) -> Result<PartitionBuffer, BatchError> {
        let (log, history, stream) = (self.parts.log.clone(), self.parts.history.clone(), self.stream().clone());
        Ok(PartitionBuffer::new(EpochReader::open(log, history, stream, id, landed.position).await?, landed))
    }

    /// Reads one step of every partition. Gives the number of records, and the partitions whose next record the log has let go of.
    async fn read(&mut self) -> Result<(u64, Vec<PartitionId>), BatchError> {
        let limit = ReadLimit { records: self.limits.step_records, bytes: self.limits.step_bytes, wait: Duration::ZERO };
        let steps = join_all(self.partitions.values_mut().map(|partition| partition.reader.next(limit))).await;
        let stream = self.master.stream().clone();
        let event_time = stream.columns[stream.event_time].name.as_str();
        let (mut records, mut lost) = (0, Vec::new());
        for ((id, partition), step) in self.partitions.iter_mut().zip(steps) {
            let step = match step {
                Ok(step) => step,
                Err(LogError::OutOfRange { wanted, start, .. }) if wanted < start => {
                    lost.push(*id);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            records += step.to.offset.0 - step.from.offset.0;
            self.buffered.rows += step.rows.num_rows() as u64;
            self.buffered.bytes += step.rows.get_array_memory_size();
            self.buffered.passed_cut |= !step.cuts.is_empty();
            partition.absorb(step, event_time);
        }
        if self.buffered.records == 0 {
            self.buffered.since_ms = self.parts.context.clock.now_ms();
        }
        self.buffered.records += records;
        Ok((records, lost))
    }

    /// Quarantine, file, positions of cuts, commit: in this order, so that whatever a commit speaks of is there.
    async fn commit(&mut self) -> Result<Option<u64>, BatchError> {
        let advances: BTreeMap<_, _> =
            self.partitions.iter().filter_map(|(id, partition)| Some((*id, partition.advance()?))).collect();
        if advances.is_empty() {
            return Ok(None);
        }
        self.quarantine_undecodable().await?;
        let adds = self.write_rows().await?;
        let cuts = self.partitions.iter().flat_map(|(id, partition)| partition.cuts.iter().map(|cut| (*id, *cut)));
        for (id, (cut, begins)) in cuts.collect::<Vec<_>>() {
            self.parts.cuts.record_position(&self.stream().name, cut, id, begins).await?;
        }
        let snapshot = self.master.commit(&Change { adds, advances, ..Change::default() }).await?;
        self.partitions.values_mut().for_each(PartitionBuffer::committed);
        self.buffered = Buffered::default();
        for (id, partition) in &self.partitions {
            self.lags.landed(*id, partition.landed().position.offset);
        }
        telemetry::landed(&self.master.stream().name, self.partitions.iter().map(|(id, partition)| (*id, partition.landed())));
        Ok(Some(snapshot.version))
    }

    /// Writes the buffered rows, partition by partition in order of their offsets.
    async fn write_rows(&mut self) -> Result<Vec<DataFile>, BatchError> {
        if self.buffered.rows == 0 {
            return Ok(Vec::new());
        }
        let mut file = DataFileWriter::create(&self.parts.context, self.stream().clone())?;
        let rows: Vec<_> = self.partitions.values().flat_map(|partition| partition.rows.iter().cloned()).collect();
        for rows in rows {
            file.write(&rows).await?;
        }
        Ok(vec![file.finish(self.parts.context.clock.now_ms()).await?])
    }

    async fn quarantine_undecodable(&mut self) -> Result<(), BatchError> {
        let entries: Vec<_> = self
            .partitions
            .iter()
            .flat_map(|(id, partition)| partition.undecodable.iter().map(|record| quarantine_entry(*id, record)))
            .collect();
        if !entries.is_empty() {
            self.quarantine.create(&self.stream().name).await?;
            self.quarantine.append(&self.stream().name, &entries).await?;
        }
        Ok(())
    }
}

fn quarantine_entry(partition: PartitionId, record: &Undecodable) -> QuarantineEntry {
    QuarantineEntry {
        kind: EntryKind::Quarantined,
        events: 1,
        reason: record.violation.clone(),
        received_at_ms: record.append_time_ms,
        raw: std::str::from_utf8(&record.raw).ok().map(str::to_owned),
        raw_base64: std::str::from_utf8(&record.raw).is_err().then(|| STANDARD.encode(&record.raw)),
        position: Some((partition, record.offset)),
    }
}

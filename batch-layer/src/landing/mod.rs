//! Landing: copies the log of a stream into its master dataset, each record exactly once.
//!
//! One commit holds the rows and the positions they reach, and is refused unless the dataset still stands where the rows begin.
//! So everything may be repeated: after any error landing forgets what it holds and begins again at the stored positions.
//!
//! Nothing is skipped. A partition whose next record the log no longer holds is halted, and the others land on ([`crate::losses`]).
//! Likewise one that cannot be read for now, for want of a leader or because it is damaged: it is tried again by itself.

mod failing;
mod halted;
mod lag;
mod limits;
mod opening;
mod partition;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{
    StreamExt, TryStreamExt,
    future::{Either, join_all, select},
    stream,
};
use riomar_event_log::{
    History, Log, LogError, ReadLimit, ReadStep,
    quarantine::{EntryKind, Quarantine, QuarantineEntry},
    reader::Undecodable,
};
use riomar_schemas::{PartitionId, Stream};

use self::{
    failing::is_of_one_partition,
    halted::Halted,
    lag::Lags,
    opening::{Opener, Opening, Openings, Outcome},
    partition::PartitionBuffer,
};
pub use self::{
    limits::{Buffered, Decision, LandingLimits, decide},
    partition::LATE_AFTER_US,
};
use crate::{
    context::{Context, is_over},
    cuts::Cuts,
    error::BatchError,
    master::{Change, DataFile, DataFileWriter, Master},
    telemetry,
};

/// How often the log is asked for new partitions.
const PARTITIONS_CHECK_MS: i64 = 2_000;
/// Positions of cuts that are recorded at once: after a long pause there are many.
const CUTS_RECORDED_AT_ONCE: usize = 16;
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

/// What one round did.
#[derive(Debug, Default)]
struct Round {
    step: LandingStep,
    /// Partitions that were opened, and had their step with that.
    opened: Vec<PartitionId>,
    /// Partitions whose next record the log has let go of.
    gone: Vec<PartitionId>,
    /// Partitions that failed, and why.
    failed: Vec<(PartitionId, LogError)>,
}

/// Landing of one stream. Any number may run; the master dataset lets only one of them commit the same records.
#[derive(Debug)]
pub struct Landing {
    parts: LandingParts,
    quarantine: Quarantine,
    master: Arc<Master>,
    limits: LandingLimits,
    partitions: BTreeMap<PartitionId, PartitionBuffer>,
    openings: Openings,
    halted: Halted,
    partitions_checked_ms: Option<i64>,
    buffered: Buffered,
    lags: Lags,
}

impl Landing {
    /// Landing of the stream of a master dataset. Nothing is read before the first step.
    #[must_use]
    pub fn new(parts: LandingParts, master: Arc<Master>, limits: LandingLimits) -> Self {
        let limit = ReadLimit { records: limits.step_records, bytes: limits.step_bytes, wait: Duration::ZERO };
        Self {
            quarantine: Quarantine::new(parts.log.clone()),
            lags: Lags::new(master.stream().name.clone()),
            openings: Openings::new(Opener::new(parts.clone(), master.clone(), limit)),
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

    /// Reads what is there, and commits if that is due. A partition that failed before is tried again at once.
    ///
    /// # Errors
    /// Any; the next step begins again at the stored positions. Where it is the error of one partition, the others had their step.
    pub async fn step(&mut self) -> Result<LandingStep, BatchError> {
        let Round { step, failed, .. } = self.round(true).await?;
        match failed.into_iter().next() {
            None => Ok(step),
            Some((_, error)) => Err(error.into()),
        }
    }

    /// One step of every partition that can be read. `all`: with those that failed, whether or not their pause is over.
    async fn round(&mut self, all: bool) -> Result<Round, BatchError> {
        let result = self.try_round(all).await;
        let (log, clock) = (self.parts.log.as_ref(), self.parts.context.clock.as_ref());
        self.lags.report(log, clock, |id| self.openings.is_failing(id)).await;
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
            let wait = match self.round(false).await {
                Ok(Round { step, failed, .. }) => {
                    if !failed.is_empty() {
                        telemetry::landing_failed(&self.stream().name);
                    }
                    if step.records == 0 { Duration::from_millis(self.limits.idle_wait_ms) } else { Duration::ZERO }
                }
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
        let last = match self.round(false).await {
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
            self.openings.abandon();
            self.partitions_checked_ms = None;
            self.buffered = Buffered::default();
        }
        result
    }

    async fn try_round(&mut self, all: bool) -> Result<Round, BatchError> {
        let mut round = Round::default();
        self.look_for_partitions(all).await?;
        self.take_opened(all, &mut round).await?;
        self.read(&mut round).await?;
        let now_ms = self.parts.context.clock.now_ms();
        // What they had read before is committed before they leave.
        let is_leaving = |id: &PartitionId| round.gone.contains(id) || round.failed.iter().any(|(failed, _)| failed == id);
        round.step.committed = match decide(&self.buffered, &self.limits, now_ms) {
            Decision::Keep if !self.partitions.keys().any(is_leaving) => None,
            _ => self.commit().await?,
        };
        // Whether those that are gone are halted is found when partitions are looked for again.
        self.partitions.retain(|id, _| !is_leaving(id));
        for (id, error) in &round.failed {
            self.openings.failed(*id, error, now_ms);
        }
        Ok(round)
    }

    /// Begins to open each partition that is not being landed.
    async fn look_for_partitions(&mut self, all: bool) -> Result<(), BatchError> {
        let now_ms = self.parts.context.clock.now_ms();
        if self.partitions_checked_ms.is_none_or(|checked_ms| is_over(checked_ms, PARTITIONS_CHECK_MS, now_ms)) {
            let stream = self.stream().clone();
            // One that the log does not tell of fails by itself.
            let told = self.parts.log.partitions(&stream.name).await?;
            let count = told.max(self.parts.cuts.known_partitions(&stream).await);
            for id in (0..count).map(PartitionId).filter(|id| !self.partitions.contains_key(id)) {
                self.openings.begin(id);
            }
            self.partitions_checked_ms = Some(now_ms);
        }
        self.openings.begin_again(now_ms, all);
        Ok(())
    }

    /// Takes over the partitions that were opened.
    async fn take_opened(&mut self, all: bool, round: &mut Round) -> Result<(), BatchError> {
        let stream = self.stream().clone();
        while let Some(Opening { id, bounds, landed, outcome }) = self.openings.next(all).await {
            if let Some(bounds) = bounds {
                self.lags.looked_at(id, bounds);
            }
            if let Some(landed) = landed {
                self.lags.landed(id, landed.position.offset);
            }
            match outcome {
                Ok(Outcome::Lost(range)) => {
                    self.halted.begin(&stream.name, &range);
                }
                Ok(Outcome::Lands(opened)) => {
                    let (partition, step) = *opened;
                    self.halted.end(&stream.name, id);
                    telemetry::landed(&stream.name, [(id, partition.landed())]);
                    self.partitions.insert(id, partition);
                    round.opened.push(id);
                    self.absorb(id, step, round);
                }
                Err(BatchError::Log(error)) if is_of_one_partition(&error) => round.failed.push((id, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads one step of every partition that has not had one.
    async fn read(&mut self, round: &mut Round) -> Result<(), BatchError> {
        let limit = ReadLimit { records: self.limits.step_records, bytes: self.limits.step_bytes, wait: Duration::ZERO };
        let opened = &round.opened;
        let partitions = self.partitions.iter_mut().filter(|(id, _)| !opened.contains(id));
        let reads = partitions.map(|(id, partition)| async move { (*id, partition.reader.next(limit).await) });
        for (id, read) in join_all(reads).await {
            match read {
                Ok(step) => self.absorb(id, step, round),
                Err(LogError::OutOfRange { wanted, start, .. }) if wanted < start => round.gone.push(id),
                Err(error) if is_of_one_partition(&error) => round.failed.push((id, error)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes over what one step of a partition's reader gave.
    fn absorb(&mut self, id: PartitionId, step: ReadStep, round: &mut Round) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let records = step.to.offset.0 - step.from.offset.0;
        if self.buffered.records == 0 {
            self.buffered.since_ms = self.parts.context.clock.now_ms();
        }
        self.buffered.records += records;
        self.buffered.rows += step.rows.num_rows() as u64;
        if step.rows.num_rows() > 0 {
            self.buffered.bytes += step.rows.get_array_memory_size();
        }
        // What is not a row is held as well, until the commit has put it into quarantine.
        self.buffered.bytes += step.undecodable.iter().map(|record| size_of_val(record) + record.raw.len()).sum::<usize>();
        self.buffered.passed_cut |= !step.cuts.is_empty();
        round.step.records += records;
        let stream = self.master.stream();
        partition.absorb(step, stream.columns[stream.event_time].name.as_str());
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
        let (cuts, stream) = (cuts.collect::<Vec<_>>(), self.stream().clone());
        stream::iter(cuts)
            .map(Ok)
            .try_for_each_concurrent(CUTS_RECORDED_AT_ONCE, |(id, (cut, offset))| {
                self.parts.cuts.record_position(&stream.name, cut, id, offset)
            })
            .await?;
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

//! Partitions on their way into landing: looked at, opened, and read once.
//!
//! Each in a task of its own. So one that fails, or that nobody answers for, is tried again while the others land: it comes in when
//! a first read has succeeded.

use std::{collections::BTreeSet, panic::resume_unwind, sync::Arc};

use riomar_event_log::{EpochReader, LogError, PartitionBounds, ReadLimit, ReadStep};
use riomar_schemas::{Offset, PartitionId, ReaderPosition};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{LandingParts, failing::Failing, partition::PartitionBuffer};
use crate::{
    error::BatchError,
    losses::{self, LostRange},
    master::{LandedPartition, Master},
};

/// Readers that are opened at once: each may load many ids of the past.
const OPENED_AT_ONCE: usize = 4;

/// Opens partitions.
#[derive(Debug, Clone)]
pub(super) struct Opener {
    parts: LandingParts,
    master: Arc<Master>,
    limit: ReadLimit,
    permits: Arc<Semaphore>,
}

/// How opening a partition ended, and what became known on the way.
#[derive(Debug)]
pub(super) struct Opening {
    pub id: PartitionId,
    pub bounds: Option<PartitionBounds>,
    pub landed: Option<LandedPartition>,
    pub outcome: Result<Outcome, BatchError>,
}

/// What a partition that could be opened is like.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It can be landed, from this first step on.
    Lands(Box<(PartitionBuffer, ReadStep)>),
    /// The log has let go of its next record.
    Lost(LostRange),
}

impl Opener {
    pub(super) fn new(parts: LandingParts, master: Arc<Master>, limit: ReadLimit) -> Self {
        Self { parts, master, limit, permits: Arc::new(Semaphore::new(OPENED_AT_ONCE)) }
    }

    async fn open(self, id: PartitionId) -> Opening {
        let (mut bounds, mut landed) = (None, None);
        let outcome = self.try_open(id, &mut bounds, &mut landed).await;
        Opening { id, bounds, landed, outcome }
    }

    async fn try_open(
        &self,
        id: PartitionId,
        bounds: &mut Option<PartitionBounds>,
        landed: &mut Option<LandedPartition>,
    ) -> Result<Outcome, BatchError> {
        let stream = self.master.stream();
        let start = bounds.insert(self.parts.log.bounds(&stream.name, id).await?).start;
        // Behind the log's bounds: what has gone by then and is not known to have landed is lost.
        let snapshot = self.master.snapshot().await?;
        let landed = *landed.insert(self.landed(id, snapshot.partitions.get(&id)).await?);
        if let Some(range) = losses::lost(&[(id, start)], &snapshot).first() {
            return Ok(Outcome::Lost(*range));
        }
        // Nobody closes it.
        let _permit = self.permits.acquire().await.ok();
        let (log, history) = (self.parts.log.clone(), self.parts.history.clone());
        let mut reader = EpochReader::open(log, history, stream.clone(), id, landed.position).await?;
        match reader.next(self.limit).await {
            Ok(step) => Ok(Outcome::Lands(Box::new((PartitionBuffer::new(reader, landed), step)))),
            Err(LogError::OutOfRange { wanted, start, .. }) if wanted < start => {
                Ok(Outcome::Lost(LostRange { partition: id, from: wanted, to: start }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What has landed of a partition.
    async fn landed(&self, id: PartitionId, landed: Option<&LandedPartition>) -> Result<LandedPartition, BatchError> {
        match landed {
            Some(landed) => Ok(*landed),
            None => {
                let epoch = self.parts.cuts.first_epoch(&self.master.stream().name, id).await?;
                Ok(LandedPartition::starting_at(ReaderPosition { offset: Offset(0), epoch }))
            }
        }
    }
}

/// The partitions that are being opened, and those that failed and are opened again after a pause.
#[derive(Debug)]
pub(super) struct Openings {
    opener: Opener,
    tasks: JoinSet<Opening>,
    under_way: BTreeSet<PartitionId>,
    failing: Failing,
}

impl Openings {
    pub(super) fn new(opener: Opener) -> Self {
        Self { opener, tasks: JoinSet::new(), under_way: BTreeSet::new(), failing: Failing::default() }
    }

    /// Whether a partition has failed, and was not opened since.
    pub(super) fn is_failing(&self, id: PartitionId) -> bool {
        self.failing.contains(id)
    }

    /// Begins with a partition, unless it is under way or has failed, in which case its time comes with [`Self::begin_again`].
    pub(super) fn begin(&mut self, id: PartitionId) {
        if !self.failing.contains(id) {
            self.spawn(id);
        }
    }

    /// Begins again with those that failed and whose pause is over; with all of them where nobody wants to wait.
    pub(super) fn begin_again(&mut self, now_ms: i64, all: bool) {
        for id in self.failing.due(now_ms, all) {
            self.spawn(id);
        }
    }

    fn spawn(&mut self, id: PartitionId) {
        if self.under_way.insert(id) {
            self.tasks.spawn(self.opener.clone().open(id));
        }
    }

    /// The next one that has ended. Waits for those that have not failed before, or for all of them; `None` where there is no other.
    pub(super) async fn next(&mut self, all: bool) -> Option<Opening> {
        let is_awaited = self.under_way.iter().any(|id| all || !self.failing.contains(*id));
        let joined = if is_awaited { self.tasks.join_next().await } else { self.tasks.try_join_next() };
        match joined? {
            Ok(opening) => {
                self.under_way.remove(&opening.id);
                if opening.outcome.is_ok() {
                    self.failing.recovered(&self.opener.master.stream().name, opening.id);
                }
                Some(opening)
            }
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // None is cancelled but by `abandon`, which waits for none.
                Err(_) => None,
            },
        }
    }

    /// Takes note that a partition failed, in opening or later.
    pub(super) fn failed(&mut self, id: PartitionId, error: &LogError, now_ms: i64) {
        self.failing.failed(&self.opener.master.stream().name, id, error, now_ms);
    }

    /// Gives up those under way: what they found is not to be gone on from. Pauses stay.
    pub(super) fn abandon(&mut self) {
        self.tasks = JoinSet::new();
        self.under_way.clear();
    }
}

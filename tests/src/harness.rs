//! All of Riomar in this process, one step at a time: nothing runs by itself, the clock stands still until it is moved, and every
//! operation that changes something durable can be the last one.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use object_store::{ObjectStore, ObjectStoreExt};
use riomar::platform::{Parts, Platform, PlatformError, Settings};
use riomar_batch_layer::{BatchError, FreshIds};
use riomar_event_log::{Log, ReadLimit};
use riomar_schemas::{Catalog, Name, PartitionId, paths};
use riomar_speed_layer::{RealtimeStore, SpeedError};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    client::Client,
    clock::ManualClock,
    faults::{CrashPoints, FaultLog, FaultObjectStore, FaultRealtimeStore},
    logs::{Logs, OpenLogs},
    oracle::LogPartition,
    realtime::Realtime,
};

/// 2026-11-20T10:00:00Z.
const NOW_MS: i64 = 1_795_168_800_000;
/// Steps after which everything that is in the log must have been taken up.
const STEPS_MAX: usize = 1_000;

/// A platform on a directory of its own.
#[derive(Debug)]
pub struct Harness {
    directory: TempDir,
    catalog: Arc<Catalog>,
    clock: Arc<ManualClock>,
    logs: Logs,
    realtime: Realtime,
    processes: u64,
    process: Option<Process>,
}

/// Which of two platforms over the same log, objects and realtime store does something. They know nothing of each other: the one
/// that was overtaken is what a process is after a rebalance, or after a pause that was too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The one that also answers requests.
    First,
    /// The other one.
    Rival,
}

/// What a killed process loses.
#[derive(Debug)]
struct Process {
    first: Platform,
    rival: Platform,
    client: Client,
    /// The log and the objects without faults: what is really there.
    logs: OpenLogs,
    objects: Arc<dyn ObjectStore>,
}

/// What a process stands on.
struct Seams {
    /// The log as each of the two platforms has it open.
    logs: [Arc<dyn Log>; 2],
    objects: Arc<dyn ObjectStore>,
    realtime: Arc<dyn RealtimeStore>,
}

impl Harness {
    /// A platform over these definitions, with everything empty and an embedded log.
    ///
    /// # Panics
    /// When the definitions are refused or the platform does not start.
    pub async fn start(sql: &str, realtime: Realtime) -> Self {
        Self::start_on(sql, Logs::Embedded, realtime).await
    }

    /// As [`Self::start`], with its log in this place.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn start_on(sql: &str, logs: Logs, realtime: Realtime) -> Self {
        let mut harness = Self { logs, ..Self::prepare(sql, realtime) };
        harness.open(CrashPoints::default()).await.expect("the platform starts");
        harness
    }

    /// As [`Self::start`], without starting.
    ///
    /// # Panics
    /// When the definitions are refused.
    #[must_use]
    pub fn prepare(sql: &str, realtime: Realtime) -> Self {
        let catalog = Catalog::parse([("test.sql", sql)]).unwrap_or_else(|errors| panic!("{errors:#?}"));
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            catalog: Arc::new(catalog),
            clock: Arc::new(ManualClock::new(NOW_MS)),
            logs: Logs::Embedded,
            realtime,
            processes: 0,
            process: None,
        }
    }

    /// Starts a process over what the one before left.
    ///
    /// # Errors
    /// What the platform, or its death, reports.
    pub async fn open(&mut self, points: CrashPoints) -> Result<(), String> {
        let realtime = self.realtime.open();
        self.open_with(points, realtime).await
    }

    /// As [`Self::open`], with a realtime store of the caller's.
    ///
    /// # Errors
    /// As [`Self::open`].
    ///
    /// # Panics
    /// When the directory cannot be used.
    pub async fn open_with(&mut self, points: CrashPoints, realtime: Arc<dyn RealtimeStore>) -> Result<(), String> {
        self.stop().await;
        self.processes += 1;
        let logs = self.logs.open(&self.directory.path().join("log"), self.clock.clone());
        let objects = objects(&self.directory.path().join("objects"));
        let seams = Seams {
            logs: logs.platforms.clone().map(|log| Arc::new(FaultLog::new(log, points.clone())) as Arc<dyn Log>),
            objects: Arc::new(FaultObjectStore::new(objects.clone(), points.clone())),
            realtime: Arc::new(FaultRealtimeStore::new(realtime, points)),
        };
        match self.platforms(seams).await {
            Ok((first, rival)) => {
                let client = Client(first.app());
                self.process = Some(Process { first, rival, client, logs, objects });
                Ok(())
            }
            Err(error) => {
                logs.close().await;
                Err(error.to_string())
            }
        }
    }

    async fn platforms(&self, seams: Seams) -> Result<(Platform, Platform), PlatformError> {
        let [first_log, rival_log] = seams.logs;
        let parts = |number: u64, log| Parts {
            catalog: self.catalog.clone(),
            log,
            objects: seams.objects.clone(),
            realtime: seams.realtime.clone(),
            clock: self.clock.clone(),
            settings: Settings { fresh_ids: fresh_ids(number), process_id: number, ..Settings::default() },
        };
        let first = Platform::open(parts(2 * self.processes, first_log)).await?;
        Ok((first, Platform::open(parts(2 * self.processes + 1, rival_log)).await?))
    }

    /// Ends the process: what it has not made durable is gone.
    ///
    /// # Panics
    /// When the log's files cannot be closed.
    pub async fn stop(&mut self) {
        if let Some(Process { first, rival, client, logs, .. }) = self.process.take() {
            drop((first, rival, client));
            logs.close().await;
        }
    }

    /// Ends the process and starts the next one.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart(&mut self) {
        self.open(CrashPoints::default()).await.expect("the platform starts again");
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("the platform is running")
    }

    /// A client of its application.
    #[must_use]
    pub fn client(&self) -> Client {
        self.process().client.clone()
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// Where its realtime views live.
    #[must_use]
    pub fn realtime(&self) -> &Realtime {
        &self.realtime
    }

    /// Its objects, without faults.
    #[must_use]
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        self.process().objects.clone()
    }

    /// Its log, without faults.
    #[must_use]
    pub fn log(&self) -> Arc<dyn Log> {
        self.process().logs.own.clone()
    }

    /// The definitions.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    fn platform(&self, who: Who) -> &Platform {
        match who {
            Who::First => &self.process().first,
            Who::Rival => &self.process().rival,
        }
    }

    /// One step of landing, of every stream; the number of records read. Whoever was overtaken has read none.
    ///
    /// # Errors
    /// What it reports.
    pub async fn land(&self, who: Who) -> Result<u64, BatchError> {
        match self.platform(who).land_step().await {
            Err(BatchError::Conflict { .. }) => Ok(0),
            outcome => outcome,
        }
    }

    /// One step of every speed worker; the number of records read, views begun anew and views that failed.
    ///
    /// # Errors
    /// What they report.
    pub async fn speed(&self, who: Who) -> Result<u64, SpeedError> {
        let steps = self.platform(who).speed_step().await?;
        Ok(steps.iter().map(|step| step.records + (step.rebuilds.len() + step.failed.len() + step.paused.len()) as u64).sum())
    }

    /// Appends a cut to every partition of every stream.
    ///
    /// # Errors
    /// What it reports.
    pub async fn cut(&self, who: Who) -> Result<(), BatchError> {
        self.platform(who).cut().await.map(drop)
    }

    /// Cuts, lands and recomputes every view. Whoever was overtaken publishes nothing.
    ///
    /// # Errors
    /// What it reports.
    pub async fn recompute(&self, who: Who, full: bool) -> Result<(), BatchError> {
        match self.platform(who).recompute(&[], full).await {
            Err(BatchError::Conflict { .. }) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Two platforms take the numbers of two cuts, and their appends cross each other: in the partitions that `crossed` names the
    /// later cut comes first. Then each publishes what it can.
    ///
    /// # Errors
    /// What they report.
    pub async fn recompute_crossed(&self, stream: &Name, crossed: &[bool]) -> Result<(), BatchError> {
        let (first, rival) = (self.platform(Who::First).batch(), self.platform(Who::Rival).batch());
        let cuts = [first.cuts().issue(stream).await?, rival.cuts().issue(stream).await?];
        for (partition, crossed) in crossed.iter().enumerate() {
            let partition = PartitionId(u32::try_from(partition).unwrap_or_default());
            for cut in if *crossed { [cuts[1], cuts[0]] } else { cuts } {
                first.cuts().send(stream, cut, &[partition]).await?;
            }
        }
        for (who, cut) in [(Who::First, cuts[0]), (Who::Rival, cuts[1])] {
            match self.platform(who).recompute_at(stream, cut).await {
                Err(BatchError::CutOvertaken { .. } | BatchError::Conflict { .. }) => {}
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }

    /// Steps until landing and the speed layer have taken up the whole log.
    ///
    /// # Panics
    /// When they do not come to an end.
    pub async fn settle(&self) {
        for _ in 0..STEPS_MAX {
            // Paces and ages are over, so that whatever is due happens in this step.
            self.clock.advance(Duration::from_secs(10));
            let landed = self.land(Who::First).await.expect("landing works");
            let folded = self.speed(Who::First).await.expect("the speed layer works");
            if landed + folded == 0 {
                return;
            }
        }
        panic!("landing and the speed layer are not done after {STEPS_MAX} steps");
    }

    /// All that the log holds of a stream, with the first epoch of each partition.
    ///
    /// # Panics
    /// When the log cannot be read.
    pub async fn read_log(&self, stream: &str) -> Vec<LogPartition> {
        let name = Name::new(stream).expect("a name");
        let log = self.log();
        let mut partitions = Vec::new();
        for partition in (0..log.partitions(&name).await.expect("a log")).map(PartitionId) {
            let bounds = log.bounds(&name, partition).await.expect("a log");
            let limit = ReadLimit { records: 10_000, bytes: 64 << 20, wait: Duration::ZERO };
            let (mut next, mut records) = (bounds.start, Vec::new());
            while next < bounds.end {
                let read = log.read(&name, partition, next, limit).await.expect("a log");
                next = read.next;
                records.extend(read);
            }
            let first_epoch = self.first_epoch(&name, partition).await;
            partitions.push(LogPartition { first_epoch, records });
        }
        partitions
    }

    /// The epoch that a partition is registered with; 0 where nobody has seen it yet.
    async fn first_epoch(&self, stream: &Name, partition: PartitionId) -> u64 {
        let Ok(object) = self.objects().get(&paths::partition(stream, partition)).await else { return 0 };
        let text = object.bytes().await.expect("a readable object");
        serde_json::from_slice::<serde_json::Value>(&text).expect("JSON")["first_epoch"].as_u64().expect("a number")
    }
}

/// The object store that the platform uses by default.
fn objects(directory: &Path) -> Arc<dyn ObjectStore> {
    Arc::new(riomar::objects::DurableFiles::open(directory).expect("a writable directory"))
}

/// Identifiers that are the same in every run of a test.
fn fresh_ids(process: u64) -> FreshIds {
    let count = AtomicU64::new(0);
    FreshIds::new(move || Uuid::from_u64_pair(process, count.fetch_add(1, Ordering::Relaxed)))
}

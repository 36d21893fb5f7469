//! What goes on while faults happen: a producer that sends all the time, and again what was not acknowledged; and a client that asks
//! all the time and holds every answer against the oracle.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use riomar_schemas::{Epoch, record::RecordBody};
use riomar_tests::{
    answer::Answer,
    catalog::{READINGS, VIEWS},
    check::check_answer,
    deployment::{LogCopy, Outside},
    oracle::{LogPartition, OracleView},
    workload::{Line, Workload, ndjson},
};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::PATIENCE;

/// Lines of one request: few, so that there is always one under way, and a fault meets it anywhere.
const LINES_MAX: usize = 8;
/// The producer's pause between two requests.
const SEND_EVERY: Duration = Duration::from_millis(60);
/// The client's pause between two questions; comparing an answer takes about as long.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// The pause before what did not answer is asked again.
pub const ASK_AGAIN: Duration = Duration::from_millis(50);

/// How far the producer and the client are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Requests with events that have ended, with whatever outcome.
    pub sent: u64,
    /// Events that were acknowledged.
    pub acknowledged: u64,
    /// When the newest request began that was acknowledged.
    pub acknowledged_began: Option<Instant>,
    /// Questions that have ended, with whatever outcome.
    pub asked: u64,
    /// Answers that were compared with the oracle.
    pub compared: u64,
}

/// The load on one deployment. It ends when this is dropped.
pub struct Load {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

struct Shared {
    outside: Outside,
    progress: watch::Sender<Progress>,
    /// Every event that was acknowledged, as it was sent.
    acknowledged: Mutex<Vec<String>>,
    /// What was wrong with answers.
    wrong: Mutex<Vec<String>>,
    log: tokio::sync::Mutex<LogCopy>,
}

impl Load {
    /// Begins to send and to ask.
    pub fn start(outside: Outside, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            outside,
            progress: watch::Sender::default(),
            acknowledged: Mutex::default(),
            wrong: Mutex::default(),
            log: tokio::sync::Mutex::default(),
        });
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&shared).send(seed, stopping.clone()));
        tasks.spawn(Arc::clone(&shared).ask_all(stopping));
        Self { shared, stop, tasks }
    }

    /// Ends the load in order: what is under way is waited for.
    pub async fn stop(&mut self) {
        // The tasks are there to hear it.
        let _ = self.stop.send(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("the load does not panic");
        }
    }

    /// Who is outside.
    pub fn outside(&self) -> &Outside {
        &self.shared.outside
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        *self.shared.progress.borrow()
    }

    /// Waits until it is so far.
    pub async fn until(&self, what: &str, far_enough: impl Fn(&Progress) -> bool) -> Result<(), String> {
        let mut progress = self.shared.progress.subscribe();
        let waited = tokio::time::timeout(PATIENCE, progress.wait_for(|progress| far_enough(progress))).await;
        waited.map(drop).map_err(|_| format!("waited {} s for {what}", PATIENCE.as_secs()))
    }

    /// Waits until so many more requests with events, and a question, have ended, whatever became of them.
    pub async fn goes_on(&self, requests: u64) -> Result<(), String> {
        let before = self.progress();
        let more = move |now: &Progress| now.sent >= before.sent + requests && now.asked > before.asked;
        self.until("the load to go on", more).await
    }

    /// Waits until so many more events are acknowledged.
    pub async fn acknowledges(&self, events: u64) -> Result<(), String> {
        let enough = self.progress().acknowledged + events;
        self.until("events to be acknowledged", move |now| now.acknowledged >= enough).await
    }

    /// For each partition the end of the log as it is now.
    pub async fn ends(&self) -> Result<Vec<u64>, String> {
        let mut log = self.shared.log.lock().await;
        self.shared.read_on(&mut log).await?;
        Ok(log.ends())
    }

    /// For each partition the offset behind a cut; 0 where the log does not have it.
    pub async fn behind_cut(&self, cut: Epoch) -> Result<Vec<u64>, String> {
        let mut log = self.shared.log.lock().await;
        self.shared.read_on(&mut log).await?;
        let behind = |partition: &LogPartition| {
            let found = partition.records.iter().rev().find(|record| record.body == RecordBody::Cut(cut));
            found.map_or(0, |record| record.offset.0 + 1)
        };
        Ok(log.partitions().iter().map(behind).collect())
    }

    /// Holds an answer against the oracle; what is wrong with it is kept for [`Self::wrong`].
    pub async fn compare(&self, view: &OracleView, answer: &Answer) {
        self.shared.compare(view, answer).await;
    }

    /// What was wrong with answers so far.
    pub fn wrong(&self) -> Vec<String> {
        lock(&self.shared.wrong).clone()
    }

    /// The events that were acknowledged and are not in the log.
    pub async fn lost(&self) -> Result<Vec<String>, String> {
        let acknowledged = lock(&self.shared.acknowledged).clone();
        let mut log = self.shared.log.lock().await;
        self.shared.read_on(&mut log).await?;
        let records = log.partitions().iter().flat_map(|partition| &partition.records);
        let texts = records.filter_map(|record| match &record.body {
            RecordBody::Event(text) => Some(text.as_ref()),
            RecordBody::Cut(_) => None,
        });
        let held: HashSet<&[u8]> = texts.collect();
        Ok(acknowledged.into_iter().filter(|line| !held.contains(line.as_bytes())).collect())
    }
}

impl Shared {
    /// Sends until it is told to stop.
    async fn send(self: Arc<Self>, seed: u64, stop: watch::Receiver<bool>) {
        let (mut random, mut workload) = (StdRng::seed_from_u64(seed), Workload::new(seed));
        let mut lines: Vec<Line> = Vec::new();
        while !*stop.borrow() {
            if lines.is_empty() {
                lines = workload.batch(random.random_range(1..=LINES_MAX));
            }
            let began = Instant::now();
            let is_acknowledged = self.outside.send(READINGS.name, ndjson(&lines)).await;
            let mut acknowledged = 0;
            if is_acknowledged {
                let events: Vec<_> = lines.drain(..).filter(|line| line.valid).map(|line| line.text).collect();
                acknowledged = events.len() as u64;
                lock(&self.acknowledged).extend(events);
            } else {
                // What is no event is refused every time.
                lines.retain(|line| line.valid);
            }
            self.progress.send_modify(|progress| {
                progress.sent += 1;
                progress.acknowledged += acknowledged;
                if is_acknowledged {
                    progress.acknowledged_began = Some(began);
                }
            });
            sleep(SEND_EVERY).await;
        }
    }

    /// Asks for one view after the other until it is told to stop.
    async fn ask_all(self: Arc<Self>, stop: watch::Receiver<bool>) {
        for view in VIEWS.iter().cycle() {
            if *stop.borrow() {
                return;
            }
            // Without an answer nothing is wrong.
            if let Ok(answer) = self.outside.ask(view.name).await {
                self.compare(view, &answer).await;
            }
            self.progress.send_modify(|progress| progress.asked += 1);
            sleep(ASK_EVERY).await;
        }
    }

    async fn compare(&self, view: &OracleView, answer: &Answer) {
        let mut log = self.log.lock().await;
        let outcome = match self.read_on(&mut log).await {
            Ok(()) => tokio::task::block_in_place(|| check_answer(view, view.name, answer, log.partitions())),
            Err(error) => Err(format!("an answer that was not compared: {error}")),
        };
        match outcome {
            Ok(()) => self.progress.send_modify(|progress| progress.compared += 1),
            Err(error) => lock(&self.wrong).push(error),
        }
    }

    /// Reads the log on; while it cannot be read, again and again.
    async fn read_on(&self, log: &mut LogCopy) -> Result<(), String> {
        let began = Instant::now();
        loop {
            match self.outside.read_on(READINGS.name, log).await {
                Err(error) if began.elapsed() > PATIENCE => return Err(format!("the log cannot be read: {error}")),
                Err(_) => sleep(ASK_AGAIN).await,
                Ok(()) => return Ok(()),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

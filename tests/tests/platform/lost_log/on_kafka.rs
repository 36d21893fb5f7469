//! Kafka deletes records that have not landed, while no batch process runs.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use riomar_event_log::Log;
use riomar_schemas::{Offset, PartitionId};
use riomar_tests::{
    catalog::{BY_MINUTE, PARTITIONS, READINGS, SQL, VIEWS},
    check::check_answer,
    deployment::{Deployment, PROCESSES},
    lost::{Accepted, Book},
    process::binary,
    workload::{Workload, ndjson},
};
use serde_json::{Value, json};

use super::{LOSSES, STREAM, accepted, readings};

/// How long the processes may take for what is waited for.
const RECOVERY: Duration = Duration::from_secs(120);

/// The processes, and all that was ever in their log.
struct Site {
    deployment: Deployment,
    workload: Workload,
    book: Book,
    /// The book before the loss was accepted, while an answer may still be one of before.
    before: Option<Book>,
}

impl Site {
    async fn start() -> Self {
        let deployment = Deployment::start(SQL).await;
        let site = Self { deployment, workload: Workload::new(11), book: Book::new(READINGS.name, PARTITIONS), before: None };
        for (name, _) in PROCESSES {
            site.eventually(&format!("{name} to be ready"), async || site.deployment.is_ready(name).await).await;
        }
        site
    }

    async fn eventually(&self, what: &str, mut ask: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !ask().await {
            assert!(began.elapsed() < RECOVERY, "waited in vain for {what}\n{}", self.deployment.output());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn send(&mut self, count: usize) {
        let body = ndjson(&self.workload.valid_batch(count));
        self.send_body(&body).await;
    }

    async fn send_body(&self, body: &str) {
        self.eventually("an acknowledgement", async || self.deployment.send(READINGS.name, body.to_owned()).await).await;
    }

    async fn note(&mut self) {
        self.book.note(self.deployment.log()).await.expect("the log can be read");
        if let Some(before) = &mut self.before {
            before.note(self.deployment.log()).await.expect("the log can be read");
        }
    }

    /// Asks for every view; each answer that comes is right. Whether all came, lack nothing and hold every event.
    async fn check(&mut self) -> bool {
        let mut whole = true;
        for view in VIEWS {
            let Ok(answer) = self.deployment.ask(view.name).await else {
                whole = false;
                continue;
            };
            self.note().await;
            let log = self.book.log();
            if let Err(difference) = check_answer(view, view.name, &answer, &log) {
                let before = self.before.as_ref().map(|before| check_answer(view, view.name, &answer, &before.log()));
                assert!(matches!(before, Some(Ok(()))), "{difference}\n{}", self.deployment.output());
                whole = false;
            }
            let ends = self.book.event_ends();
            let behind = answer.through(view.name, PARTITIONS).iter().zip(ends).any(|(through, end)| *through < end);
            whole &= !behind && answer.receipt.degraded.is_empty();
        }
        whole
    }

    async fn whole(&mut self, when: &str) {
        let began = Instant::now();
        while !self.check().await {
            assert!(began.elapsed() < RECOVERY, "answers lack something {when}\n{}", self.deployment.output());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn get(&self, name: &str, path: &str) -> (u16, Value) {
        let (status, text) = self.deployment.get(name, path).await.unwrap_or_default();
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    /// The landed offset of each partition.
    async fn landed(&self) -> Vec<u64> {
        let (_, stream) = self.get("serve", STREAM).await;
        let positions = stream["positions"].as_array().cloned().unwrap_or_default();
        positions.iter().filter_map(|position| position["landed"].as_u64()).collect()
    }

    /// Runs a command of the binary against a process.
    async fn riomar(&self, process: &str, arguments: &[&str]) -> Told {
        let mut command = Command::new(binary());
        command.args(arguments).args(["--url", self.deployment.url(process)]).stdin(std::process::Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ends");
        Told::of(&output.expect("the binary starts"))
    }

    /// Recomputes, as soon as the schedule's own run is through.
    async fn recompute(&self, arguments: &[&str]) -> Told {
        let mut told = None;
        self.eventually("room for a run", async || {
            let ended = self.riomar("batch-1", arguments).await;
            let is_busy = ended.text.contains("A run is in progress");
            told = Some(ended);
            !is_busy
        })
        .await;
        told.expect("it ended")
    }

    /// How often a process has said something.
    fn said(&self, name: &str, what: &str) -> usize {
        self.deployment.process(name).output().matches(what).count()
    }
}

/// How a command ended, and all it wrote.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    text: String,
}

impl Told {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Self { code: output.status.code(), text }
    }

    fn check(&self, code: i32, parts: &[&str]) {
        let lacking: Vec<_> = parts.iter().filter(|part| !self.text.contains(**part)).collect();
        assert!(self.code == Some(code) && lacking.is_empty(), "expected {code} and {lacking:?}: {self:?}");
    }
}

/// Everything of the loss that can be seen and done while nobody has accepted it. Gives the range.
async fn while_it_waits(site: &mut Site, partition: usize, from: u64, to: u64) {
    for name in ["batch-1", "batch-2"] {
        site.eventually("the batch processes to say that they are not ready", async || {
            let (status, readiness) = site.get(name, "/readyz").await;
            status == 503 && readiness.to_string().contains("landing of readings")
        })
        .await;
    }
    let ends = site.book.event_ends();
    site.eventually("the other partitions to land", async || {
        let landed = site.landed().await;
        landed.len() == PARTITIONS && landed.iter().zip(&ends).enumerate().all(|(id, (at, end))| id == partition || at >= end)
    })
    .await;
    assert_eq!(site.landed().await[partition], from, "nothing is skipped");
    let (_, stream) = site.get("serve", STREAM).await;
    let expected = json!([{"partition": partition, "from": from, "to": to, "offsets": to - from}]);
    assert_eq!((&stream["losses"]["waiting"], &stream["account"]["adds_up"]), (&expected, &false.into()), "{stream}");
    let gauge = format!("riomar_landing_lost_records{{stream=\"readings\",partition=\"{partition}\"}} {}", to - from);
    site.eventually("the gauge of whoever leads", async || {
        let metrics = [site.deployment.get("batch-1", "/metrics").await, site.deployment.get("batch-2", "/metrics").await];
        metrics.into_iter().flatten().any(|(_, text)| text.contains(&gauge))
    })
    .await;
    let offsets = format!("offsets {from} to {to}");
    site.recompute(&["recompute"]).await.check(1, &[&offsets, "riomar accept-loss readings"]);
    site.riomar("serve", &["status"]).await.check(1, &[&offsets, "riomar accept-loss readings"]);

    // A speed worker that begins cannot know what was kept; it says so once, and answers stay right.
    site.deployment.kill("speed-1");
    site.deployment.spawn("speed-1");
    site.deployment.kill("speed-2");
    site.deployment.spawn("speed-2");
    site.eventually("a speed worker to say what it lacks", async || {
        ["speed-1", "speed-2"].iter().any(|name| site.said(name, "the speed layer cannot go on") > 0)
    })
    .await;
    for _ in 0..5 {
        site.check().await;
        site.send(10).await;
    }
    let told: Vec<_> = ["batch-1", "batch-2"].map(|name| site.said(name, "let go of records before they landed")).into();
    assert_eq!(told.iter().sum::<usize>(), 1, "told once: {told:?}\n{}", site.deployment.output());
    let refused: usize = ["speed-1", "speed-2"].iter().map(|name| site.said(name, "the speed layer cannot go on")).sum();
    assert!(refused <= 4, "{refused} times\n{}", site.deployment.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kafka_deleted_before_it_landed_halts_one_partition_until_somebody_accepts_it() {
    let mut site = Site::start().await;
    for _ in 0..3 {
        site.send(60).await;
    }
    site.whole("at first").await;
    site.eventually("a generation", async || {
        site.deployment
            .ask(VIEWS[0].name)
            .await
            .is_ok_and(|answer| answer.receipt.views.values().all(|receipt| receipt.generation > 0))
    })
    .await;
    for name in ["batch-1", "batch-2"] {
        site.deployment.kill(name);
    }
    let landed = site.landed().await;
    for _ in 0..3 {
        site.send(60).await;
    }
    site.whole("without a batch process").await;
    // Kafka's retention, as far as a broker is concerned: what is below an offset is deleted.
    let ends = site.book.event_ends();
    let partition =
        (0..PARTITIONS).max_by_key(|partition| ends[*partition].saturating_sub(landed[*partition])).expect("partitions");
    let (from, to) = (landed[partition], landed[partition].midpoint(ends[partition]));
    assert!(to > from + 5, "{landed:?} of {ends:?}");
    let id = PartitionId(u32::try_from(partition).expect("small"));
    site.deployment.log().trim(&readings(), id, Offset(to)).await.expect("deleted");
    site.send(40).await;
    site.whole("from what the realtime views hold").await;
    for name in ["batch-1", "batch-2"] {
        site.deployment.spawn(name);
    }
    while_it_waits(&mut site, partition, from, to).await;

    let number = partition.to_string();
    let shown = ["nothing was accepted", "--yes"];
    site.riomar("batch-2", &["accept-loss", "readings"]).await.check(1, &shown);
    let other = ((partition + 1) % PARTITIONS).to_string();
    site.riomar("batch-2", &["accept-loss", "readings", "--partition", &other, "--yes"])
        .await
        .check(0, &["nothing of readings waits"]);
    site.riomar("serve", &["accept-loss", "readings", "--yes"]).await.check(1, &["batch"]);
    assert!(accepted(&site.get("batch-1", LOSSES).await.1).is_empty());
    site.before = Some(site.book.clone());
    let began = Instant::now();
    site.riomar("batch-2", &["accept-loss", "readings", "--partition", &number, "--yes"])
        .await
        .check(0, &[&from.to_string(), "accepted"]);
    site.riomar("batch-1", &["accept-loss", "readings", "--yes"]).await.check(0, &["nothing of readings waits"]);

    let losses = accepted(&site.get("batch-1", LOSSES).await.1);
    let [Accepted { epoch, .. }] = losses[..] else { panic!("{losses:?}") };
    assert_eq!(losses, [Accepted { partition, from, to, epoch }]);
    site.book.accept(losses);
    site.whole("after the loss was accepted").await;
    println!("lost_log: whole again {:.1} s after the loss was accepted", began.elapsed().as_secs_f64());
    // Whatever comes now is one of after.
    site.before = None;
    let again = site.book.events(partition, from, to);
    assert!(again.lines().count() > 3, "{again}");
    site.send_body(&again).await;
    site.send(20).await;
    site.whole("after what was lost was sent again").await;
    site.eventually("a generation behind the loss", async || {
        site.deployment
            .ask(VIEWS[0].name)
            .await
            .is_ok_and(|answer| answer.receipt.views.values().all(|receipt| receipt.cut.0 > epoch))
    })
    .await;
    at_the_end(&mut site, to - from).await;

    for (name, _) in PROCESSES {
        site.deployment.kill(name);
    }
    for (name, _) in PROCESSES {
        site.deployment.spawn(name);
    }
    site.whole("after everything was started again").await;
    at_the_end(&mut site, to - from).await;
}

async fn at_the_end(site: &mut Site, lost: u64) {
    for (name, _) in PROCESSES {
        site.eventually(&format!("{name} to be ready"), async || site.deployment.is_ready(name).await).await;
    }
    site.eventually("the account to add up", async || {
        let account = site.deployment.account(READINGS.name).await.unwrap_or_default();
        account["adds_up"] == true && account["lost"] == lost && account["in_flight"] == 0
    })
    .await;
    site.recompute(&["recompute", "--full"]).await.check(0, &["published"]);
    // A view without percentiles, whose values may differ by more than an audit can tell.
    site.riomar("serve", &["audit", BY_MINUTE.name]).await.check(0, &[BY_MINUTE.name]);
    site.riomar("serve", &["status"]).await.check(0, &["nothing"]);
    site.whole("at the end").await;
}

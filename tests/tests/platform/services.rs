//! C1 to C6 on the real parts: Kafka, Redis, an S3 server, two speed workers, two batch processes. Whatever is killed, paused or
//! emptied, an answer is exact over the events before its receipt's positions, or there is none; and in the end nothing is missing.
//!
//! `RIOMAR_FAULTS` sets the number of faults, `RIOMAR_SEED` the order in which they come.

use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use riomar_infra::{
    proxy::Network,
    s3::{S3Fault, S3Requests, S3Rule},
};
use riomar_schemas::record::RecordBody;
use riomar_tests::{
    catalog::{PARTITIONS, READINGS, SQL, VIEWS},
    check::check_answer,
    deployment::{Deployment, PROCESSES},
    workload::{Workload, ndjson},
};

/// Faults of one run.
const FAULTS: u64 = 24;
/// Longer than a member's session and than a lease.
const PAUSE: Duration = Duration::from_secs(13);
/// How often the partitions are shared out anew.
const REBALANCES: usize = 12;
/// How long everything may take to be right again after the last fault.
const RECOVERY: Duration = Duration::from_secs(120);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

struct Storm {
    deployment: Deployment,
    random: StdRng,
    workload: Workload,
    /// Every line that was acknowledged.
    acknowledged: Vec<String>,
    /// Answers that were compared with the oracle, and requests without an answer.
    answers: u64,
    refusals: u64,
    trail: String,
}

impl Storm {
    async fn start(seed: u64) -> Self {
        let deployment = Deployment::start(SQL).await;
        let storm = Self {
            deployment,
            random: StdRng::seed_from_u64(seed),
            workload: Workload::new(seed),
            acknowledged: Vec::new(),
            answers: 0,
            refusals: 0,
            trail: String::new(),
        };
        let began = Instant::now();
        for (name, _) in PROCESSES {
            while !storm.deployment.is_ready(name).await {
                assert!(began.elapsed() < RECOVERY, "{name} is not ready:\n{}", storm.deployment.output());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        storm
    }

    /// Sends a batch of events, once.
    async fn send(&mut self) -> bool {
        let lines = self.workload.batch(self.random.random_range(1..60));
        let acknowledged = self.deployment.send(READINGS.name, ndjson(&lines)).await;
        if acknowledged {
            self.acknowledged.extend(lines.into_iter().filter(|line| line.valid).map(|line| line.text));
        }
        acknowledged
    }

    /// Asks for one view. Without an answer nothing is wrong; a wrong answer is.
    async fn check(&mut self) -> Result<(), String> {
        let view = VIEWS.choose(&mut self.random).ok_or("no view")?;
        let Ok(answer) = self.deployment.ask(view.name).await else {
            self.refusals += 1;
            return Ok(());
        };
        let Ok(log) = self.deployment.read_log(READINGS.name).await else { return Ok(()) };
        self.answers += 1;
        check_answer(view, view.name, &answer, &log)
    }

    async fn some_work(&mut self) -> Result<(), String> {
        for _ in 0..self.random.random_range(2..6) {
            self.send().await;
            self.check().await?;
        }
        Ok(())
    }

    /// One fault, with work while it lasts, and its end.
    async fn fault(&mut self) -> Result<(), String> {
        let (name, _) = PROCESSES[self.random.random_range(0..PROCESSES.len())];
        let fault = self.random.random_range(0..16);
        let description = match fault {
            0..5 => format!("kill {name}"),
            5 => format!("stop {name}"),
            6 | 7 => format!("pause {name}"),
            8 => "empty Redis".to_owned(),
            9 => "kill Redis".to_owned(),
            10 => "kill Kafka".to_owned(),
            11 => "Redis does what it is asked, and its replies are lost".to_owned(),
            12 => "Redis does not answer".to_owned(),
            13 => "S3 does what it is asked, and a fifth of its replies to writes are lost".to_owned(),
            14 => "pause Kafka".to_owned(),
            _ => "S3 answers a third of the requests with 503".to_owned(),
        };
        println!("services: {description}");
        self.trail += &format!("{description}; ");
        match fault {
            0..5 => {
                self.deployment.kill(name);
                self.some_work().await?;
                self.deployment.spawn(name);
            }
            5 => {
                let code = self.deployment.stop(name).await;
                if code != Some(0) {
                    return Err(format!("{name} stopped with {code:?}"));
                }
                self.deployment.spawn(name);
            }
            6 | 7 => {
                self.deployment.process(name).pause();
                self.some_work().await?;
                self.deployment.process(name).resume();
            }
            8 => drop(self.deployment.redis.command(&["FLUSHALL"]).map_err(|error| error.to_string())?),
            9 => {
                self.deployment.redis.kill().map_err(|error| error.to_string())?;
                self.some_work().await?;
                self.deployment.redis.restart().map_err(|error| error.to_string())?;
            }
            10 => {
                self.deployment.kafka.kill().map_err(|error| error.to_string())?;
                self.check().await?;
                self.deployment.kafka.restart().map_err(|error| error.to_string())?;
            }
            14 => {
                self.deployment.kafka.pause().map_err(|error| error.to_string())?;
                self.send().await;
                self.check().await?;
                self.deployment.kafka.resume().map_err(|error| error.to_string())?;
            }
            11 | 12 => {
                let network = if fault == 11 { Network::LosesReplies } else { Network::Silent };
                self.deployment.redis_network.set(network);
                self.some_work().await?;
                self.deployment.redis_network.set(Network::Up);
            }
            _ => {
                let rule = match fault {
                    13 => S3Rule::new(S3Fault::LostReply).of(S3Requests::Writes).every(5),
                    _ => S3Rule::new(S3Fault::SlowDown).every(3),
                };
                self.deployment.s3.faults().add(rule);
                self.some_work().await?;
                self.deployment.s3.faults().clear();
            }
        }
        self.some_work().await
    }

    /// Everything that was acknowledged is in the log, every view holds all of the log and lacks nothing, and the account adds up.
    async fn check_end(&mut self) -> Result<(), String> {
        let began = Instant::now();
        while !self.send().await {
            if began.elapsed() > RECOVERY {
                return Err("nothing is acknowledged any more".to_owned());
            }
        }
        for view in VIEWS {
            loop {
                if let Ok(answer) = self.deployment.ask(view.name).await {
                    let log = self.deployment.read_log(READINGS.name).await?;
                    check_answer(view, view.name, &answer, &log)?;
                    let ends: Vec<_> = log.iter().map(|log| log.records.last().map_or(0, |last| last.offset.0 + 1)).collect();
                    // A cut that was appended after the answer is no event.
                    let behind = answer.through(view.name, PARTITIONS).iter().zip(&ends).zip(&log).any(|((through, _), log)| {
                        log.records
                            .iter()
                            .any(|record| record.offset.0 >= *through && matches!(record.body, RecordBody::Event(_)))
                    });
                    if !behind && answer.receipt.degraded.is_empty() {
                        break;
                    }
                }
                if began.elapsed() > RECOVERY {
                    return Err(format!("{} is not whole again", view.name));
                }
            }
        }
        let log = self.deployment.read_log(READINGS.name).await?;
        let held: std::collections::HashSet<&[u8]> = log
            .iter()
            .flat_map(|log| &log.records)
            .filter_map(|record| match &record.body {
                RecordBody::Event(text) => Some(text.as_ref()),
                RecordBody::Cut(_) => None,
            })
            .collect();
        if let Some(lost) = self.acknowledged.iter().find(|line| !held.contains(line.as_bytes())) {
            return Err(format!("acknowledged and lost: {lost}"));
        }
        loop {
            let account = self.deployment.account(READINGS.name).await.unwrap_or_default();
            if account["adds_up"] == true && account["in_flight"] == 0 {
                println!(
                    "services: whole after {:.1} s; {} answers exact, {} requests without one; {} acknowledged; {account}",
                    began.elapsed().as_secs_f64(),
                    self.answers,
                    self.refusals,
                    self.acknowledged.len()
                );
                return Ok(());
            }
            if began.elapsed() > RECOVERY {
                return Err(format!("the account does not add up: {account}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Runs a scenario, and tells all that is known where it fails.
async fn weather(seed: u64, scenario: impl AsyncFnOnce(&mut Storm) -> Result<(), String>) {
    println!("services: RIOMAR_SEED={seed}");
    let mut storm = Storm::start(seed).await;
    let result = match scenario(&mut storm).await {
        Ok(()) => storm.check_end().await,
        failed => failed,
    };
    if let Err(error) = result {
        panic!("{error}\n\nafter: {}\n\n{}\n\nagain: RIOMAR_SEED={seed}", storm.trail, storm.deployment.output());
    }
    assert!(storm.answers > 0, "nothing was ever answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_answers_are_exact_and_nothing_acknowledged_is_lost() {
    weather(number("RIOMAR_SEED", 1), async |storm| {
        storm.some_work().await?;
        for _ in 0..number("RIOMAR_FAULTS", FAULTS) {
            storm.fault().await?;
        }
        Ok(())
    })
    .await;
}

/// A worker that its group has given up and a leader whose lease is over wake up, and do harm to nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_paused_past_its_time_is_replaced_and_harms_nothing_when_it_wakes_up() {
    weather(2, async |storm| {
        for name in ["speed-1", "batch-1", "batch-2"] {
            storm.some_work().await?;
            println!("services: pause {name} for {} s", PAUSE.as_secs());
            storm.deployment.process(name).pause();
            let began = Instant::now();
            while began.elapsed() < PAUSE {
                storm.some_work().await?;
            }
            // The others have its work.
            storm.check_end().await?;
            storm.deployment.process(name).resume();
            storm.some_work().await?;
        }
        Ok(())
    })
    .await;
}

/// Workers come and go all the time, so that partitions never stay where they are for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_never_stay_where_they_are_are_counted_once() {
    weather(3, async |storm| {
        for round in 0..REBALANCES {
            let name = ["speed-1", "speed-2"][round % 2];
            if round % 4 < 2 {
                storm.deployment.kill(name);
            } else {
                storm.deployment.stop(name).await;
            }
            storm.send().await;
            storm.check().await?;
            storm.deployment.spawn(name);
            storm.send().await;
            storm.check().await?;
        }
        Ok(())
    })
    .await;
}

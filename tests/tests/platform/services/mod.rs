//! C1 to C6 on the real parts: Kafka, Redis, an S3 server, two speed workers, two batch processes, under load. Whatever is killed,
//! paused or emptied, an answer is exact over the events before its receipt's positions, or there is none; nothing acknowledged is
//! lost; and in the end nothing is missing.
//!
//! [`rounds`] meets every fault by itself and measures the recovery (`RIOMAR_ROUNDS` sets how often); [`storm`] lets them come one
//! upon the other (`RIOMAR_FAULTS` sets how many, `RIOMAR_SEED` in which order).

mod fault;
mod load;
mod recovery;
mod rounds;
mod storm;
mod table;

use std::time::{Duration, Instant};

use riomar_tests::{
    catalog::SQL,
    deployment::{Deployment, Outside, PROCESSES},
};

use load::Load;

/// How long everything may take to be right again. Much longer than it does, for machines that have much else to do.
const PATIENCE: Duration = Duration::from_secs(180);

fn number(variable: &str, default: u64) -> u64 {
    let parse = |text: String| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number"));
    std::env::var(variable).map_or(default, parse)
}

/// A deployment under load.
struct Scene {
    // First: it is the first to end.
    load: Load,
    deployment: Deployment,
}

impl Scene {
    /// Starts everything, and waits until every process is ready and some events are acknowledged.
    async fn start(seed: u64) -> Self {
        println!("services: RIOMAR_SEED={seed}");
        let deployment = Deployment::start(SQL).await;
        let began = Instant::now();
        for (name, _) in PROCESSES {
            while !deployment.is_ready(name).await {
                assert!(began.elapsed() < PATIENCE, "{name} is not ready:\n{}", deployment.output());
                tokio::time::sleep(load::ASK_AGAIN).await;
            }
        }
        let load = Load::start(Outside::clone(&deployment), seed);
        load.goes_on(1).await.unwrap_or_else(|error| panic!("{error}\n{}", deployment.output()));
        Self { load, deployment }
    }
}

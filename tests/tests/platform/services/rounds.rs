//! Every fault by itself, round after round, each with its recovery. The table is printed at the end.

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Scene,
    fault::{
        Fault::{self, *},
        Whom::{Follower, Leader, Process},
    },
    number, recovery,
    table::{Row, Table},
};

/// Events of one deployment. The oracle evaluates all of them for each answer, so after these a new one is started.
const EVENTS_MAX: u64 = 4_000;

/// A group of faults, on one deployment after the other.
struct Rounds {
    seed: u64,
    random: StdRng,
    scene: Option<Scene>,
    failures: Vec<String>,
}

impl Rounds {
    /// The rounds of one fault. The first failure ends them.
    async fn run(&mut self, fault: Fault, rounds: u64) -> Row {
        let mut row = Row { fault: fault.to_string(), ..Row::default() };
        for round in 1..=rounds {
            let mut scene = self.scene().await;
            let before = scene.load.progress();
            let outcome = self.round(fault, &mut scene, &mut row).await;
            let after = scene.load.progress();
            row.acknowledged += after.acknowledged - before.acknowledged;
            row.compared += after.compared - before.compared;
            if let Err(error) = outcome {
                row.wrong += scene.load.wrong().len() as u64;
                row.lost += scene.load.lost().await.map_or(0, |lost| lost.len() as u64);
                self.failures.push(format!("{fault}, round {round}: {error}\n\n{}", scene.deployment.output()));
                return row;
            }
            self.scene = Some(scene);
            if after.acknowledged > EVENTS_MAX {
                self.rest().await;
            }
        }
        row
    }

    /// The deployment that there is, or a new one.
    async fn scene(&mut self) -> Scene {
        if let Some(scene) = self.scene.take() {
            return scene;
        }
        self.seed += 1;
        Scene::start(self.seed).await
    }

    /// Ends the deployment: at rest everything has to be right.
    async fn rest(&mut self) {
        let Some(mut scene) = self.scene.take() else { return };
        if let Err(error) = recovery::rest(&mut scene.load).await {
            self.failures.push(format!("at rest: {error}\n\n{}", scene.deployment.output()));
        }
    }

    /// One round: a while of load, the fault, and the recovery.
    async fn round(&mut self, fault: Fault, scene: &mut Scene, row: &mut Row) -> Result<(), String> {
        scene.load.goes_on(self.random.random_range(2..12)).await?;
        let ended = fault.strike(&mut scene.deployment, &scene.load).await?;
        let recovery = recovery::recover(&scene.load, ended).await?;
        println!("services: {fault}: {recovery}");
        row.recoveries.push(recovery);
        if let Some(wrong) = scene.load.wrong().first() {
            return Err(wrong.clone());
        }
        match scene.load.lost().await?.first() {
            Some(lost) => Err(format!("acknowledged and lost: {lost}")),
            None => Ok(()),
        }
    }
}

async fn rounds(faults: &[Fault]) {
    let (seed, rounds) = (number("RIOMAR_SEED", 1), number("RIOMAR_ROUNDS", 1));
    let mut all = Rounds { seed, random: StdRng::seed_from_u64(seed), scene: None, failures: Vec::new() };
    let mut rows = Vec::new();
    for fault in faults {
        rows.push(all.run(*fault, rounds).await);
    }
    all.rest().await;
    println!("\n{}", Table(&rows));
    assert!(all.failures.is_empty(), "{}", all.failures.join("\n\n"));
    assert!(rows.iter().all(|row| row.compared > 0 && row.acknowledged > 0), "nothing was sent or asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed() {
    let whom = [Process("ingest"), Process("speed-1"), Process("speed-2"), Leader, Follower, Process("serve")];
    rounds(&whom.map(Kill)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_stop_in_order() {
    rounds(&[Process("ingest"), Process("speed-1"), Leader, Follower, Process("serve")].map(Stop)).await;
}

/// A worker that its group has given up and a leader whose lease is over wake up, and do harm to nothing; partitions that never
/// stay where they are are counted once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_are_given_up() {
    rounds(&[PastSession, PastLease, Rebalances]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_that_is_away() {
    rounds(&[KafkaKilled, KafkaPaused]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_is_away_empty_old_or_mute() {
    rounds(&[RedisKilled, RedisPaused, RedisEmptied, RedisOld, RedisLosesReplies]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_are_slow_refused_or_unanswered() {
    rounds(&[ObjectsSlow, ObjectsRefuse, ObjectsHang, ObjectsLoseReplies]).await;
}

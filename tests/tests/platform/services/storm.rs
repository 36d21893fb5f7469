//! Faults that come one upon the other, before everything has recovered from the one before.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{
    Scene,
    fault::{
        Fault::{self, *},
        Whom::Process,
    },
    number, recovery,
};

/// Faults of one run.
const FAULTS: u64 = 20;
/// What may happen, the likelier the more often it is here.
const WEATHER: &[Fault] = &[
    Kill(Process("ingest")),
    Kill(Process("speed-1")),
    Kill(Process("speed-2")),
    Kill(Process("batch-1")),
    Kill(Process("batch-2")),
    Kill(Process("serve")),
    Stop(Process("ingest")),
    Stop(Process("speed-1")),
    Stop(Process("batch-2")),
    Pause(Process("ingest")),
    Pause(Process("speed-2")),
    Pause(Process("batch-1")),
    Pause(Process("batch-2")),
    Pause(Process("serve")),
    RedisEmptied,
    RedisKilled,
    RedisPaused,
    RedisLosesReplies,
    KafkaKilled,
    KafkaPaused,
    ObjectsRefuse,
    ObjectsLoseReplies,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_answers_are_exact_and_nothing_acknowledged_is_lost() {
    let seed = number("RIOMAR_SEED", 1);
    let mut random = StdRng::seed_from_u64(seed);
    let mut scene = Scene::start(seed).await;
    let mut trail = String::new();
    let outcome = async {
        for _ in 0..number("RIOMAR_FAULTS", FAULTS) {
            let fault = *WEATHER.choose(&mut random).ok_or("no fault")?;
            println!("services: {fault}");
            trail += &format!("{fault}; ");
            fault.strike(&mut scene.deployment, &scene.load).await?;
            scene.load.goes_on(random.random_range(1..8)).await?;
        }
        recovery::recover(&scene.load, std::time::Instant::now()).await?;
        recovery::rest(&mut scene.load).await
    };
    let outcome: Result<(), String> = outcome.await;
    if let Err(error) = outcome {
        panic!("{error}\n\nafter: {trail}\n\n{}\n\nagain: RIOMAR_SEED={seed}", scene.deployment.output());
    }
    let progress = scene.load.progress();
    println!("services: {progress:?}");
    assert!(progress.compared > 0 && progress.acknowledged > 0, "{progress:?}");
}

//! The faults of the real parts: each strikes, lasts while events are sent and views are asked for, and ends.

use std::{
    fmt,
    time::{Duration, Instant},
};

use riomar_infra::{
    ServiceError,
    proxy::Network,
    s3::{S3Fault, S3Requests, S3Rule},
};
use riomar_tests::deployment::{Deployment, PROCESSES};
use tokio::{task::block_in_place, time::sleep};

use super::{
    PATIENCE,
    load::{ASK_AGAIN, Load},
    recovery::{answered_views, next_generation, whole_views},
};

/// Longer than a member's session and than a lease.
const PAST_ITS_TIME: Duration = Duration::from_secs(13);
/// How long a service is out of reach.
const OUTAGE: Duration = Duration::from_secs(4);
/// Requests with events that end while a process is dead or paused.
const REQUESTS: u64 = 4;
/// Events between an old snapshot of Redis and its return.
const EVENTS_SINCE_SNAPSHOT: u64 = 60;
/// How often a speed worker leaves or joins, and for how many times.
const REBALANCE_EVERY: Duration = Duration::from_secs(1);
const REBALANCES: usize = 12;
/// How late a slow object store is.
const SLOW: Duration = Duration::from_millis(500);

/// Which process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// The one of this name.
    Process(&'static str),
    /// The batch process that leads.
    Leader,
    /// The batch process that does not.
    Follower,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill(Whom),
    /// SIGTERM; the process has to end with 0.
    Stop(Whom),
    /// SIGSTOP, and SIGCONT soon after.
    Pause(Whom),
    /// A speed worker is paused until the other one has its partitions, and woken.
    PastSession,
    /// The leading batch process is paused until the other one has published, and woken.
    PastLease,
    /// A speed worker leaves or joins every second.
    Rebalances,
    /// The broker is killed and started again.
    KafkaKilled,
    /// The broker is paused and woken.
    KafkaPaused,
    /// Redis is killed and started again, empty.
    RedisKilled,
    /// Redis is paused and woken.
    RedisPaused,
    /// `FLUSHALL`.
    RedisEmptied,
    /// Redis is killed and started again with what it held some time ago.
    RedisOld,
    /// Redis does what it is asked, and its replies are lost.
    RedisLosesReplies,
    /// Every request to the object store takes longer.
    ObjectsSlow,
    /// A third of the requests is answered with 503.
    ObjectsRefuse,
    /// A fifth of the writes is done and not answered for longer than a lease; then the connection is closed.
    ObjectsHang,
    /// A fifth of the writes is done, and the connection closed in place of the answer.
    ObjectsLoseReplies,
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process(name) => name,
            Self::Leader => "the batch leader",
            Self::Follower => "the other batch process",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(whom) => write!(f, "kill -9 of {whom}"),
            Self::Stop(whom) => write!(f, "SIGTERM of {whom}"),
            Self::Pause(whom) => write!(f, "{whom} paused and woken"),
            Self::PastSession => f.write_str("a speed worker paused past its session and woken"),
            Self::PastLease => f.write_str("the batch leader paused past its lease and woken"),
            Self::Rebalances => f.write_str("speed workers that leave and join every second"),
            Self::KafkaKilled => f.write_str("Kafka killed and started again"),
            Self::KafkaPaused => f.write_str("Kafka paused and woken"),
            Self::RedisKilled => f.write_str("Redis killed and started again empty"),
            Self::RedisPaused => f.write_str("Redis paused and woken"),
            Self::RedisEmptied => f.write_str("Redis emptied"),
            Self::RedisOld => f.write_str("Redis started again from an old snapshot"),
            Self::RedisLosesReplies => f.write_str("Redis does what it is asked, and its replies are lost"),
            Self::ObjectsSlow => f.write_str("S3 answers half a second late"),
            Self::ObjectsRefuse => f.write_str("S3 answers a third of the requests with 503"),
            Self::ObjectsHang => f.write_str("S3 does a fifth of the writes, and hangs in place of a reply"),
            Self::ObjectsLoseReplies => f.write_str("S3 does a fifth of the writes, and their replies are lost"),
        }
    }
}

impl Whom {
    async fn name(self, load: &Load) -> Result<&'static str, String> {
        if let Self::Process(name) = self {
            return Ok(name);
        }
        let began = Instant::now();
        loop {
            match load.outside().leader().await {
                Some(leader) if self == Self::Leader => return Ok(leader),
                Some(leader) => {
                    let mut others = PROCESSES.iter().filter(|(name, role)| *role == "batch" && *name != leader);
                    return others.next().map(|(name, _)| *name).ok_or_else(|| "one batch process alone".to_owned());
                }
                None if began.elapsed() > PATIENCE => return Err("no batch process leads".to_owned()),
                None => sleep(ASK_AGAIN).await,
            }
        }
    }
}

impl Fault {
    /// Strikes, lasts, and ends; gives the moment at which it ended.
    ///
    /// # Errors
    /// What should have gone on meanwhile and did not; a service that did not do as it was told.
    pub async fn strike(self, deployment: &mut Deployment, load: &Load) -> Result<Instant, String> {
        match self {
            Self::Kill(whom) | Self::Stop(whom) | Self::Pause(whom) => {
                let name = whom.name(load).await?;
                self.strike_process(name, deployment, load).await?;
            }
            Self::PastSession => {
                deployment.process("speed-1").pause();
                sleep(PAST_ITS_TIME).await;
                // The other one has its work.
                whole_views(load).await?;
                deployment.process("speed-1").resume();
            }
            Self::PastLease => {
                let leader = Whom::Leader.name(load).await?;
                deployment.process(leader).pause();
                sleep(PAST_ITS_TIME).await;
                next_generation(load).await?;
                deployment.process(leader).resume();
            }
            Self::Rebalances => rebalance(deployment).await,
            Self::KafkaKilled => {
                service(|| deployment.kafka.kill())?;
                sleep(OUTAGE).await;
                // What was folded and published is there.
                answered_views(load).await?;
                service(|| deployment.kafka.restart())?;
            }
            Self::KafkaPaused => {
                service(|| deployment.kafka.pause())?;
                sleep(OUTAGE).await;
                // What was folded and published is there.
                answered_views(load).await?;
                service(|| deployment.kafka.resume())?;
            }
            Self::RedisKilled | Self::RedisPaused | Self::RedisEmptied | Self::RedisOld | Self::RedisLosesReplies => {
                self.strike_redis(deployment, load).await?
            }
            Self::ObjectsSlow | Self::ObjectsRefuse | Self::ObjectsHang | Self::ObjectsLoseReplies => {
                self.strike_objects(deployment).await?;
            }
        }
        Ok(Instant::now())
    }

    async fn strike_process(self, name: &'static str, deployment: &mut Deployment, load: &Load) -> Result<(), String> {
        match self {
            Self::Stop(_) => {
                let began = Instant::now();
                // Before it is ready it does not listen to signals.
                while !load.outside().is_ready(name).await {
                    if began.elapsed() > PATIENCE {
                        return Err(format!("{name} is not ready"));
                    }
                    sleep(ASK_AGAIN).await;
                }
                let code = deployment.stop(name).await;
                if code != Some(0) {
                    return Err(format!("{name} stopped with {code:?}"));
                }
                deployment.spawn(name);
            }
            Self::Pause(_) => {
                deployment.process(name).pause();
                sleep(OUTAGE).await;
                deployment.process(name).resume();
            }
            _ => {
                deployment.kill(name);
                load.goes_on(REQUESTS).await?;
                deployment.spawn(name);
            }
        }
        Ok(())
    }

    async fn strike_redis(self, deployment: &mut Deployment, load: &Load) -> Result<(), String> {
        match self {
            Self::RedisKilled => {
                service(|| deployment.redis.kill())?;
                sleep(OUTAGE).await;
                service(|| deployment.redis.restart())
            }
            Self::RedisPaused => {
                service(|| deployment.redis.pause())?;
                sleep(OUTAGE).await;
                service(|| deployment.redis.resume())
            }
            Self::RedisEmptied => service(|| deployment.redis.command(&["FLUSHALL"]).map(drop)),
            Self::RedisOld => {
                let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
                let snapshot = directory.path().join("old.rdb");
                service(|| deployment.redis.save_snapshot(&snapshot))?;
                load.acknowledges(EVENTS_SINCE_SNAPSHOT).await?;
                next_generation(load).await?;
                service(|| deployment.redis.restore_snapshot(&snapshot))?;
                // The next time it is killed it comes back empty.
                let own = deployment.redis.directory().join("dump.rdb");
                std::fs::remove_file(own).map_err(|error| error.to_string())
            }
            _ => {
                deployment.redis_network.set(Network::LosesReplies);
                sleep(OUTAGE).await;
                deployment.redis_network.set(Network::Up);
                Ok(())
            }
        }
    }

    /// The faults last until they have met some requests.
    async fn strike_objects(self, deployment: &Deployment) -> Result<(), String> {
        let (rule, requests, at_least) = match self {
            Self::ObjectsSlow => (S3Rule::new(S3Fault::Delay(SLOW)), 20, OUTAGE),
            Self::ObjectsRefuse => (S3Rule::new(S3Fault::SlowDown).every(3), 10, OUTAGE),
            Self::ObjectsHang => (S3Rule::new(S3Fault::SilentReply).of(S3Requests::Writes).every(5), 1, PAST_ITS_TIME),
            _ => (S3Rule::new(S3Fault::LostReply).of(S3Requests::Writes).every(5), 3, OUTAGE),
        };
        let (began, faults) = (Instant::now(), deployment.s3.faults());
        let enough = faults.struck() + requests;
        faults.add(rule);
        while faults.struck() < enough || began.elapsed() < at_least {
            if began.elapsed() > PATIENCE {
                return Err(format!("the object store was hardly asked for anything in {} s", PATIENCE.as_secs()));
            }
            sleep(ASK_AGAIN).await;
        }
        faults.clear();
        Ok(())
    }
}

/// Speed workers leave, killed or in order, and join again, one at a time.
async fn rebalance(deployment: &mut Deployment) {
    let mut every = tokio::time::interval(REBALANCE_EVERY);
    for number in 0..REBALANCES {
        every.tick().await;
        let name = ["speed-1", "speed-2"][number / 2 % 2];
        match number % 8 {
            0 | 2 => deployment.kill(name),
            // It may not have come to listen to signals.
            4 | 6 => drop(deployment.stop(name).await),
            _ => deployment.spawn(name),
        }
    }
}

/// Has a service do something, which may take a while.
fn service(work: impl FnOnce() -> Result<(), ServiceError>) -> Result<(), String> {
    block_in_place(work).map_err(|error| error.to_string())
}

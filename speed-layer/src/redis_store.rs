//! Realtime views in Redis.
//!
//! Every operation is one Lua script, which Redis runs as one step: the check of the guard, the states and the entry go together or
//! not at all. The entry is a readable hash:
//!
//! ```text
//! HGETALL riomar:{traffic_by_minute/3f2a9c01d4e5b677/0}:entry
//! format 1  offset 81920  epoch 41  start 40  floor 40  event_time_max_us 1795687199000000  groups:40 1204  groups:41 377
//! ```
//!
//! It lists its epochs with the number of groups in each, so an entry whose hashes were evicted or deleted is told from a whole one,
//! and counts as none. A reply that was lost leaves it unknown whether a write was applied ([`StoreError::Unavailable`]): states
//! are absolute and writes guarded, so the caller reads the entry and goes on from what it finds.

mod breaker;
mod connection;
mod wire;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use redis::Script;
use riomar_schemas::{Epoch, PartitionId, View, state_codec::EncodedState};

use crate::store::{Entry, RealtimePart, RealtimeStore, StoreError, WriteOutcome};
use connection::Connection;
use wire::Call;

/// How long a store waits for Redis, and when it stops asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisLimits {
    /// How long one call may take, connecting included.
    pub call_timeout: Duration,
    /// After this many calls in a row that got no answer, calls fail at once.
    pub breaker_failures: u32,
    /// For how long they do; then one call in each such period probes, over a new connection.
    pub breaker_period: Duration,
}

impl Default for RedisLimits {
    fn default() -> Self {
        Self { call_timeout: Duration::from_secs(2), breaker_failures: 3, breaker_period: Duration::from_secs(1) }
    }
}

/// A text that is not the address of a Redis server. It may hold a password, so it is not repeated.
#[derive(Debug, thiserror::Error)]
#[error("not the address of a Redis server, such as redis://127.0.0.1:6379/0: {0}")]
pub struct InvalidRedisUrl(String);

/// A store in Redis.
#[derive(Debug)]
pub struct RedisStore {
    connection: Connection,
    scripts: Scripts,
    deployment: String,
}

#[derive(Debug)]
struct Scripts {
    entry: Script,
    states: Script,
    write: Script,
    reset: Script,
    remove: Script,
    read: Script,
}

macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(include_str!("redis_store/common.lua"), include_str!($file)))
    };
}

impl RedisStore {
    /// A store at this address, for the deployment of this id: stores of other ids never see its states. It connects with the first call, and again whenever the connection is lost: a Redis that is down
    /// does not keep the platform from starting.
    ///
    /// # Errors
    /// [`InvalidRedisUrl`].
    pub fn connect(url: &str, deployment: &str, limits: RedisLimits) -> Result<Self, InvalidRedisUrl> {
        let client = redis::Client::open(url).map_err(|error| InvalidRedisUrl(error.category().to_owned()))?;
        let scripts = Scripts {
            entry: script!("redis_store/entry.lua"),
            states: script!("redis_store/states.lua"),
            write: script!("redis_store/write.lua"),
            reset: script!("redis_store/reset.lua"),
            remove: script!("redis_store/remove.lua"),
            read: script!("redis_store/read.lua"),
        };
        Ok(Self { connection: Connection::new(client, limits), scripts, deployment: deployment.to_owned() })
    }

    fn call<'a>(&self, script: &'a Script, view: &View, partition: PartitionId) -> Call<'a> {
        Call::new(script, &self.deployment, view, partition)
    }
}

#[async_trait]
impl RealtimeStore for RedisStore {
    async fn entry(&self, view: &View, partition: PartitionId) -> Result<Option<Entry>, StoreError> {
        Ok(self.groups(view, partition).await?.map(|(entry, _)| entry))
    }

    async fn states(
        &self,
        view: &View,
        partition: PartitionId,
        keys: &[(Epoch, &str)],
    ) -> Result<(Option<Entry>, Vec<Option<Vec<u8>>>), StoreError> {
        let mut call = self.call(&self.scripts.states, view, partition);
        let order = call.keys(keys);
        let mut reply = call.run(&self.connection).await?;
        if reply.is_none()? {
            return Ok((None, vec![None; keys.len()]));
        }
        let (entry, _) = reply.entry()?;
        let mut states = vec![None; keys.len()];
        let found = reply.list()?;
        if found.len() != order.len() {
            return Err(call.damaged("states", "another number of states than was asked for"));
        }
        for (state, place) in found.into_iter().zip(order) {
            states[place] = wire::optional_bytes(state)?;
        }
        Ok((Some(entry), states))
    }

    async fn write(
        &self,
        view: &View,
        partition: PartitionId,
        expected: &Entry,
        next: &Entry,
        states: &[EncodedState],
    ) -> Result<WriteOutcome, StoreError> {
        let mut call = self.call(&self.scripts.write, view, partition);
        call.guard(Some(expected)).entry(next).states(states);
        call.run(&self.connection).await?.outcome()
    }

    async fn reset(
        &self,
        view: &View,
        partition: PartitionId,
        expected: Option<&Entry>,
        next: &Entry,
    ) -> Result<WriteOutcome, StoreError> {
        let mut call = self.call(&self.scripts.reset, view, partition);
        call.guard(expected).entry(next);
        call.run(&self.connection).await?.outcome()
    }

    async fn remove_below(&self, view: &View, partition: PartitionId, floor: Epoch) -> Result<(), StoreError> {
        let mut call = self.call(&self.scripts.remove, view, partition);
        call.number(floor.0);
        let mut reply = call.run(&self.connection).await?;
        if !reply.is_none()? {
            // An entry of another version was left alone: say so.
            reply.entry()?;
        }
        Ok(())
    }

    async fn read(&self, view: &View, partition: PartitionId, from: Epoch) -> Result<Option<RealtimePart>, StoreError> {
        let mut call = self.call(&self.scripts.read, view, partition);
        call.number(from.0);
        let mut reply = call.run(&self.connection).await?;
        if reply.is_none()? {
            return Ok(None);
        }
        let (entry, _) = reply.entry()?;
        Ok(Some(RealtimePart { entry, states: reply.epochs()? }))
    }

    async fn groups(&self, view: &View, partition: PartitionId) -> Result<Option<(Entry, BTreeMap<Epoch, u64>)>, StoreError> {
        let mut reply = self.call(&self.scripts.entry, view, partition).run(&self.connection).await?;
        if reply.is_none()? { Ok(None) } else { reply.entry().map(Some) }
    }
}

#[cfg(test)]
mod tests;

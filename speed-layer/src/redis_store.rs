//! Realtime views in Redis: one server, or a Redis Cluster.
//!
//! Every operation is one Lua script, which Redis runs as one step: the check of the guard, the states and the entry go together or
//! not at all. The entry is a readable hash:
//!
//! ```text
//! HGETALL riomar:5d1c0a7e:{traffic_by_minute/3f2a9c01d4e5b677/0}:entry
//! format 1  offset 81920  epoch 41  start 40  floor 40  lost 0  event_time_max_us 1795687199000000  groups:40 1204  groups:41 377
//! ```
//!
//! It lists its epochs with the number of groups in each, so an entry whose hashes were evicted or deleted is told from a whole one,
//! and counts as none. A reply that was lost leaves it unknown whether a write was applied ([`StoreError::Unavailable`]): states
//! are absolute and writes guarded, so the caller reads the entry and goes on from what it finds. So it does when a fail-over or a
//! restored snapshot brings back an older entry: a write that expects the newer one is fenced.
//!
//! # For whoever runs Redis
//!
//! *Persistence is not needed*, and neither are replicas: what is lost is rebuilt from the log and the master dataset, and answers say
//! meanwhile what they lack. Replicas (of a cluster, too) make that pause shorter.
//!
//! *Memory*: set `maxmemory` and `maxmemory-policy noeviction`. Above the limit writes are refused whole, and realtime views grow older
//! until a generation covers them; what it covers is removed then, which is not refused, and they go on. With an `allkeys-…` policy Redis removes keys instead; a view's partition that lost one begins
//! anew, so what was gained is soon lost again. No answer is wrong with either.
//!
//! *A cluster* keeps each view's partition in one slot. While a slot moves, or until a replica has taken a dead master's place, the
//! partitions in it are not available; then they go on by themselves. Only masters are read.
//!
//! *Permissions*: this line gives a user all that Riomar needs. `select` is needed for a database other than 0, `ping`, `asking` and
//! `cluster|slots` for a cluster; `info` is asked for once, to warn of evictions, and may be left out.
//!
//! ```text
//! ACL SETUSER riomar on >password resetkeys ~riomar:* resetchannels -@all +eval +evalsha +hgetall +hkeys +hlen +hmget +hset +hdel
//!   +unlink +select +ping +asking +cluster|slots +info
//! ```

mod address;
mod breaker;
mod connection;
mod epochs;
mod errors;
mod eviction;
mod script;
mod tls;
mod wire;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use riomar_schemas::{Epoch, PartitionId, View, state_codec::EncodedState};

use crate::store::{Entry, RealtimePart, RealtimeStore, StoreError, WriteOutcome};
use connection::Connection;
use epochs::ListedEpochs;
use script::Script;
use wire::Call;

pub use address::{InvalidRedisAddress, RedisAddress};
pub use tls::{RedisClientCertificate, RedisTls, RedisTlsError};

/// How long a store waits for Redis, and when it stops asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisLimits {
    /// How long one call may take, connecting and following a cluster's redirections included.
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

/// A store in Redis.
#[derive(Debug)]
pub struct RedisStore {
    connection: Connection,
    scripts: Scripts,
    listed: ListedEpochs,
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
    /// A store at this address, for the deployment of this id: stores of other ids never see its states. It connects with the first
    /// call, and again whenever the connection is lost: a Redis that is down does not keep the platform from starting.
    ///
    /// # Errors
    /// [`RedisTlsError`] when the certificates cannot be used.
    pub fn connect(address: &RedisAddress, tls: &RedisTls, deployment: &str, limits: RedisLimits) -> Result<Self, RedisTlsError> {
        let scripts = Scripts {
            entry: script!("redis_store/entry.lua"),
            states: script!("redis_store/states.lua"),
            write: script!("redis_store/write.lua"),
            reset: script!("redis_store/reset.lua"),
            remove: script!("redis_store/remove.lua"),
            read: script!("redis_store/read.lua"),
        };
        let connection = Connection::new(address.clone(), tls.clone(), limits)?;
        Ok(Self { connection, scripts, listed: ListedEpochs::default(), deployment: deployment.to_owned() })
    }

    fn call<'a>(&'a self, script: &'a Script, view: &View, partition: PartitionId) -> Call<'a> {
        Call::new(script, &self.listed, &self.deployment, view, partition)
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
        if reply.is_none() {
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
        let reply = call.run(&self.connection).await?;
        if reply.is_applied() {
            call.written();
        }
        reply.outcome()
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
        let reply = call.run(&self.connection).await?;
        if reply.is_applied() {
            call.emptied();
        }
        reply.outcome()
    }

    async fn remove_below(&self, view: &View, partition: PartitionId, floor: Epoch) -> Result<(), StoreError> {
        let mut call = self.call(&self.scripts.remove, view, partition);
        call.floor(floor);
        let reply = call.run(&self.connection).await?;
        if !reply.is_none() {
            // An entry of another version was left alone: say so.
            reply.entry()?;
            call.written();
        }
        Ok(())
    }

    async fn read(&self, view: &View, partition: PartitionId, from: Epoch) -> Result<Option<RealtimePart>, StoreError> {
        let mut call = self.call(&self.scripts.read, view, partition);
        call.from(from);
        let mut reply = call.run(&self.connection).await?;
        if reply.is_none() {
            return Ok(None);
        }
        let (entry, _) = reply.entry()?;
        Ok(Some(RealtimePart { entry, states: reply.epochs()? }))
    }

    async fn groups(&self, view: &View, partition: PartitionId) -> Result<Option<(Entry, BTreeMap<Epoch, u64>)>, StoreError> {
        let reply = self.call(&self.scripts.entry, view, partition).run(&self.connection).await?;
        if reply.is_none() { Ok(None) } else { reply.entry().map(Some) }
    }
}

#[cfg(test)]
mod tests;

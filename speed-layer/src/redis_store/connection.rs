//! The connection to Redis: made when it is needed, with a deadline for each call and a breaker before them.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use redis::{
    AsyncConnectionConfig, Client, Cmd, RedisError, RedisResult, Value, aio::MultiplexedConnection, cluster::ClusterClient,
    cluster_async::ClusterConnection,
};
use tokio::time::{Instant, timeout_at};

use super::{
    RedisLimits,
    address::RedisAddress,
    breaker::{Breaker, Permit},
    errors, eviction,
    script::{Arguments, Script},
    tls::{self, RedisTls, RedisTlsError},
};
use crate::store::StoreError;

/// How often a call of a cluster is sent anew within its deadline: to another node, or once a slot has moved. A write that was applied
/// before its connection broke is fenced when it is sent again.
const CLUSTER_RETRIES: u32 = 6;
/// Pauses between them, in milliseconds.
const CLUSTER_RETRY_PAUSE_MS: (u64, u64) = (5, 200);
/// A node that does not answer may take this part of a call's deadline while connections to all others are made, twice over.
const CLUSTER_CONNECT_PART: u32 = 4;

/// A connection that calls can share.
#[derive(Clone)]
pub(super) enum Route {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Route {
    pub(super) async fn query(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Server(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }
}

/// A connection that is being made, or was.
#[derive(Clone)]
struct Link {
    number: u64,
    route: Shared<BoxFuture<'static, RedisResult<Route>>>,
}

/// Why a call has no value.
enum Failure {
    /// There is no connection.
    Connect(RedisError),
    /// The connection gave this.
    Call(RedisError),
}

pub(super) struct Connection {
    address: RedisAddress,
    tls: RedisTls,
    limits: RedisLimits,
    state: Mutex<State>,
}

struct State {
    breaker: Breaker,
    /// `None` until the first call, and after a failure that a new connection may not have.
    link: Option<Link>,
    /// How many there have been.
    links: u64,
    /// Whether it was looked whether Redis evicts.
    eviction_looked_at: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client's own form would show the password.
        f.debug_struct("Connection").field("address", &self.address).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(address: RedisAddress, tls: RedisTls, limits: RedisLimits) -> Result<Self, RedisTlsError> {
        if address.has_tls() {
            tls::choose_cryptography();
        } else if !tls.is_empty() {
            return Err(RedisTlsError::AddressWithoutTls);
        }
        // Nothing is connected yet: what cannot be used is to be known now.
        drop(open(&address, &tls, limits.call_timeout)?);
        let breaker = Breaker::new(limits.breaker_failures, limits.breaker_period);
        let state = State { breaker, link: None, links: 0, eviction_looked_at: false };
        Ok(Self { address, tls, limits, state: Mutex::new(state) })
    }

    /// When a call that begins now must have ended.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.limits.call_timeout
    }

    /// Runs a script. Whether it had its effect is not known after [`StoreError::Unavailable`].
    pub(super) async fn run(&self, script: &Script, arguments: &Arguments<'_>, deadline: Instant) -> Result<Value, StoreError> {
        let link = self.link()?;
        let answer = timeout_at(deadline, async {
            let mut route = link.route.clone().await.map_err(Failure::Connect)?;
            let value = script.run(&mut route, arguments).await.map_err(Failure::Call)?;
            Ok((route, value))
        });
        match answer.await {
            Ok(Ok((route, value))) => {
                self.answered();
                self.look_at_eviction(route, deadline).await;
                Ok(value)
            }
            Ok(Err(failure)) => Err(self.failed(&link, failure)),
            Err(_) => {
                self.unanswered(None);
                // A server without TLS waits for the rest of what it takes for a command.
                let is_greeting = self.address.has_tls() && link.route.peek().is_none();
                let what = if is_greeting { "no answer to TLS (is this the port for it?)" } else { "no answer" };
                Err(self.unavailable(&format!("{what} within {:?}", self.limits.call_timeout)))
            }
        }
    }

    fn link(&self) -> Result<Link, StoreError> {
        let mut state = self.state();
        match state.breaker.permit(Instant::now()) {
            Permit::Call => {}
            // A connection whose other end is gone without a word would time out for minutes.
            Permit::Probe => state.link = None,
            Permit::Refused(remaining) => {
                return Err(self.unavailable(&format!("it did not answer; the next try is due in {} s", remaining.as_secs() + 1)));
            }
        }
        if let Some(link) = &state.link {
            return Ok(link.clone());
        }
        // The certificates are read anew: they may have been replaced.
        let opened = open(&self.address, &self.tls, self.limits.call_timeout);
        let route = opened.map_err(|error| {
            state.breaker.failed(Instant::now());
            self.unavailable(&error.to_string())
        })?;
        state.links += 1;
        let link = Link { number: state.links, route: route.shared() };
        state.link = Some(link.clone());
        Ok(link)
    }

    fn answered(&self) {
        self.state().breaker.answered();
    }

    fn failed(&self, link: &Link, failure: Failure) -> StoreError {
        let error = match failure {
            Failure::Connect(error) => {
                self.unanswered(Some(link));
                error
            }
            Failure::Call(error) if errors::is_answer(&error) => {
                self.answered();
                error
            }
            Failure::Call(error) => {
                // A cluster's connections are mended by its client, one by one.
                self.unanswered((!self.address.is_cluster()).then_some(link));
                error
            }
        };
        errors::store_error(&self.address, &error)
    }

    /// Notes a call that got no answer, and lets go of the connection that is to blame.
    fn unanswered(&self, broken: Option<&Link>) {
        let mut state = self.state();
        let refuses = state.breaker.failed(Instant::now());
        // While calls are refused, a cluster's client is not to go on looking for its nodes, which it does without a pause.
        if refuses || state.link.as_ref().map(|link| link.number) == broken.map(|link| link.number) {
            state.link = None;
        }
    }

    /// Once, over the first connection that works. It may be forbidden; then there is nothing to say.
    async fn look_at_eviction(&self, mut route: Route, deadline: Instant) {
        if std::mem::replace(&mut self.state().eviction_looked_at, true) {
            return;
        }
        let command = {
            let mut command = redis::cmd("INFO");
            command.arg("memory");
            command
        };
        if let Ok(Ok(info)) = timeout_at(deadline, route.query(&command)).await {
            eviction::warn_of(&self.address, &info);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unavailable(&self, reason: &str) -> StoreError {
        errors::unavailable(&self.address, reason)
    }
}

/// A connection to be made by whoever waits for it.
fn open(
    address: &RedisAddress,
    tls: &RedisTls,
    call_timeout: Duration,
) -> Result<BoxFuture<'static, RedisResult<Route>>, RedisTlsError> {
    let certificates = if address.has_tls() { Some(tls.read()?) } else { None };
    let unusable = |error: RedisError| RedisTlsError::Unusable(error.to_string());
    let mut servers = address.connection_infos().map_err(unusable)?;
    if address.is_cluster() {
        let mut builder = ClusterClient::builder(servers)
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(CLUSTER_RETRY_PAUSE_MS.0)
            .max_retry_wait(CLUSTER_RETRY_PAUSE_MS.1)
            .connection_timeout(call_timeout / CLUSTER_CONNECT_PART)
            // Of the client's own questions; each call has its deadline around all of it, see `run`.
            .response_timeout(call_timeout)
            .overall_response_timeout(None);
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates);
        }
        let client = builder.build().map_err(unusable)?;
        return Ok(async move { client.get_async_connection().await.map(Route::Cluster) }.boxed());
    }
    let server = servers.swap_remove(0);
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(server, certificates),
        None => Client::open(server),
    };
    let client = client.map_err(unusable)?;
    // Each call has its deadline around all of it, see `run`.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    Ok(async move { client.get_multiplexed_async_connection_with_config(&config).await.map(Route::Server) }.boxed())
}

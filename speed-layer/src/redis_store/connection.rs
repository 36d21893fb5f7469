//! The connection to one Redis: made when it is needed, with a deadline for each call and a breaker before them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use redis::{
    Client, ErrorKind, RedisError, ScriptInvocation, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::{Instant, timeout};

use super::{
    RedisLimits,
    breaker::{Breaker, Permit},
};
use crate::store::StoreError;

pub(super) struct Connection {
    client: Client,
    limits: RedisLimits,
    state: Mutex<State>,
}

struct State {
    breaker: Breaker,
    /// `None` until the first call, and after a failure that a new connection may not have.
    manager: Option<ConnectionManager>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client's own form would show the password.
        f.debug_struct("Connection").field("address", &self.address()).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(client: Client, limits: RedisLimits) -> Self {
        let breaker = Breaker::new(limits.breaker_failures, limits.breaker_period);
        Self { client, limits, state: Mutex::new(State { breaker, manager: None }) }
    }

    /// Runs a script. Whether it had its effect is not known after [`StoreError::Unavailable`].
    pub(super) async fn run(&self, script: &ScriptInvocation<'_>) -> Result<Value, StoreError> {
        let mut manager = self.manager()?;
        let answer = timeout(self.limits.call_timeout, script.invoke_async::<Value>(&mut manager)).await;
        let (answered, result) = match answer {
            Ok(Ok(value)) => (true, Ok(value)),
            Ok(Err(error)) => (is_answer(&error), Err(self.store_error(&error))),
            Err(_) => (false, Err(self.unavailable(&format!("no answer within {:?}", self.limits.call_timeout)))),
        };
        let mut state = self.state();
        if answered {
            state.breaker.answered();
        } else {
            state.breaker.failed(Instant::now());
        }
        result
    }

    fn manager(&self) -> Result<ConnectionManager, StoreError> {
        let mut state = self.state();
        match state.breaker.permit(Instant::now()) {
            Permit::Call => {}
            // A connection whose other end is gone without a word would time out for minutes, and a manager whose first connection
            // was refused for another reason than the network's never tries again.
            Permit::Probe => state.manager = None,
            Permit::Refused(remaining) => {
                return Err(self.unavailable(&format!("it did not answer; the next try is due in {} s", remaining.as_secs() + 1)));
            }
        }
        if let Some(manager) = &state.manager {
            return Ok(manager.clone());
        }
        let config = ConnectionManagerConfig::new()
            // The breaker paces new tries, so a call is not to spend its deadline on them.
            .set_number_of_retries(0)
            .set_connection_timeout(Some(self.limits.call_timeout))
            // Each call has its deadline around all of it, see `run`.
            .set_response_timeout(None);
        let manager =
            ConnectionManager::new_lazy_with_config(self.client.clone(), config).map_err(|error| self.store_error(&error))?;
        state.manager = Some(manager.clone());
        Ok(manager)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    fn unavailable(&self, reason: &str) -> StoreError {
        StoreError::Unavailable(format!("Redis at {}: {reason}", self.address()))
    }

    fn store_error(&self, error: &RedisError) -> StoreError {
        let text = error.to_string();
        // A key of ours that is no hash was written by someone else.
        if text.contains("WRONGTYPE") {
            return StoreError::Damaged(format!("Redis at {}: {text}", self.address()));
        }
        self.unavailable(&text)
    }
}

/// Whether the server itself said this: then it is there, and more calls do no harm.
fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

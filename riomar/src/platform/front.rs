//! Where a process answers over HTTP from its first moment on: alive and not ready while it starts, then the platform.

use std::{io, net::SocketAddr, sync::Arc};

use axum::Router;
use riomar_batch_layer::FreshIds;
use riomar_event_log::Clock;
use riomar_serving_layer::{
    requests::RequestIds,
    server::{self, ServerLimits},
    starting::{self, Start, Step},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::{PlatformError, supervise::stopped, wiring};

/// What a start waits for first.
const DATA: Step = Step {
    name: "data directory",
    meaning: "it is being opened: what the embedded log wrote last is read again, which takes the longer the more that is",
};

/// A listener that is served. Dropping it stops at once, as a crash does.
#[derive(Debug)]
pub struct Front {
    start: Start,
    address: SocketAddr,
    app: watch::Sender<Router>,
    stop: watch::Sender<bool>,
    server: JoinSet<io::Result<()>>,
}

impl Front {
    /// Serves the probes and the metrics of a process that starts.
    ///
    /// # Errors
    /// A listener without an address, or metrics that cannot be recorded.
    pub fn open(listener: TcpListener, limits: ServerLimits, clock: Arc<dyn Clock>) -> Result<Self, PlatformError> {
        let address = listener.local_addr().map_err(PlatformError::Server)?;
        let start = Start::new(DATA);
        let request_ids = RequestIds::new(FreshIds::random().next().as_u64_pair().0);
        let (app, current) = watch::channel(starting::app(&start, wiring::recorder(&*clock)?, request_ids));
        let (stop, stopping) = watch::channel(false);
        let mut server = JoinSet::new();
        server.spawn(server::run(listener, current, limits, clock, stopped(stopping)));
        Ok(Self { start, address, app, stop, server })
    }

    /// What the probes say that the start waits for.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers with other routes from the next request on, also on connections that are open.
    pub(super) fn answer_with(&self, app: Router) {
        drop(self.app.send_replace(app));
    }

    /// Waits until nothing is served any more.
    pub(super) async fn ended(&mut self) -> io::Result<()> {
        match self.server.join_next().await {
            Some(Ok(served)) => served,
            Some(Err(error)) => Err(io::Error::other(error)),
            None => Ok(()),
        }
    }

    /// Takes no more requests, and waits until those under way are answered.
    ///
    /// # Errors
    /// A listener that failed.
    pub async fn close(mut self) -> Result<(), PlatformError> {
        self.stop.send_replace(true);
        self.ended().await.map_err(PlatformError::Server)
    }
}

//! The HTTP server: connections, their limits, and a stop that loses no answer.
//!
//! `axum::serve` sets neither a limit of connections nor of headers nor of the time that they take, so the connections are served
//! here, with the same `hyper`.

mod stall;
#[cfg(test)]
mod tests;

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use riomar_event_log::Clock;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use self::stall::StallLimit;

/// Limits of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections open at once; more are turned away.
    pub connections_max: usize,
    /// Bytes of a request's head.
    pub header_bytes_max: usize,
    /// Header lines of a request.
    pub headers_max: usize,
    /// Time for a request's head to arrive, which is also the time that a connection may be idle.
    pub header_read_max: Duration,
    /// Time that an answer may wait for its client to read on.
    pub write_stall_max: Duration,
    /// Time that requests under way get when the server stops.
    pub drain_max: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            header_bytes_max: 64 << 10,
            headers_max: 100,
            header_read_max: Duration::from_secs(30),
            write_stall_max: Duration::from_secs(30),
            drain_max: Duration::from_secs(20),
        }
    }
}

/// How long accepting pauses when the process has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection over the limit is told before it is closed.
const TURNED_AWAY: &str = r#"{"type":"/problems/overloaded","title":"Overloaded","status":503,"detail":"too many connections are open","code":"overloaded","retryable":true}"#;

/// Serves until `shutdown` is over, then lets requests under way end. Each request is answered by the routes that are current when it
/// comes: others may take over while connections are open.
///
/// # Errors
/// What the listener reports, other than of a single connection.
pub async fn run(
    listener: TcpListener,
    app: watch::Receiver<Router>,
    limits: ServerLimits,
    clock: Arc<dyn Clock>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut shutdown = pin!(shutdown);
    let (stop, stopped) = watch::channel(false);
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    // Known before the first one: a rise from nothing is seen by nobody.
    metrics::counter!("riomar_http_connections_refused_total").increment(0);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if concerns_one_connection(&error) => continue,
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted");
                clock.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            turn_away(&stream);
            continue;
        };
        let serving = serve(stream, app.clone(), limits, stopped.clone());
        connections.spawn(async move {
            let _permit = permit;
            serving.await;
        });
    }
    drop(listener);
    let _ = stop.send(true);
    tracing::info!(connections = connections.len(), "stopping: requests under way may end");
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => {}
        () = clock.sleep(limits.drain_max) => {
            tracing::warn!(connections = connections.len(), "requests did not end in time and are cut off");
            connections.shutdown().await;
        }
    }
    Ok(())
}

async fn serve(stream: TcpStream, app: watch::Receiver<Router>, limits: ServerLimits, mut stopped: watch::Receiver<bool>) {
    let _open = OpenConnection::begin();
    // Answers are written whole; waiting to fill packets would only delay them.
    let _ = stream.set_nodelay(true);
    let service = tower_service(app);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_max)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.header_bytes_max);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(StallLimit::new(stream, limits.write_stall_max)), service));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// The routes as hyper calls them.
fn tower_service(
    app: watch::Receiver<Router>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = axum::response::Response,
    Error = std::convert::Infallible,
    Future = impl Future<Output = Result<axum::response::Response, std::convert::Infallible>> + Send,
> {
    hyper::service::service_fn(move |request: Request<Incoming>| {
        let app = TowerToHyperService::new(app.borrow().clone());
        hyper::service::Service::call(&app, request.map(Body::new))
    })
}

/// Says that there is no room, as far as that can be said without waiting.
fn turn_away(stream: &TcpStream) {
    metrics::counter!("riomar_http_connections_refused_total").increment(1);
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{TURNED_AWAY}",
        TURNED_AWAY.len()
    );
    let _ = stream.try_write(answer.as_bytes());
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// Counts a connection for as long as it lives.
struct OpenConnection;

impl OpenConnection {
    fn begin() -> Self {
        metrics::gauge!("riomar_http_connections").increment(1.0);
        Self
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        metrics::gauge!("riomar_http_connections").decrement(1.0);
    }
}

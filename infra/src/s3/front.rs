//! What stands before the server: one request a connection, in its turn, with its fault.

use std::{
    io, net,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::service::S3Service;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use super::{
    faults::{S3Fault, S3Faults},
    message::{self, Message},
    turns::Turns,
};

/// Bytes between the front and the server.
const BUFFER_BYTES: usize = 256 << 10;

/// The server and what stands before it.
pub struct Front {
    service: S3Service,
    /// Where the buckets are.
    root: PathBuf,
    faults: Arc<S3Faults>,
    turns: Turns,
}

/// Serves connections until it is told to stop; then all of them are cut, and the listener is closed.
pub async fn accept(front: Arc<Front>, listener: net::TcpListener, stop: oneshot::Receiver<()>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    let accepting = async {
        loop {
            if let Ok((client, _)) = listener.accept().await {
                // A client that went away, or that sent what is no request, ends its connection.
                connections.spawn({
                    let front = Arc::clone(&front);
                    async move { front.serve(client).await }
                });
            }
            while connections.try_join_next().is_some() {}
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = stop => {}
    }
    drop(listener);
    connections.shutdown().await;
}

impl Front {
    /// The front of a server whose buckets are folders in `root`.
    pub fn new(service: S3Service, root: &Path, faults: Arc<S3Faults>) -> Self {
        Self { service, root: root.to_owned(), faults, turns: Turns::default() }
    }

    /// Answers one request; then the connection is closed.
    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let Some(message) = Message::read(&mut client).await? else { return Ok(()) };
        let cleared = self.faults.cleared();
        let fault = self.faults.meet(message.request.clone());
        match fault {
            Some(S3Fault::SlowDown) => return client.write_all(&message::slow_down(&message.request)).await,
            Some(S3Fault::Silence) => {
                cleared.await;
                return Ok(());
            }
            Some(S3Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            _ => {}
        }
        let reply = self.work(&message).await?;
        match fault {
            Some(S3Fault::LostReply) => Ok(()),
            Some(S3Fault::SilentReply) => {
                cleared.await;
                Ok(())
            }
            Some(S3Fault::TruncatedBody) => client.write_all(message::half(&reply)).await,
            _ => client.write_all(&reply).await,
        }
    }

    /// Has the server do what is asked, and gives its answer.
    async fn work(&self, message: &Message) -> io::Result<Vec<u8>> {
        let _turn = self.turns.take(&message.request).await;
        let bucket = message.request.bucket();
        // The server itself would create it with its first object.
        if !bucket.is_empty() && !self.root.join(bucket).is_dir() {
            return Ok(message::no_such_bucket(&message.request));
        }
        let (near, far) = tokio::io::duplex(BUFFER_BYTES);
        let (mut answer, mut question) = tokio::io::split(near);
        let builder = auto::Builder::new(TokioExecutor::new()).http1_only();
        let serving = builder.serve_connection(TokioIo::new(far), self.service.clone());
        let mut reply = Vec::new();
        let (served, _, read) = tokio::join!(
            serving,
            // The server may answer before it has read everything, and then it reads no more.
            question.write_all(&message.bytes),
            answer.read_to_end(&mut reply),
        );
        served.map_err(io::Error::other)?;
        read?;
        Ok(reply)
    }
}

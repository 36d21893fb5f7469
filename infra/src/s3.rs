//! An S3 server for one test.
//!
//! [`s3s_fs`] answers over real HTTP from a directory of its own, with signatures checked. It stands behind a front that does what
//! it leaves out: requests for one object take their turn, so that `If-None-Match: *` is atomic as it is in S3, a bucket that is not
//! there is no bucket, and a test can have requests go wrong ([`S3Faults`]). Unlike the other services it lives in the test's process, on threads of its own.

mod faults;
mod front;
mod message;
mod turns;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::oneshot};

pub use faults::{S3Fault, S3Faults, S3Request, S3Requests, S3Rule};
use front::Front;

use crate::error::{Doing, ServiceError};

const NAME: &str = "the S3 server";
const BUCKET: &str = "riomar-tests";
const REGION: &str = "us-east-1";
const ACCESS_KEY: &str = "RIOMARTESTS";
const SECRET_KEY: &str = "a-secret-that-only-tests-know";
/// For stopping.
const DEADLINE: Duration = Duration::from_secs(20);
/// For binding the same port again.
const BIND_ATTEMPTS_MAX: u32 = 100;
const BIND_AGAIN: Duration = Duration::from_millis(20);
const THREADS: usize = 2;

/// An S3 server on a free loopback port, with one bucket, that ends with this value.
#[derive(Debug)]
pub struct S3Server {
    directory: TempDir,
    port: u16,
    faults: Arc<S3Faults>,
    /// Taken when this value is dropped.
    runtime: Option<Runtime>,
    running: Option<Running>,
}

/// The task that accepts connections.
#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    /// In a mutex, so that threads may share the server.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl S3Server {
    /// Starts a server with an empty bucket.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start() -> Result<Self, ServiceError> {
        let doing = || format!("starting {NAME}");
        let directory = TempDir::with_prefix("riomar-s3-").doing(|| "creating a directory".to_owned())?;
        fs::create_dir(directory.path().join(BUCKET)).doing(|| "creating a bucket".to_owned())?;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name("s3-server").enable_all().build().doing(doing)?;
        let mut server = Self { directory, port: 0, faults: Arc::default(), runtime: Some(runtime), running: None };
        let listener = listen(0).doing(doing)?;
        server.port = listener.local_addr().doing(doing)?.port();
        server.serve(listener)?;
        Ok(server)
    }

    /// Its address: `http://127.0.0.1:{port}`, the same after a restart.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))
    }

    /// The name of its bucket.
    #[must_use]
    pub fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// The region that requests are signed for.
    #[must_use]
    pub fn region(&self) -> &'static str {
        REGION
    }

    /// The access key that it knows.
    #[must_use]
    pub fn access_key(&self) -> &'static str {
        ACCESS_KEY
    }

    /// The secret key that belongs to [`Self::access_key`].
    #[must_use]
    pub fn secret_key(&self) -> &'static str {
        SECRET_KEY
    }

    /// The environment variables of a process that may use it.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY), ("AWS_REGION", REGION)]
            .map(|(variable, value)| (variable.to_owned(), value.to_owned()))
            .into()
    }

    /// What goes wrong, and what was asked.
    #[must_use]
    pub fn faults(&self) -> &S3Faults {
        &self.faults
    }

    /// Where it keeps its buckets, one folder each.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Stops it: connections are cut, and new ones are refused when this returns.
    ///
    /// # Errors
    /// [`ServiceError::NotRunning`], or [`ServiceError::Deadline`] when it does not end.
    pub fn stop(&mut self) -> Result<(), ServiceError> {
        let Running { stop, ended } = self.running.take().ok_or_else(|| ServiceError::NotRunning { program: NAME.to_owned() })?;
        // Where the task has ended there is nobody to hear it.
        let _ = stop.send(());
        let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        match ended.recv_timeout(DEADLINE) {
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => Ok(()),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(ServiceError::Deadline {
                program: NAME.to_owned(),
                what: "end".to_owned(),
                waited: DEADLINE,
                output: String::new(),
            }),
        }
    }

    /// Starts it again on the same port with the same objects, stopping it first where it still runs.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<(), ServiceError> {
        if self.running.is_some() {
            self.stop()?;
        }
        let mut attempts = 0;
        // Whoever took the port in the meantime (a client's connection, mostly) may let go of it.
        let listener = loop {
            attempts += 1;
            match listen(self.port) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts < BIND_ATTEMPTS_MAX => {
                    std::thread::sleep(BIND_AGAIN);
                }
                outcome => break outcome.doing(|| format!("starting {NAME} again"))?,
            }
        };
        self.serve(listener)
    }

    fn serve(&mut self, listener: TcpListener) -> Result<(), ServiceError> {
        let files = FileSystem::new(self.directory.path()).map_err(|error| io::Error::other(format!("{error:?}")));
        let mut service = S3ServiceBuilder::new(files.doing(|| format!("starting {NAME}"))?);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let front = Arc::new(Front::new(service.build(), self.directory.path(), Arc::clone(&self.faults)));
        let (stop, stopping) = oneshot::channel();
        let (ending, ended) = mpsc::sync_channel(1);
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async move {
                front::accept(front, listener, stopping).await;
                // The server may be gone; then nobody waits.
                let _ = ending.send(());
            });
        }
        self.running = Some(Running { stop, ended: Mutex::new(ended) });
        Ok(())
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // Unlike the runtime's own end, this may happen inside another runtime, as it does in tests.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests;

//! The server over real sockets.

use std::time::Duration;

use axum::routing::{get, post};
use riomar_event_log::clock::ManualClock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::*;

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(20);

struct Server {
    address: std::net::SocketAddr,
    /// Takes other routes.
    apps: watch::Sender<Router>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
    clock: ManualClock,
    /// Told when the slow route is reached, and what it waits for.
    reached: Arc<Notify>,
    release: Arc<Notify>,
}

async fn start(limits: ServerLimits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (reached, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (reach, wait) = (Arc::clone(&reached), Arc::clone(&release));
    let slow = get(move || async move {
        reach.notify_one();
        wait.notified().await;
        "slow"
    });
    let huge = get(async || "x".repeat(64 << 20));
    let app = Router::new()
        .route("/huge", huge)
        .route("/", get(async || "hello"))
        .route("/echo", post(async |body: String| body))
        .route("/slow", slow);
    let (stop, stopped) = oneshot::channel();
    let clock = ManualClock::new(0);
    let shutdown = async {
        let _ = stopped.await;
    };
    let (apps, app) = watch::channel(app);
    let task = tokio::spawn(run(listener, app, limits, Arc::new(clock.clone()), shutdown));
    Server { address, apps, stop, task, clock, reached, release }
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.expect("a connection")
}

/// Sends a request's text and reads until the server closes the connection.
async fn exchange(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // A connection that the server resets ends here as well.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("in time");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn answers_and_stops() {
    let server = start(ServerLimits::default()).await;
    let answer = exchange(&mut connect(&server).await, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    // An idle connection does not hold the stop up.
    let _idle = connect(&server).await;
    server.stop.send(()).expect("running");
    timeout(DEADLINE, server.task).await.expect("in time").expect("no panic").expect("no error");
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn other_routes_take_over_while_a_connection_is_open() {
    let server = start(ServerLimits::default()).await;
    let mut stream = connect(&server).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        let read = timeout(DEADLINE, stream.read_buf(&mut answer)).await.expect("in time").expect("an answer");
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
    }
    server.apps.send(Router::new().route("/", get(async || "other"))).expect("served");
    let answer = exchange(&mut stream, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("other"), "{answer}");
}

#[tokio::test]
async fn requests_under_way_end_before_the_stop() {
    let server = start(ServerLimits::default()).await;
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    timeout(DEADLINE, server.reached.notified()).await.expect("reached");
    server.stop.send(()).expect("running");
    // It is stopping once it no longer listens.
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!server.task.is_finished());
    server.release.notify_one();
    let answer = exchange(&mut stream, "").await;
    assert!(answer.ends_with("slow"), "{answer}");
    timeout(DEADLINE, server.task).await.expect("in time").expect("no panic").expect("no error");
}

#[tokio::test]
async fn requests_that_do_not_end_are_cut_off() {
    let server = start(ServerLimits::default()).await;
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    timeout(DEADLINE, server.reached.notified()).await.expect("reached");
    server.stop.send(()).expect("running");
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let cutting_off = async {
        loop {
            // The drain may begin to sleep only after this; so time passes until it is over.
            server.clock.advance(Duration::from_secs(20));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = timeout(DEADLINE, server.task) => outcome.expect("in time").expect("no panic").expect("no error"),
        () = cutting_off => {}
    }
    assert_eq!(exchange(&mut stream, "").await, "");
}

#[tokio::test]
async fn connections_over_the_limit_are_turned_away() {
    let server = start(ServerLimits { connections_max: 1, ..ServerLimits::default() }).await;
    let mut first = connect(&server).await;
    first.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("sent");
    timeout(DEADLINE, server.reached.notified()).await.expect("reached");
    let answer = exchange(&mut connect(&server).await, "").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 1"), "{head}");
    let problem: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!((&problem["code"], &problem["retryable"]), (&"overloaded".into(), &true.into()));
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    server.release.notify_one();
    assert!(exchange(&mut first, "").await.ends_with("slow"));
}

#[tokio::test]
async fn heads_have_limits() {
    let limits = ServerLimits { header_bytes_max: 8192, headers_max: 10, ..ServerLimits::default() };
    let server = start(limits).await;
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(10_000));
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", (0..10).map(|n| format!("x{n}: y\r\n")).collect::<String>());
    for request in [long, many] {
        let answer = exchange(&mut connect(&server).await, &request).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    let answer = exchange(&mut connect(&server).await, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_its_connection_alone() {
    let limits = ServerLimits { header_read_max: Duration::from_millis(50), ..ServerLimits::default() };
    let server = start(limits).await;
    let mut slow = connect(&server).await;
    let answer = exchange(&mut slow, "GET / HTTP/1.1\r\nho").await;
    assert!(!answer.contains("200"), "{answer}");
    let answer = exchange(&mut connect(&server).await, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_body_larger_than_a_head_is_taken() {
    let server = start(ServerLimits { header_bytes_max: 8192, ..ServerLimits::default() }).await;
    let body = "x".repeat(1 << 20);
    let request = format!("POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = exchange(&mut connect(&server).await, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&body));
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let server = start(ServerLimits { write_stall_max: Duration::from_millis(50), ..ServerLimits::default() }).await;
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /huge HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    // The answer has begun, and is not read on.
    stream.readable().await.expect("an answer");
    server.stop.send(()).expect("running");
    // The clock of the drain stands still: only the connection's own end lets the server stop.
    timeout(DEADLINE, server.task).await.expect("in time").expect("no panic").expect("no error");
}

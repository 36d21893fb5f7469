//! Starts that wait for their services: what they answer meanwhile, what they do not wait for, and how they end.

use std::{path::PathBuf, time::Duration};

use riomar_infra::{KafkaBroker, RedisServer, S3Server};
use riomar_tests::{
    catalog::{READINGS, SQL},
    process::{DEADLINE, Up, eventually, free_port},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const EVENT: &str = r#"{"event_id":"1","ts":"2026-11-20T10:00:00Z","sensor":"s"}"#;
/// Within this time a process that is asked to stop is to be gone.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Definitions, and a place for data.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("schemas")).expect("a writable directory");
        std::fs::write(directory.path().join("schemas/streams.sql"), SQL).expect("a writable directory");
        std::fs::write(directory.path().join("riomar.toml"), "").expect("a writable directory");
        Self(directory)
    }

    /// Starts a process on these services.
    fn spawn(&self, port: u16, roles: &str, brokers: &str, redis: u16, objects: &S3Server) -> Up {
        let path = |name: &str| -> PathBuf { self.0.path().join(name) };
        let variables = [
            ("RIOMAR_LOG_KIND", "kafka".to_owned()),
            ("RIOMAR_LOG_BROKERS", brokers.to_owned()),
            ("RIOMAR_REALTIME_KIND", "redis".to_owned()),
            ("RIOMAR_REALTIME_URL", format!("redis://127.0.0.1:{redis}/0")),
            ("RIOMAR_MASTER_URL", format!("s3://{}/starting", objects.bucket())),
            ("RIOMAR_MASTER_S3_ENDPOINT", objects.endpoint()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        let variables: Vec<_> = variables.into_iter().chain(objects.environment()).collect();
        Up::spawn(&path(roles), &path("schemas"), port, &path("riomar.toml"), roles, &variables)
    }
}

/// One connection, and all that is said on it.
struct Connection(TcpStream);

impl Connection {
    async fn open(port: u16) -> Self {
        Self(eventually("the process to listen", async || TcpStream::connect(("127.0.0.1", port)).await.ok()).await)
    }

    /// Sends a request; gives the status, the head and the body of the answer.
    async fn ask(&mut self, request: &str, body: &str) -> (u16, String, String) {
        let length = body.len();
        let text = format!(
            "{request} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.0.write_all(text.as_bytes()).await.expect("the connection stays open");
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
                if body.len() >= length.expect("a length") {
                    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
                    return (status, head.to_owned(), body.to_owned());
                }
            }
            let read = tokio::time::timeout(DEADLINE, self.0.read_buf(&mut answer)).await;
            assert!(read.expect("an answer in time").expect("an answer") > 0, "closed after {text}");
        }
    }

    /// Waits until the process says that it is (not) ready in these words.
    async fn until_ready(&mut self, status: u16, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually("what the process is to wait for", async || {
            let (answered, _, body) = self.ask("GET /readyz", "").await;
            let body: Value = serde_json::from_str(&body).expect("JSON");
            (answered == status && wanted(&body)).then_some(body)
        })
        .await
    }
}

fn waits_for(body: &Value, name: &str) -> bool {
    let checks = body["checks"].as_array().expect("checks");
    body["status"] == "unready"
        && checks.iter().any(|check| check["name"] == name && check["ok"] == false && check["required"] == true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_answers_from_its_first_moment_and_ingestion_needs_no_object_store() {
    let mut kafka = KafkaBroker::start().unwrap_or_else(|error| panic!("{error}"));
    let mut objects = S3Server::start().unwrap_or_else(|error| panic!("{error}"));
    let redis = RedisServer::start().unwrap_or_else(|error| panic!("{error}"));
    kafka.stop().expect("stopped");
    objects.stop().expect("stopped");
    let (place, port) = (Place::new(), free_port());
    let up = place.spawn(port, "all", &kafka.bootstrap(), redis.port(), &objects);
    let mut connection = Connection::open(port).await;
    connection.until_ready(503, |body| waits_for(body, "log")).await;
    assert_eq!(connection.ask("GET /livez", "").await.0, 200);
    let (status, _, metrics) = connection.ask("GET /metrics", "").await;
    assert!(status == 200 && metrics.contains("riomar_process_start_timestamp_seconds"), "{status}: {metrics}");
    let send = format!("POST /v1/streams/{}/events", READINGS.name);
    let (status, head, body) = connection.ask(&send, EVENT).await;
    let problem: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &problem["code"], &problem["retryable"]), (503, &"starting".into(), &true.into()), "{body}");
    assert!(head.contains("retry-after: 5") && head.contains("application/problem+json"), "{head}");

    // On the same connection: the platform, without its object store.
    kafka.restart().expect("restarted");
    let ready = connection.until_ready(200, |_| true).await;
    assert_eq!(ready["status"], "degraded", "{ready}");
    let (status, _, body) = connection.ask(&send, EVENT).await;
    assert!(status == 200 && body.contains(r#""accepted":1"#), "{status}: {body}");
    assert_eq!(connection.ask("GET /livez", "").await.0, 200);

    // One line for each incident.
    objects.restart().expect("restarted");
    let told = "the deployment's id is known";
    let journal = eventually(told, async || Some(up.output()).filter(|journal| journal.contains(told))).await;
    for line in ["realtime views wait for it", told] {
        assert_eq!(journal.matches(line).count(), 1, "{line}:\n{journal}");
    }
    // And the rest of the platform comes after, with what was accepted meanwhile.
    connection.until_ready(200, |body| body["status"] == "ready").await;
    eventually("the event in an answer", async || {
        let answer = reqwest::get(format!("{}/v1/views/readings_by_minute/rows?columns=sensor,events", up.url())).await.ok()?;
        let answer: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
        (answer["rows"] == json!([["s", 1]]) && answer["receipt"]["degraded"] == json!([])).then_some(())
    })
    .await;
    assert_eq!(up.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_waits_ends_when_it_is_asked_to() {
    let mut objects = S3Server::start().unwrap_or_else(|error| panic!("{error}"));
    objects.stop().expect("stopped");
    let place = Place::new();
    for waits in ["object store", "log"] {
        let port = free_port();
        let up = place.spawn(port, "speed", &format!("127.0.0.1:{}", free_port()), free_port(), &objects);
        let mut connection = Connection::open(port).await;
        connection.until_ready(503, |body| waits_for(body, waits)).await;
        let stopped = tokio::time::timeout(STOP_MAX, up.stop()).await;
        assert_eq!(stopped.expect("it stops in time"), Some(0), "while it waits for the {waits}");
    }
}

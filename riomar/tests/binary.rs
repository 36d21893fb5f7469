//! The built binary, as its users run it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

use riomar_infra::S3Server;

/// How long anything that is waited for may take; a stop may take ten seconds.
const DEADLINE: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(10);

fn riomar(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_riomar"));
    command.args(arguments).stdin(Stdio::null());
    for (variable, _) in std::env::vars_os() {
        if ["RIOMAR_", "AWS_"].iter().any(|prefix| variable.to_string_lossy().starts_with(prefix)) {
            command.env_remove(variable);
        }
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    riomar(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must succeed; gives its standard output.
fn must(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// `riomar up` on a free port; killed when it is dropped.
struct Up {
    child: Child,
    url: String,
    _output: BufReader<ChildStdout>,
}

impl Up {
    fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// With further environment variables.
    #[expect(clippy::zombie_processes, reason = "a test that fails here ends, and the child with it")]
    fn start_with(data: &Path, environment: &[(String, String)]) -> Self {
        let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas");
        let data = data.to_str().expect("text");
        let mut child = riomar(&["up", "--data", data, "--schemas", schemas, "--http", "127.0.0.1:0"])
            .env("RIOMAR_BATCH_EVERY", "1h")
            .envs(environment.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        loop {
            line.clear();
            assert!(output.read_line(&mut line).expect("output") > 0, "`riomar up` ended: {:?}", child.wait());
            if let Some(url) = line.strip_prefix("http") {
                return Self { url: url.trim().to_owned(), child, _output: output };
            }
        }
    }

    /// Asks it to stop, as a service manager does; gives whether it ended well.
    fn stop(mut self) -> bool {
        terminate(&self.child);
        wait(&mut self.child, STOP_MAX)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn terminate(child: &Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().expect("kill").success());
}

/// Waits for an end; gives whether it was a good one.
fn wait(child: &mut Child, longest: Duration) -> bool {
    let deadline = Instant::now() + longest;
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.success();
        }
        assert!(Instant::now() < deadline, "it did not end within {longest:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Asks again and again until the answer is the expected one.
fn eventually(what: &str, mut ask: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !ask() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

const EVENTS: &str = r#"{"event_id":"a","ts":"2026-11-20T10:00:05Z","path":"/","visitor":"v1","status":200,"bytes":100}
{"event_id":"b","ts":"2026-11-20T10:00:50Z","path":"/","visitor":"v2","status":200,"bytes":200}
{"event_id":"c","ts":"2026-11-20T10:01:10Z","path":"/docs","visitor":"v1","status":500,"bytes":300}
"#;

const HITS: &str = "SELECT sum(hits) AS hits FROM traffic_by_minute";

fn hits(url: &str) -> String {
    let answer = must(&["sql", HITS, "--json", "--url", url]);
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    answer["rows"][0][0].to_string()
}

#[test]
fn doctor_tries_every_part_and_says_what_fails() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas");
    let arguments = ["doctor", "--data", data.to_str().expect("text"), "--schemas", schemas];
    let healthy = must(&arguments);
    assert!(healthy.contains("creates once") && !healthy.contains("FAILS"), "{healthy}");

    let up = Up::start(&data);
    let running = must(&arguments);
    assert!(running.contains("a running platform has") && !running.contains("FAILS"), "{running}");
    drop(up);

    // A port that was bound and let go: nobody listens there now.
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let output = riomar(&arguments)
        .args(["--json"])
        .env("RIOMAR_REALTIME_KIND", "redis")
        .env("RIOMAR_REALTIME_URL", format!("redis://127.0.0.1:{port}"))
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let failing: Vec<_> =
        findings["findings"].as_array().expect("a list").iter().filter(|finding| finding["ok"] == false).collect();
    assert_eq!(failing.len(), 1, "{findings}");
    assert_eq!(failing[0]["part"], "realtime views");
    assert!(failing[0]["detail"].as_str().expect("a text").contains(&port.to_string()), "{findings}");
}

#[test]
fn events_are_sent_queried_recomputed_and_audited_and_survive_a_stop() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("events.ndjson");
    std::fs::write(&file, EVENTS).expect("written");
    let (file, data) = (file.to_str().expect("text"), directory.path().join("data"));
    let up = Up::start(&data);
    let url = up.url.as_str();

    let sent = must(&["send", "page_views", file, "--url", url]);
    assert!(sent.contains("received 3: 3 accepted, 0 quarantined, 0 rejected"), "{sent}");
    eventually("the realtime answer", || hits(url) == "3");
    // Again: the same events, twice, and one that is broken.
    let mut child = riomar(&["send", "page_views", "-", "--json", "--url", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(format!("{EVENTS}{EVENTS}{{\"event_id\":\"d\"}}\n").as_bytes()).expect("written");
    drop(input);
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(1), "not everything was accepted");
    let counts: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&counts["accepted"], &counts["quarantined"]), (&6.into(), &1.into()), "{counts}");
    let error = &counts["errors"][0];
    assert_eq!(
        (&error["line"], &error["code"], &counts["error"]),
        (&7.into(), &"missing_field".into(), &serde_json::Value::Null)
    );
    assert_eq!(text(&output.stderr), "", "everything is in the document");

    let recomputed = must(&["recompute", "--url", url]);
    assert!(recomputed.contains("traffic_by_minute") && recomputed.contains("published"), "{recomputed}");
    assert_eq!(hits(url), "3", "C3: the same answer from the batch view");
    let again = must(&["recompute", "traffic_by_minute", "--full", "--json", "--url", url]);
    assert!(again.contains(r#""full":true"#), "{again}");
    assert_eq!(hits(url), "3");
    let audited = must(&["audit", "--url", url]);
    assert!(audited.contains("traffic_by_minute"), "{audited}");
    let status = must(&["status", "--url", url]);
    assert!(status.starts_with("ready\n"), "{status}");
    for text in ["ingest, speed, batch, serve", url, "accepts events; folds ", "; leads"] {
        assert!(status.contains(text), "{text} in {status}");
    }
    assert!(status.contains("page_views") && status.contains("yes") && !status.contains("NO"), "{status}");
    let quarantined = must(&["quarantine", "page_views", "--url", url]);
    assert!(quarantined.contains("missing_field") && quarantined.contains(r#"{"event_id":"d"}"#), "{quarantined}");

    assert!(up.stop(), "exit code 0 after SIGTERM");
    let up = Up::start(&data);
    eventually("the same answer after a restart", || hits(&up.url) == "3");
}

/// The environment of a platform whose objects are in a bucket.
fn s3_environment(server: &S3Server, bucket: &str) -> Vec<(String, String)> {
    let mut environment = server.environment();
    environment.push(("RIOMAR_MASTER_URL".to_owned(), format!("s3://{bucket}/riomar")));
    environment.push(("RIOMAR_MASTER_S3_ENDPOINT".to_owned(), server.endpoint()));
    environment
}

#[test]
fn objects_may_live_in_a_bucket() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("events.ndjson");
    std::fs::write(&file, EVENTS).expect("written");
    let (file, data) = (file.to_str().expect("text"), directory.path().join("data"));
    let server = S3Server::start().expect("a server");
    let environment = s3_environment(&server, server.bucket());
    let up = Up::start_with(&data, &environment);
    must(&["send", "page_views", file, "--url", &up.url]);
    must(&["recompute", "--url", &up.url]);
    assert_eq!(hits(&up.url), "3", "from the bucket");
    assert!(must(&["audit", "--url", &up.url]).contains("traffic_by_minute"));
    assert!(up.stop(), "exit code 0 after SIGTERM");
    let up = Up::start_with(&data, &environment);
    eventually("the same answer after a restart", || hits(&up.url) == "3");
    assert!(!data.join("objects").exists(), "they are in the bucket");
    assert!(server.directory().join(server.bucket()).join("riomar/deployment.json").exists());
}

#[test]
fn a_bucket_that_is_not_there_ends_the_start_with_what_to_do() {
    let directory = tempfile::tempdir().expect("directory");
    let (data, server) = (directory.path().join("data"), S3Server::start().expect("a server"));
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas");
    let arguments = ["up", "--data", data.to_str().expect("text"), "--schemas", schemas, "--http", "127.0.0.1:0"];
    let output = riomar(&arguments).envs(s3_environment(&server, "another-bucket")).output().expect("the binary runs");
    let told = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("there is no bucket 'another-bucket'") && told.contains("create it"), "{told}");
    assert!(!told.contains(server.secret_key()) && !told.contains(server.access_key()), "{told}");
    let shown = riomar(&["config", "check", "--schemas", schemas]).envs(s3_environment(&server, "bucket")).output();
    let shown = text(&shown.expect("the binary runs").stdout);
    assert!(shown.contains("s3://bucket/riomar") && !shown.contains(server.secret_key()), "{shown}");
}

#[test]
fn a_data_directory_belongs_to_one_process() {
    let directory = tempfile::tempdir().expect("directory");
    let data = directory.path().join("data");
    let up = Up::start(&data);
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas");
    let second = run(&["up", "--data", data.to_str().expect("text"), "--schemas", schemas, "--http", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("in use by another process"), "{}", text(&second.stderr));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&data).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o700, "nobody else looks into it");
    assert!(up.stop());
}

#[test]
fn the_demo_ends_by_itself_and_continues_where_it_stopped() {
    let directory = tempfile::tempdir().expect("directory");
    let data = directory.path().join("demo");
    let arguments = ["demo", "--for", "5s", "--rate", "200", "--http", "127.0.0.1:0", "--data", data.to_str().expect("text")];
    let first = must(&arguments);
    assert!(first.contains("(new)") && first.contains("riomar sql"), "{first}");
    let last = first.lines().last().expect("lines");
    assert!(
        last.contains(" hits;") && last.contains("received") && !last.contains("DOES NOT ADD UP") && !last.contains('!'),
        "{first}"
    );
    let second = must(&arguments);
    assert!(second.contains("(continues where it stopped)"), "{second}");
}

#[test]
fn the_demo_stops_at_ctrl_c() {
    let directory = tempfile::tempdir().expect("directory");
    let data = directory.path().join("demo");
    let mut child = riomar(&["demo", "--http", "127.0.0.1:0", "--data", data.to_str().expect("text")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.contains(" hits;") {
        line.clear();
        assert!(output.read_line(&mut line).expect("output") > 0, "it ended: {:?}", child.wait());
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill").success());
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("output");
    assert!(wait(&mut child, STOP_MAX), "exit code 0");
}

#[test]
fn a_port_that_is_taken_says_so() {
    let directory = tempfile::tempdir().expect("directory");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    let output = run(&["demo", "--http", &address, "--data", directory.path().to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("Choose another with --http"), "{}", text(&output.stderr));
}

#[test]
fn without_a_platform_client_commands_say_what_to_do() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("events.ndjson");
    std::fs::write(&file, EVENTS).expect("written");
    // A port that was bound and let go: nobody listens there now.
    let address = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let url = format!("http://{address}");
    let send = ["send", "page_views", file.to_str().expect("text"), "--retry-for", "100ms"];
    for arguments in [&send[..], &["sql", "SELECT 1"], &["recompute"], &["audit"], &["status"], &["quarantine", "page_views"]] {
        let output = run(&[arguments, &["--url", &url]].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output.stderr).contains("Is `riomar up` running"), "{arguments:?}: {}", text(&output.stderr));
    }
    let output = run(&[&send[..], &["--json", "--url", &url]].concat());
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), String::new()));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&told["error"]["code"], &told["received"]), (&"unreachable".into(), &0.into()), "{told}");
}

#[test]
fn config_check_names_everything_that_is_wrong() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("riomar.toml");
    std::fs::write(&file, "[batch]\nevry = \"1m\"\n[serving]\nhttp = \"here\"\n").expect("written");
    let schemas = directory.path().join("schemas");
    std::fs::create_dir(&schemas).expect("created");
    std::fs::write(schemas.join("broken.sql"), "CREATE TABLE t (x VARCHAR)").expect("written");
    let (file, schemas) = (file.to_str().expect("text"), schemas.to_str().expect("text"));
    let check = ["config", "check", "--config", file, "--schemas", schemas];
    let output = riomar(&check).env("RIOMAR_BATCH_EVRY", "15m").output().expect("the binary runs");
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for expected in ["riomar.toml:2: batch.evry", "riomar.toml:4: serving.http", "broken.sql:1:", "RIOMAR_BATCH_EVRY: "] {
        assert!(errors.contains(expected), "{expected} in {errors}");
    }
}

#[test]
fn config_check_shows_where_values_come_from() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let output = riomar(&["config", "check", "--schemas", &format!("{root}/schemas"), "--http", "127.0.0.1:9"])
        .env("RIOMAR_BATCH_EVERY", "15m")
        .env("RIOMAR_SERVICE_HOST", "10.0.0.1")
        .output()
        .expect("the binary runs");
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}{}", text(&output.stderr));
    let line = |key: &str| shown.lines().find(|line| line.contains(key)).unwrap_or_default().to_owned();
    assert!(line("batch.every").contains("\"15m\"") && line("batch.every").contains("RIOMAR_BATCH_EVERY"), "{shown}");
    assert!(line("serving.http").contains("127.0.0.1:9") && line("serving.http").contains("--http"), "{shown}");
    assert!(line("speed.grace").contains("default"), "{shown}");
    assert!(line("views:").contains("traffic_by_minute"), "{shown}");
}

//! Every command in the README works, in the order in which it stands there.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use riomar_tests::process::{self, DEADLINE, binary, free_port, root};

/// How the README starts the binary.
const RUN: &str = "cargo run --release -- ";
/// The address that the README's commands use.
const ADDRESS: &str = "127.0.0.1:8080";
/// Commands that get or build the project, need a service that is not here, or open a window.
const NOT_RUN: &[&str] =
    &["git clone", "cd ", "cargo build", "cargo test", "cargo run --release\n", "docker", "kubectl", "open ", ".ci/"];
/// Commands that go on until they are stopped.
const SERVERS: &[&str] = &["riomar up", "riomar demo"];

/// A server that a command of the README started; stopped when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The commands of all ```sh blocks: one a line, except where a line ends in a backslash or within quotes, or begins a
/// here-document.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "```sh" {
            continue;
        }
        let mut pending = String::new();
        for line in lines.by_ref().take_while(|line| line.trim() != "```") {
            pending.push_str(line);
            pending.push('\n');
            if is_complete(&pending) {
                commands.push(std::mem::take(&mut pending));
            }
        }
    }
    commands.retain(|command| !command.trim().is_empty() && !command.trim_start().starts_with('#'));
    commands
}

fn is_complete(command: &str) -> bool {
    if let Some((_, rest)) = command.split_once("<<") {
        let (word, body) = rest.split_once([' ', '\n']).unwrap_or_default();
        return body.lines().any(|line| line == word.trim_matches(['\'', '"']));
    }
    let within_quotes = ['"', '\''].iter().any(|quote| command.matches(*quote).count() % 2 == 1);
    !within_quotes && !command.ends_with("\\\n")
}

/// Runs a shell with the command, with the built binary as `riomar` and a free port in place of the README's.
fn shell(command: &str, directory: &Path, port: u16) -> Command {
    let command = command.replace(RUN, "riomar ").replace(ADDRESS, &format!("127.0.0.1:{port}"));
    let command = command.replace("localhost:8080", &format!("127.0.0.1:{port}"));
    let path = format!("{}:{}", binary().parent().expect("a folder").display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = process::command("bash");
    shell.args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{command}")]).current_dir(directory).env("PATH", path);
    shell.env("RIOMAR_URL", format!("http://127.0.0.1:{port}")).env("RIOMAR_SERVING_HTTP", format!("127.0.0.1:{port}"));
    shell.stdin(Stdio::null()).stdout(Stdio::piped());
    shell
}

async fn ready(port: u16) {
    let url = format!("http://127.0.0.1:{port}/readyz");
    riomar_tests::process::eventually("the README's server", async || {
        reqwest::get(&url).await.ok().filter(|response| response.status().is_success()).map(drop)
    })
    .await;
}

/// A file of the user's own that the README's commands send.
const EVENTS: (&str, &str) = (
    "events.ndjson",
    r#"{"event_id":"1","ts":"2026-11-20T10:00:00Z","path":"/","visitor":"a","status":200,"bytes":10}
{"event_id":"2","ts":"2026-11-20T10:00:01Z","path":"/about","visitor":"b","status":200,"bytes":20}
"#,
);

/// A copy of what a user has after `git clone`: the definitions and the configuration; and the user's own events.
fn checkout(directory: &Path) {
    let schemas = directory.join("schemas");
    fs::create_dir(&schemas).expect("a writable directory");
    for entry in fs::read_dir(root().join("schemas")).expect("the definitions") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            fs::copy(&path, schemas.join(path.file_name().expect("a name"))).expect("a writable directory");
        }
    }
    fs::write(directory.join(EVENTS.0), EVENTS.1).expect("a writable directory");
    fs::copy(root().join("riomar.toml"), directory.join("riomar.toml")).expect("the configuration");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_works() {
    let text = fs::read_to_string(root().join("README.md")).expect("there is a README.md");
    let commands = commands(&text);
    assert!(commands.iter().any(|command| command.contains(RUN)), "the README starts the platform with `{RUN}…`");
    let directory = tempfile::tempdir().expect("a directory");
    checkout(directory.path());
    let port = free_port();
    let mut server: Option<Server> = None;
    for command in &commands {
        if NOT_RUN.iter().any(|start| command.starts_with(start)) {
            println!("readme: not run: {command}");
            continue;
        }
        println!("readme: {command}");
        let started = Instant::now();
        let is_server = SERVERS.iter().any(|name| command.replace(RUN, "riomar ").trim_start().starts_with(name))
            && !command.contains("--for");
        if is_server {
            server.take();
            server =
                Some(Server(shell(&format!("exec {command} > server.output"), directory.path(), port).spawn().expect("bash")));
            ready(port).await;
            continue;
        }
        let mut child = shell(command, directory.path(), port).spawn().expect("bash");
        let output = child.stdout.take().expect("piped");
        let lines = tokio::task::spawn_blocking(move || BufReader::new(output).lines().map_while(Result::ok).collect::<Vec<_>>());
        let Ok(lines) = tokio::time::timeout(DEADLINE + Duration::from_secs(30), lines).await else {
            let _ = child.kill();
            panic!("does not end: {command}");
        };
        let lines = lines.expect("a reader").join("\n");
        let status = child.wait().expect("a child");
        assert!(status.success(), "{command}ended with {status} after {:?}:\n{lines}", started.elapsed());
    }
}

#[test]
fn commands_are_found() {
    let text = "x\n```sh\nriomar up\n# why\ncurl a \\\n  b\n\ncat > f <<'END'\n1\nEND\nriomar sql \"SELECT\n 1\"\n```\n```toml\nno = 1\n```\n```sh\nlast\n```\n";
    let found = ["riomar up\n", "curl a \\\n  b\n", "cat > f <<'END'\n1\nEND\n", "riomar sql \"SELECT\n 1\"\n", "last\n"];
    assert_eq!(commands(text), found);
}

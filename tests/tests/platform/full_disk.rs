//! C1: a disk that is full refuses events before they are acknowledged; everything else goes on, and so does ingestion once there is
//! room again.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use riomar_tests::process::{Up, eventually, free_port};
use serde_json::{Value, json};

const DEFINITIONS: &str = "
CREATE TABLE hits (event_id BIGINT NOT NULL, ts TIMESTAMP NOT NULL) WITH (event_time = 'ts', dedup_by = 'event_id', partitions = 1);
CREATE MATERIALIZED VIEW hits_by_minute AS
  SELECT window_start, count(*) AS hits FROM TUMBLE(hits, ts, INTERVAL '1 minute') GROUP BY window_start;
";
/// The size of the disk. An empty log takes a part of it; the log refuses events below 128 MiB.
const DISK_MEBIBYTES: u64 = 320;
/// What fills it up.
const FILLER_BYTES: u64 = 200 << 20;

/// A disk of its own in memory; gone when it is dropped.
struct Disk(PathBuf);

impl Disk {
    /// `None` where this user may not mount one.
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir(&at).expect("a writable directory");
        let options = format!("size={DISK_MEBIBYTES}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still hold a file.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn fill(path: &Path) {
    let mut zeros = std::io::Read::take(std::io::repeat(0), FILLER_BYTES);
    std::io::copy(&mut zeros, &mut File::create(path).expect("a file")).expect("room for the filler");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_events_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(disk) = Disk::mount(directory.path().join("disk")) else {
        println!("full_disk: this user may not mount a tmpfs: nothing was tried");
        return;
    };
    let (schemas, configuration) = (directory.path().join("schemas"), directory.path().join("riomar.toml"));
    fs::create_dir(&schemas).expect("a writable directory");
    fs::write(schemas.join("hits.sql"), DEFINITIONS).expect("a writable directory");
    fs::write(&configuration, "[batch]\nevery = \"1s\"\n").expect("a writable directory");
    let up = Up::start(&disk.0.join("data"), &schemas, free_port(), &configuration).await;
    let client = reqwest::Client::new();
    let send = async |id: u64| {
        let event = json!({"event_id": id, "ts": "2026-11-20T10:00:00Z"});
        let response = client.post(format!("{}/v1/streams/hits/events", up.url())).json(&event).send().await.expect("an answer");
        (response.status().as_u16(), response.json::<Value>().await.expect("JSON"))
    };
    let hits = async || {
        let sql = json!({"sql": "SELECT sum(hits) AS hits FROM hits_by_minute"});
        let answer = client.post(format!("{}/v1/sql", up.url())).json(&sql).send().await.ok()?.json::<Value>().await.ok()?;
        Some(answer["rows"][0][0].to_string().trim_matches('"').to_owned())
    };
    assert_eq!(send(1).await.0, 200);
    eventually("the first event", async || hits().await.filter(|hits| hits == "1")).await;

    let filler = disk.0.join("filler");
    fill(&filler);
    let (status, problem) = send(2).await;
    assert_eq!(
        (status, problem["code"].as_str(), problem["retryable"].as_bool()),
        (507, Some("disk_full"), Some(true)),
        "{problem}"
    );
    assert_eq!(hits().await.as_deref(), Some("1"), "queries go on");

    fs::remove_file(&filler).expect("removes");
    assert_eq!(send(2).await.0, 200, "without a restart");
    eventually("both events", async || hits().await.filter(|hits| hits == "2")).await;
}

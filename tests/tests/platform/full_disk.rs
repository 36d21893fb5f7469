//! C1: a disk that is full refuses events before they are acknowledged; everything else goes on, and so does ingestion once there is
//! room again.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use riomar_tests::process::{Up, eventually, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;

const DEFINITIONS: &str = "
CREATE TABLE hits (event_id BIGINT NOT NULL, ts TIMESTAMP NOT NULL, note VARCHAR) WITH (event_time = 'ts', dedup_by = 'event_id', partitions = 1);
CREATE MATERIALIZED VIEW hits_by_minute AS
  SELECT window_start, count(*) AS hits FROM TUMBLE(hits, ts, INTERVAL '1 minute') GROUP BY window_start;
";
/// The size of the disk. An empty log takes a part of it; the log refuses events below 128 MiB.
const DISK_MEBIBYTES: u64 = 320;
/// What fills it up.
const FILLER_BYTES: u64 = 200 << 20;
/// The size of a disk for the log's records alone.
const RECORDS_DISK_MEBIBYTES: u64 = 32;

/// A disk of its own in memory; gone when it is dropped.
struct Disk(PathBuf);

impl Disk {
    /// `None` where this user may not mount one.
    fn mount(at: PathBuf, mebibytes: u64) -> Option<Self> {
        fs::create_dir(&at).expect("a writable directory");
        let options = format!("size={mebibytes}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).output();
        let disk = mounted.is_ok_and(|output| output.status.success()).then_some(Self(at));
        if disk.is_none() {
            println!("full_disk: this user may not mount a tmpfs: nothing was tried");
        }
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still hold a file.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn fill(path: &Path) -> std::io::Result<u64> {
    let mut zeros = std::io::repeat(0).take(FILLER_BYTES);
    std::io::copy(&mut zeros, &mut File::create(path)?)
}

/// A platform whose data may be anywhere, and its client.
struct Place {
    directory: TempDir,
    client: reqwest::Client,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("schemas")).expect("a writable directory");
        fs::write(directory.path().join("schemas/hits.sql"), DEFINITIONS).expect("a writable directory");
        fs::write(directory.path().join("riomar.toml"), "[batch]\nevery = \"1s\"\n").expect("a writable directory");
        Self { directory, client: reqwest::Client::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn start(&self, data: &Path) -> Up {
        Up::start(data, &self.path("schemas"), free_port(), &self.path("riomar.toml")).await
    }

    /// Sends an event, with a text of some length in it.
    async fn send(&self, up: &Up, id: u64, note: &str) -> (u16, Value) {
        let event = json!({"event_id": id, "ts": "2026-11-20T10:00:00Z", "note": note});
        let url = format!("{}/v1/streams/hits/events", up.url());
        let response = self.client.post(url).json(&event).send().await.expect("an answer");
        (response.status().as_u16(), response.json::<Value>().await.expect("JSON"))
    }

    /// How many events the view has counted.
    async fn hits(&self, up: &Up) -> Option<u64> {
        let sql = json!({"sql": "SELECT sum(hits) AS hits FROM hits_by_minute"});
        let answer = self.client.post(format!("{}/v1/sql", up.url())).json(&sql).send().await.ok()?.json::<Value>().await.ok()?;
        answer["rows"][0][0].to_string().trim_matches('"').parse().ok()
    }
}

fn is_full((status, problem): &(u16, Value)) -> bool {
    (*status, problem["code"].as_str(), problem["retryable"].as_bool()) == (507, Some("disk_full"), Some(true))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_events_and_nothing_else() {
    let place = Place::new();
    let Some(disk) = Disk::mount(place.path("disk"), DISK_MEBIBYTES) else { return };
    let up = place.start(&disk.0.join("data")).await;
    assert_eq!(place.send(&up, 1, "").await.0, 200);
    eventually("the first event", async || place.hits(&up).await.filter(|hits| *hits == 1)).await;

    let filler = disk.0.join("filler");
    fill(&filler).expect("room for the filler");
    let refused = place.send(&up, 2, "").await;
    assert!(is_full(&refused), "{refused:?}");
    assert_eq!(place.hits(&up).await, Some(1), "queries go on");

    let began = Instant::now();
    fs::remove_file(&filler).expect("removes");
    assert_eq!(place.send(&up, 2, "").await.0, 200, "without a restart");
    eventually("both events", async || place.hits(&up).await.filter(|hits| *hits == 2)).await;
    println!("full_disk: whole again {:.2} s after there was room", began.elapsed().as_secs_f64());
}

/// The records are on a disk of their own, which the log does not see coming to its end: a commit ends half-way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_in_the_middle_of_a_commit_is_told_and_nothing_acknowledged_is_lost() {
    let place = Place::new();
    let Some(disk) = Disk::mount(place.path("disk"), RECORDS_DISK_MEBIBYTES) else { return };
    let data = place.path("data");
    assert_eq!(place.start(&data).await.stop().await, Some(0));
    let (records, elsewhere) = (data.join("log/records"), disk.0.join("records"));
    let moved = Command::new("cp").arg("-a").arg("--sparse=always").args([&records, &elsewhere]).status();
    assert!(moved.is_ok_and(|status| status.success()), "the records are copied");
    fs::remove_dir_all(&records).expect("removes");
    std::os::unix::fs::symlink(&elsewhere, &records).expect("a link");

    let up = place.start(&data).await;
    assert_eq!(place.send(&up, 1, "").await.0, 200);
    let filler = disk.0.join("filler");
    assert!(fill(&filler).is_err_and(|error| error.kind() == ErrorKind::StorageFull), "the disk is full to the last byte");
    let half_way = place.send(&up, 2, &"x".repeat(100_000)).await;
    fs::remove_file(&filler).expect("removes");
    let after_it = place.send(&up, 3, "").await;
    for refused in [half_way, after_it] {
        assert!(is_full(&refused), "{refused:?}");
        assert!(refused.1["detail"].as_str().is_some_and(|detail| detail.contains("start the process again")), "{refused:?}");
    }
    up.kill();

    let began = Instant::now();
    let up = place.start(&data).await;
    assert_eq!((place.send(&up, 2, "").await.0, place.send(&up, 3, "").await.0), (200, 200));
    eventually("all three, once", async || place.hits(&up).await.filter(|hits| *hits == 3)).await;
    println!("full_disk: whole again {:.2} s after the process was started again", began.elapsed().as_secs_f64());
}

//! The committer on a disk that fails as it is told to.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use riomar_schemas::Epoch;
use tokio::sync::Semaphore;

use super::*;
use crate::clock::SystemClock;

const P0: PartitionId = PartitionId(0);

/// A disk that fails as it is told to.
#[derive(Clone, Default)]
struct Disk {
    commits: Arc<AtomicUsize>,
    rows: Arc<AtomicUsize>,
    /// 0: works, 1: is full and refuses, 2: fails half-way, 3: is full half-way.
    mood: Arc<AtomicU32>,
    gate: Arc<Mutex<()>>,
}

impl Durable for Disk {
    fn commit(&self, _: u64, rows: Vec<(UserKey, UserValue)>) -> Result<(), CommitError> {
        let _open = self.gate.lock().expect("not poisoned");
        match self.mood.load(Ordering::SeqCst) {
            0 => {
                self.commits.fetch_add(1, Ordering::SeqCst);
                self.rows.fetch_add(rows.len(), Ordering::SeqCst);
                Ok(())
            }
            1 => Err(CommitError::Refused(LogError::DiskFull { cause: "no room".into(), reopen: false })),
            3 => Err(CommitError::Failed(LogError::DiskFull { cause: "no room".into(), reopen: false })),
            _ => Err(CommitError::Failed(LogError::Unavailable("fsync: input/output error".into()))),
        }
    }
}

/// A committer on such a disk: its queue, and one partition.
fn committer(disk: &Disk) -> (mpsc::Sender<Command>, Arc<Partition>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(1_000);
    let committer = Committer::new(disk.clone(), Arc::default(), Arc::new(SystemClock), receiver, 0, 0);
    let key = PartitionKey { stream: 0, partition: P0 };
    let partition = Arc::new(Partition::new(key, PartitionBounds { start: Offset(0), end: Offset(0) }));
    (sender, partition, std::thread::spawn(move || committer.run()))
}

async fn send(sender: &mpsc::Sender<Command>, partition: &Arc<Partition>) -> oneshot::Receiver<Result<Vec<Offset>, LogError>> {
    let (reply, answer) = oneshot::channel();
    let room = Arc::new(Semaphore::new(1)).acquire_owned().await.expect("open");
    let records = vec![(partition.clone(), RecordBody::Cut(Epoch(1)))];
    let append = Append { records, bytes: 8, reply: Reply::new(reply, room) };
    sender.try_send(Command::Append(append)).expect("there is room");
    answer
}

#[tokio::test]
async fn c1_after_a_failed_fsync_nothing_is_acknowledged() {
    let disk = Disk::default();
    let (sender, partition, committer) = committer(&disk);
    assert_eq!(send(&sender, &partition).await.await.expect("answers").expect("appends"), [Offset(0)]);
    disk.mood.store(2, Ordering::SeqCst);
    let failed = send(&sender, &partition).await.await.expect("answers");
    assert!(matches!(&failed, Err(LogError::Unavailable(what)) if what.contains("opened again")), "{failed:?}");
    disk.mood.store(0, Ordering::SeqCst);
    let refused = send(&sender, &partition).await.await.expect("answers");
    assert!(matches!(&refused, Err(LogError::Unavailable(what)) if what.contains("opened again")), "not hoped for: {refused:?}");
    assert_eq!(disk.commits.load(Ordering::SeqCst), 1);
    assert_eq!(partition.latest().end, Offset(1));
    drop(sender);
    committer.join().expect("ends");
}

#[tokio::test]
async fn a_full_disk_refuses_until_there_is_room() {
    let disk = Disk::default();
    let (sender, partition, committer) = committer(&disk);
    disk.mood.store(1, Ordering::SeqCst);
    let refused = send(&sender, &partition).await.await.expect("answers");
    assert!(matches!(&refused, Err(LogError::DiskFull { reopen: false, .. })), "{refused:?}");
    disk.mood.store(0, Ordering::SeqCst);
    assert_eq!(send(&sender, &partition).await.await.expect("answers").expect("appends"), [Offset(0)], "no gap");
    drop(sender);
    committer.join().expect("ends");
}

#[tokio::test]
async fn c1_a_disk_that_is_full_half_way_is_told_from_one_that_fails() {
    let disk = Disk::default();
    let (sender, partition, committer) = committer(&disk);
    disk.mood.store(3, Ordering::SeqCst);
    let half_way = send(&sender, &partition).await.await.expect("answers");
    disk.mood.store(0, Ordering::SeqCst);
    let after_it = send(&sender, &partition).await.await.expect("answers");
    for refused in [half_way, after_it] {
        assert!(matches!(&refused, Err(LogError::DiskFull { cause, reopen: true }) if cause.contains("no room")), "{refused:?}");
    }
    assert_eq!((disk.commits.load(Ordering::SeqCst), partition.latest().end), (0, Offset(0)));
    drop(sender);
    committer.join().expect("ends");
}

#[tokio::test]
async fn appends_that_wait_share_a_commit() {
    const APPENDS: usize = 100;
    let disk = Disk::default();
    let (sender, partition, committer) = committer(&disk);
    let mut answers = Vec::new();
    {
        let _shut = disk.gate.lock().expect("not poisoned");
        for _ in 0..APPENDS {
            answers.push(futures::FutureExt::now_or_never(send(&sender, &partition)).expect("does not wait"));
        }
    }
    for (at, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.await.expect("answers").expect("appends"), [Offset(at as u64)]);
    }
    // The first group is whatever had come when the disk began to block; the second is all the rest.
    let commits = disk.commits.load(Ordering::SeqCst);
    assert!(commits <= 2, "{commits} commits");
    assert_eq!(disk.rows.load(Ordering::SeqCst), APPENDS + commits, "each commit has one row of its own");
    drop(sender);
    committer.join().expect("ends");
}

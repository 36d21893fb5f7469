//! The embedded log on real files: durability, recovery, damage, and the lock.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::PathBuf,
    sync::Mutex,
    time::Duration,
};

use bytes::Bytes;
use riomar_schemas::Epoch;
use tempfile::TempDir;

use super::*;
use crate::{
    clock::{ManualClock, SystemClock},
    conformance,
    log::APPEND_RECORDS_MAX,
};

const P0: PartitionId = PartitionId(0);
const ALL: ReadLimit = ReadLimit { records: 1 << 20, bytes: 1 << 30, wait: Duration::ZERO };

fn stream() -> Name {
    Name::new("page_views").expect("valid")
}

fn open(directory: &Path) -> Result<EmbeddedLog, LogError> {
    EmbeddedLog::open(directory, Arc::new(SystemClock))
}

fn event(text: impl AsRef<str>) -> (PartitionId, RecordBody) {
    (P0, RecordBody::Event(Bytes::copy_from_slice(text.as_ref().as_bytes())))
}

async fn append(log: &dyn Log, texts: impl IntoIterator<Item = String>) -> Result<Vec<Offset>, LogError> {
    log.append(&stream(), texts.into_iter().map(event).collect()).await
}

async fn count(log: &dyn Log, from: u64) -> usize {
    log.read(&stream(), P0, Offset(from), ALL).await.expect("reads").len()
}

/// The journal, without the zeroes that fjall reserves room with.
fn journal(directory: &Path) -> PathBuf {
    let records = fs::read_dir(directory.join("records")).expect("lists");
    let mut journals: Vec<_> = records
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "jnl"))
        .collect();
    assert_eq!(journals.len(), 1, "one journal");
    let journal = journals.remove(0);
    let content = fs::read(&journal).expect("reads");
    let written = content.iter().rposition(|byte| *byte != 0).expect("something was written") + 1;
    OpenOptions::new().write(true).open(&journal).expect("opens").set_len(written as u64).expect("truncates");
    journal
}

/// Changes one byte where `text` stands in a file.
fn damage(path: &Path, text: &[u8], at: isize) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).expect("opens");
    let mut content = Vec::new();
    file.read_to_end(&mut content).expect("reads");
    let found = content.windows(text.len()).position(|window| window == text).expect("the text stands in the file");
    let position = found.checked_add_signed(at).expect("inside");
    file.seek(SeekFrom::Start(position as u64)).expect("seeks");
    file.write_all(&[content[position] ^ 0x55]).expect("writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let directories = Mutex::new(Vec::new());
    conformance::all(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let log: Arc<dyn Log> = Arc::new(open(directory.path()).expect("opens"));
        directories.lock().expect("not poisoned").push(directory);
        std::future::ready(log)
    })
    .await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(5_000);
    let before = {
        let log = EmbeddedLog::open(directory.path(), Arc::new(clock.clone())).expect("opens");
        log.create(&stream(), 2).await.expect("creates");
        append(&log, ["a".into(), "b".into()]).await.expect("appends");
        log.append(&stream(), vec![(P0, RecordBody::Cut(Epoch(3)))]).await.expect("appends");
        log.create(&Name::new("other").expect("valid"), 1).await.expect("creates");
        log.read(&stream(), P0, Offset(0), ALL).await.expect("reads")
    };
    clock.set(10);
    let log = EmbeddedLog::open(directory.path(), Arc::new(clock.clone())).expect("opens again");
    assert_eq!(log.read(&stream(), P0, Offset(0), ALL).await.expect("reads"), before);
    assert_eq!((log.partitions(&stream()).await.expect("counts"), before.len()), (2, 3));
    assert_eq!(append(&log, ["c".into()]).await.expect("appends"), [Offset(3)]);
    let last = log.read(&stream(), P0, Offset(3), ALL).await.expect("reads");
    assert_eq!(last[0].append_time_ms, 5_000, "append times do not follow a clock that was set back");
    let third = Name::new("third").expect("valid");
    log.create(&third, 1).await.expect("creates");
    assert_eq!(log.bounds(&third, P0).await.expect("bounds"), PartitionBounds { start: Offset(0), end: Offset(0) });
}

#[tokio::test]
async fn a_trimmed_partition_keeps_its_bounds_and_gives_its_room_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = open(directory.path()).expect("opens");
    log.create(&stream(), 1).await.expect("creates");
    append(&log, (0..2_010).map(|n| format!("{n:0500}"))).await.expect("appends");
    let held = |log: &EmbeddedLog| log.store.with(|store| Ok(store.held())).expect("open");
    let compacted = log.store.with(|store| {
        store.compact(100_000);
        Ok(())
    });
    compacted.expect("open");
    let (full_bytes, full_rows) = held(&log);

    log.trim(&stream(), P0, Offset(2_005)).await.expect("trims");
    let (bytes, rows) = held(&log);
    assert!(full_bytes > 1_000_000 && bytes < full_bytes / 4, "{full_bytes} bytes became {bytes}");
    assert!(full_rows > 2_000 && rows < full_rows / 4, "{full_rows} rows became {rows}");
    assert_eq!(count(&log, 2_005).await, 5);
    drop(log);

    let log = open(directory.path()).expect("opens again");
    let bounds = |start, end| PartitionBounds { start: Offset(start), end: Offset(end) };
    assert_eq!(log.bounds(&stream(), P0).await.expect("bounds"), bounds(2_005, 2_010));
    assert_eq!(count(&log, 2_005).await, 5);
    log.trim(&stream(), P0, Offset(2_010)).await.expect("empties");
    drop(log);

    let log = open(directory.path()).expect("opens a third time");
    assert_eq!(log.bounds(&stream(), P0).await.expect("bounds"), bounds(2_010, 2_010));
    assert!(matches!(log.read(&stream(), P0, Offset(2_009), ALL).await, Err(LogError::OutOfRange { .. })));
    assert_eq!(append(&log, ["next".into()]).await.expect("appends"), [Offset(2_010)]);
}

#[tokio::test]
async fn a_directory_is_open_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = Arc::new(open(directory.path()).expect("opens"));
    match open(directory.path()) {
        Err(LogError::Locked { path }) => assert!(path.contains(&format!("process {}", std::process::id())), "{path}"),
        other => panic!("a second log must not open: {other:?}"),
    }
    log.create(&stream(), 1).await.expect("the first log still works");
    log.close().await.expect("closes");
    let second = open(directory.path()).expect("opens once the first is closed");
    assert_eq!(append(&second, ["a".into()]).await.expect("appends"), [Offset(0)]);

    assert!(matches!(append(&*log, ["b".into()]).await, Err(LogError::Unavailable(_))), "the first log is closed");
    assert!(matches!(log.read(&stream(), P0, Offset(0), ALL).await, Err(LogError::Unavailable(_))));
    drop(log);
    assert_eq!(count(&second, 0).await, 1, "dropping a closed log disturbs nobody");
}

#[tokio::test]
async fn closing_wakes_readers_and_needs_no_caller_to_go_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = Arc::new(open(directory.path()).expect("opens"));
    log.create(&stream(), 2).await.expect("creates");
    let name = stream();
    let mut reader = log.read(&name, PartitionId(1), Offset(0), ReadLimit { wait: Duration::from_secs(3_600), ..ALL });
    assert!(futures::poll!(&mut reader).is_pending());
    let mut forgotten = Box::pin(append(&*log, ["handed over".into()]));
    assert!(futures::poll!(&mut forgotten).is_pending(), "and not polled any more");
    tokio::time::timeout(Duration::from_secs(30), log.close()).await.expect("closes").expect("closes");
    let woken = tokio::time::timeout(Duration::from_secs(30), reader).await.expect("the reader is woken");
    assert!(matches!(woken, Err(LogError::Unavailable(_))), "{woken:?}");
    assert_eq!(count_after(&directory).await, 1, "what was handed over is committed");
}

async fn count_after(directory: &TempDir) -> usize {
    count(&open(directory.path()).expect("opens"), 0).await
}

#[tokio::test]
async fn limits_have_names() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = open(directory.path()).expect("opens");
    log.create(&stream(), 1).await.expect("creates");
    let limit = |result: Result<Vec<Offset>, LogError>| match result {
        Err(LogError::LimitExceeded { limit, found, max }) => (limit, found, max),
        other => panic!("{other:?}"),
    };
    let text = Bytes::from(vec![b'x'; 1 << 20]);
    let mut records = vec![(P0, RecordBody::Event(text)); 32];
    assert_eq!(log.append(&stream(), records.clone()).await.expect("at the limit").len(), 32);
    records.push(event("x"));
    assert_eq!(limit(log.append(&stream(), records).await), ("APPEND_BYTES_MAX", (32 << 20) + 1, 32 << 20));
    let records = vec![event(""); APPEND_RECORDS_MAX + 1];
    assert_eq!(limit(log.append(&stream(), records).await).0, "APPEND_RECORDS_MAX");
    assert_eq!(limit(log.create(&stream(), 1_025).await.map(|()| Vec::new())), ("STREAM_PARTITIONS_MAX", 1_025, 1_024));
}

#[tokio::test]
async fn a_write_that_a_crash_tore_is_dropped_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = open(directory.path()).expect("opens");
    log.create(&stream(), 1).await.expect("creates");
    append(&log, ["acknowledged".into()]).await.expect("appends");
    // The commit under way when the machine stops: its number is not in the witness yet, and half of it is in the journal.
    let witness = fs::read(directory.path().join(witness::FILE)).expect("reads");
    append(&log, ["under way".into()]).await.expect("appends");
    drop(log);
    fs::write(directory.path().join(witness::FILE), witness).expect("writes");
    let journal = journal(directory.path());
    let content = fs::read(&journal).expect("reads");
    let torn = content.windows(9).rposition(|window| window == b"under way").expect("stands in the journal") + 4;
    OpenOptions::new().write(true).open(&journal).expect("opens").set_len(torn as u64).expect("truncates");

    let log = open(directory.path()).expect("opens again");
    assert_eq!(count(&log, 0).await, 1);
    assert_eq!(append(&log, ["sent again".into()]).await.expect("appends"), [Offset(1)]);
    drop(log);
    assert_eq!(count_after(&directory).await, 2);
}

#[tokio::test]
async fn acknowledged_records_that_are_gone_are_damage() {
    for cut_off in ["first", "second"] {
        let directory = tempfile::tempdir().expect("a directory");
        let log = open(directory.path()).expect("opens");
        log.create(&stream(), 1).await.expect("creates");
        for text in ["first", "second"] {
            append(&log, [text.to_owned()]).await.expect("appends");
        }
        drop(log);
        let journal = journal(directory.path());
        let content = fs::read(&journal).expect("reads");
        let end = content.windows(cut_off.len()).position(|window| window == cut_off.as_bytes()).expect("stands there");
        OpenOptions::new().write(true).open(&journal).expect("opens").set_len(end as u64).expect("truncates");
        let refused = open(directory.path());
        assert!(matches!(&refused, Err(LogError::Damaged(what)) if what.contains("commits")), "{cut_off}: {refused:?}");
        assert!(matches!(open(directory.path()), Err(LogError::Damaged(_))), "and stays so");
    }
}

#[tokio::test]
async fn every_changed_byte_of_the_journal_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = open(directory.path()).expect("opens");
    log.create(&stream(), 1).await.expect("creates");
    append(&log, ["first-record".into()]).await.expect("appends");
    append(&log, ["second-record".into()]).await.expect("appends");
    drop(log);
    let journal = journal(directory.path());
    let whole = fs::read(&journal).expect("reads");
    // From the item's tag over its lengths and key to the text, and the batch's end behind it.
    for at in -70..=40 {
        damage(&journal, b"first-record", at);
        match open(directory.path()) {
            Err(LogError::Damaged(_)) => {}
            Err(other) => panic!("byte {at}: {other}"),
            // A number that fjall does not check, such as a batch's own: then nothing may be missing.
            Ok(log) => {
                let records = log.read(&stream(), P0, Offset(0), ALL).await.expect("reads");
                let expected = ["first-record", "second-record"].map(|text| event(text).1);
                assert!(records.into_iter().map(|record| record.body).eq(expected), "byte {at}");
            }
        }
        fs::write(&journal, &whole).expect("repairs");
        fs::remove_file(directory.path().join(witness::FILE)).expect("removes");
        fs::write(directory.path().join(witness::FILE), witness_of(3)).expect("repairs");
    }
}

fn witness_of(commits: u64) -> Vec<u8> {
    [commits.to_be_bytes(), (!commits).to_be_bytes()].concat()
}

#[tokio::test]
async fn a_changed_byte_in_a_file_is_found_when_it_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = open(directory.path()).expect("opens");
    log.create(&stream(), 1).await.expect("creates");
    append(&log, (0..1_000).map(|n| format!("record-number-{n:0100}"))).await.expect("appends");
    let compacted = log.store.with(|store| {
        store.compact(1 << 20);
        Ok(())
    });
    compacted.expect("open");
    drop(log);
    let mut files = vec![directory.path().join("records/keyspaces")];
    let mut tables = Vec::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).expect("lists").map(|entry| entry.expect("an entry").path()));
        } else if path.parent().is_some_and(|parent| parent.ends_with("tables"))
            && fs::metadata(&path).expect("is there").len() > 50_000
        {
            tables.push(path);
        }
    }
    assert_eq!(tables.len(), 1, "the records are in one file");
    damage(&tables[0], format!("{:0100}", 500).as_bytes(), 10);

    let log = open(directory.path()).expect("opens: blocks are checked when they are read");
    let whole = log.read(&stream(), P0, Offset(0), ALL).await;
    assert!(matches!(whole, Err(LogError::Damaged(_))), "never fewer records: {:?}", whole.map(|records| records.len()));
    let before = log.read(&stream(), P0, Offset(0), ReadLimit { records: 100, ..ALL }).await.expect("what is whole is read");
    assert_eq!(before.len(), 100);
    assert_eq!(count(&log, 900).await, 100);
}

#[tokio::test]
async fn a_record_that_is_missing_is_damage() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = open(directory.path()).expect("opens");
    log.create(&stream(), 1).await.expect("creates");
    append(&log, ["a".into(), "b".into()]).await.expect("appends");
    let key = log.partition(&stream(), P0).expect("is there").key();
    let (from, limit) = (Offset(0), ALL);
    let beyond = log.store.with(|store| store.read(key, from, Offset(3), limit));
    assert!(matches!(beyond, Err(LogError::Damaged(_))), "the end says that there are three: {beyond:?}");
}

#[tokio::test]
async fn a_creation_that_was_cut_off_starts_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let records = directory.path().join("records");
    fs::create_dir(&records).expect("creates");
    fs::write(records.join("0.jnl"), b"").expect("writes");
    let log = open(directory.path()).expect("nothing was ever committed there");
    log.create(&stream(), 1).await.expect("creates");
    drop(log);
    fs::remove_file(records.join("version")).expect("removes");
    assert!(matches!(open(directory.path()), Err(LogError::Damaged(_))), "but here something was");
    assert!(records.join("0.jnl").exists());
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    fs::write(&file, b"").expect("writes");
    let refused = open(&file);
    assert!(matches!(&refused, Err(LogError::Unavailable(what)) if what.contains("file")), "{refused:?}");
}

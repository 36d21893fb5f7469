//! What quarantine keeps, counts and refuses, in the embedded log.

use tempfile::TempDir;

use super::*;
use crate::{clock::SystemClock, embedded::EmbeddedLog};

fn quarantine() -> (TempDir, Arc<dyn Log>, Quarantine) {
    let directory = tempfile::tempdir().expect("a directory");
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(directory.path(), Arc::new(SystemClock)).expect("opens"));
    let quarantine = Quarantine::new(log.clone());
    (directory, log, quarantine)
}

fn stream() -> Name {
    Name::new("page_views").expect("valid")
}

fn entry(kind: EntryKind, events: u64) -> QuarantineEntry {
    QuarantineEntry {
        kind,
        events,
        reason: Violation { code: "type_mismatch".into(), pointer: "/ts".into(), detail: "expected TIMESTAMP".into() },
        received_at_ms: 1_700_000_000_000,
        raw: Some("{\"ts\":1}".into()),
        raw_base64: None,
        position: None,
    }
}

#[tokio::test]
async fn entries_come_back_with_their_offsets() {
    let (_directory, _log, quarantine) = quarantine();
    quarantine.create(&stream()).await.expect("creates");
    quarantine.create(&stream()).await.expect("is there already");
    let found = QuarantineEntry { position: Some((PartitionId(3), Offset(7))), raw: None, ..entry(EntryKind::Quarantined, 1) };
    let entries = [entry(EntryKind::Quarantined, 1), entry(EntryKind::Rejected, 50), found];
    quarantine.append(&stream(), &entries).await.expect("appends");
    quarantine.append(&stream(), &[]).await.expect("nothing to do");
    let all = quarantine.read(&stream(), Offset(0), 10).await.expect("reads");
    assert_eq!(all, (0..).map(Offset).zip(entries.clone()).collect::<Vec<_>>());
    assert_eq!(quarantine.read(&stream(), Offset(1), 1).await.expect("reads"), [(Offset(1), entries[1].clone())]);
    assert_eq!(quarantine.read(&stream(), Offset(3), 10).await.expect("reads"), []);
}

#[tokio::test]
async fn c5_the_account_counts_each_entry_once_and_leaves_landings_to_landing() {
    let (_directory, log, quarantine) = quarantine();
    quarantine.create(&stream()).await.expect("creates");
    let account = |quarantined, rejected| QuarantineAccount { quarantined, rejected, lost: 0 };
    assert_eq!(quarantine.account(&stream()).await.expect("sums"), account(0, 0));
    let found = QuarantineEntry { position: Some((PartitionId(0), Offset(7))), ..entry(EntryKind::Quarantined, 1) };
    let entries = [entry(EntryKind::Quarantined, 1), entry(EntryKind::Rejected, 50), found, entry(EntryKind::Quarantined, 1)];
    quarantine.append(&stream(), &entries).await.expect("appends");
    let twin = quarantine.clone();
    let sums = futures::future::join_all((0..8).map(|n| if n % 2 == 0 { &twin } else { &quarantine }.account_owned())).await;
    assert!(sums.into_iter().all(|sum| sum == account(2, 50)));
    twin.append(&stream(), &[entry(EntryKind::Rejected, 3)]).await.expect("appends");
    assert_eq!(quarantine.account(&stream()).await.expect("sums"), account(2, 53));
    assert_eq!(Quarantine::new(log).account(&stream()).await.expect("sums"), account(2, 53), "a new value counts from the start");
}

#[tokio::test]
async fn c5_what_was_deleted_makes_the_account_say_at_least() {
    let (_directory, log, quarantine) = quarantine();
    let name = quarantine_of(&stream()).expect("short enough");
    quarantine.create(&stream()).await.expect("creates");
    let entries = [entry(EntryKind::Quarantined, 1), entry(EntryKind::Rejected, 50), entry(EntryKind::Quarantined, 1)];
    quarantine.append(&stream(), &entries).await.expect("appends");
    let account = |quarantined, rejected, lost| QuarantineAccount { quarantined, rejected, lost };
    assert_eq!(quarantine.account(&stream()).await.expect("sums"), account(2, 50, 0));

    log.trim(&name, PARTITION, Offset(2)).await.expect("deletes");
    let later = Quarantine::new(log.clone());
    for _ in 0..2 {
        assert_eq!(quarantine.account(&stream()).await.expect("sums"), account(2, 50, 0), "it had counted them");
        assert_eq!(later.account(&stream()).await.expect("sums"), account(1, 0, 2), "nobody can tell it what they were");
    }
    // All there is, and some of it uncounted.
    quarantine.append(&stream(), &entries[..2]).await.expect("appends");
    log.trim(&name, PARTITION, Offset(5)).await.expect("deletes");
    for (counting, expected) in [(&quarantine, account(2, 50, 2)), (&later, account(1, 0, 4))] {
        assert_eq!(counting.account(&stream()).await.expect("sums"), expected);
    }
    quarantine.append(&stream(), &entries).await.expect("appends");
    for (counting, expected) in [(&quarantine, account(4, 100, 2)), (&later, account(3, 50, 4))] {
        assert_eq!(counting.account(&stream()).await.expect("sums"), expected);
    }
    assert_eq!(Quarantine::new(log).account(&stream()).await.expect("sums"), account(2, 50, 5));
}

#[tokio::test]
async fn a_check_creates_nothing() {
    let (_directory, log, quarantine) = quarantine();
    quarantine.check(&stream()).await.expect("nothing to check");
    let name = quarantine_of(&stream()).expect("short enough");
    assert_eq!(log.partitions(&name).await.expect("counts"), 0);
    quarantine.create(&stream()).await.expect("creates");
    quarantine.check(&stream()).await.expect("set up well");
}

impl Quarantine {
    async fn account_owned(&self) -> QuarantineAccount {
        self.account(&stream()).await.expect("sums")
    }
}

#[tokio::test]
async fn many_and_large_entries_are_taken_in_parts() {
    let (_directory, _log, quarantine) = quarantine();
    quarantine.create(&stream()).await.expect("creates");
    // Written as JSON these bytes take six times the room.
    let large = QuarantineEntry { raw: Some("\u{1}".repeat(1 << 20)), ..entry(EntryKind::Quarantined, 1) };
    quarantine.append(&stream(), &vec![large.clone(); 7]).await.expect("appends");
    let many = vec![entry(EntryKind::Rejected, 2); APPEND_ENTRIES + 1];
    quarantine.append(&stream(), &many).await.expect("appends");
    let account = QuarantineAccount { quarantined: 7, rejected: 2 * many.len() as u64, lost: 0 };
    assert_eq!(quarantine.account(&stream()).await.expect("sums"), account);
    let first = quarantine.read(&stream(), Offset(0), 100).await.expect("reads");
    assert!((1..7).contains(&first.len()) && first[0].1 == large, "{} entries in one read", first.len());
}

#[tokio::test]
async fn of_an_event_that_is_too_large_the_beginning_is_kept() {
    let (_directory, _log, quarantine) = quarantine();
    quarantine.create(&stream()).await.expect("creates");
    let text = |bytes: usize| QuarantineEntry { raw: Some("ä".repeat(bytes / 2)), ..entry(EntryKind::Quarantined, 1) };
    let base64 = |bytes: usize| QuarantineEntry {
        raw: None,
        raw_base64: Some("Zm9v".repeat(bytes / 3)),
        ..entry(EntryKind::Quarantined, 1)
    };
    let entries = [text(RAW_BYTES_MAX), base64(RAW_BYTES_MAX), text(9 << 20), base64(9 << 20)];
    quarantine.append(&stream(), &entries).await.expect("appends");
    let kept = quarantine.read(&stream(), Offset(0), 10).await.expect("reads");
    assert!(kept[0].1 == entries[0] && kept[1].1 == entries[1], "whole as long as they may be");
    assert_eq!(kept[2].1.raw, Some("ä".repeat(RAW_BYTES_MAX / 2)));
    assert_eq!(kept[3].1.raw_base64.as_ref().map(|raw| raw.len() / 4 * 3), Some(RAW_BYTES_MAX.div_ceil(3) * 3));
    for (_, shorter) in &kept[2..] {
        assert!(shorter.reason.detail.ends_with("(of its 9437184 bytes the first 1048576 are kept here)"), "{shorter:.0?}");
    }
}

#[tokio::test]
async fn what_is_no_entry_is_damage_and_a_long_name_is_refused() {
    let (_directory, log, quarantine) = quarantine();
    quarantine.create(&stream()).await.expect("creates");
    let name = quarantine_of(&stream()).expect("short enough");
    assert_eq!(name.as_str(), "page_views__quarantine");
    log.append(&name, vec![(PARTITION, RecordBody::Event(Bytes::from_static(b"{}")))]).await.expect("appends");
    assert!(matches!(quarantine.read(&stream(), Offset(0), 1).await, Err(LogError::Damaged(_))));
    assert!(matches!(quarantine.account(&stream()).await, Err(LogError::Damaged(_))));
    let longest = Name::new("a".repeat(QUARANTINED_NAME_BYTES_MAX)).expect("valid");
    quarantine.create(&longest).await.expect("creates");
    let longer = Name::new("a".repeat(QUARANTINED_NAME_BYTES_MAX + 1)).expect("valid");
    assert!(matches!(quarantine.create(&longer).await, Err(LogError::LimitExceeded { .. })));
}

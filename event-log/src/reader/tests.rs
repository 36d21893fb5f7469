//! The reader against a naive model, on the embedded log and a master dataset in memory.

mod master;
mod random;

use arrow::array::AsArray;
use riomar_schemas::{Catalog, Name};
use tempfile::TempDir;

use super::*;
use crate::{clock::ManualClock, embedded::EmbeddedLog};
use master::Master;

const P0: PartitionId = PartitionId(0);
const ALL: ReadLimit = ReadLimit { records: 1 << 16, bytes: 1 << 24, wait: Duration::ZERO };

fn stream(name: &str, options: &str) -> Arc<Stream> {
    stream_with(name, "", options)
}

/// With more columns behind the first two.
fn stream_with(name: &str, columns: &str, options: &str) -> Arc<Stream> {
    let sql = format!(
        "CREATE TABLE {name} (id VARCHAR, ts TIMESTAMP NOT NULL{columns}) WITH (event_time = 'ts', partitions = 1{options})"
    );
    let catalog = Catalog::parse([("streams.sql", sql.as_str())]).expect("valid");
    catalog.stream(name).expect("declared").clone()
}

fn position(offset: u64, epoch: u64) -> ReaderPosition {
    ReaderPosition { offset: Offset(offset), epoch: Epoch(epoch) }
}

fn event(id: &str) -> RecordBody {
    RecordBody::Event(Bytes::from(format!(r#"{{"id":"{id}","ts":"2026-11-20T10:00:00Z"}}"#)))
}

fn cut(number: u64) -> RecordBody {
    RecordBody::Cut(Epoch(number))
}

fn bad() -> RecordBody {
    RecordBody::Event(Bytes::from_static(b"{\"id\":1"))
}

/// A log with one stream, and its master dataset.
struct World {
    _directory: TempDir,
    log: Arc<EmbeddedLog>,
    master: Master,
    stream: Arc<Stream>,
}

impl World {
    async fn new(options: &str, records: Vec<RecordBody>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let log = Arc::new(EmbeddedLog::open(directory.path(), Arc::new(ManualClock::new(1_000))).expect("opens"));
        let stream = stream("events", options);
        let world = Self { _directory: directory, log, master: Master::new(position(0, 0)), stream };
        world.log.create(&world.stream.name, 1).await.expect("creates");
        world.append(records).await;
        world
    }

    async fn append(&self, records: Vec<RecordBody>) {
        self.log.append(&self.stream.name, records.into_iter().map(|body| (P0, body)).collect()).await.expect("appends");
    }

    async fn open(&self, at: ReaderPosition) -> Result<EpochReader, LogError> {
        EpochReader::open(self.log.clone(), Arc::new(self.master.clone()), self.stream.clone(), P0, at).await
    }

    /// Lands everything up to where a reader gets in one step.
    async fn land(&self) -> ReadStep {
        let landed = self.master.landed(&self.stream, P0).await.expect("is there");
        let step = self.open(landed).await.expect("opens").next(ALL).await.expect("reads");
        self.master.land(step.rows.clone(), step.to);
        step
    }
}

/// Offset and epoch of each row.
fn rows(batch: &RecordBatch) -> Vec<(u64, u64)> {
    master::kept(batch).map(|(offset, epoch)| (offset.0, epoch.0)).collect()
}

#[tokio::test]
async fn epochs_open_at_cuts_and_a_cut_that_was_sent_again_changes_nothing() {
    let records = vec![event("a"), cut(2), event("b"), cut(2), cut(1), event("c"), cut(5), cut(6), event("d")];
    let world = World::new("", records).await;
    let mut reader = world.open(position(0, 0)).await.expect("opens");
    let step = reader.next(ALL).await.expect("reads");
    assert_eq!(rows(&step.rows), [(0, 0), (2, 2), (5, 2), (8, 6)]);
    assert_eq!(step.cuts, [(Epoch(2), Offset(2)), (Epoch(5), Offset(7)), (Epoch(6), Offset(8))]);
    assert_eq!((step.from, step.to, reader.position()), (position(0, 0), position(9, 6), position(9, 6)));
    let end = reader.next(ALL).await.expect("the end");
    assert_eq!((end.rows.num_rows(), end.from, end.to, end.event_time_max_us), (0, position(9, 6), position(9, 6), None));
    assert_eq!(end.rows.schema(), *world.stream.row_schema());
}

#[tokio::test]
async fn a_partition_that_came_later_begins_in_its_first_epoch() {
    let world = World::new("", vec![cut(3), event("a"), cut(4), event("b")]).await;
    let step = world.open(position(0, 3)).await.expect("opens").next(ALL).await.expect("reads");
    assert_eq!(rows(&step.rows), [(1, 3), (3, 4)]);
    assert_eq!(step.cuts, [(Epoch(4), Offset(3))]);
}

#[tokio::test]
async fn duplicates_are_left_out_within_the_horizon_and_do_not_prolong_it() {
    let records =
        vec![event("a"), event("a"), cut(1), event("a"), event("b"), cut(2), event("a"), cut(3), event("b"), event("a")];
    let world = World::new(", dedup_by = 'id', dedup_epochs = 1", records.clone()).await;
    let step = world.land().await;
    assert_eq!(rows(&step.rows), [(0, 0), (4, 1), (6, 2), (8, 3)], "in epoch 2 and 3 the kept ones are too old");
    assert_eq!(step.duplicates, 3);
    let world = World::new("", records).await;
    assert_eq!(world.land().await.rows.num_rows(), 7, "without dedup_by nothing is a duplicate");
}

#[tokio::test]
async fn c9_ids_are_remembered_up_to_the_declared_number_of_them() {
    let records = vec![event("a"), event("b"), cut(1), cut(2), event("c"), event("d"), event("e")];
    let world = World::new(", dedup_by = 'id', dedup_epochs = 1, dedup_ids_max = 2", records).await;
    let mut reader = world.open(position(0, 0)).await.expect("opens");
    let two = ReadLimit { records: 2, ..ALL };
    assert_eq!(rows(&reader.next(two).await.expect("two ids").rows), [(0, 0), (1, 0)]);
    assert_eq!(reader.next(two).await.expect("the cuts").cuts.len(), 2);
    assert_eq!(rows(&reader.next(two).await.expect("those before are forgotten").rows), [(4, 2), (5, 2)]);
    for _ in 0..2 {
        let error = reader.next(two).await.expect_err("a third id");
        assert!(matches!(error, LogError::TooManyIds { found: 3, max: 2, .. }), "{error}");
        assert!(error.to_string().contains("dedup_ids_max"), "{error}");
        assert_eq!(reader.position(), position(6, 2), "nothing has happened");
    }

    let world = World::new(", dedup_by = 'id', dedup_ids_max = 3", vec![event("a"), event("b"), event("c")]).await;
    world.land().await;
    assert!(world.open(position(3, 0)).await.is_ok(), "as many as landed");
}

#[tokio::test]
async fn a_null_id_is_nobodys_duplicate() {
    let null = || RecordBody::Event(Bytes::from_static(b"{\"ts\":0}"));
    let world = World::new(", dedup_by = 'id'", vec![null(), null(), event("a"), null(), event("a")]).await;
    let step = world.land().await;
    assert_eq!((step.rows.num_rows(), step.duplicates), (4, 1));
}

#[tokio::test]
async fn c10_undecodable_records_are_returned_with_their_reason() {
    let text = RecordBody::Event(Bytes::from_static(&[0xff, 0xfe]));
    let world = World::new(", dedup_by = 'id'", vec![event("a"), bad(), text, event("b")]).await;
    let step = world.land().await;
    assert_eq!(rows(&step.rows), [(0, 0), (3, 0)]);
    let undecodable: Vec<_> = step.undecodable.iter().map(|it| (it.offset.0, it.append_time_ms, it.raw.as_ref())).collect();
    assert_eq!(undecodable, [(1, 1_000, b"{\"id\":1".as_slice()), (2, 1_000, &[0xff, 0xfe])]);
    assert!(step.undecodable.iter().all(|it| !it.violation.code.is_empty()));
}

#[tokio::test]
async fn c10_a_cut_that_is_too_far_ahead_is_none() {
    let highest = 3 + CUT_GAP_MAX;
    for (first, opened) in [(highest, highest), (highest + 1, 3), (u64::MAX, 3)] {
        let records = vec![event("a"), cut(3), event("b"), cut(first), event("a"), cut(opened + 1), event("a")];
        let world = World::new(", dedup_by = 'id', dedup_epochs = 9", records).await;
        let before = world.open(position(0, 0)).await.expect("opens").next(ALL).await.expect("reads");
        let step = world.land().await;
        let refused = usize::from(opened != first);
        assert_eq!(rows(&step.rows), if refused == 0 { vec![(0, 0), (2, 3), (4, first)] } else { vec![(0, 0), (2, 3)] });
        assert_eq!((step.cuts.len(), step.to), (3 - refused, position(7, opened + 1)));
        assert_eq!(step.cuts.last(), Some(&(Epoch(opened + 1), Offset(6))), "the epoch goes on from where it was");
        let undecodable: Vec<_> = step.undecodable.iter().map(|it| (it.offset.0, it.append_time_ms, it.raw.len())).collect();
        assert_eq!(undecodable, [(3, 1_000, 0)][..refused]);
        for Undecodable { violation, .. } in &step.undecodable {
            assert_eq!(violation.code, "out_of_range");
            let what = format!("cut {first}, which is more than CUT_GAP_MAX (100000) above epoch 3");
            assert!(violation.detail.contains(&what), "{violation}");
        }
        assert_eq!((before.to, before.cuts), (step.to, step.cuts), "whoever reads it decides alike");
    }
}

#[test]
fn the_effect_of_a_cut_is_decided_by_its_number_and_the_epoch() {
    let effect = |cut, epoch| CutEffect::of(Epoch(cut), Epoch(epoch));
    for epoch in [0, 1, 7, u64::MAX - CUT_GAP_MAX - 1] {
        assert_eq!((effect(epoch, epoch), effect(0, epoch)), (CutEffect::Nothing, CutEffect::Nothing));
        assert_eq!((effect(epoch + 1, epoch), effect(epoch + CUT_GAP_MAX, epoch)), (CutEffect::Opens, CutEffect::Opens));
        assert_eq!((effect(epoch + CUT_GAP_MAX + 1, epoch), effect(u64::MAX, epoch)), (CutEffect::Refused, CutEffect::Refused));
    }
    assert_eq!(effect(u64::MAX, u64::MAX - 1), CutEffect::Opens);
}

#[tokio::test]
async fn the_highest_event_time_is_that_of_kept_events() {
    let at = |id: &str, ts: &str| RecordBody::Event(Bytes::from(format!(r#"{{"id":"{id}","ts":"1970-01-01T00:00:{ts}Z"}}"#)));
    let world = World::new(", dedup_by = 'id'", vec![at("a", "02"), at("b", "05"), at("c", "03"), at("a", "09")]).await;
    assert_eq!(world.land().await.event_time_max_us, Some(5_000_000), "the duplicate's does not count");
    world.log.trim(&world.stream.name, P0, Offset(4)).await.expect("trims");
    let step = world.open(position(0, 0)).await.expect("opens").next(ALL).await.expect("reads");
    assert_eq!((step.event_time_max_us, step.rows.num_rows()), (Some(5_000_000), 3), "nor does it in the master dataset");
}

#[tokio::test]
async fn where_the_log_was_trimmed_the_master_dataset_is_read_in_bounded_steps() {
    let records: Vec<_> = (0..50).flat_map(|n| [event(&n.to_string()), event(&n.to_string())]).collect();
    let world = World::new(", dedup_by = 'id'", records).await;
    world.land().await;
    world.append(vec![cut(1), event("40"), event("new")]).await;
    world.log.trim(&world.stream.name, P0, Offset(100)).await.expect("trims");

    let mut reader = world.open(position(7, 0)).await.expect("opens");
    let limit = ReadLimit { records: 10, ..ALL };
    let mut seen = Vec::new();
    let mut steps = 0;
    while reader.position().offset < Offset(100) {
        let from = reader.position();
        let step = reader.next(limit).await.expect("reads");
        assert_eq!((step.from, step.to), (from, reader.position()));
        assert!((1..=10).contains(&step.rows.num_rows()), "{step:?}");
        seen.extend(rows(&step.rows));
        steps += 1;
    }
    assert_eq!(seen, (4..50).map(|n| (n * 2, 0)).collect::<Vec<_>>());
    assert_eq!((steps, reader.position()), (5, position(100, 0)), "the last step ends where landing stands");
    assert_eq!(world.master.rows_asked(), 1, "the stream stays open between steps");
    let step = reader.next(ALL).await.expect("the log goes on");
    assert_eq!((rows(&step.rows), step.duplicates), (vec![(102, 1)], 1), "ids of the master dataset's rows count");

    let few_bytes = ReadLimit { bytes: 1, ..ALL };
    let step = world.open(position(0, 0)).await.expect("opens").next(few_bytes).await.expect("reads");
    assert_eq!(step.rows.num_rows(), 1, "never fewer than one");
}

#[tokio::test]
async fn c3_c7_what_has_landed_is_not_decoded_again() {
    // The producer sent the column `extra` before the stream had it; the second event landed after the column was added.
    let text = |id: &str| Bytes::from(format!(r#"{{"id":"{id}","ts":0,"extra":"of {id}"}}"#));
    let sent = ["a", "b", "c"].map(|id| RecordBody::Event(text(id)));
    for options in ["", ", dedup_by = 'id'"] {
        let mut world = World::new(options, [sent.as_slice(), &[bad(), event("a")]].concat()).await;
        world.stream = stream_with("events", ", extra VARCHAR", options);
        let mut decoder = EventDecoder::new(world.stream.clone());
        for (offset, text) in [Bytes::from_static(br#"{"id":"a","ts":0}"#), text("b")].iter().enumerate() {
            decoder.decode(text).expect("valid");
            let offset = Offset(offset as u64);
            decoder.keep(RowPosition { partition: P0, offset, epoch: Epoch(0), append_time_ms: 1_000 });
        }
        world.master.land(decoder.finish(), position(2, 0));
        let mut reader = world.open(position(0, 0)).await.expect("opens");
        let landed = reader.next(ALL).await.expect("reads");
        let extra = |step: &ReadStep| {
            let extra = step.rows.column_by_name("extra").expect("is there").as_string::<i32>();
            extra.iter().map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
        };
        assert_eq!(extra(&landed), [None, Some("of b".to_owned())], "as it landed, not as it would decode now");
        assert_eq!((landed.to, world.master.rows_asked()), (position(2, 0), 1));
        let rest = reader.next(ALL).await.expect("the log goes on");
        assert_eq!((rest.from, rest.to, rest.undecodable.len()), (position(2, 0), position(5, 0), 1));
        assert_eq!(extra(&rest)[0], Some("of c".to_owned()));
        assert_eq!(rest.duplicates, u64::from(!options.is_empty()), "the ids of landed rows count");
        // From the landed position on, as landing opens its readers, it is the log alone.
        world.open(position(2, 0)).await.expect("opens").next(ALL).await.expect("reads");
        assert_eq!(world.master.rows_asked(), 1);
    }
}

#[tokio::test]
async fn what_neither_log_nor_master_dataset_has_is_an_error() {
    let world = World::new(", dedup_by = 'id'", (0..10).map(|n| event(&n.to_string())).collect()).await;
    let mut reader = world.open(position(0, 0)).await.expect("opens");
    world.log.trim(&world.stream.name, P0, Offset(6)).await.expect("trims");
    for _ in 0..2 {
        let lost = reader.next(ALL).await;
        assert!(matches!(lost, Err(LogError::OutOfRange { wanted: Offset(0), start: Offset(6), .. })), "{lost:?}");
        assert_eq!(reader.position(), position(0, 0));
    }
    let unreadable = world.open(position(8, 0)).await;
    assert!(matches!(unreadable, Err(LogError::OutOfRange { .. })), "the ids of 0 to 5 are not known: {unreadable:?}");
    world.master.land(RecordBatch::new_empty(world.stream.row_schema().clone()), position(6, 0));
    assert_eq!(reader.next(ALL).await.expect("landing has passed it").to, position(6, 0));
    let beyond = world.open(position(11, 0)).await;
    assert!(matches!(beyond, Err(LogError::OutOfRange { wanted: Offset(11), end: Offset(10), .. })), "{beyond:?}");
    let name = Name::new("other").expect("valid");
    assert_eq!(world.log.partitions(&name).await.expect("counts"), 0);
}

#[tokio::test]
async fn what_was_lost_is_passed_over_once_that_is_accepted_and_the_epoch_behind_it_is_new() {
    // 0 and 1 land; 2 to 4 are lost, a cut among them; behind them a cut that was sent again, a lost id, and a new cut.
    let records =
        ["a", "b", "c"].map(event).into_iter().chain([cut(4), event("d"), cut(3), event("c"), event("b"), cut(6), event("e")]);
    let world = World::new(", dedup_by = 'id', dedup_epochs = 9", records.collect()).await;
    let landed = world.open(position(0, 0)).await.expect("opens").next(ReadLimit { records: 2, ..ALL }).await.expect("reads");
    world.master.land(landed.rows, landed.to);
    let mut before = world.open(position(1, 0)).await.expect("opens");
    world.log.trim(&world.stream.name, P0, Offset(5)).await.expect("trims");
    let mut inside = world.open(position(2, 0)).await.expect("opens");
    for reader in [&mut before, &mut inside] {
        while reader.position().offset < Offset(2) {
            assert!(reader.next(ALL).await.expect("what has landed").losses.is_empty());
        }
        for _ in 0..2 {
            let refused = reader.next(ALL).await;
            assert!(matches!(refused, Err(LogError::OutOfRange { wanted: Offset(2), start: Offset(5), .. })), "{refused:?}");
        }
    }
    let loss = world.master.accept_loss(Offset(5), Epoch(5));
    let opened = world.open(position(0, 0)).await.expect("opens");
    for (mut reader, passed) in [(before, 0), (inside, 0), (opened, 2)] {
        let step = reader.next(ALL).await.expect("passes over it");
        assert_eq!((rows(&step.rows).len(), step.losses, step.to), (passed, vec![loss], position(5, 5)));
        let step = reader.next(ALL).await.expect("the log goes on");
        assert_eq!(rows(&step.rows), [(6, 5), (9, 6)], "the lost id is new, and the cut that was sent again opens nothing");
        assert_eq!((step.duplicates, step.losses.len(), step.cuts), (1, 0, vec![(Epoch(6), Offset(9))]));
    }
    // Whoever begins behind it has nothing to pass over.
    let step = world.open(position(5, 5)).await.expect("opens").next(ALL).await.expect("reads");
    assert_eq!((rows(&step.rows).len(), step.losses.len()), (2, 0));
    for (offset, lost) in [(0, 0), (2, 0), (3, 3), (5, 3), (9, 3)] {
        assert_eq!(Loss::before(&[loss], Offset(offset)), lost, "before {offset}");
    }
}

#[tokio::test]
async fn a_step_that_failed_can_be_taken_again() {
    let world = World::new(", dedup_by = 'id'", (0..30).map(|n| event(&n.to_string())).collect()).await;
    world.land().await;
    world.log.trim(&world.stream.name, P0, Offset(30)).await.expect("trims");
    world.master.chunk_rows(5);
    let mut reader = world.open(position(0, 0)).await.expect("opens");
    let limit = ReadLimit { records: 4, ..ALL };
    let mut seen = rows(&reader.next(limit).await.expect("reads").rows);
    world.master.fail_after(0);
    let before = reader.position();
    // The rest of a batch that was read ahead may still come.
    let failure = loop {
        match reader.next(limit).await {
            Ok(step) => seen.extend(rows(&step.rows)),
            Err(error) => break error,
        }
    };
    assert!(matches!(failure, LogError::History(_)) && reader.position().offset >= before.offset);
    while reader.position() != position(30, 0) {
        seen.extend(rows(&reader.next(limit).await.expect("works again").rows));
    }
    assert_eq!(seen, (0..30).map(|n| (n, 0)).collect::<Vec<_>>());
}

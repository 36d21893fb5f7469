//! Random logs, split at random positions: whoever reads, from wherever, keeps what the model keeps.

use std::collections::HashMap;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;

const SEEDS: u64 = 150;
const SPLITS: usize = 12;

#[derive(Debug, Clone)]
enum Given {
    Cut(u64),
    Event(Option<u32>),
    Bad,
}

/// What the log's records mean, by the rules as they are written in `design.md`.
#[derive(Debug, Default)]
struct Model {
    /// The epoch in front of each record, and at the end.
    epochs: Vec<u64>,
    kept: Vec<(u64, u64)>,
    duplicates: Vec<u64>,
    bad: Vec<u64>,
    cuts: Vec<(Epoch, Offset)>,
}

fn model(records: &[Given], first_epoch: u64, dedup_epochs: u64) -> Model {
    let mut model = Model { epochs: vec![first_epoch], ..Model::default() };
    let mut kept = HashMap::new();
    for (offset, record) in (0..).zip(records) {
        let mut epoch = model.epochs[model.epochs.len() - 1];
        match record {
            Given::Cut(cut) if *cut > epoch => {
                epoch = *cut;
                model.cuts.push((Epoch(epoch), Offset(offset + 1)));
            }
            Given::Cut(_) => {}
            Given::Bad => model.bad.push(offset),
            Given::Event(Some(id)) if kept.get(id).is_some_and(|before| before + dedup_epochs >= epoch) => {
                model.duplicates.push(offset)
            }
            Given::Event(id) => {
                id.map(|id| kept.insert(id, epoch));
                model.kept.push((offset, epoch));
            }
        }
        model.epochs.push(epoch);
    }
    model
}

impl Model {
    fn at(&self, offset: u64) -> ReaderPosition {
        position(offset, self.epochs[usize::try_from(offset).expect("small")])
    }
}

fn records(random: &mut StdRng) -> Vec<Given> {
    let ids = random.random_range(1..40);
    let mut cuts = random.random_range(0..4);
    (0..random.random_range(0..160))
        .map(|_| match random.random_range(0..100) {
            0..4 => {
                cuts += random.random_range(1..3);
                Given::Cut(cuts)
            }
            4..8 => Given::Cut(random.random_range(0..=cuts)),
            8..11 => Given::Bad,
            11..15 => Given::Event(None),
            _ => Given::Event(Some(random.random_range(0..ids))),
        })
        .collect()
}

fn body(record: &Given) -> RecordBody {
    match record {
        Given::Cut(number) => cut(*number),
        Given::Bad => bad(),
        Given::Event(Some(id)) => event(&id.to_string()),
        Given::Event(None) => RecordBody::Event(Bytes::from_static(b"{\"ts\":0}")),
    }
}

/// A stream in a log of its own world, with what the model says about it.
struct Case<'a> {
    log: &'a Arc<EmbeddedLog>,
    stream: Arc<Stream>,
    model: Model,
    /// All rows that the model keeps.
    landed: RecordBatch,
    context: String,
}

impl Case<'_> {
    /// A master dataset that landing has filled up to an offset.
    fn master(&self, landed: u64, random: &mut StdRng) -> Master {
        let master = Master::new(self.model.at(0));
        let count = self.model.kept.iter().filter(|(offset, _)| *offset < landed).count();
        master.land(self.landed.slice(0, count), self.model.at(landed));
        master.chunk_rows(random.random_range(1..20));
        master
    }

    /// Reads from `start` to the end, with readers that are closed and opened again, while landing goes on.
    async fn check(&self, start: u64, landed: u64, trimmed: u64, random: &mut StdRng) {
        let context = format!("{} start {start}, landed {landed}, trimmed {trimmed}", self.context);
        let end = self.model.epochs.len() as u64 - 1;
        let mut landed = landed;
        let mut master = self.master(landed, random);
        let mut at = self.model.at(start);
        let (mut kept, mut failures) = (Vec::new(), 0);
        let mut reader = None;
        while at.offset.0 < end {
            if reader.is_none() || random.random_ratio(1, 6) {
                landed = random.random_range(landed..=end);
                master = self.master(landed, random);
                let opened = EpochReader::open(self.log.clone(), Arc::new(master.clone()), self.stream.clone(), P0, at).await;
                reader = Some(opened.unwrap_or_else(|error| panic!("{context}: {error}")));
            }
            if random.random_ratio(1, 10) {
                master.fail_after(random.random_range(0..3));
            }
            let reader = reader.as_mut().expect("opened");
            let limit = ReadLimit { records: random.random_range(1..30), ..ALL };
            match reader.next(limit).await {
                Ok(step) => {
                    assert_eq!((step.from, reader.position()), (at, step.to), "{context}");
                    assert!(step.to.offset > at.offset && step.rows.num_rows() <= limit.records, "{context}: {step:?}");
                    self.check_left_out(&step, landed, &context);
                    at = step.to;
                    kept.extend(rows(&step.rows));
                }
                Err(LogError::History(_)) if failures < 100 => failures += 1,
                Err(error) => panic!("{context}: {error}"),
            }
            assert_eq!((at, reader.position()), (self.model.at(at.offset.0), at), "{context}: the epoch of a position");
        }
        let expected: Vec<_> = self.model.kept.iter().copied().filter(|(offset, _)| *offset >= start).collect();
        assert_eq!(kept, expected, "{context}");
    }

    /// What a step says of records that are no rows: everything where it read the log, nothing where it read what had landed.
    fn check_left_out(&self, step: &ReadStep, landed: u64, context: &str) {
        let (from, to) = (step.from.offset.0, step.to.offset.0);
        let of_log = from >= landed;
        assert!(of_log || to <= landed, "{context}: no step reads both: {step:?}");
        let inside = |offset: u64| of_log && (from..to).contains(&offset);
        let expected = |offsets: &[u64]| offsets.iter().copied().filter(|offset| inside(*offset)).collect::<Vec<_>>();
        assert_eq!(step.duplicates, expected(&self.model.duplicates).len() as u64, "{context}: {step:?}");
        let undecodable: Vec<_> = step.undecodable.iter().map(|it| it.offset.0).collect();
        assert_eq!(undecodable, expected(&self.model.bad), "{context}");
        let cuts: Vec<_> = self.model.cuts.iter().copied().filter(|(_, behind)| inside(behind.0 - 1)).collect();
        assert_eq!(step.cuts, cuts, "{context}");
    }
}

/// The rows that the model keeps, straight from the decoder.
fn landed_rows(stream: &Arc<Stream>, records: &[Given], model: &Model) -> RecordBatch {
    let mut decoder = EventDecoder::new(stream.clone());
    for (offset, epoch) in &model.kept {
        let RecordBody::Event(text) = body(&records[usize::try_from(*offset).expect("small")]) else { panic!("a cut was kept") };
        decoder.decode(&text).expect("valid");
        decoder.keep(RowPosition { partition: P0, offset: Offset(*offset), epoch: Epoch(*epoch), append_time_ms: 1_000 });
    }
    decoder.finish()
}

#[tokio::test]
async fn every_reader_keeps_what_the_model_keeps() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = Arc::new(EmbeddedLog::open(directory.path(), Arc::new(ManualClock::new(1_000))).expect("opens"));
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let dedup_epochs = *[1, 1, 2, 3, 10].choose(&mut random).expect("one");
        let stream = stream(&format!("events_{seed}"), &format!(", dedup_by = 'id', dedup_epochs = {dedup_epochs}"));
        let records = records(&mut random);
        let model = model(&records, random.random_range(0..3), dedup_epochs);
        let landed = landed_rows(&stream, &records, &model);
        log.create(&stream.name, 1).await.expect("creates");
        log.append(&stream.name, records.iter().map(|record| (P0, body(record))).collect()).await.expect("appends");
        let case = Case { log: &log, stream, model, landed, context: format!("seed {seed}, dedup_epochs {dedup_epochs},") };
        let end = records.len() as u64;
        let mut trimmed = 0;
        for _ in 0..SPLITS {
            let start = random.random_range(0..=end);
            let landed = random.random_range(trimmed..=end);
            if random.random_ratio(1, 4) {
                // Retention never goes beyond landing.
                trimmed = random.random_range(trimmed..=landed);
                log.trim(&case.stream.name, P0, Offset(trimmed)).await.expect("trims");
            }
            case.check(start, landed, trimmed, &mut random).await;
        }
    }
}

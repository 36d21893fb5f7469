//! Only what is old and has landed goes, and nobody misses it.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use riomar_event_log::{EpochReader, Membership, ReadRecords};
use riomar_schemas::{
    ReaderPosition,
    record::{Record, RecordBody},
};

use super::*;
use crate::{
    BatchConfig, BatchLayer,
    testing::{Fixture, event, land_all, memory},
};

const HOUR_MS: i64 = 3_600_000;

#[test]
fn decisions() {
    let cases = [
        ((0, 10, 10), Decision::TrimBelow(Offset(10))),
        ((0, 10, 4), Decision::TrimBelow(Offset(4))),
        ((0, 4, 10), Decision::TrimBelow(Offset(4))),
        ((4, 4, 10), Decision::Keep),
        ((4, 10, 4), Decision::Keep),
        // Landing that lags behind what was let go of by hand.
        ((7, 4, 7), Decision::Keep),
    ];
    for ((start, landed, young), expected) in cases {
        let observed = Observed { start: Offset(start), landed: Offset(landed), young: Offset(young) };
        assert_eq!(decide(&observed), expected, "{observed:?}");
    }
}

/// A log that only counts its reads and has records at some offsets, as a compacted topic does.
#[derive(Debug)]
struct Sparse {
    append_times_ms: BTreeMap<u64, i64>,
    reads: std::sync::atomic::AtomicU64,
}

#[async_trait]
impl Log for Sparse {
    async fn create(&self, _: &Name, _: u32) -> Result<(), LogError> {
        Ok(())
    }

    async fn append(&self, _: &Name, _: Vec<(PartitionId, RecordBody)>) -> Result<Vec<Offset>, LogError> {
        Ok(Vec::new())
    }

    async fn read(&self, _: &Name, _: PartitionId, from: Offset, limit: ReadLimit) -> Result<ReadRecords, LogError> {
        self.reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let record = |(offset, time): (&u64, &i64)| Record {
            offset: Offset(*offset),
            append_time_ms: *time,
            body: RecordBody::Cut(riomar_schemas::Epoch(0)),
        };
        let records: Vec<_> = self.append_times_ms.range(from.0..).take(limit.records).map(record).collect();
        Ok(ReadRecords { next: records.last().map_or(from, |last| last.offset.next()), records })
    }

    async fn bounds(&self, _: &Name, _: PartitionId) -> Result<PartitionBounds, LogError> {
        Ok(PartitionBounds { start: Offset(0), end: Offset(0) })
    }

    async fn partitions(&self, _: &Name) -> Result<u32, LogError> {
        Ok(1)
    }

    async fn trim(&self, _: &Name, _: PartitionId, _: Offset) -> Result<(), LogError> {
        Ok(())
    }

    async fn join(&self, _: &str, _: &[Name]) -> Result<Membership, LogError> {
        Err(LogError::Unavailable("nobody joins here".to_owned()))
    }
}

#[tokio::test]
async fn finds_the_first_young_record_in_few_reads() {
    let name = Name::new("s").expect("a name");
    for step in [1, 3] {
        let append_times_ms = (0..10_000).step_by(step).map(|offset: u64| (offset, (offset / 10).cast_signed())).collect();
        let log = Sparse { append_times_ms, reads: 0.into() };
        for oldest_ms in [-1, 0, 1, 2, 500, 998, 999, 1_000, 5_000] {
            for (start, end) in [(0, 10_000), (4_321, 10_000), (0, 4_321), (7, 8), (7, 7)] {
                let within = PartitionBounds { start: Offset(start), end: Offset(end) };
                log.reads.store(0, std::sync::atomic::Ordering::SeqCst);
                let found = first_young(&log, &name, PartitionId(0), within, oldest_ms).await.expect("reads");
                let old = |offset: u64| log.append_times_ms.get(&offset).is_some_and(|time| *time < oldest_ms);
                let young = |offset: u64| log.append_times_ms.get(&offset).is_some_and(|time| *time >= oldest_ms);
                assert!(found.0 >= start && found.0 <= end, "{found} of {start}..{end}");
                assert!(!(found.0..end).any(old) && !(start..found.0).any(young), "{found} of {start}..{end} at {oldest_ms}");
                assert!(log.reads.load(std::sync::atomic::Ordering::SeqCst) <= 16);
            }
        }
    }
}

async fn start(fixture: &Fixture, partition: u32) -> u64 {
    fixture.log.bounds(&fixture.stream().name, PartitionId(partition)).await.expect("bounds").start.0
}

fn layer(fixture: &Fixture) -> BatchLayer {
    fixture.layer_with(memory(), BatchConfig { log_retain_ms: 24 * HOUR_MS, target_partitions: 2, ..BatchConfig::default() })
}

#[tokio::test]
async fn nothing_goes_that_is_young_or_has_not_landed() {
    let fixture = Fixture::new().await;
    let layer = layer(&fixture);
    let stream = fixture.stream();
    let mut landing = layer.landing(&stream).expect("known");
    let maintain = async || {
        layer.maintain(&stream.name).await.expect("maintains");
        (start(&fixture, 0).await, start(&fixture, 1).await)
    };
    fixture.append_events(0..20).await;
    land_all(&mut landing).await;
    assert_eq!(maintain().await, (0, 0), "young");
    fixture.clock.advance(23 * HOUR_MS);
    fixture.append_events(20..40).await;
    land_all(&mut landing).await;
    assert_eq!(maintain().await, (0, 0), "young");
    fixture.clock.advance(HOUR_MS + 1);
    assert_eq!(maintain().await, (10, 10), "the first half is old");
    fixture.append_events(40..50).await;
    fixture.clock.advance(100 * HOUR_MS);
    assert_eq!(maintain().await, (20, 20), "the rest is old, but has not landed");
    fixture.clock.advance(100 * HOUR_MS);
    assert_eq!(maintain().await, (20, 20), "however old");
    land_all(&mut landing).await;
    assert_eq!(maintain().await, (25, 25), "the log is empty now");
    fixture.append_events(50..52).await;
    land_all(&mut landing).await;
    assert_eq!(layer.account(&stream.name).await.expect("an account").partitions[&PartitionId(0)].position.offset, Offset(26));
}

#[tokio::test]
async fn readers_go_on_from_the_master_dataset() {
    let fixture = Fixture::new().await;
    let layer = layer(&fixture);
    let stream = fixture.stream();
    fixture.append_events(0..60).await;
    fixture.append_cut(1).await;
    fixture.append_events(60..80).await;
    land_all(&mut layer.landing(&stream).expect("known")).await;
    fixture.clock.advance(25 * HOUR_MS);
    // The last events of both partitions are neither old nor landed.
    fixture.append_events(80..90).await;
    let read = async |position: ReaderPosition| {
        let log: Arc<dyn Log> = fixture.log.clone();
        let reader = EpochReader::open(log, layer.history(), stream.clone(), PartitionId(0), position).await;
        let mut reader = reader.expect("opens");
        let mut rows = Vec::new();
        loop {
            let step = reader.next(ReadLimit { records: 7, bytes: 1 << 20, wait: Duration::ZERO }).await.expect("reads");
            if step.from == step.to {
                return (rows, step.to);
            }
            // Batches are cut differently, so rows are compared as text.
            let formatter = arrow::util::display::FormatOptions::default();
            for row in 0..step.rows.num_rows() {
                let columns = step.rows.columns().iter();
                let text = columns.map(|column| {
                    let formatter = arrow::util::display::ArrayFormatter::try_new(column, &formatter).expect("a formatter");
                    formatter.value(row).to_string()
                });
                rows.push(text.collect::<Vec<_>>());
            }
        }
    };
    let positions = [(0, 0), (13, 0), (31, 1), (36, 1)];
    let positions =
        positions.map(|(offset, epoch)| ReaderPosition { offset: Offset(offset), epoch: riomar_schemas::Epoch(epoch) });
    let mut before = Vec::new();
    for position in positions {
        before.push(read(position).await);
    }
    layer.maintain(&stream.name).await.expect("maintains");
    assert_eq!(start(&fixture, 0).await, 41, "30 events, a cut, 10 events");
    for (position, before) in positions.into_iter().zip(before) {
        assert!(!before.0.is_empty());
        assert_eq!(read(position).await, before, "from {position:?}");
    }
    // A duplicate of what is gone is still one.
    fixture.append(0, RecordBody::Event(event(62))).await;
    land_all(&mut layer.landing(&stream).expect("known")).await;
    let duplicates = layer.account(&stream.name).await.expect("an account").duplicates;
    fixture.append(0, RecordBody::Event(event(62))).await;
    land_all(&mut layer.landing(&stream).expect("known")).await;
    assert_eq!(layer.account(&stream.name).await.expect("an account").duplicates, duplicates + 1);
}

#[tokio::test]
async fn a_partition_that_cannot_be_read_is_left_as_it_is() {
    let fixture = Fixture::new().await;
    let layer = layer(&fixture);
    let stream = fixture.stream();
    fixture.append_events(0..20).await;
    land_all(&mut layer.landing(&stream).expect("known")).await;
    fixture.clock.advance(25 * HOUR_MS);
    let master = layer.master(&stream.name).expect("known");
    let failing = Failing { inner: fixture.log.clone(), partition: PartitionId(0) };
    let trimmed = trim(layer.context(), &failing, master, 24 * HOUR_MS).await.expect("goes on");
    assert_eq!((trimmed, start(&fixture, 0).await, start(&fixture, 1).await), (10, 0, 10));
}

/// A log in which one partition cannot be read.
#[derive(Debug)]
struct Failing {
    inner: Arc<dyn Log>,
    partition: PartitionId,
}

#[async_trait]
impl Log for Failing {
    async fn create(&self, stream: &Name, partitions: u32) -> Result<(), LogError> {
        self.inner.create(stream, partitions).await
    }

    async fn append(&self, stream: &Name, records: Vec<(PartitionId, RecordBody)>) -> Result<Vec<Offset>, LogError> {
        self.inner.append(stream, records).await
    }

    async fn read(&self, stream: &Name, partition: PartitionId, from: Offset, limit: ReadLimit) -> Result<ReadRecords, LogError> {
        if partition == self.partition {
            return Err(LogError::Unavailable("injected".to_owned()));
        }
        self.inner.read(stream, partition, from, limit).await
    }

    async fn bounds(&self, stream: &Name, partition: PartitionId) -> Result<PartitionBounds, LogError> {
        self.inner.bounds(stream, partition).await
    }

    async fn partitions(&self, stream: &Name) -> Result<u32, LogError> {
        self.inner.partitions(stream).await
    }

    async fn trim(&self, stream: &Name, partition: PartitionId, below: Offset) -> Result<(), LogError> {
        self.inner.trim(stream, partition, below).await
    }

    async fn join(&self, group: &str, streams: &[Name]) -> Result<Membership, LogError> {
        self.inner.join(group, streams).await
    }
}

//! What every log must do, as a module that the tests of each implementation call.
//!
//! A check panics where a log falls short. `make` gives a log for each check: a new one, or one that has none of the streams that
//! [`all`] creates. The log's clock must be the machine's, or waits never end.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use riomar_schemas::{
    Epoch, Name, Offset, PartitionId,
    limits::EVENT_BYTES_MAX,
    record::{Record, RecordBody},
};

use crate::{
    error::LogError,
    log::{Log, PartitionBounds, ReadLimit},
    membership::{Membership, Share},
};

/// How long a check waits for what must happen at once.
const DEADLINE: Duration = Duration::from_secs(30);
const P0: PartitionId = PartitionId(0);
const P1: PartitionId = PartitionId(1);
/// A read that does not wait, and is not cut short either.
const ALL: ReadLimit = ReadLimit { records: 1 << 20, bytes: 1 << 30, wait: Duration::ZERO };

/// Runs every check.
pub async fn all<Made: Future<Output = Arc<dyn Log>>>(make: impl Fn() -> Made) {
    create_is_idempotent(make().await).await;
    offsets_follow_the_order_of_appends(make().await).await;
    concurrent_appends_leave_no_gaps(make().await).await;
    reads_obey_their_limit(make().await).await;
    offsets_out_of_range_are_refused(make().await).await;
    trim_moves_the_start(make().await).await;
    cuts_and_odd_bytes_come_back(make().await).await;
    large_records_come_back(make().await).await;
    unknown_partitions_are_refused(make().await).await;
    an_append_wakes_a_reader(make().await).await;
    a_wait_ends(make().await).await;
    append_times_never_run_backwards(make().await).await;
    one_member_works_on_every_partition(make().await).await;
    added_partitions_reach_the_members(make().await).await;
}

/// Runs the checks of a log that several processes have open; `make` gives two of them at once, each of its own but the same log.
pub async fn all_shared<Made: Future<Output = [Arc<dyn Log>; 2]>>(make: impl Fn() -> Made) {
    what_one_appends_another_reads(make().await).await;
    members_share_the_partitions(make().await).await;
}

/// Partitions are created once, can become more, and never fewer.
pub async fn create_is_idempotent(log: Arc<dyn Log>) {
    let stream = name("create");
    assert_eq!(log.partitions(&stream).await.expect("counts"), 0);
    log.create(&stream, 2).await.expect("creates");
    append(&*log, &stream, P1, &["kept"]).await;
    for partitions in [2, 1, 0] {
        log.create(&stream, partitions).await.expect("does nothing");
        assert_eq!(log.partitions(&stream).await.expect("counts"), 2);
    }
    log.create(&stream, 3).await.expect("adds one");
    assert_eq!(log.partitions(&stream).await.expect("counts"), 3);
    assert_eq!(texts(&read(&*log, &stream, P1, 0).await), ["kept"]);
    assert_eq!(bounds(&*log, &stream, PartitionId(2)).await, (0, 0));
}

/// The offsets that an append returns are those its records are read at, partition by partition.
pub async fn offsets_follow_the_order_of_appends(log: Arc<dyn Log>) {
    let stream = name("ordered");
    log.create(&stream, 2).await.expect("creates");
    let mixed = [(P0, "a"), (P1, "b"), (P0, "c"), (P1, "d"), (P0, "e")];
    let records = mixed.iter().map(|(partition, text)| (*partition, event(text))).collect();
    let offsets = log.append(&stream, records).await.expect("appends");
    assert_eq!(offsets, [0, 0, 1, 1, 2].map(Offset));
    assert_eq!(append(&*log, &stream, P0, &["f"]).await, [Offset(3)]);
    assert_eq!(log.append(&stream, Vec::new()).await.expect("nothing to do"), []);
    assert_eq!(texts(&read(&*log, &stream, P0, 0).await), ["a", "c", "e", "f"]);
    assert_eq!(texts(&read(&*log, &stream, P1, 0).await), ["b", "d"]);
    assert_eq!(bounds(&*log, &stream, P0).await, (0, 4));
}

/// Appends at the same time get offsets without gaps, and each append's records keep their order.
pub async fn concurrent_appends_leave_no_gaps(log: Arc<dyn Log>) {
    const WRITERS: u64 = 16;
    const APPENDS: u64 = 20;
    let stream = name("concurrent");
    log.create(&stream, 1).await.expect("creates");
    let writers = (0..WRITERS).map(|writer| {
        let (log, stream) = (log.clone(), stream.clone());
        tokio::spawn(async move {
            let mut taken = Vec::new();
            for number in 0..APPENDS {
                let texts = [format!("{writer}:{number}:0"), format!("{writer}:{number}:1")];
                let offsets = append(&*log, &stream, P0, &[&texts[0], &texts[1]]).await;
                taken.extend(offsets.into_iter().zip(texts));
            }
            taken
        })
    });
    let mut acknowledged = Vec::new();
    for writer in futures::future::join_all(writers).await {
        let taken = writer.expect("the writer ends");
        assert!(taken.is_sorted(), "a writer's appends keep their order: {taken:?}");
        acknowledged.extend(taken);
    }
    acknowledged.sort();
    let total = WRITERS * APPENDS * 2;
    assert_eq!(acknowledged.iter().map(|(offset, _)| offset.0).collect::<Vec<_>>(), (0..total).collect::<Vec<_>>());
    let records = read(&*log, &stream, P0, 0).await;
    assert_eq!(texts(&records), acknowledged.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>());
}

/// A read returns no more than it may, never nothing where there is something, and goes on where the last one ended.
pub async fn reads_obey_their_limit(log: Arc<dyn Log>) {
    let stream = name("limits");
    log.create(&stream, 1).await.expect("creates");
    append(&*log, &stream, P0, &["0123456789"; 10]).await;
    for (records, bytes, expected) in
        [(3, 1 << 20, 3), (100, 1 << 20, 10), (100, 30, 3), (100, 39, 3), (100, 1, 1), (1, 0, 1), (0, 100, 0)]
    {
        let limit = ReadLimit { records, bytes, wait: Duration::ZERO };
        let got = log.read(&stream, P0, Offset(0), limit).await.expect("reads");
        assert_eq!(got.len(), expected, "{limit:?}");
    }
    let got = log.read(&stream, P0, Offset(7), ALL).await.expect("reads");
    assert_eq!((got.iter().map(|record| record.offset.0).collect::<Vec<_>>(), got.next), (vec![7, 8, 9], Offset(10)));
    let (mut from, mut offsets) = (Offset(0), Vec::new());
    while offsets.len() < 10 {
        let limit = ReadLimit { records: 100, bytes: 35, wait: Duration::ZERO };
        let step = log.read(&stream, P0, from, limit).await.expect("reads");
        assert!(!step.is_empty() && step.next > from, "{from}: {step:?}");
        offsets.extend(step.iter().map(|record| record.offset.0));
        from = step.next;
    }
    assert_eq!(offsets, (0..10).collect::<Vec<_>>(), "what does not fit comes with the next read");
    assert_eq!(read(&*log, &stream, P0, 10).await, []);
}

/// An offset above the end or below the start is an error that tells both.
pub async fn offsets_out_of_range_are_refused(log: Arc<dyn Log>) {
    let stream = name("ranges");
    log.create(&stream, 1).await.expect("creates");
    append(&*log, &stream, P0, &["a", "b", "c"]).await;
    log.trim(&stream, P0, Offset(2)).await.expect("trims");
    for wanted in [0, 1, 4, u64::MAX] {
        let refused = log.read(&stream, P0, Offset(wanted), ALL).await;
        assert!(
            matches!(refused, Err(LogError::OutOfRange { wanted: at, start: Offset(2), end: Offset(3), .. }) if at.0 == wanted),
            "{wanted}: {refused:?}"
        );
    }
    let limit = ReadLimit { wait: DEADLINE, ..ALL };
    let refused = log.read(&stream, P0, Offset(4), limit).await;
    assert!(matches!(refused, Err(LogError::OutOfRange { .. })), "an offset above the end is not waited for: {refused:?}");
}

/// A trim removes what is below it and nothing else; even of an emptied partition the offsets go on.
pub async fn trim_moves_the_start(log: Arc<dyn Log>) {
    let stream = name("trims");
    log.create(&stream, 2).await.expect("creates");
    append(&*log, &stream, P0, &["a", "b", "c", "d"]).await;
    append(&*log, &stream, P1, &["other"]).await;
    log.trim(&stream, P0, Offset(0)).await.expect("does nothing");
    assert_eq!(bounds(&*log, &stream, P0).await, (0, 4));
    log.trim(&stream, P0, Offset(3)).await.expect("trims");
    assert_eq!(bounds(&*log, &stream, P0).await, (3, 4));
    assert_eq!(texts(&read(&*log, &stream, P0, 3).await), ["d"]);
    log.trim(&stream, P0, Offset(1)).await.expect("never moves back");
    assert_eq!(bounds(&*log, &stream, P0).await, (3, 4));
    assert!(matches!(log.trim(&stream, P0, Offset(5)).await, Err(LogError::OutOfRange { .. })));
    log.trim(&stream, P0, Offset(4)).await.expect("empties");
    assert_eq!(bounds(&*log, &stream, P0).await, (4, 4));
    assert_eq!(read(&*log, &stream, P0, 4).await, []);
    assert_eq!(append(&*log, &stream, P0, &["e"]).await, [Offset(4)]);
    assert_eq!(texts(&read(&*log, &stream, P0, 4).await), ["e"]);
    assert_eq!(texts(&read(&*log, &stream, P1, 0).await), ["other"]);
}

/// Cuts, and events of any bytes, come back as they were appended.
pub async fn cuts_and_odd_bytes_come_back(log: Arc<dyn Log>) {
    let stream = name("bodies");
    log.create(&stream, 1).await.expect("creates");
    let bodies = [
        RecordBody::Cut(Epoch(1)),
        RecordBody::Event(Bytes::new()),
        RecordBody::Event(Bytes::from_static(&[0, 255, 10, 13, 0])),
        RecordBody::Cut(Epoch(u64::MAX)),
        RecordBody::Event(Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 1])),
    ];
    log.append(&stream, bodies.iter().map(|body| (P0, body.clone())).collect()).await.expect("appends");
    let records = read(&*log, &stream, P0, 0).await;
    assert_eq!(records.into_iter().map(|record| record.body).collect::<Vec<_>>(), bodies);
}

/// Events as large as a stream allows come back whole.
pub async fn large_records_come_back(log: Arc<dyn Log>) {
    let stream = name("large");
    log.create(&stream, 1).await.expect("creates");
    let large = [EVENT_BYTES_MAX, EVENT_BYTES_MAX - 1, 70_000].map(|bytes| {
        let text: Vec<u8> = (0..bytes).map(|at| b'a' + u8::try_from((at * 31 + at / 251) % 26).unwrap_or_default()).collect();
        RecordBody::Event(Bytes::from(text))
    });
    log.append(&stream, large.iter().map(|body| (P0, body.clone())).collect()).await.expect("appends");
    let records = read(&*log, &stream, P0, 0).await;
    assert!(records.iter().map(|record| &record.body).eq(&large), "large records differ");
    let limit = ReadLimit { bytes: 1, ..ALL };
    assert_eq!(log.read(&stream, P0, Offset(1), limit).await.expect("reads").len(), 1);
}

/// A stream or partition that is not there is an error, never an empty result.
pub async fn unknown_partitions_are_refused(log: Arc<dyn Log>) {
    let (stream, missing) = (name("known"), name("missing"));
    log.create(&stream, 1).await.expect("creates");
    for (stream, partition) in [(&stream, P1), (&missing, P0)] {
        let unknown = |result: Result<(), LogError>| match result {
            Err(LogError::UnknownPartition { stream: s, partition: p }) => assert_eq!((&s, p), (stream, partition)),
            other => panic!("{stream}/{partition} is not there: {other:?}"),
        };
        unknown(log.append(stream, vec![(P0, event("a")), (partition, event("b"))]).await.map(drop));
        unknown(log.read(stream, partition, Offset(0), ALL).await.map(drop));
        unknown(log.bounds(stream, partition).await.map(drop));
        unknown(log.trim(stream, partition, Offset(0)).await);
    }
    assert_eq!(bounds(&*log, &stream, P0).await, (0, 0), "a refused append leaves nothing");
}

/// A reader at the end is woken by an append to its partition.
pub async fn an_append_wakes_a_reader(log: Arc<dyn Log>) {
    let stream = name("waiting");
    log.create(&stream, 2).await.expect("creates");
    // Far longer than the deadline: who is not woken fails.
    let limit = ReadLimit { wait: DEADLINE * 10, ..ALL };
    let mut reader = log.read(&stream, P0, Offset(0), limit);
    assert!(futures::poll!(&mut reader).is_pending());
    append(&*log, &stream, P1, &["elsewhere"]).await;
    append(&*log, &stream, P0, &["here"]).await;
    let records = tokio::time::timeout(DEADLINE, reader).await.expect("the reader is woken").expect("reads");
    assert_eq!(texts(&records), ["here"]);
}

/// A reader at the end gets nothing when its wait is over.
pub async fn a_wait_ends(log: Arc<dyn Log>) {
    let stream = name("patience");
    log.create(&stream, 1).await.expect("creates");
    let limit = ReadLimit { wait: Duration::from_millis(20), ..ALL };
    let read = log.read(&stream, P0, Offset(0), limit);
    assert_eq!(tokio::time::timeout(DEADLINE, read).await.expect("the wait ends").expect("reads").records, []);
}

/// Within a partition a later record never has an earlier append time.
pub async fn append_times_never_run_backwards(log: Arc<dyn Log>) {
    let stream = name("times");
    log.create(&stream, 1).await.expect("creates");
    for _ in 0..5 {
        append(&*log, &stream, P0, &["a", "b"]).await;
    }
    let times: Vec<_> = read(&*log, &stream, P0, 0).await.iter().map(|record| record.append_time_ms).collect();
    assert!(times.is_sorted() && times[0] > 0, "{times:?}");
}

/// Who is alone in a group works on all partitions of its streams, and on none of other streams.
pub async fn one_member_works_on_every_partition(log: Arc<dyn Log>) {
    let streams = [name("joined_a"), name("joined_b")];
    log.create(&streams[0], 3).await.expect("creates");
    log.create(&streams[1], 1).await.expect("creates");
    log.create(&name("not_joined"), 1).await.expect("creates");
    let expected = share(&[(&streams[0], 3), (&streams[1], 1)]);
    let mut member = log.join("conformance", &streams).await.expect("joins");
    settles(&mut member, &expected).await;
    // Another group is another division.
    let mut other = log.join("conformance_other", &streams[..1]).await.expect("joins");
    settles(&mut other, &share(&[(&streams[0], 3)])).await;
    assert_eq!(member.share(), expected);
    assert_eq!(log.join("conformance_idle", &[]).await.expect("joins").share(), Share::new());
}

/// Partitions that are added, and streams that are created, come to those who have joined.
pub async fn added_partitions_reach_the_members(log: Arc<dyn Log>) {
    let (stream, later) = (name("growing"), name("later"));
    log.create(&stream, 1).await.expect("creates");
    let mut member = log.join("conformance", &[stream.clone(), later.clone()]).await.expect("joins");
    settles(&mut member, &share(&[(&stream, 1)])).await;
    log.create(&stream, 3).await.expect("adds");
    settles(&mut member, &share(&[(&stream, 3)])).await;
    log.create(&later, 2).await.expect("creates");
    settles(&mut member, &share(&[(&stream, 3), (&later, 2)])).await;
}

/// What was appended through one is read through another, which was there first.
pub async fn what_one_appends_another_reads([one, another]: [Arc<dyn Log>; 2]) {
    let stream = name("shared");
    one.create(&stream, 1).await.expect("creates");
    another.create(&stream, 1).await.expect("is there");
    assert_eq!(read(&*another, &stream, P0, 0).await, []);
    append(&*one, &stream, P0, &["a"]).await;
    append(&*another, &stream, P0, &["b"]).await;
    for log in [&one, &another] {
        assert_eq!(texts(&read(&**log, &stream, P0, 0).await), ["a", "b"]);
    }
    one.create(&stream, 2).await.expect("adds");
    append(&*another, &stream, P1, &["c"]).await;
    assert_eq!(texts(&read(&*one, &stream, P1, 0).await), ["c"]);
}

/// Members of a group have each partition between them once, and whoever leaves leaves its share to the others.
pub async fn members_share_the_partitions([one, another]: [Arc<dyn Log>; 2]) {
    let stream = name("divided");
    one.create(&stream, 4).await.expect("creates");
    let all = share(&[(&stream, 4)]);
    let mut first = one.join("conformance", std::slice::from_ref(&stream)).await.expect("joins");
    settles(&mut first, &all).await;
    let mut second = another.join("conformance", std::slice::from_ref(&stream)).await.expect("joins");
    let seconds =
        tokio::time::timeout(DEADLINE, second.wait_for(|share| share.len() == 2)).await.expect("gets half").expect("open");
    let rest: Share = all.difference(&seconds).cloned().collect();
    settles(&mut first, &rest).await;
    drop(first);
    settles(&mut second, &all).await;
}

/// So many partitions of these streams.
fn share(streams: &[(&Name, u32)]) -> Share {
    streams.iter().flat_map(|(name, partitions)| (0..*partitions).map(|p| ((*name).clone(), PartitionId(p)))).collect()
}

async fn settles(member: &mut Membership, expected: &Share) {
    let settled = tokio::time::timeout(DEADLINE, member.wait_for(|share| share == expected)).await;
    assert!(settled.is_ok_and(|share| share.is_ok()), "the share is {:?}, expected is {expected:?}", member.share());
}

fn name(text: &str) -> Name {
    Name::new(format!("conformance_{text}")).expect("a valid name")
}

fn event(text: &str) -> RecordBody {
    RecordBody::Event(Bytes::copy_from_slice(text.as_bytes()))
}

async fn append(log: &dyn Log, stream: &Name, partition: PartitionId, texts: &[&str]) -> Vec<Offset> {
    let records = texts.iter().map(|text| (partition, event(text))).collect();
    log.append(stream, records).await.expect("appends")
}

async fn read(log: &dyn Log, stream: &Name, partition: PartitionId, from: u64) -> Vec<Record> {
    log.read(stream, partition, Offset(from), ALL).await.expect("reads").records
}

async fn bounds(log: &dyn Log, stream: &Name, partition: PartitionId) -> (u64, u64) {
    let PartitionBounds { start, end } = log.bounds(stream, partition).await.expect("has bounds");
    (start.0, end.0)
}

fn texts(records: &[Record]) -> Vec<&str> {
    let text = |record| match record {
        &Record { body: RecordBody::Event(ref text), .. } => str::from_utf8(text).expect("text was appended"),
        cut => panic!("only events were appended, but there is {cut:?}"),
    };
    records.iter().map(text).collect()
}

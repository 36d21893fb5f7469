//! C6: realtime views that are rebuilt after a restart. Until they are as whole as the log was then, answers say that they are not.

use riomar_tests::{
    answer::Answer,
    harness::{Harness, Who},
    realtime::Realtime,
};

const SQL: &str = "
CREATE TABLE notes (event_id BIGINT NOT NULL, ts TIMESTAMP NOT NULL, note VARCHAR)
  WITH (event_time = 'ts', dedup_by = 'event_id', partitions = 1);
CREATE MATERIALIZED VIEW notes_by_day AS
  SELECT window_start, count(*) AS notes FROM TUMBLE(notes, ts, INTERVAL '1 day') GROUP BY window_start;
";
/// Events, and the bytes of each: together more than the speed layer takes in one step.
const EVENTS: u64 = 30;
const NOTE_BYTES: usize = 900_000;

async fn ask(harness: &Harness) -> (u64, Answer) {
    let answer = harness.client().sql("SELECT sum(notes) AS notes FROM notes_by_day").await.answer().expect("an answer");
    let notes = answer.values("notes").first().cloned().flatten();
    (notes.map_or(0, |notes| notes.parse().expect("a number")), answer)
}

#[tokio::test]
async fn c6_after_a_restart_answers_are_marked_until_the_views_are_whole_again() {
    let mut harness = Harness::start(SQL, Realtime::memory()).await;
    let note = "x".repeat(NOTE_BYTES);
    for id in 0..EVENTS {
        let event = format!(r#"{{"event_id":{id},"ts":"2026-11-20T10:00:00Z","note":"{note}"}}"#);
        assert!(harness.client().ingest("notes", event).await.status.is_success());
    }
    harness.settle().await;
    let (notes, answer) = ask(&harness).await;
    assert_eq!((notes, answer.receipt.degraded.len()), (EVENTS, 0), "{:?}", answer.receipt);

    harness.restart().await;
    let mut on_the_way = 0;
    loop {
        let (notes, answer) = ask(&harness).await;
        assert_eq!(answer.through("notes_by_day", 1), [notes], "the answer is what its receipt names");
        let codes: Vec<_> = answer.receipt.degraded.iter().map(|lack| lack.code.as_str()).collect();
        if notes == EVENTS {
            assert!(codes.is_empty(), "{:?}", answer.receipt);
            break;
        }
        assert_eq!(codes, ["realtime_rebuilding"], "{:?}", answer.receipt);
        on_the_way += u32::from(notes > 0);
        harness.speed(Who::First).await.expect("the speed layer works");
    }
    assert!(on_the_way > 1, "the rebuild took more than one step");

    // Whoever is behind for another reason is not being rebuilt: the receipt says how far the answer reaches.
    let event = format!(r#"{{"event_id":{EVENTS},"ts":"2026-11-20T10:00:00Z","note":"late"}}"#);
    assert!(harness.client().ingest("notes", event).await.status.is_success());
    let (notes, answer) = ask(&harness).await;
    assert_eq!((notes, answer.receipt.degraded.len()), (EVENTS, 0), "{:?}", answer.receipt);
}

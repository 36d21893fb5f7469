//! Queries over views and streams as they come over HTTP.

use std::sync::Arc;

use datafusion::execution::memory_pool::MemoryPool;
use riomar_schemas::{
    Epoch, EventDecoder, Offset, PartitionId, ReaderPosition, View,
    decode::RowPosition,
    session::{collect, scan_batches},
    state_codec::encode,
    view::Grain,
};
use riomar_speed_layer::Entry;
use serde_json::{Value, json};

use super::QueryError;
use crate::testing::{Platform, Reply};

const JSON: (&str, &str) = ("content-type", "application/json");
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

async fn sql(platform: &Platform, sql: &str) -> Reply {
    platform.post("/v1/sql", &[JSON], json!({ "sql": sql }).to_string()).await
}

async fn check_rows(platform: &Platform, query: &str, expected: Value) {
    let reply = sql(platform, query).await;
    assert!(reply.status.is_success(), "{query}: {:?}", reply.body);
    assert_eq!(reply.json()["rows"], expected, "{query}");
}

async fn check_refused(platform: &Platform, query: &str, code: &str, detail: &str) {
    let reply = sql(platform, query).await.json();
    assert_eq!(reply["code"], code, "{query}: {reply}");
    assert!(reply["detail"].as_str().expect("text").contains(detail), "{query}: {reply}");
}

/// Traffic of two minutes in a generation: two visitors of `/a` in all, three of `/b`, one of `/c`.
async fn platform() -> Platform {
    let platform = Platform::new().await;
    let visits = [("/a", "x", 0), ("/a", "y", 1), ("/a", "x", 1), ("/b", "x", 0), ("/b", "y", 0), ("/b", "z", 1), ("/c", "x", 1)];
    let event = |(path, visitor, minute): (&str, &str, u32), id: usize| {
        format!(r#"{{"event_id":"{id}","ts":"2026-11-20T10:0{minute}:00Z","path":"{path}","visitor":"{visitor}","status":200}}"#)
    };
    let events: Vec<_> = visits.into_iter().enumerate().map(|(id, visit)| event(visit, id)).collect();
    platform.post("/v1/streams/page_views/events", &[NDJSON], events.join("\n")).await;
    let run = platform.post("/v1/batch/runs", &[JSON], r#"{"views":["traffic"]}"#).await;
    platform.finish_run(run.headers["location"].to_str().expect("text")).await;
    platform
}

#[tokio::test]
async fn merges_stand_where_aggregates_may() {
    let platform = platform().await;
    let by_path = json!([["/b", 3], ["/a", 2], ["/c", 1]]);
    for query in [
        "SELECT path, merge(visitors) FROM traffic GROUP BY path ORDER BY visitors DESC",
        "SELECT path, merge(visitors) AS v FROM traffic GROUP BY path ORDER BY merge(visitors) DESC",
        "SELECT path, merge(t.visitors) AS v FROM traffic AS t GROUP BY path ORDER BY merge(t.visitors) * -1",
        "SELECT * FROM (SELECT path, merge(visitors) AS v FROM traffic GROUP BY path ORDER BY merge(visitors) DESC LIMIT 3) x
         ORDER BY v DESC",
        "SELECT path, merge(visitors) AS v FROM traffic t GROUP BY path
         ORDER BY (SELECT merge(hits) FROM traffic), merge(visitors) DESC",
    ] {
        check_rows(&platform, query, by_path.clone()).await;
    }
    let paths = "SELECT path FROM traffic GROUP BY path";
    check_rows(&platform, &format!("{paths} ORDER BY merge(visitors) DESC LIMIT 1"), json!([["/b"]])).await;
    check_rows(&platform, &format!("{paths} HAVING merge(visitors) = 2"), json!([["/a"]])).await;
    let both = format!("{paths} HAVING merge(visitors) < 3 ORDER BY merge(hits), path");
    check_rows(&platform, &both, json!([["/c"], ["/a"]])).await;
}

#[tokio::test]
async fn merges_stand_nowhere_else() {
    let platform = platform().await;
    for (query, detail) in [
        ("SELECT path FROM traffic WHERE merge(visitors) > 1", "in the SELECT list, in HAVING or in ORDER BY"),
        ("SELECT path FROM traffic UNION SELECT path FROM traffic ORDER BY merge(visitors)", "over a view named in FROM"),
        ("SELECT * FROM traffic ORDER BY merge(visitors)", "not with *"),
        (
            "SELECT path FROM traffic GROUP BY path ORDER BY merge(path)",
            "merge takes a measure of a view; 'traffic' has hits, visitors",
        ),
        ("SELECT path FROM traffic GROUP BY path ORDER BY merge(nothing)", "no view in FROM has that measure"),
    ] {
        check_refused(&platform, query, "invalid_sql", detail).await;
    }
    check_refused(&platform, r#"SELECT merge(visitors) FROM "traffic$states""#, "unknown_table", "there are traffic").await;
}

#[tokio::test]
async fn errors_say_where_and_in_the_words_of_the_query() {
    let platform = platform().await;
    for (query, detail) in [
        ("SELEC 1", "line 1, column 1: Expected: an SQL statement, found: SELEC"),
        ("SELECT 'x", "line 1, column 8: Unterminated string literal"),
        ("SELECT 1 FROM", "Expected: identifier, found: the end of the statement"),
        ("SELECT\n pth FROM traffic", "line 2, column 2: there is no column 'pth': did you mean 'path'?"),
        (
            "SELECT path FROM traffic WHERE nothing = 1",
            "line 1, column 32: there is no column 'nothing': there are window_start, path, status, hits, visitors",
        ),
        // Nothing of the states that it reads shows.
        (
            "SELECT merge(visitors) FROM traffic WHERE nothing = 1",
            "line 1, column 43: there is no column 'nothing': there are window_start, path, status, hits, visitors",
        ),
        (
            "SELECT path, merge(visitors) + path AS x FROM traffic GROUP BY path",
            "line 1, column 32: Cannot coerce arithmetic expression BIGINT + VARCHAR to valid types",
        ),
        (
            "SELECT sum(merge(visitors)) FROM traffic",
            "Aggregate function calls cannot be nested: 'merge(visitors)' is nested inside 'sum(merge(visitors))'",
        ),
        (
            "SELECT merge(visitors), hits FROM traffic",
            "line 1, column 25: column \"traffic.hits\" must appear in the GROUP BY clause or must be part of an aggregate function",
        ),
        ("SELECT sum(path) FROM traffic", "sum needs a number, not VARCHAR"),
        ("SELECT lowr(path) FROM traffic", "line 1, column 8: Invalid function 'lowr'. Did you mean 'lower'?"),
        (
            "SELECT path FROM traffic a JOIN traffic b ON a.path = b.path",
            "line 1, column 8: several tables have a column 'path': write table.path",
        ),
    ] {
        let reply = sql(&platform, query).await.json();
        assert_eq!((&reply["code"], reply["detail"].as_str()), (&json!("invalid_sql"), Some(detail)), "{query}");
    }
    check_refused(&platform, "SELECT CAST(path AS INT) FROM traffic", "query_failed", "to value of INT").await;
    check_refused(&platform, "SELECT * FROM nothing", "unknown_table", "there is no view or stream 'nothing'").await;
}

/// Gives the first partition a realtime view of so many groups.
async fn fold(platform: &Platform, view: &Arc<View>, groups: usize) {
    let mut decoder = EventDecoder::new(Arc::clone(view.stream()));
    for group in 0..groups {
        let event =
            format!(r#"{{"event_id":"{group}","ts":"2026-11-20T10:00:00Z","path":"/{group}","visitor":"v","status":200}}"#);
        decoder.decode(event.as_bytes()).expect("a valid event");
        let offset = Offset(group as u64);
        decoder.keep(RowPosition { partition: PartitionId(0), offset, epoch: Epoch(0), append_time_ms: 0 });
    }
    let rows = scan_batches(view.stream().row_schema(), vec![decoder.finish()]).expect("rows");
    let session = riomar_schemas::session::session_state(Arc::default(), 1);
    let folded = collect(&session, view.fold(rows, Grain::Epoch).expect("a plan")).await.expect("states");
    let states: Vec<_> = folded.iter().flat_map(|batch| encode(view, batch).expect("encoded")).collect();
    let position = |offset| ReaderPosition { offset: Offset(offset), epoch: Epoch(0) };
    let empty = Entry::fresh(position(0));
    let full = Entry { position: position(groups as u64), ..empty.clone() };
    let store = &platform.services.realtime;
    store.reset(view, PartitionId(0), None, &empty).await.expect("written");
    store.write(view, PartitionId(0), &empty, &full, &states).await.expect("written");
}

#[tokio::test]
async fn c9_realtime_states_count_as_memory() {
    const GROUPS: usize = 5_000;
    let roomy = Platform::with_memory(256 << 20).await;
    let view = Arc::clone(roomy.services.catalog.view("traffic").expect("a view"));
    fold(&roomy, &view, GROUPS).await;
    let pool: &Arc<dyn MemoryPool> = &roomy.services.query.snapshots.memory;
    let snapshot = roomy.services.query.snapshots.take(&view).await.expect("enough memory");
    let held = pool.reserved();
    assert_eq!(held, snapshot.realtime.iter().map(|states| states.batch.get_array_memory_size()).sum::<usize>());
    assert!(held > GROUPS * 64, "{held}");
    drop(snapshot);
    check_rows(&roomy, "SELECT count(*), sum(hits) FROM traffic", json!([[GROUPS, GROUPS]])).await;
    assert_eq!(pool.reserved(), 0, "an answer gives back what it took");

    let tight = Platform::with_memory(held).await;
    fold(&tight, &view, GROUPS).await;
    let refused = tight.services.query.snapshots.take(&view).await;
    assert!(matches!(refused, Err(QueryError::OutOfMemory(_))), "{refused:?}");
    check_refused(&tight, "SELECT sum(hits) FROM traffic", "query_out_of_memory", "memory_max").await;
    assert_eq!(tight.services.query.snapshots.memory.reserved(), 0, "a refusal gives back what it took");
}

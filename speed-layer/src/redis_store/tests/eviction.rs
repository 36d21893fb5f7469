//! Keys that Redis evicts when its memory is full.

use super::*;

const EPOCHS: u64 = 3;

/// A value that fills memory.
const FILLER_BYTES: usize = 64 << 10;

#[tokio::test]
async fn c6_what_is_evicted_is_noticed_and_what_is_whole_is_whole() {
    let server = start();
    let view = conformance::view();
    let names: Vec<_> = (0..EPOCHS).map(|epoch| keys::epoch("test", &view, PARTITION, Epoch(epoch))).collect();
    let entry_key = keys::entry("test", &view, PARTITION);
    let mut exists = vec!["EXISTS", &entry_key];
    exists.extend(names.iter().map(String::as_str));
    let all = exists.len() - 1;
    let filler = "x".repeat(FILLER_BYTES);
    let mut losses = Vec::new();
    for round in 0..8 {
        server.command(&["CONFIG", "SET", "maxmemory", "0"]).expect("set");
        server.command(&["FLUSHALL"]).expect("emptied");
        let (store, view) = filled(&server.url()).await;
        let states: Vec<_> = (1..EPOCHS).map(|epoch| state(epoch, "a")).collect();
        store.write(&view, PARTITION, &at(1), &at(2), &states).await.expect("write");
        let used = server.command(&["INFO", "memory"]).expect("info");
        let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("a line");
        let max = used.parse::<usize>().expect("a number") + 4 * FILLER_BYTES;
        server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]).expect("set");
        server.command(&["CONFIG", "SET", "maxmemory", &max.to_string()]).expect("set");
        for number in 0.. {
            assert!(number < 10_000, "nothing is ever evicted");
            server.command(&["SET", &format!("filler {number}"), &filler]).expect("set");
            // The call itself may evict, before its script.
            let part = store.read(&view, PARTITION, Epoch(0)).await.expect("read");
            if let Some(part) = part {
                assert_eq!((part.entry, part.states.len()), (at(2), 3), "round {round}");
                continue;
            }
            let left: usize = server.command(&exists).expect("count").parse().expect("a number");
            assert!(left < all, "nothing was lost, and the entry was not found");
            losses.push(left);
            break;
        }
        assert_eq!(store.entry(&view, PARTITION).await.expect("entry"), None);
        let fenced = store.write(&view, PARTITION, &at(2), &at(3), &[state(0, "a")]).await.expect("write");
        assert_eq!(fenced, WriteOutcome::Fenced(None));
        assert_eq!(store.reset(&view, PARTITION, None, &fresh()).await.expect("reset"), WriteOutcome::Applied);
    }
    assert!(losses.iter().any(|left| *left > 0), "parts were lost, and not only all of it: {losses:?}");
}

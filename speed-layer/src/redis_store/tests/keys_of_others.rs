//! Keys as people see them, and what others did to them.

use super::*;

#[tokio::test]
async fn keys_and_entries_are_readable() {
    let server = start();
    let (_, view) = filled(&server.url()).await;
    let listed = server.command(&["KEYS", "*"]).expect("keys");
    let mut listed: Vec<_> = listed.lines().collect();
    listed.sort_unstable();
    let mut expected = [keys::entry("test", &view, PARTITION), keys::epoch("test", &view, PARTITION, Epoch(0))];
    expected.sort_unstable();
    assert_eq!(listed, expected);
    let fields = server.command(&["HGETALL", &keys::entry("test", &view, PARTITION)]).expect("entry");
    let fields: Vec<_> = fields.lines().collect();
    let mut pairs: Vec<_> = fields.chunks(2).map(|pair| pair.join(" ")).collect();
    pairs.sort_unstable();
    assert_eq!(pairs, ["epoch 0", "floor 0", "format 1", "groups:0 1", "lost 0", "offset 1", "start 0"]);
}

#[tokio::test]
async fn c6_an_entry_whose_epochs_are_not_whole_counts_as_none() {
    let view = conformance::view();
    let entry = keys::entry("test", &view, PARTITION);
    let epochs = [0, 1].map(|epoch| keys::epoch("test", &view, PARTITION, Epoch(epoch)));
    let losses = [
        vec!["UNLINK", &epochs[0]],
        vec!["UNLINK", &epochs[1]],
        vec!["HDEL", &epochs[1], "a"],
        vec!["UNLINK", &epochs[0], &epochs[1]],
        vec!["UNLINK", &entry],
    ];
    let server = start();
    for loss in &losses {
        server.command(&["FLUSHALL"]).expect("emptied");
        let (store, view) = filled(&server.url()).await;
        store.write(&view, PARTITION, &at(1), &at(2), &[state(1, "a"), state(1, "b")]).await.expect("write");
        server.command(loss).expect("removed");
        // One that knows which epochs there were, and one that does not.
        for store in [&store, &connect(&server.url(), patient())] {
            assert_eq!(store.entry(&view, PARTITION).await.expect("entry"), None, "{loss:?}");
            assert_eq!(store.groups(&view, PARTITION).await.expect("groups"), None, "{loss:?}");
            assert!(store.read(&view, PARTITION, Epoch(0)).await.expect("read").is_none(), "{loss:?}");
            assert!(store.read(&view, PARTITION, Epoch(9)).await.expect("read").is_none(), "{loss:?}");
            assert_eq!(store.states(&view, PARTITION, &[(Epoch(0), "a")]).await.expect("states"), (None, vec![None]));
            let fenced = store.write(&view, PARTITION, &at(2), &at(3), &[state(1, "c")]).await.expect("write");
            assert_eq!(fenced, WriteOutcome::Fenced(None), "a write must not hide the loss: {loss:?}");
            store.remove_below(&view, PARTITION, Epoch(1)).await.expect("nothing to remove");
            let fenced = store.reset(&view, PARTITION, Some(&at(2)), &fresh()).await.expect("reset");
            assert_eq!(fenced, WriteOutcome::Fenced(None), "{loss:?}");
        }
        assert_eq!(store.reset(&view, PARTITION, None, &fresh()).await.expect("reset"), WriteOutcome::Applied);
        assert_eq!(server.command(&["KEYS", "*"]).expect("keys"), entry, "nothing is left behind after {loss:?}");
        assert_eq!(store.groups(&view, PARTITION).await.expect("groups"), Some((fresh(), BTreeMap::new())));
    }
}

#[tokio::test]
async fn epochs_that_another_writer_added_are_found() {
    let server = start();
    let (store, view) = filled(&server.url()).await;
    let other = connect(&server.url(), patient());
    let states: Vec<_> = (1..40).map(|epoch| state(epoch, "a")).collect();
    assert_eq!(other.write(&view, PARTITION, &at(1), &at(2), &states).await.expect("write"), WriteOutcome::Applied);
    let part = store.read(&view, PARTITION, Epoch(0)).await.expect("read").expect("entry");
    assert_eq!(part.states.len(), 40);
    other.remove_below(&view, PARTITION, Epoch(30)).await.expect("removed");
    let next = Entry { floor: Epoch(35), ..at(3) };
    assert_eq!(store.write(&view, PARTITION, &at(2), &next, &[state(41, "a")]).await.expect("write"), WriteOutcome::Applied);
    let (_, groups) = other.groups(&view, PARTITION).await.expect("groups").expect("entry");
    assert_eq!(groups.into_keys().collect::<Vec<_>>(), [35, 36, 37, 38, 39, 41].map(Epoch));
    assert_eq!(server.command(&["DBSIZE"]).expect("count"), "7", "an entry and six epochs");
}

#[tokio::test]
async fn c6_states_of_an_entry_that_was_lost_do_not_show_through() {
    let server = start();
    let (store, view) = filled(&server.url()).await;
    server.command(&["UNLINK", &keys::entry("test", &view, PARTITION)]).expect("removed");
    store.reset(&view, PARTITION, None, &fresh()).await.expect("reset");
    let (_, states) = store.states(&view, PARTITION, &[(Epoch(0), "a")]).await.expect("states");
    assert_eq!(states, [None]);
    store.write(&view, PARTITION, &fresh(), &at(1), &[state(0, "b")]).await.expect("write");
    let part = store.read(&view, PARTITION, Epoch(0)).await.expect("read").expect("entry");
    assert_eq!(part.states, [state(0, "b")]);
}

#[tokio::test]
async fn what_others_wrote_is_not_read_and_not_overwritten() {
    let server = start();
    let (store, view) = filled(&server.url()).await;
    let entry = keys::entry("test", &view, PARTITION);
    server.command(&["HSET", &entry, "format", "2"]).expect("set");
    assert_damaged(store.entry(&view, PARTITION).await, "format");
    assert_damaged(store.read(&view, PARTITION, Epoch(0)).await, "format");
    assert_damaged(store.write(&view, PARTITION, &at(1), &at(2), &[]).await, "format");
    assert_damaged(store.reset(&view, PARTITION, Some(&at(1)), &fresh()).await, "format");
    assert_damaged(store.reset(&view, PARTITION, None, &fresh()).await, "format");
    assert_damaged(store.remove_below(&view, PARTITION, Epoch(9)).await, "format");
    assert_eq!(server.command(&["HGET", &entry, "offset"]).expect("get"), "1");
    server.command(&["HSET", &entry, "format", "1", "offset", "many"]).expect("set");
    assert_damaged(store.entry(&view, PARTITION).await, "offset");
    server.command(&["SET", &entry, "text"]).expect("set");
    assert_damaged(store.entry(&view, PARTITION).await, "WRONGTYPE");
}

//! What every object store must do.
//!
//! An implementation's tests call [`check`]; a store that passes may stand in for any other. It panics at the first promise broken.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload, Result, path::Path};

/// More than any store gives in one answer to a request for a list; S3 gives 1000.
const OBJECTS: usize = 1_100;
/// How many requests are under way at a time where there are many.
const CONCURRENCY: usize = 32;
/// Tasks that create the same object.
const WRITERS: usize = 16;
/// How often they do so, each time another object.
const RACES: usize = 8;
/// Bytes of an upload's parts; S3 takes no smaller ones, except for the last.
const PART_BYTES: usize = 5 << 20;

/// Runs every check, in folders of its own below `conformance`, which must not be there before. They leave objects behind.
pub async fn check(store: Arc<dyn ObjectStore>) {
    creation_is_atomic(&store).await;
    content_comes_back(&*store).await;
    ranges_are_what_was_asked_for(&*store).await;
    what_is_absent_is_not_found(&*store).await;
    lists_are_complete(&store).await;
    deletions_may_be_repeated(&*store).await;
    uploads_appear_whole(&*store).await;
}

/// Of those who create an object at the same time, one succeeds; the others hear that it is there, and its content is the winner's.
async fn creation_is_atomic(store: &Arc<dyn ObjectStore>) {
    for race in 0..RACES {
        let path = path("created", &format!("{race:020}.json"));
        let writers = (0..WRITERS).map(|writer| {
            let (store, path) = (Arc::clone(store), path.clone());
            tokio::spawn(async move { (writer, create(&*store, &path, writer_content(writer)).await) })
        });
        let mut winners = Vec::new();
        for writer in writers.collect::<Vec<_>>() {
            match writer.await.expect("no panic") {
                (writer, Ok(())) => winners.push(writer),
                (_, Err(Error::AlreadyExists { .. })) => {}
                (writer, Err(error)) => panic!("writer {writer} of {path}: {error}"),
            }
        }
        assert_eq!(winners.len(), 1, "{path} was created by {winners:?}");
        assert_eq!(read(&**store, &path).await.expect("the winner's"), writer_content(winners[0]), "{path}");
        let late = create(&**store, &path, Bytes::from_static(b"late")).await.expect_err("it is there");
        assert!(matches!(late, Error::AlreadyExists { .. }), "{late}");
        assert_eq!(read(&**store, &path).await.expect("unchanged"), writer_content(winners[0]), "{path}");
    }
}

/// What is written is read back whole, at once, with its size; what is written over it replaces it.
async fn content_comes_back(store: &dyn ObjectStore) {
    for bytes in [0, 1, 4_096, (1 << 20) + 1] {
        // Names as the master dataset has them.
        let path = path("content/_delta_log", &format!("part-{bytes:05}.zstd=3.parquet"));
        for content in [content(bytes, 1), content(bytes / 2, 7)] {
            store.put(&path, PutPayload::from_bytes(content.clone())).await.expect("written");
            assert_eq!(read(store, &path).await.expect("read"), content, "{path}");
            let meta = store.head(&path).await.expect("its size");
            assert_eq!((meta.size, &meta.location), (content.len() as u64, &path));
            let listed = listed(store, "content/_delta_log").await;
            assert!(listed.contains(&path), "{path} is not among {listed:?}");
        }
    }
}

/// A range gives its bytes and no others, and never silently fewer.
async fn ranges_are_what_was_asked_for(store: &dyn ObjectStore) {
    let path = path("ranges", "x.parquet");
    let content = content(100_000, 3);
    store.put(&path, PutPayload::from_bytes(content.clone())).await.expect("written");
    let ranges = [0..8, 99_992..100_000, 10..11, 50_000..90_000];
    for range in ranges.clone() {
        let expected = content.slice(usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small"));
        assert_eq!(store.get_range(&path, range.clone()).await.expect("a range"), expected, "{range:?}");
    }
    let several = store.get_ranges(&path, &ranges).await.expect("ranges");
    assert_eq!(several.iter().map(Bytes::len).collect::<Vec<_>>(), [8, 8, 1, 40_000]);
    assert_eq!(several[3], content.slice(50_000..90_000));
    let tail = GetOptions { range: Some(GetRange::Suffix(8)), ..GetOptions::default() };
    let found = store.get_opts(&path, tail).await.expect("the end");
    assert_eq!((found.meta.size, found.range.clone()), (100_000, 99_992..100_000));
    assert_eq!(found.bytes().await.expect("the end"), content.slice(99_992..));
    store.get_range(&path, 100_000..100_008).await.expect_err("nothing is there");
}

/// Every way to look at what is not there says so.
async fn what_is_absent_is_not_found(store: &dyn ObjectStore) {
    let absent = path("absent", "x");
    for outcome in [
        store.get(&absent).await.map(drop),
        store.head(&absent).await.map(drop),
        store.get_range(&absent, 0..1).await.map(drop),
        store.get_ranges(&absent, &[0..1, 5..6]).await.map(drop),
    ] {
        let error = outcome.expect_err("nothing is there");
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    }
    assert!(listed(store, "absent").await.is_empty());
}

/// A list names all objects of a folder once, and the folders below it, and nothing else.
async fn lists_are_complete(store: &Arc<dyn ObjectStore>) {
    let objects: BTreeSet<Path> = (0..OBJECTS).map(|number| path("listed/log", &format!("{number:020}.json"))).collect();
    let others = [path("listed/log/below", "x"), path("listed/log/beside/deeper", "x"), path("listed/logs", "x")];
    let written = stream::iter(objects.iter().chain(&others).cloned()).map(|path| {
        let store = Arc::clone(store);
        async move { store.put(&path, PutPayload::from_static(b"x")).await }
    });
    written.buffer_unordered(CONCURRENCY).try_collect::<Vec<_>>().await.expect("written");

    let folder = Path::from("conformance/listed/log");
    let found = store.list_with_delimiter(Some(&folder)).await.expect("a list");
    assert_eq!(found.objects.len(), OBJECTS, "each of them once");
    assert!(found.objects.iter().all(|object| object.size == 1));
    assert_eq!(found.objects.into_iter().map(|object| object.location).collect::<BTreeSet<_>>(), objects);
    let below: BTreeSet<Path> = found.common_prefixes.into_iter().collect();
    assert_eq!(below, BTreeSet::from([path("listed/log", "below"), path("listed/log", "beside")]));

    let deep: Vec<Path> = store.list(Some(&folder)).map_ok(|object| object.location).try_collect().await.expect("a list");
    assert_eq!(deep.len(), OBJECTS + 2, "with those below, and without the folder whose name begins alike");
    assert_eq!(deep.into_iter().collect::<BTreeSet<_>>(), objects.iter().chain(&others[..2]).cloned().collect());
}

/// What is deleted is gone at once, and its name may be taken again. Deleting it once more does no harm.
async fn deletions_may_be_repeated(store: &dyn ObjectStore) {
    let path = path("deleted", "x");
    for _ in 0..2 {
        create(store, &path, Bytes::from_static(b"x")).await.expect("the name is free");
        for _ in 0..2 {
            match store.delete(&path).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => panic!("{path}: {error}"),
            }
            assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })), "{path} is gone");
        }
    }
    assert!(listed(store, "deleted").await.is_empty());
}

/// An object that is uploaded in parts appears with its completion, whole; one whose upload is given up does not.
async fn uploads_appear_whole(store: &dyn ObjectStore) {
    for (name, complete) in [("complete", true), ("given-up", false)] {
        let path = path("uploads", name);
        let parts = [content(PART_BYTES, 5), content(PART_BYTES, 11), content(17, 13)];
        let mut upload = store.put_multipart(&path).await.expect("an upload");
        // They arrive in any order.
        let sent: Vec<_> = parts.iter().map(|part| upload.put_part(PutPayload::from_bytes(part.clone()))).collect();
        stream::iter(sent.into_iter().rev()).buffer_unordered(2).try_collect::<Vec<_>>().await.expect("parts");
        assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })), "{path} is not complete");
        assert!(listed(store, "uploads").await.iter().all(|listed| *listed != path), "{path} is not complete");
        if complete {
            upload.complete().await.expect("complete");
            assert_eq!(read(store, &path).await.expect("complete"), parts.concat(), "{path}");
        } else {
            upload.abort().await.expect("given up");
            assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })), "{path} was given up");
        }
    }
}

fn path(folder: &str, name: &str) -> Path {
    Path::from(format!("conformance/{folder}/{name}"))
}

/// Bytes that differ with their place and with `seed`.
fn content(bytes: usize, seed: usize) -> Bytes {
    (0..bytes).map(|place| u8::try_from((place * seed + place / 251) % 256).unwrap_or_default()).collect()
}

fn writer_content(writer: usize) -> Bytes {
    Bytes::from(format!("{{\"writer\":{writer}}}"))
}

async fn create(store: &dyn ObjectStore, path: &Path, content: Bytes) -> Result<()> {
    store.put_opts(path, PutPayload::from_bytes(content), PutMode::Create.into()).await.map(drop)
}

async fn read(store: &dyn ObjectStore, path: &Path) -> Result<Bytes> {
    store.get(path).await?.bytes().await
}

/// The objects of a folder below `conformance`. A folder that is absent is an empty one.
async fn listed(store: &dyn ObjectStore, folder: &str) -> Vec<Path> {
    match store.list_with_delimiter(Some(&Path::from(format!("conformance/{folder}")))).await {
        Ok(found) => found.objects.into_iter().map(|object| object.location).collect(),
        Err(Error::NotFound { .. }) => Vec::new(),
        Err(error) => panic!("{folder}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn memory_conforms() {
        super::check(std::sync::Arc::new(InMemory::new())).await;
    }
}

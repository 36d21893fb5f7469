//! The store behaves as every object store does, and leaves nothing behind.

use futures::{TryStreamExt, future::join_all};
use riomar_batch_layer::conformance;

use super::*;

fn store() -> (tempfile::TempDir, DurableFiles) {
    let directory = tempfile::tempdir().expect("directory");
    let store = DurableFiles::open(directory.path()).expect("store");
    (directory, store)
}

fn create() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

async fn text(store: &DurableFiles, location: &str) -> String {
    let bytes = store.get(&Path::from(location)).await.expect("object").bytes().await.expect("bytes");
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn staged_files(store: &DurableFiles) -> usize {
    store.files.staging.files()
}

#[tokio::test]
async fn what_is_put_can_be_read_and_listed() {
    let (_directory, store) = store();
    store.put(&Path::from("a/b/c.json"), "one".into()).await.expect("put");
    store.put(&Path::from("a/b/c.json"), "two".into()).await.expect("overwritten");
    assert_eq!(text(&store, "a/b/c.json").await, "two");
    let listed: Vec<_> = store.list(Some(&Path::from("a"))).try_collect().await.expect("list");
    assert_eq!(listed.iter().map(|meta| meta.location.to_string()).collect::<Vec<_>>(), ["a/b/c.json"]);
    let found = store.put(&Path::from("a/b/d.json"), "x".into()).await.expect("put").e_tag;
    assert_eq!(found, store.head(&Path::from("a/b/d.json")).await.expect("head").e_tag);
    assert_eq!(staged_files(&store), 0);
}

#[tokio::test]
async fn of_racing_creations_one_wins() {
    let (_directory, store) = store();
    let location = Path::from("views/v/7.json");
    let puts = (0..16).map(|writer| {
        let (store, location) = (store.clone(), location.clone());
        async move { store.put_opts(&location, format!("writer {writer}").into(), create()).await.map(|_| writer) }
    });
    let outcomes = join_all(puts).await;
    let winners: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1);
    assert!(
        outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).all(|error| matches!(error, Error::AlreadyExists { .. }))
    );
    assert_eq!(text(&store, "views/v/7.json").await, format!("writer {}", winners[0]));
    assert_eq!(staged_files(&store), 0);
}

#[tokio::test]
async fn an_upload_appears_when_it_is_complete() {
    let (_directory, store) = store();
    let location = Path::from("data/x.parquet");
    let mut upload = store.put_multipart(&location).await.expect("upload");
    // The second part is written before the first one.
    let (first, second) = (upload.put_part("hello ".into()), upload.put_part("world".into()));
    second.await.expect("part");
    first.await.expect("part");
    assert!(matches!(store.head(&location).await, Err(Error::NotFound { .. })), "not before it is complete");
    upload.complete().await.expect("complete");
    assert_eq!(text(&store, "data/x.parquet").await, "hello world");
    assert!(upload.complete().await.is_err(), "an upload completes once");
}

#[tokio::test]
async fn an_aborted_upload_leaves_nothing() {
    let (_directory, store) = store();
    let mut upload = store.put_multipart(&Path::from("x")).await.expect("upload");
    upload.put_part("hello".into()).await.expect("part");
    assert_eq!(staged_files(&store), 1);
    upload.abort().await.expect("abort");
    assert_eq!(staged_files(&store), 0);
    assert!(store.list(Some(&Path::from("x"))).next().await.is_none());
}

#[tokio::test]
async fn copies_and_renames_follow_their_modes() {
    let (_directory, store) = store();
    let (a, b, c) = (Path::from("a"), Path::from("deep/er/b"), Path::from("c"));
    store.put(&a, "content".into()).await.expect("put");
    store.copy_if_not_exists(&a, &b).await.expect("copy");
    assert!(matches!(store.copy_if_not_exists(&a, &b).await, Err(Error::AlreadyExists { .. })));
    assert!(matches!(store.copy(&Path::from("nothing"), &c).await, Err(Error::NotFound { .. })));
    store.rename(&a, &Path::from("new/folder/c")).await.expect("rename");
    assert!(matches!(store.rename_if_not_exists(&b, &Path::from("new/folder/c")).await, Err(Error::AlreadyExists { .. })));
    store.delete(&b).await.expect("delete");
    assert_eq!(text(&store, "new/folder/c").await, "content");
    assert_eq!(staged_files(&store), 0);
}

#[tokio::test]
async fn a_copy_shares_nothing_with_its_source() {
    let (_directory, store) = store();
    store.put(&Path::from("a"), "before".into()).await.expect("put");
    store.copy(&Path::from("a"), &Path::from("b")).await.expect("copy");
    store.put(&Path::from("a"), "after".into()).await.expect("put");
    assert_eq!(text(&store, "b").await, "before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durable_files_conform() {
    let (_directory, store) = store();
    conformance::check(Arc::new(store.clone())).await;
    assert_eq!(staged_files(&store), 0);
}

#[tokio::test]
async fn two_open_stores_write_at_the_same_time() {
    let (directory, one) = store();
    let mut upload = one.put_multipart(&Path::from("early")).await.expect("upload");
    upload.put_part("before ".into()).await.expect("part");
    let other = DurableFiles::open(directory.path()).expect("a second store");
    assert_ne!(one.files.staging.folder(), other.files.staging.folder());
    assert_eq!((staged_files(&one), staged_files(&other)), (1, 0), "what the other one writes stays");
    let writes = (0..40).map(|number| {
        let (store, other) = if number % 2 == 0 { (&one, "other") } else { (&other, "one") };
        async move {
            store.put(&Path::from(format!("{other}/{number}")), format!("{number}").into()).await.expect("put");
            store.put_opts(&Path::from(format!("raced/{}", number / 2)), format!("{number}").into(), create()).await.is_ok()
        }
    });
    assert_eq!(join_all(writes).await.into_iter().filter(|won| *won).count(), 20, "one of two creates each");
    upload.put_part("and after".into()).await.expect("part");
    upload.complete().await.expect("complete");
    assert_eq!(text(&other, "early").await, "before and after");
    let all: Vec<_> = other.list(None).try_collect().await.expect("list");
    assert_eq!(all.len(), 40 + 20 + 1, "objects, and not what has no name: {all:?}");
    let top = one.list_with_delimiter(None).await.expect("list");
    assert_eq!((top.objects.len(), top.common_prefixes.len()), (1, 3), "{top:?}");
}

#[tokio::test]
async fn what_a_crash_left_is_removed_by_the_next_that_opens() {
    let (directory, store) = store();
    let mut upload = store.put_multipart(&Path::from("x")).await.expect("upload");
    upload.put_part("half of it".into()).await.expect("part");
    // The same files without a process that holds the lock: what a killed process leaves behind.
    let (held, left) = (store.files.staging.folder(), directory.path().join(STAGING).join("17"));
    fs::create_dir(&left).expect("folder");
    for entry in fs::read_dir(held).expect("staging") {
        let entry = entry.expect("entry");
        fs::copy(entry.path(), left.join(entry.file_name())).expect("copied");
    }
    assert_eq!(fs::read_dir(&left).expect("left behind").count(), 2, "a file and the lock");
    let next = DurableFiles::open(directory.path()).expect("store");
    assert!(!left.exists());
    assert_eq!((staged_files(&store), staged_files(&next)), (1, 0), "the living one keeps what it writes");
    upload.complete().await.expect("complete");
    assert_eq!(text(&next, "x").await, "half of it");
    drop((upload, store));
    let last = DurableFiles::open(directory.path()).expect("store");
    let folders = fs::read_dir(directory.path().join(STAGING)).expect("staging").count();
    assert_eq!(folders, 3, "the lock and the folders of the two that are open: {:?}", last.files.staging.folder());
}

#[tokio::test]
async fn a_full_set_of_directories_starts_afresh() {
    let (_directory, store) = store();
    store.files.synced().extend((0..SYNCED_DIRECTORIES_MAX).map(|number| PathBuf::from(number.to_string())));
    store.put(&Path::from("new/x"), "x".into()).await.expect("put");
    assert_eq!(store.files.synced().len(), 1);
}

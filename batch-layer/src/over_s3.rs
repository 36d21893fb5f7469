//! The batch layer over S3 and real HTTP: whatever becomes of a request or of its answer, what counts happens once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use object_store::{Error, ObjectStore, ObjectStoreExt, path::Path, prefix::PrefixStore};
use riomar_infra::{S3Fault, S3Requests, S3Rule, S3Server};
use riomar_schemas::paths;

use crate::{
    BatchError, BatchLayer, conformance,
    generations::Publication,
    objects::{self, Creation},
    recompute::Progress,
    testing::{Fixture, S3Client, bucket, expected_rows, land_all, landed_rows, memory, values_from_rows, values_of_generation},
};

/// A client that gives up at once, so that what is above it sees each failure.
const IMPATIENT: S3Client = S3Client { retries_max: 0, request_time_max: Duration::from_secs(1) };

fn server() -> S3Server {
    S3Server::start().expect("a server")
}

/// A folder of the server's bucket.
fn folder(server: &S3Server, client: S3Client, name: &str) -> Arc<dyn ObjectStore> {
    Arc::new(PrefixStore::new(bucket(server, client), name))
}

/// Lands what is in the log, cuts, lands the cut and publishes the first generation.
async fn publish_first(fixture: &Fixture, layer: &BatchLayer) -> Result<Publication, BatchError> {
    let (stream, view) = (fixture.stream(), fixture.view());
    land_all(&mut layer.landing(&stream)?).await;
    let parts = layer.runs().parts();
    let cut = parts.cut(&stream.name).await?;
    land_all(&mut layer.landing(&stream)?).await;
    let landed = parts.landed_cut(&stream.name, cut).await?.expect("landed");
    let manifest = parts.prepare(&view, &landed, true, &Progress::default()).await?.expect("something new");
    layer.generations().publish(&view, manifest).await
}

/// The number of commits and of generations.
async fn counts(fixture: &Fixture, store: &Arc<dyn ObjectStore>) -> (usize, usize) {
    let layer = fixture.layer(Arc::clone(store));
    let commits =
        objects::list(layer.context(), &paths::master(&fixture.stream().name).join("_delta_log")).await.expect("a list");
    let generations = objects::list(layer.context(), &paths::generations(&fixture.view())).await.expect("a list");
    (commits.len(), generations.len())
}

/// What is stored is what a store without faults would hold.
async fn assert_exact(fixture: &Fixture, store: &Arc<dyn ObjectStore>, undisturbed: (usize, usize), why: &str) {
    assert_eq!(counts(fixture, store).await, undisturbed, "commits and generations {why}");
    let layer = fixture.layer(Arc::clone(store));
    let snapshot = layer.master(&fixture.stream().name).expect("known").snapshot().await.expect("a snapshot");
    assert_eq!(landed_rows(store, &snapshot).await, expected_rows(fixture).await, "C2 {why}");
    let view = fixture.view();
    let manifest = layer.generations().current(&view).await.expect("reads").expect("published");
    let rows = values_from_rows(&layer, &view, manifest.cut).await;
    let comparison = crate::audit::compare(&view, &rows, &values_of_generation(&layer, &view).await).expect("compares");
    assert!(comparison.is_equal(), "C3 {why}: {comparison:?}");
}

async fn filled() -> Fixture {
    let fixture = Fixture::in_real_time().await;
    fixture.append_events(0..40).await;
    fixture
}

/// The commits and generations that the scenario leaves behind.
async fn undisturbed() -> (usize, usize) {
    let (fixture, store) = (filled().await, memory());
    let published = publish_first(&fixture, &fixture.layer(Arc::clone(&store))).await.expect("publishes");
    assert!(matches!(published, Publication::Published(_)));
    counts(&fixture, &store).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_conforms() {
    let server = server();
    conformance::check(bucket(&server, S3Client::default())).await;
}

#[tokio::test]
async fn an_object_is_created_once_whatever_becomes_of_the_answer() {
    let (server, fixture) = (server(), Fixture::in_real_time().await);
    let (mine, other) = (Bytes::from_static(b"mine"), Bytes::from_static(b"other"));
    let faults = [S3Fault::SlowDown, S3Fault::LostReply, S3Fault::SilentReply, S3Fault::Silence];
    for (number, (fault, client)) in
        faults.into_iter().flat_map(|fault| [(fault, IMPATIENT), (fault, S3Client::default())]).enumerate()
    {
        if matches!(fault, S3Fault::SilentReply | S3Fault::Silence) && client.retries_max > 0 {
            // It would wait for a minute.
            continue;
        }
        let path = Path::from(format!("created/{number}.json"));
        server.faults().add(S3Rule::new(fault).of(S3Requests::Creations).target_contains(path.as_ref()).times(1));
        let struck = server.faults().struck();
        let layer = fixture.layer(bucket(&server, client));
        let created = objects::create_if_absent(layer.context(), &path, mine.clone()).await.expect("survives one failure");
        assert_eq!((created, server.faults().struck()), (Creation::Created, struck + 1), "{fault:?} {client:?}");
        let late = objects::create_if_absent(layer.context(), &path, other.clone()).await.expect("answers");
        assert_eq!(late, Creation::Exists, "{fault:?} {client:?}");
        assert_eq!(objects::read(layer.context(), &path).await.expect("reads"), Some(mine.clone()), "{fault:?} {client:?}");
        server.faults().clear();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_is_lost_at_any_write_changes_nothing() {
    let (server, undisturbed) = (server(), undisturbed().await);
    let mut write = 0;
    loop {
        let (name, fixture) = (format!("lost-{write}"), filled().await);
        server.faults().add(S3Rule::new(S3Fault::LostReply).of(S3Requests::Writes).target_contains(&name).after(write).times(1));
        let struck = server.faults().struck();
        let store = folder(&server, S3Client::default(), &name);
        let published = publish_first(&fixture, &fixture.layer(Arc::clone(&store))).await.expect("survives");
        assert!(matches!(published, Publication::Published(_)), "its own, at write {write}: {published:?}");
        assert_exact(&fixture, &store, undisturbed, &format!("when the reply to write {write} is lost")).await;
        if server.faults().struck() == struck {
            break;
        }
        server.faults().clear();
        write += 1;
    }
    assert!(write > 8, "commits, data files, a cut, its positions and a manifest: {write}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_that_takes_effect_and_times_out_is_found_again() {
    let (server, undisturbed) = (server(), undisturbed().await);
    let runs = (0..).map(|creation| {
        let server = &server;
        async move {
            let (name, fixture) = (format!("late-{creation}"), filled().await);
            let rule = S3Rule::new(S3Fault::SilentReply).of(S3Requests::Creations).target_contains(&name);
            server.faults().add(rule.after(creation).times(1));
            let store = folder(server, S3Client { request_time_max: Duration::from_secs(3), ..S3Client::default() }, &name);
            let published = publish_first(&fixture, &fixture.layer(Arc::clone(&store))).await.expect("survives");
            assert!(matches!(published, Publication::Published(_)), "its own, at creation {creation}: {published:?}");
            assert_exact(&fixture, &store, undisturbed, &format!("when creation {creation} times out")).await;
        }
    });
    // Two commits of landing at least, the table, a cut with its positions, registrations, and the manifest.
    join_all(runs.take(8)).await;
    assert_eq!(server.faults().struck(), 8, "each of them timed out once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_requests_may_always_fail() {
    let (server, undisturbed) = (server(), undisturbed().await);
    for (name, fault) in [("slow", S3Fault::SlowDown), ("lost", S3Fault::LostReply), ("cut", S3Fault::TruncatedBody)] {
        server.faults().add(S3Rule::new(fault).every(3));
        let (fixture, store) = (filled().await, folder(&server, S3Client::default(), name));
        let published = publish_first(&fixture, &fixture.layer(Arc::clone(&store))).await.expect("survives");
        assert!(matches!(published, Publication::Published(_)), "{name}: {published:?}");
        server.faults().clear();
        assert_exact(&fixture, &store, undisturbed, name).await;
    }
    assert!(server.faults().struck() > 30, "{}", server.faults().struck());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_ends_in_an_error_and_afterwards_everything_lands_once() {
    let (server, undisturbed) = (server(), undisturbed().await);
    let (fixture, store) = (filled().await, bucket(&server, S3Client::default()));
    let layer = fixture.layer(Arc::clone(&store));
    server.faults().add(S3Rule::new(S3Fault::SlowDown));
    let error = layer.landing(&fixture.stream()).expect("known").step().await.expect_err("a storm");
    assert!(error.to_string().contains("SlowDown"), "{error}");
    assert!(server.faults().struck() < 100, "the attempts are bounded: {}", server.faults().struck());
    server.faults().clear();
    publish_first(&fixture, &layer).await.expect("the storm is over");
    assert_exact(&fixture, &store, undisturbed, "after a storm").await;
}

#[tokio::test]
async fn content_that_is_cut_short_is_an_error_and_never_shorter_content() {
    let (server, fixture) = (server(), Fixture::in_real_time().await);
    let layer = fixture.layer(bucket(&server, S3Client::default()));
    let path = Path::from("x.json");
    let content = Bytes::from(vec![b'x'; 100_000]);
    objects::create_if_absent(layer.context(), &path, content.clone()).await.expect("created");
    for times in [1, 3] {
        server.faults().add(S3Rule::new(S3Fault::TruncatedBody).of(S3Requests::Reads).times(times));
        assert_eq!(objects::read(layer.context(), &path).await.expect("whole"), Some(content.clone()), "{times} times");
    }
    server.faults().add(S3Rule::new(S3Fault::TruncatedBody).of(S3Requests::Reads));
    objects::read(layer.context(), &path).await.expect_err("never whole");
    let range = layer.context().store.get_range(&path, 10..90_000).await.expect_err("never whole");
    assert!(!matches!(range, Error::NotFound { .. }), "{range}");
}

#[tokio::test]
async fn a_bucket_that_is_gone_is_told_at_once() {
    let (server, fixture) = (server(), Fixture::in_real_time().await);
    std::fs::remove_dir(server.directory().join(server.bucket())).expect("removed");
    let layer = fixture.layer(bucket(&server, S3Client::default()));
    let path = Path::from("a/x.json");
    let error = objects::create_if_absent(layer.context(), &path, Bytes::from_static(b"x")).await.expect_err("no bucket");
    assert!(error.to_string().contains("NoSuchBucket"), "{error}");
    let puts = server.faults().requests().iter().filter(|request| request.method == "PUT").count();
    assert_eq!(puts, 1, "what stays wrong is not tried again");
}

//! What Redis refuses is told with what to do about it, and never with a password.

use super::*;

/// Asks for an entry and expects a refusal; nothing that is shown of the store may hold a password.
async fn assert_refused(store: RedisStore, reason: &str) {
    let view = conformance::view();
    let refused = store.entry(&view, PARTITION).await;
    assert!(!format!("{refused:?} {store:?}").contains("hunter2"), "{refused:?} {store:?}");
    assert_unavailable(refused, reason);
}

/// As [`assert_refused`], of a server that hangs up: its last word may be lost now and then.
async fn assert_refused_in_the_end(store: RedisStore, reason: &str) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match store.entry(&conformance::view(), PARTITION).await {
            Err(StoreError::Unavailable(text)) if text.contains(reason) => return,
            other => assert!(other.is_err() && tokio::time::Instant::now() < deadline, "{other:?}"),
        }
    }
}

fn secured() -> RedisServer {
    let users = vec!["few on >hunter2 ~riomar:* +eval +evalsha +hgetall".to_owned()];
    start_with(RedisOptions { password: Some("hunter2".to_owned()), users, ..RedisOptions::default() })
}

#[tokio::test]
async fn of_a_user() {
    let server = secured();
    let port = server.port();
    assert_refused(connect(&format!("redis://127.0.0.1:{port}"), patient()), "it asks for a password").await;
    for login in [":not-hunter2", "default:not-hunter2", "nobody:hunter2"] {
        let store = connect(&format!("redis://{login}@127.0.0.1:{port}"), patient());
        assert_refused(store, "it refuses the user or the password").await;
    }
    let few = connect(&server.url_of("few", "hunter2"), patient());
    let view = conformance::view();
    assert_unavailable(few.reset(&view, PARTITION, None, &fresh()).await, "lacks a permission");
    assert_eq!(server.command(&["DBSIZE"]).expect("count"), "0");
    server.command(&["ACL", "SETUSER", "few", "-eval", "-evalsha"]).expect("set");
    assert_refused(connect(&server.url_of("few", "hunter2"), patient()), "lacks a permission").await;
}

#[tokio::test]
async fn of_a_password_that_was_changed_and_put_right() {
    let server = start_with(RedisOptions { users: vec![ACL.to_owned()], ..RedisOptions::default() });
    let view = conformance::view();
    server.command(&["ACL", "SETUSER", "riomar", ">another", "<hunter2"]).expect("set");
    let store = connect(&server.url_of("riomar", "hunter2"), patient());
    for _ in 0..5 {
        assert_unavailable(store.entry(&view, PARTITION).await, "Redis at 127.0.0.1");
    }
    server.command(&["ACL", "SETUSER", "riomar", ">hunter2"]).expect("set");
    assert_eq!(in_the_end(async || store.entry(&view, PARTITION).await).await, None);
}

#[tokio::test]
async fn of_tls() {
    let (certificates, others) = (certificates(), certificates());
    let tls = Some(certificates.clone());
    let server = start_with(RedisOptions { tls: tls.clone(), password: Some("hunter2".to_owned()), ..RedisOptions::default() });
    let untrusted = "signed by a CA that is not trusted";
    assert_refused(connect(&server.url(), patient()), untrusted).await;
    assert_refused(connect_tls(&server.url(), &trusting(&others), patient()), untrusted).await;
    // Another name than those of the certificate, at the same place.
    let by_other_name = server.url().replace("127.0.0.1", "[::ffff:127.0.0.1]");
    assert_refused(connect_tls(&by_other_name, &trusting(&certificates), patient()), "for another name than the host").await;
    let plain = format!("rediss://:hunter2@127.0.0.1:{}", server.port());
    // Whether it answers depends on the random bytes that TLS begins with.
    let limits = RedisLimits { call_timeout: Duration::from_secs(1), ..patient() };
    assert_refused(connect_tls(&plain, &trusting(&certificates), limits), "TLS").await;
    let wrong = server.url().replace("hunter2", "hunter22");
    assert_refused(connect_tls(&wrong, &trusting(&certificates), patient()), "it refuses the user or the password").await;
    let without = server.url().replace("rediss://", "redis://");
    assert_refused(connect(&without, patient()), "Redis at 127.0.0.1").await;

    let strict = start_with(RedisOptions { tls, client_certificates: true, ..RedisOptions::default() });
    assert_refused_in_the_end(connect_tls(&strict.url(), &trusting(&certificates), patient()), "asks for a client's certificate")
        .await;
    let client = Some(RedisClientCertificate { certificate_file: others.client(), key_file: others.client_key() });
    let tls = RedisTls { client, ..trusting(&certificates) };
    assert_refused_in_the_end(connect_tls(&strict.url(), &tls, patient()), "it refuses this client's certificate").await;
}

#[tokio::test]
async fn of_certificates_that_are_none() {
    let (certificates, directory) = (certificates(), tempfile::tempdir().expect("a directory"));
    let connect = |url: &str, tls: RedisTls| {
        let address: RedisAddress = url.parse().expect("an address");
        RedisStore::connect(&address, &tls, "test", patient()).expect_err("no certificates").to_string()
    };
    let missing = directory.path().join("missing.pem");
    let error = connect("rediss://host", RedisTls { ca_file: Some(missing.clone()), client: None });
    assert!(error.contains("missing.pem cannot be read"), "{error}");
    let error = connect("rediss://host", RedisTls { ca_file: Some(certificates.server_key()), client: None });
    assert!(error.contains("server.key is no PEM file with a CERTIFICATE"), "{error}");
    let client = RedisClientCertificate { certificate_file: certificates.client(), key_file: certificates.client() };
    let error = connect("rediss-cluster://host", RedisTls { client: Some(client), ..RedisTls::default() });
    assert!(error.contains("client.pem is no PEM file with a PRIVATE KEY"), "{error}");
    let error = connect("redis://host", trusting(&certificates));
    assert!(error.contains("write rediss://"), "{error}");
}

#[tokio::test]
async fn of_certificates_that_are_replaced_by_good_ones() {
    let certificates = certificates();
    let server = start_with(RedisOptions { tls: Some(certificates.clone()), ..RedisOptions::default() });
    let directory = tempfile::tempdir().expect("a directory");
    let ca_file = directory.path().join("ca.pem");
    std::fs::copy(super::certificates().ca(), &ca_file).expect("copied");
    let store = connect_tls(&server.url(), &RedisTls { ca_file: Some(ca_file.clone()), client: None }, patient());
    let view = conformance::view();
    assert_unavailable(store.entry(&view, PARTITION).await, "signed by a CA that is not trusted");
    std::fs::remove_file(&ca_file).expect("removed");
    assert_unavailable(store.entry(&view, PARTITION).await, "ca.pem cannot be read");
    std::fs::copy(certificates.ca(), &ca_file).expect("copied");
    assert_eq!(in_the_end(async || store.entry(&view, PARTITION).await).await, None);
}

#[tokio::test]
async fn of_the_wrong_kind_of_redis() {
    let server = start();
    let as_cluster = server.url().replace("redis://", "redis-cluster://");
    assert_refused(connect(&as_cluster, patient()), "it is not a node of a cluster").await;

    let mut cluster = start_cluster(RedisClusterOptions { password: Some("hunter2".to_owned()), ..Default::default() });
    let view = conformance::view();
    let master = cluster.master(cluster.slot(&keys::entry("test", &view, PARTITION)).expect("slot")).expect("a master");
    let other = cluster.node((master + 1) % 3).url();
    assert_refused(connect(&other, patient()), "it is a node of a cluster").await;
    let limits = RedisLimits { call_timeout: Duration::from_secs(4), ..patient() };
    let without = cluster.url().replace(":hunter2@", "");
    assert_refused(connect(&without, limits), "it asks for a password").await;
    assert_refused(connect(&cluster.url().replace("hunter2", "hunter22"), limits), "it refuses the user or the password").await;

    cluster.node_mut((master + 1) % 3).kill().expect("killed");
    // Once the others have noticed, they serve nothing: a part of the slots is missing.
    let store = connect(&cluster.url(), limits);
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match store.entry(&view, PARTITION).await {
            Err(StoreError::Unavailable(text)) if text.contains("some of its slots have no master") => break,
            other => assert!(tokio::time::Instant::now() < deadline, "{other:?}"),
        }
    }
}

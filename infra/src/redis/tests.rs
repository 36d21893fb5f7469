//! Servers are started and stopped, killed, frozen and restored; and they are what their options say.

use std::net::{Ipv4Addr, TcpListener};

use super::*;
use crate::process::wait_until;

fn start(options: RedisOptions) -> RedisServer {
    RedisServer::start_with(options).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn two_servers_answer_each_on_its_own_port_and_end_when_dropped() {
    let (first, second) = (start(RedisOptions::default()), start(RedisOptions::default()));
    first.command(&["SET", "who", "first"]).expect("answer");
    assert_eq!(second.command(&["GET", "who"]).expect("answer"), "");
    assert_eq!(first.command(&["GET", "who"]).expect("answer"), "first");
    assert!(matches!(first.command(&["NONSENSE"]), Err(ServiceError::Refused(_))));
    let port = first.port();
    drop(first);
    assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok(), "the port is free again");
}

#[test]
fn keeps_nothing_unless_asked_to() {
    for snapshots in [false, true] {
        let mut server = start(RedisOptions { snapshots, ..RedisOptions::default() });
        let url = server.url();
        server.command(&["SET", "key", "value"]).expect("answer");
        server.stop().expect("stopped");
        assert!(server.command(&["PING"]).is_err());
        assert!(matches!(server.stop(), Err(ServiceError::NotRunning { .. })));
        server.restart().expect("started");
        assert_eq!(server.url(), url);
        assert_eq!(server.command(&["GET", "key"]).expect("answer"), if snapshots { "value" } else { "" });
    }
}

#[test]
fn an_older_snapshot_can_be_restored() {
    let mut server = start(RedisOptions::default());
    let elsewhere = tempfile::tempdir().expect("directory");
    let snapshot = elsewhere.path().join("old.rdb");
    server.command(&["SET", "key", "old"]).expect("answer");
    server.save_snapshot(&snapshot).expect("saved");
    server.command(&["SET", "key", "new"]).expect("answer");
    server.restore_snapshot(&snapshot).expect("restored");
    assert_eq!(server.command(&["GET", "key"]).expect("answer"), "old");
    server.kill().expect("killed");
    assert!(server.command(&["PING"]).is_err());
}

#[test]
fn a_paused_server_answers_again_when_resumed() {
    let mut server = start(RedisOptions::default());
    server.pause().expect("paused");
    let silent = server.ask(&["PING"], Duration::from_millis(100));
    assert!(silent.is_err(), "{silent:?}");
    server.resume().expect("resumed");
    assert_eq!(server.command(&["PING"]).expect("answer"), "PONG");
    server.pause().expect("paused");
    server.restart().expect("a paused server can be killed and started");
    assert_eq!(server.command(&["PING"]).expect("answer"), "PONG");
}

#[test]
fn refuses_writes_above_its_memory_limit() {
    let server = start(RedisOptions { memory_bytes_max: Some(1), ..RedisOptions::default() });
    let error = server.command(&["SET", "key", "value"]).expect_err("no memory");
    assert!(error.to_string().contains("OOM"), "{error}");
}

#[test]
fn says_why_it_does_not_start() {
    let server = start(RedisOptions::default());
    let mut other = start(RedisOptions::default());
    other.ports = server.ports;
    let error = other.restart().expect_err("the port is taken");
    assert!(matches!(&error, ServiceError::Ended { output, .. } if output.contains("in use")), "{error}");
}

#[test]
fn users_need_their_password_and_have_their_rights() {
    let users = vec!["reader on >other ~* +@read".to_owned()];
    let server = start(RedisOptions { password: Some("secret".to_owned()), users, ..RedisOptions::default() });
    server.command(&["SET", "key", "value"]).expect("as the user default");
    assert_eq!(server.url(), format!("redis://:secret@127.0.0.1:{}", server.port()));
    assert_eq!(server.url_of("reader", "other"), format!("redis://reader:other@127.0.0.1:{}", server.port()));
    let without = resp::command(server.port(), None, &["GET", "key"], COMMAND_DEADLINE).expect("an answer");
    assert!(without.is_err_and(|error| error.starts_with("NOAUTH")));
    let wrong = resp::command(server.port(), Some("wrong"), &["GET", "key"], COMMAND_DEADLINE).expect("an answer");
    assert!(wrong.is_err_and(|error| error.starts_with("WRONGPASS")));
    assert!(server.command(&["ACL", "LIST"]).expect("users").contains("user reader on"));
}

#[test]
fn a_port_with_tls_does_not_speak_without() {
    let tls = Some(Arc::new(Certificates::generate().unwrap_or_else(|error| panic!("{error}"))));
    let server = start(RedisOptions { tls, ..RedisOptions::default() });
    assert_eq!(server.command(&["PING"]).expect("answer"), "PONG");
    assert_eq!(server.url(), format!("rediss://127.0.0.1:{}", server.client_port()));
    let plain = resp::command(server.client_port(), None, &["PING"], COMMAND_DEADLINE);
    assert!(!matches!(plain, Ok(Ok(_))), "{plain:?}");
}

#[test]
fn a_replica_copies_its_master() {
    let password = Some("secret".to_owned());
    let master = start(RedisOptions { password: password.clone(), ..RedisOptions::default() });
    let replica = start(RedisOptions { password, replica_of: Some(master.port()), ..RedisOptions::default() });
    master.command(&["SET", "key", "value"]).expect("answer");
    let copied = wait_until(DEADLINE, || Ok((replica.command(&["GET", "key"])? == "value").then_some(())));
    assert_eq!(copied.expect("answers"), Some(()));
    assert!(replica.command(&["SET", "key", "other"]).is_err_and(|error| error.to_string().contains("READONLY")));
}

#[test]
fn a_cluster_serves_all_slots_and_moves_one() {
    let cluster = cluster::RedisCluster::start().unwrap_or_else(|error| panic!("{error}"));
    let slot = cluster.slot("key").expect("a slot");
    let from = cluster.master(slot).expect("a master");
    let to = (from + 1) % 3;
    cluster.node(from).command(&["SET", "key", "value"]).expect("answer");
    assert!(cluster.node(to).command(&["GET", "key"]).is_err_and(|error| error.to_string().contains("MOVED")));
    let moving = cluster.begin_move(slot, to).expect("begun");
    assert_eq!(cluster.keys_left(&moving).expect("keys"), ["key"]);
    cluster.end_move(&moving).expect("moved");
    assert_eq!(cluster.master(slot), Some(to));
    assert_eq!(cluster.node(to).command(&["GET", "key"]).expect("answer"), "value");
    cluster.wait_until_ok().expect("well");
}

#[test]
fn in_a_cluster_with_tls_a_replica_takes_its_masters_place() {
    let tls = Some(Arc::new(Certificates::generate().unwrap_or_else(|error| panic!("{error}"))));
    let options = cluster::RedisClusterOptions { replicas: true, password: Some("secret".to_owned()), tls, ..Default::default() };
    let mut cluster = cluster::RedisCluster::start_with(options).unwrap_or_else(|error| panic!("{error}"));
    let slot = cluster.slot("key").expect("a slot");
    let master = cluster.master(slot).expect("a master");
    cluster.node(master).command(&["SET", "key", "value"]).expect("answer");
    cluster.node(master).command(&["WAIT", "1", "10000"]).expect("answer");
    cluster.node_mut(master).kill().expect("killed");
    let next = cluster.wait_for_another_master(slot, master).expect("another master");
    assert_eq!(next, master + 3);
    assert_eq!(cluster.node(next).command(&["GET", "key"]).expect("answer"), "value");
    cluster.node_mut(master).restart().expect("started");
    cluster.wait_until_ok().expect("well");
    assert_eq!(cluster.master(slot), Some(next), "the old master is a replica now");
}

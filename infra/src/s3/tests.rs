//! The server without a client of S3: what it refuses, what goes wrong, and its end.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::mpsc::channel,
    thread,
};

use super::*;

/// Sends a request without a signature; gives all that comes back until the connection is closed.
fn ask(server: &S3Server, request: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port))?;
    connection.write_all(format!("{request} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").as_bytes())?;
    let mut reply = String::new();
    connection.read_to_string(&mut reply)?;
    Ok(reply)
}

#[test]
fn who_does_not_sign_is_refused() {
    let server = S3Server::start().expect("started");
    let reply = ask(&server, "GET /riomar-tests/key").expect("an answer");
    assert!(reply.starts_with("HTTP/1.1 403 ") && reply.contains("AccessDenied"), "{reply}");
}

#[test]
fn a_bucket_that_is_not_there_is_none() {
    let server = S3Server::start().expect("started");
    for (request, body) in [("GET /other/key", true), ("PUT /other/key", true), ("HEAD /other/key", false)] {
        let reply = ask(&server, request).expect("an answer");
        assert!(reply.starts_with("HTTP/1.1 404 ") && reply.contains("NoSuchBucket") == body, "{request}: {reply}");
    }
    assert!(!server.directory().join("other").exists());
}

#[test]
fn a_request_goes_wrong_as_the_rule_says() {
    let server = S3Server::start().expect("started");
    let whole = ask(&server, "GET /riomar-tests/key").expect("an answer");
    for (fault, expected) in [
        (S3Fault::SlowDown, "HTTP/1.1 503 "),
        (S3Fault::Delay(Duration::from_millis(1)), "HTTP/1.1 403 "),
        (S3Fault::TruncatedBody, "HTTP/1.1 403 "),
        (S3Fault::LostReply, ""),
    ] {
        server.faults().add(S3Rule::new(fault).times(1));
        let reply = ask(&server, "GET /riomar-tests/key").expect("an answer, or none");
        assert!(reply.starts_with(expected) && reply.is_empty() == expected.is_empty(), "{fault:?}: {reply}");
        assert_eq!(reply.contains("</Error>"), matches!(fault, S3Fault::SlowDown | S3Fault::Delay(_)), "{fault:?}: {reply}");
    }
    assert_eq!(server.faults().struck(), 4);
    let after = ask(&server, "GET /riomar-tests/key").expect("an answer");
    assert_eq!(after.lines().next(), whole.lines().next(), "the rules are used up");
    assert_eq!(server.faults().requests().len(), 6);
}

#[test]
fn silence_ends_when_the_faults_are_cleared() {
    let server = S3Server::start().expect("started");
    for fault in [S3Fault::Silence, S3Fault::SilentReply] {
        server.faults().forget_requests();
        server.faults().add(S3Rule::new(fault));
        thread::scope(|scope| {
            let (sender, receiver) = channel();
            let server = &server;
            scope.spawn(move || sender.send(ask(server, "GET /riomar-tests/key")));
            while server.faults().requests().is_empty() {
                thread::yield_now();
            }
            assert!(receiver.try_recv().is_err(), "no answer yet");
            server.faults().clear();
            let reply = receiver.recv_timeout(DEADLINE).expect("the connection is closed").expect("in an orderly way");
            assert_eq!(reply, "", "{fault:?}");
        });
    }
}

#[test]
fn a_stopped_server_refuses_and_a_restarted_one_has_its_objects() {
    let mut server = S3Server::start().expect("started");
    let endpoint = server.endpoint();
    fs::write(server.directory().join(BUCKET).join("kept"), "x").expect("written");
    server.stop().expect("stopped");
    assert!(ask(&server, "GET /").is_err(), "refused");
    assert!(matches!(server.stop(), Err(ServiceError::NotRunning { .. })));
    server.restart().expect("started again");
    assert_eq!(server.endpoint(), endpoint);
    assert!(ask(&server, "GET /").expect("an answer").starts_with("HTTP/1.1 403 "));
    assert!(server.directory().join(BUCKET).join("kept").exists());
    server.restart().expect("from running");
}

#[tokio::test]
async fn it_may_be_dropped_inside_another_runtime() {
    let mut server = S3Server::start().expect("started");
    server.stop().expect("stopped");
    server.restart().expect("started again");
    drop(server);
}

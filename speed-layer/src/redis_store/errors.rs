//! What an error of Redis means to whoever has to mend it.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::address::RedisAddress;
use crate::store::StoreError;

/// What is found in an error, and what to do about it. The first that fits is told.
const ADVICE: &[(&[&str], &str)] = &[
    (&["WRONGPASS", "AuthenticationFailed"], "it refuses the user or the password in its address"),
    (&["NOAUTH"], "it asks for a password: write user:password@ before the host in its address"),
    (
        &["NOPERM", "NoPerm", "ACL failure", "user executing the script"],
        "the user in its address lacks a permission: its ACL must allow the commands that Riomar's documentation lists, on the keys riomar:*",
    ),
    (&["OOM"], "it has no memory left and evicts nothing: raise its maxmemory, or keep fewer groups"),
    (&["READONLY", "ReadOnly"], "it is a replica: its address must be the master's, or a cluster's"),
    (&["CLUSTERDOWN", "ClusterDown", "cluster is down"], "the cluster is down: some of its slots have no master"),
    (&["cluster support disabled"], "it is not a node of a cluster: its address must begin with redis:// or rediss://"),
    (&["TRYAGAIN", "TryAgain", "non local key"], MOVING),
    (&["ClusterConnectionNotFound"], "none of its nodes answers"),
    (&["LOADING", "BusyLoading"], "it is still reading its snapshot"),
    (&["MASTERDOWN"], "it is a replica that has lost its master"),
    (
        &["MISCONF"],
        "it takes no writes because its snapshots fail: Riomar does not need them, so switch them off (save \"\") or give it disk",
    ),
    (&["NOREPLICAS"], "it takes no writes because it has too few replicas (min-replicas-to-write)"),
    (&["BUSY "], "another client's script keeps it busy"),
    (&["UnknownIssuer", "BadSignature"], "its certificate is signed by a CA that is not trusted: name the CA's file"),
    (
        &["not valid for name", "NotValidForName"],
        "its certificate is for another name than the host in its address, or than the cluster announces",
    ),
    (&["certificate expired", "Expired"], "its certificate has expired"),
    (&["invalid peer certificate"], "its certificate is not valid"),
    (&["CertificateRequired", "HandshakeFailure"], "it asks for a client's certificate: name its file and its key's"),
    (
        &["UnknownCA", "DecryptError", "BadCertificate", "CertificateUnknown", "CertificateExpired"],
        "it refuses this client's certificate",
    ),
    (
        &["InvalidContentType", "corrupt message"],
        "it does not speak TLS at this port: its address must begin with redis:// or redis-cluster://",
    ),
];

const MOVING: &str = "a slot of the cluster is on its way to another node: this goes on when it has arrived";
const NODE: &str = "it is a node of a cluster: its address must begin with redis-cluster:// or rediss-cluster://";

/// The store's error for an error of Redis.
pub(super) fn store_error(address: &RedisAddress, error: &RedisError) -> StoreError {
    let text = match (error.code(), error.detail()) {
        // What the server said, in its own words.
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    };
    // A key of ours that is no hash was written by someone else.
    if text.contains("WRONGTYPE") {
        return StoreError::Damaged(format!("{}: {text}", server(address)));
    }
    let advice = match error.kind() {
        // A cluster's client follows these, up to a point.
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) if address.is_cluster() => Some(MOVING),
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => Some(NODE),
        _ => ADVICE.iter().find(|(marks, _)| marks.iter().any(|mark| text.contains(mark))).map(|(_, advice)| *advice),
    };
    match advice {
        Some(advice) => unavailable(address, &format!("{advice} ({text})")),
        None => unavailable(address, &text),
    }
}

pub(super) fn unavailable(address: &RedisAddress, reason: &str) -> StoreError {
    StoreError::Unavailable(format!("{}: {reason}", server(address)))
}

fn server(address: &RedisAddress) -> String {
    let what = if address.is_cluster() { "Redis Cluster" } else { "Redis" };
    format!("{what} at {}", address.servers())
}

/// Whether the server itself said this: then it is there, and more calls do no harm.
pub(super) fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a store at this address makes of an error that the server replies.
    fn told(address: &str, reply: &str) -> StoreError {
        let value = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes()).expect("a reply");
        let error = value.extract_error().expect_err("an error");
        assert!(is_answer(&error), "{reply}");
        store_error(&address.parse().expect("an address"), &error)
    }

    #[test]
    fn what_the_server_says_is_told_with_what_to_do() {
        let (one, cluster) = ("redis://:hunter2@host", "rediss-cluster://me:hunter2@a,b");
        let cases = [
            (one, "NOAUTH Authentication required.", "asks for a password"),
            (one, "WRONGPASS invalid username-password pair or user is disabled.", "refuses the user or the password"),
            (one, "NOPERM this user has no permissions to run the 'evalsha' command", "lacks a permission"),
            (one, "ERR ACL failure in script: No permissions to access a key", "lacks a permission"),
            (one, "OOM command not allowed when used memory > 'maxmemory'.", "raise its maxmemory"),
            (one, "READONLY You can't write against a read only replica.", "it is a replica"),
            (one, "LOADING Redis is loading the dataset in memory", "still reading its snapshot"),
            (one, "MOVED 2895 10.0.0.1:7000", "must begin with redis-cluster://"),
            (one, "CLUSTERDOWN Hash slot not served", "have no master"),
            (one, "MISCONF Redis is configured to save RDB snapshots", "snapshots fail"),
            (one, "NOREPLICAS Not enough good replicas to write.", "too few replicas"),
            (one, "BUSY Redis is busy running a script.", "keeps it busy"),
            (one, "MASTERDOWN Link with MASTER is down", "lost its master"),
            (cluster, "ERR This instance has cluster support disabled", "not a node of a cluster"),
            (cluster, "CLUSTERDOWN The cluster is down", "have no master"),
            (cluster, "TRYAGAIN Multiple keys request during rehashing of slot", "on its way to another node"),
            (cluster, "ASK 2895 10.0.0.1:7000", "on its way to another node"),
            (cluster, "ERR nobody knows", "Redis Cluster at a,b: ERR nobody knows"),
        ];
        for (address, reply, advice) in cases {
            let StoreError::Unavailable(text) = told(address, reply) else { panic!("{reply}") };
            assert!(text.contains(advice) && text.contains(reply) && !text.contains("hunter2"), "{text}");
        }
        let damaged = told(one, "WRONGTYPE Operation against a key holding the wrong kind of value");
        assert!(matches!(&damaged, StoreError::Damaged(text) if text.starts_with("Redis at host: WRONGTYPE")), "{damaged}");
    }
}

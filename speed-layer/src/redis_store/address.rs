//! Where Redis is: the text of an address and what it means.

use std::{fmt, str::FromStr};

use redis::{ConnectionInfo, IntoConnectionInfo};

/// The notation, for errors.
const NOTATION: &str = "redis://user:password@host:6379/0 (rediss:// with TLS), or for a cluster \
                        redis-cluster://user:password@host:7000,host:7001 (rediss-cluster:// with TLS)";

/// A text that is not the address of Redis. It may hold a password, so it is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}: write {NOTATION}")]
pub struct InvalidRedisAddress(&'static str);

/// The address of a Redis server, or of some nodes of a Redis Cluster. Its password never shows.
///
/// ```text
/// redis://host                                         one server, port 6379, database 0
/// redis://user:password@host:6379/2                    as this user of its ACL, in database 2
/// rediss://:password@host:6380                         with TLS, as the user `default`
/// redis-cluster://user:password@host:7000,host2:7000   a cluster: the nodes named tell of the others
/// rediss-cluster://host:7000,host2:7000                a cluster with TLS
/// ```
///
/// Reserved characters in a user or password are percent-encoded (`%40` for `@`, `%2F` for `/`). With TLS the server's certificate must
/// be for the host that is written here; the certificates of a cluster must be for the addresses that its nodes announce.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddress {
    is_cluster: bool,
    has_tls: bool,
    /// `user:password`, percent-encoded.
    login: Option<String>,
    /// Each `host` or `host:port`.
    servers: Vec<String>,
    /// From the slash on, if there is one.
    path: String,
}

impl RedisAddress {
    /// Whether it names nodes of a cluster.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Whether connections use TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// The servers without login and database, for messages.
    pub(super) fn servers(&self) -> String {
        self.servers.join(",")
    }

    /// What the client takes, one for each server.
    pub(super) fn connection_infos(&self) -> redis::RedisResult<Vec<ConnectionInfo>> {
        let scheme = if self.has_tls { "rediss" } else { "redis" };
        let login = self.login.as_ref().map(|login| format!("{login}@")).unwrap_or_default();
        let path = &self.path;
        self.servers.iter().map(|server| format!("{scheme}://{login}{server}{path}").into_connection_info()).collect()
    }
}

impl FromStr for RedisAddress {
    type Err = InvalidRedisAddress;

    fn from_str(text: &str) -> Result<Self, InvalidRedisAddress> {
        let invalid = |reason| Err(InvalidRedisAddress(reason));
        let Some((scheme, rest)) = text.split_once("://") else { return invalid("this is not a URL") };
        let (is_cluster, has_tls) = match scheme {
            "redis" => (false, false),
            "rediss" => (false, true),
            "redis-cluster" => (true, false),
            "rediss-cluster" => (true, true),
            _ => return invalid("this is not the address of Redis"),
        };
        if rest.contains(['?', '#']) {
            return invalid("it has no parameters, and in a password ? is written %3F and # is written %23");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (login, servers) = authority.rsplit_once('@').map_or((None, authority), |(login, servers)| (Some(login), servers));
        if login.is_some_and(|login| login.split_once(':').is_none_or(|(_, password)| password.is_empty())) {
            return invalid("it has a user without a password");
        }
        let database = path.trim_start_matches('/');
        if !database.bytes().all(|byte| byte.is_ascii_digit()) {
            return invalid("its database is not a number, or its password has a / that is not written %2F");
        }
        if is_cluster && !["", "0"].contains(&database) {
            return invalid("a cluster has no other database than 0");
        }
        if !is_cluster && servers.contains(',') {
            return invalid("it names several servers and is not the address of a cluster");
        }
        let (login, servers) = (login.map(str::to_owned), servers.split(',').map(str::to_owned).collect());
        let address = Self { is_cluster, has_tls, login, servers, path: path.to_owned() };
        match address.connection_infos() {
            Ok(_) => Ok(address),
            Err(_) => invalid("it has no server, or one that is not written as host:port"),
        }
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.has_tls { "rediss" } else { "redis" })?;
        f.write_str(if self.is_cluster { "-cluster://" } else { "://" })?;
        if let Some((user, _)) = self.login.as_ref().and_then(|login| login.split_once(':')) {
            write!(f, "{user}:***@")?;
        }
        write!(f, "{}{}", self.servers.join(","), self.path)
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RedisAddress {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_notation_is_read_and_shown_without_its_password() {
        let cases = [
            ("redis://host", "redis://host", false, false),
            ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0", false, false),
            ("redis://me:hunter2@host:6379/2", "redis://me:***@host:6379/2", false, false),
            ("rediss://:hunter2@[::1]:6380", "rediss://:***@[::1]:6380", false, true),
            ("redis-cluster://me:hunter2@a:7000,b", "redis-cluster://me:***@a:7000,b", true, false),
            ("rediss-cluster://:p%40hunter2@a:1,b:2/", "rediss-cluster://:***@a:1,b:2/", true, true),
        ];
        for (text, shown, is_cluster, has_tls) in cases {
            let address = parse(text);
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
            assert_eq!((address.is_cluster(), address.has_tls()), (is_cluster, has_tls), "{text}");
        }
    }

    #[test]
    fn the_client_gets_what_is_written() {
        let infos = parse("rediss-cluster://a%2Fb:p%40%3A,@one:7000,[::1]:7001").connection_infos().expect("valid");
        let addresses: Vec<_> = infos.iter().map(|info| info.addr().to_string()).collect();
        assert_eq!(addresses, ["one:7000", "::1:7001"]);
        for info in &infos {
            let settings = info.redis_settings();
            assert_eq!((settings.username(), settings.password()), (Some("a/b"), Some("p@:,")));
        }
        let infos = parse("redis://host/3").connection_infos().expect("valid");
        assert_eq!((infos[0].addr().to_string().as_str(), infos[0].redis_settings().db()), ("host:6379", 3));
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        let cases = [
            "hunter2",
            "http://me:hunter2@host",
            "redis+unix:///hunter2",
            "redis://me:hunter2@",
            "redis://me:hunter2@host:port",
            "redis://me:hunter2@host:99999",
            "redis://me:hunter2@a,b",
            "redis-cluster://me:hunter2@a,",
            "redis-cluster://me:hunter2@a/1",
            "redis://me:hunter2/x@host",
            "redis://hunter2@host",
            "redis://me:@hunter2",
            "redis://me:hunter2@host?protocol=resp3",
            "rediss://me:hunter2@host#insecure",
            "rediss://me:hunter2@host/0/1",
        ];
        for text in cases {
            let message = text.parse::<RedisAddress>().expect_err(text).to_string();
            assert!(!message.contains("hunter2") && message.contains("redis://user:password@host"), "{text}: {message}");
        }
    }
}

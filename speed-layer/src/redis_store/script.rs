//! A script, and how it is run: by its hash, with its text where the server does not know it yet.

use redis::{Cmd, ErrorKind, RedisResult, ServerErrorKind, Value};

use super::connection::Route;

/// A Lua script.
#[derive(Debug)]
pub(super) struct Script {
    text: &'static str,
    hash: String,
}

/// What a script is called with.
#[derive(Debug)]
pub(super) struct Arguments<'a> {
    /// Every key that the script touches.
    pub(super) keys: &'a [String],
    /// The other arguments.
    pub(super) values: &'a [Vec<u8>],
}

impl Script {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }

    /// Runs it. The text goes to the one server that lacks it, in the call itself: `SCRIPT LOAD` would go to every node of a cluster,
    /// and fail where one of them is down.
    pub(super) async fn run(&self, route: &mut Route, arguments: &Arguments<'_>) -> RedisResult<Value> {
        match route.query(&command("EVALSHA", &self.hash, arguments)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                route.query(&command("EVAL", self.text, arguments)).await
            }
            result => result,
        }
    }
}

fn command(name: &str, script: &str, arguments: &Arguments<'_>) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(arguments.keys.len()).arg(arguments.keys);
    for value in arguments.values {
        command.arg(value.as_slice());
    }
    command
}

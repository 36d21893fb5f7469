//! Whether Redis throws keys away when its memory is full.

use redis::Value;

/// Says that realtime views may be evicted, once, if one of the servers that answered `INFO memory` does so.
pub(super) fn warn_of(address: &super::RedisAddress, info: &Value) {
    if let Some(policy) = evicting_policy(info) {
        tracing::warn!(
            %address, %policy,
            "Redis evicts realtime views when its memory is full: views are rebuilt then, again and again; set maxmemory-policy noeviction"
        );
    }
}

/// The policy of the first server that may evict keys without an expiry, which those of realtime views are.
fn evicting_policy(info: &Value) -> Option<&str> {
    let text = match info {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok()?,
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text,
        // A cluster's nodes, each with its own.
        Value::Map(nodes) => return nodes.iter().find_map(|(_, info)| evicting_policy(info)),
        _ => return None,
    };
    let policy = text.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"))?;
    policy.starts_with("allkeys-").then_some(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_policies_that_take_keys_without_an_expiry_evict() {
        let info = |policy: &str| Value::BulkString(format!("# Memory\r\nmaxmemory_policy:{policy}\r\nx:1\r\n").into_bytes());
        assert_eq!(evicting_policy(&info("noeviction")), None);
        assert_eq!(evicting_policy(&info("volatile-lru")), None);
        assert_eq!(evicting_policy(&info("allkeys-lfu")), Some("allkeys-lfu"));
        let cluster = Value::Map(vec![(Value::Nil, info("noeviction")), (Value::Nil, info("allkeys-random"))]);
        assert_eq!(evicting_policy(&cluster), Some("allkeys-random"));
        assert_eq!(evicting_policy(&Value::Nil), None);
    }
}

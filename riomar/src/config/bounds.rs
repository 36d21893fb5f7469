//! Limits that have to fit together: one that another makes unreachable is refused, not silently cut.

use riomar_schemas::limits::EVENT_BYTES_MAX;

use super::{Config, Fault, Origin, Resolved, units::ByteSize};

/// A limit that may not be larger than another one.
struct Bound {
    key: &'static str,
    of: fn(&Config) -> ByteSize,
    at_most: &'static str,
    limit: fn(&Config) -> ByteSize,
    /// What would happen otherwise.
    why: &'static str,
}

const BOUNDS: [Bound; 4] = [
    Bound {
        key: "ingestion.event_bytes_max",
        of: |config| config.ingestion.event_bytes_max,
        at_most: "EVENT_BYTES_MAX",
        limit: |_| ByteSize::new(EVENT_BYTES_MAX as u64),
        why: "no event may be larger",
    },
    Bound {
        key: "ingestion.body_bytes_max",
        of: |config| config.ingestion.body_bytes_max,
        at_most: "ingestion.decompressed_bytes_max",
        limit: |config| config.ingestion.decompressed_bytes_max,
        why: "a body that is sent as it is counts against both",
    },
    Bound {
        key: "ingestion.decompressed_bytes_max",
        of: |config| config.ingestion.decompressed_bytes_max,
        at_most: "ingestion.requests_bytes_max",
        limit: |config| config.ingestion.requests_bytes_max,
        why: "one request of the largest size has to fit in",
    },
    Bound {
        key: "serving.result_bytes_max",
        of: |config| config.serving.result_bytes_max,
        at_most: "serving.memory_max",
        limit: |config| config.serving.memory_max,
        why: "one answer of the largest size has to fit in",
    },
];

/// The limits that do not fit together.
pub fn check(resolved: &Resolved) -> impl Iterator<Item = Fault> {
    BOUNDS.iter().filter_map(|bound| {
        let (value, limit) = ((bound.of)(&resolved.config), (bound.limit)(&resolved.config));
        if value <= limit {
            return None;
        }
        let set = |key: &str| resolved.origins.get(key).filter(|origin| **origin != Origin::Default);
        let message = format!("{value} is more than the {limit} of {}: {}", bound.at_most, bound.why);
        Some(Fault { origin: set(bound.key).or_else(|| set(bound.at_most)).cloned(), key: Some(bound.key.to_owned()), message })
    })
}

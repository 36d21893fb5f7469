//! Topics: creating them, and checking that those that are there keep what a log promises.

use std::collections::BTreeMap;

use riomar_schemas::limits::EVENT_BYTES_MAX;

use super::{BATCH_OVERHEAD_BYTES, KafkaSettings, TOPIC_BYTES_MAX};
use crate::quarantine;

const TIMESTAMPS: &str = "message.timestamp.type";
const CLEANUP: &str = "cleanup.policy";
const BYTES: &str = "max.message.bytes";
const UNCLEAN: &str = "unclean.leader.election.enable";

/// A setting of a topic that would break a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) name: &'static str,
    pub(super) wanted: String,
    pub(super) found: String,
}

/// The settings that a topic is created with.
pub(super) fn of_new_topic(settings: &KafkaSettings) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        (TIMESTAMPS, "LogAppendTime".to_owned()),
        (CLEANUP, "delete".to_owned()),
        (BYTES, TOPIC_BYTES_MAX.to_string()),
        (UNCLEAN, "false".to_owned()),
        ("retention.ms", settings.retention_ms.to_string()),
        ("min.insync.replicas", settings.in_sync_min().to_string()),
    ])
}

/// A setting, what it should be, and whether a value will do.
type Rule<'a> = (&'static str, String, &'a dyn Fn(&str) -> bool);

/// What must be set differently in a topic that is there:
/// - append times that producers choose could run backwards, and retention is by append time;
/// - compaction would let go of events that have not landed;
/// - an event that a stream allows must fit, and so must every entry of a quarantine;
/// - a leader that was not in sync loses what was acknowledged.
pub(super) fn broken(topic: &str, found: impl Fn(&str) -> Option<String>) -> Vec<Broken> {
    let bytes_min = if topic.ends_with(quarantine::SUFFIX) { TOPIC_BYTES_MAX } else { EVENT_BYTES_MAX + BATCH_OVERHEAD_BYTES };
    let enough = |bytes: &str| bytes.parse::<usize>().is_ok_and(|bytes| bytes >= bytes_min);
    let equal = |wanted: &'static str| move |found: &str| found == wanted;
    let rules: [Rule<'_>; 4] = [
        (TIMESTAMPS, "LogAppendTime".to_owned(), &equal("LogAppendTime")),
        (CLEANUP, "delete".to_owned(), &equal("delete")),
        (BYTES, bytes_min.to_string(), &enough),
        (UNCLEAN, "false".to_owned(), &equal("false")),
    ];
    let kept = |(name, wanted, keeps): Rule<'_>| {
        // What a broker does not tell of cannot be checked.
        let found = found(name)?;
        (!keeps(&found)).then_some(Broken { name, wanted, found })
    };
    rules.into_iter().filter_map(kept).collect()
}

/// What to do about it.
pub(super) fn advice(brokers: &str, topic: &str, broken: &[Broken]) -> String {
    let found: Vec<_> = broken.iter().map(|setting| format!("{} = {}", setting.name, setting.found)).collect();
    let wanted: Vec<_> = broken.iter().map(|setting| format!("{}={}", setting.name, setting.wanted)).collect();
    format!(
        "topic {topic} has {}, with which a log cannot keep what it promises: \
         kafka-configs.sh --bootstrap-server {brokers} --alter --topic {topic} --add-config {}",
        found.join(", "),
        wanted.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken_names(topic: &str, changed: &[(&str, &str)]) -> Vec<&'static str> {
        let mut settings = of_new_topic(&KafkaSettings::new("a:1"));
        let changed: BTreeMap<_, _> = changed.iter().copied().collect();
        settings.retain(|name, _| changed.get(name) != Some(&""));
        let found = |name: &str| {
            settings.get(name)?;
            Some(changed.get(name).map_or_else(|| settings[name].clone(), |value| (*value).to_owned()))
        };
        broken(topic, found).into_iter().map(|setting| setting.name).collect()
    }

    #[test]
    fn what_breaks_a_promise_is_found() {
        let least = (EVENT_BYTES_MAX + BATCH_OVERHEAD_BYTES).to_string();
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
        let cases: [Case<'_>; 10] = [
            ("s", &[], &[]),
            ("s__quarantine", &[], &[]),
            ("s", &[(TIMESTAMPS, "CreateTime")], &[TIMESTAMPS]),
            ("s", &[(CLEANUP, "compact")], &[CLEANUP]),
            ("s", &[(CLEANUP, "compact,delete")], &[CLEANUP]),
            ("s", &[(BYTES, &least), ("retention.ms", "1000"), ("min.insync.replicas", "1")], &[]),
            ("s", &[(BYTES, "1048588")], &[BYTES]),
            ("s__quarantine", &[(BYTES, &least)], &[BYTES]),
            ("s", &[(UNCLEAN, "true"), (TIMESTAMPS, "CreateTime")], &[TIMESTAMPS, UNCLEAN]),
            ("s", &[(UNCLEAN, "")], &[]),
        ];
        for (topic, changed, expected) in cases {
            assert_eq!(broken_names(topic, changed), expected, "{topic} {changed:?}");
        }
    }

    #[test]
    fn the_advice_is_a_command() {
        let setting = |name, wanted: &str, found: &str| Broken { name, wanted: wanted.into(), found: found.into() };
        let broken = [setting(TIMESTAMPS, "LogAppendTime", "CreateTime"), setting(CLEANUP, "delete", "compact")];
        assert_eq!(
            advice("a:1", "page_views", &broken),
            "topic page_views has message.timestamp.type = CreateTime, cleanup.policy = compact, with which a log cannot keep what it \
             promises: kafka-configs.sh --bootstrap-server a:1 --alter --topic page_views --add-config \
             message.timestamp.type=LogAppendTime,cleanup.policy=delete"
        );
    }
}

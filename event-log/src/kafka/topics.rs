//! Topics: creating them, and checking that those that are there keep what a log promises.

use std::collections::BTreeMap;

use riomar_schemas::limits::EVENT_BYTES_MAX;

use super::{BATCH_OVERHEAD_BYTES, KafkaSettings, TOPIC_BYTES_MAX};
use crate::quarantine;

const TIMESTAMPS: &str = "message.timestamp.type";
const CLEANUP: &str = "cleanup.policy";
const BYTES: &str = "max.message.bytes";
const UNCLEAN: &str = "unclean.leader.election.enable";
const RETENTION_MS: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
/// What keeps records however old they are, and however many.
const ENDLESS: &str = "-1";

/// A setting of a topic that would break a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) name: &'static str,
    pub(super) wanted: String,
    pub(super) found: String,
}

/// The settings that a topic is created with. None goes by its size: what lands is trimmed, and what does not land must stay.
pub(super) fn of_new_topic(topic: &str, settings: &KafkaSettings) -> BTreeMap<&'static str, String> {
    let retention_ms = settings.retention_ms.filter(|_| !is_quarantine(topic));
    BTreeMap::from([
        (TIMESTAMPS, "LogAppendTime".to_owned()),
        (CLEANUP, "delete".to_owned()),
        (BYTES, TOPIC_BYTES_MAX.to_string()),
        (UNCLEAN, "false".to_owned()),
        (RETENTION_MS, retention_ms.map_or_else(|| ENDLESS.to_owned(), |retention_ms| retention_ms.to_string())),
        (RETENTION_BYTES, ENDLESS.to_owned()),
        ("min.insync.replicas", settings.in_sync_min().to_string()),
    ])
}

/// A setting, what it should be, and whether a value will do.
type Rule<'a> = (&'static str, String, &'a dyn Fn(&str) -> bool);

/// What must be set differently in a topic that is there:
/// - append times that producers choose could run backwards, and retention is by append time;
/// - compaction would let go of events that have not landed;
/// - an event that a stream allows must fit, and so must every entry of a quarantine;
/// - a leader that was not in sync loses what was acknowledged;
/// - a quarantine is nowhere else, and the account counts its entries: none goes of its own accord.
pub(super) fn broken(topic: &str, found: impl Fn(&str) -> Option<String>) -> Vec<Broken> {
    let bytes_min = if is_quarantine(topic) { TOPIC_BYTES_MAX } else { EVENT_BYTES_MAX + BATCH_OVERHEAD_BYTES };
    let enough = |bytes: &str| bytes.parse::<usize>().is_ok_and(|bytes| bytes >= bytes_min);
    let equal = |wanted: &'static str| move |found: &str| found == wanted;
    let (append_time, delete, no, endless) = (equal("LogAppendTime"), equal("delete"), equal("false"), equal(ENDLESS));
    let mut rules: Vec<Rule<'_>> = vec![
        (TIMESTAMPS, "LogAppendTime".to_owned(), &append_time),
        (CLEANUP, "delete".to_owned(), &delete),
        (BYTES, bytes_min.to_string(), &enough),
        (UNCLEAN, "false".to_owned(), &no),
    ];
    if is_quarantine(topic) {
        rules.push((RETENTION_MS, ENDLESS.to_owned(), &endless));
        rules.push((RETENTION_BYTES, ENDLESS.to_owned(), &endless));
    }
    differing(rules, found)
}

/// By what a topic of events deletes records sooner than `settings` say, landed or not. That may be meant so, and can be mended at any
/// time: it breaks nothing until landing is that late.
pub(super) fn deletes_early(topic: &str, settings: &KafkaSettings, found: impl Fn(&str) -> Option<String>) -> Vec<Broken> {
    if is_quarantine(topic) {
        return Vec::new();
    }
    let long_enough = |retention_ms: &str| match settings.retention_ms {
        None => retention_ms == ENDLESS,
        Some(wanted_ms) => retention_ms == ENDLESS || retention_ms.parse::<u64>().is_ok_and(|found_ms| found_ms >= wanted_ms),
    };
    let forever = |retention_bytes: &str| retention_bytes == ENDLESS;
    let mut wanted = of_new_topic(topic, settings);
    let mut rule = |name| wanted.remove(name).unwrap_or_default();
    differing(vec![(RETENTION_MS, rule(RETENTION_MS), &long_enough), (RETENTION_BYTES, rule(RETENTION_BYTES), &forever)], found)
}

fn is_quarantine(topic: &str) -> bool {
    topic.ends_with(quarantine::SUFFIX)
}

fn differing(rules: Vec<Rule<'_>>, found: impl Fn(&str) -> Option<String>) -> Vec<Broken> {
    let kept = |(name, wanted, keeps): Rule<'_>| {
        // What a broker does not tell of cannot be checked.
        let found = found(name)?;
        (!keeps(&found)).then_some(Broken { name, wanted, found })
    };
    rules.into_iter().filter_map(kept).collect()
}

/// What to do about settings that break a promise.
pub(super) fn advice(brokers: &str, topic: &str, broken: &[Broken]) -> String {
    format!(
        "topic {topic} has {}, with which a log cannot keep what it promises: {}",
        found(broken),
        command(brokers, topic, broken)
    )
}

/// What to do about settings by which Kafka deletes records early.
pub(super) fn warning(brokers: &str, topic: &str, early: &[Broken]) -> String {
    format!(
        "topic {topic} has {}, so Kafka deletes records sooner than log.topic_retain says, whether they have landed or not: {}",
        found(early),
        command(brokers, topic, early)
    )
}

fn found(settings: &[Broken]) -> String {
    let found: Vec<_> = settings.iter().map(|setting| format!("{} = {}", setting.name, setting.found)).collect();
    found.join(", ")
}

/// Kafka's own command that sets them as they should be.
fn command(brokers: &str, topic: &str, settings: &[Broken]) -> String {
    let wanted: Vec<_> = settings.iter().map(|setting| format!("{}={}", setting.name, setting.wanted)).collect();
    format!("kafka-configs.sh --bootstrap-server {brokers} --alter --topic {topic} --add-config {}", wanted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings of a new topic, some of them changed; an empty one is not told by the broker.
    fn changed(topic: &str, settings: &KafkaSettings, changes: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        let change = |name: &str| Some(changes.iter().find(|(changed, _)| *changed == name)?.1.to_owned());
        let told: BTreeMap<_, _> = of_new_topic(topic, settings)
            .into_iter()
            .map(|(name, value)| (name, change(name).unwrap_or(value)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        move |name| told.get(name).cloned()
    }

    fn names(settings: Vec<Broken>) -> Vec<&'static str> {
        settings.into_iter().map(|setting| setting.name).collect()
    }

    #[test]
    fn what_breaks_a_promise_is_found() {
        let least = (EVENT_BYTES_MAX + BATCH_OVERHEAD_BYTES).to_string();
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
        let cases: [Case<'_>; 13] = [
            ("s", &[], &[]),
            ("s__quarantine", &[], &[]),
            ("s", &[(TIMESTAMPS, "CreateTime")], &[TIMESTAMPS]),
            ("s", &[(CLEANUP, "compact")], &[CLEANUP]),
            ("s", &[(CLEANUP, "compact,delete")], &[CLEANUP]),
            ("s", &[(BYTES, &least), (RETENTION_MS, "1000"), (RETENTION_BYTES, "1000"), ("min.insync.replicas", "1")], &[]),
            ("s", &[(BYTES, "1048588")], &[BYTES]),
            ("s__quarantine", &[(BYTES, &least)], &[BYTES]),
            ("s__quarantine", &[(RETENTION_MS, "604800000")], &[RETENTION_MS]),
            ("s__quarantine", &[(RETENTION_BYTES, "1000000000")], &[RETENTION_BYTES]),
            ("s__quarantine", &[(RETENTION_MS, ""), (RETENTION_BYTES, "")], &[]),
            ("s", &[(UNCLEAN, "true"), (TIMESTAMPS, "CreateTime")], &[TIMESTAMPS, UNCLEAN]),
            ("s", &[(UNCLEAN, "")], &[]),
        ];
        let bounded = KafkaSettings { retention_ms: Some(3_600_000), ..KafkaSettings::new("a:1") };
        for (topic, changes, expected) in cases {
            for settings in [&KafkaSettings::new("a:1"), &bounded] {
                let broken = broken(topic, changed(topic, settings, changes));
                assert_eq!(names(broken), expected, "{topic} {changes:?}");
            }
        }
    }

    #[test]
    fn what_deletes_records_early_is_found() {
        type Case<'a> = (&'a str, Option<u64>, &'a [(&'a str, &'a str)], &'a [&'a str]);
        let cases: [Case<'_>; 9] = [
            ("s", None, &[], &[]),
            ("s", Some(1_000), &[], &[]),
            ("s", None, &[(RETENTION_MS, "604800000")], &[RETENTION_MS]),
            ("s", None, &[(RETENTION_MS, "604800000"), (RETENTION_BYTES, "9")], &[RETENTION_MS, RETENTION_BYTES]),
            ("s", Some(1_000), &[(RETENTION_MS, "999")], &[RETENTION_MS]),
            ("s", Some(1_000), &[(RETENTION_MS, "1001")], &[]),
            ("s", Some(1_000), &[(RETENTION_MS, "-1")], &[]),
            ("s", None, &[(RETENTION_MS, "")], &[]),
            ("s__quarantine", None, &[(RETENTION_MS, "1")], &[]),
        ];
        for (topic, retention_ms, changes, expected) in cases {
            let settings = KafkaSettings { retention_ms, ..KafkaSettings::new("a:1") };
            let early = deletes_early(topic, &settings, changed(topic, &settings, changes));
            assert_eq!(names(early), expected, "{topic} {retention_ms:?} {changes:?}");
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
        assert_eq!(
            warning("a:1", "page_views", &[setting(RETENTION_MS, "-1", "604800000")]),
            "topic page_views has retention.ms = 604800000, so Kafka deletes records sooner than log.topic_retain says, whether they have \
             landed or not: kafka-configs.sh --bootstrap-server a:1 --alter --topic page_views --add-config retention.ms=-1"
        );
    }
}

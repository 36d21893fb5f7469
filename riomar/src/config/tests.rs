//! The configuration as its users meet it.

use super::*;

fn sources(file: &str, environment: &[(&str, &str)], flags: &[(&'static str, &'static str, &str)]) -> Sources {
    Sources {
        file: (!file.is_empty()).then(|| ("riomar.toml".into(), file.to_owned())),
        environment: environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        flags: flags.iter().map(|(key, flag, value)| (*key, *flag, (*value).to_owned())).collect(),
    }
}

fn faults(file: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let error = resolve(Config::new(), &sources(file, environment, &[])).expect_err("refused");
    error.faults.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_set_gives_the_defaults() {
    let resolved = resolve(Config::new(), &Sources::default()).expect("defaults");
    assert_eq!(resolved.config, Config::new());
    assert!(resolved.origins.values().all(|origin| *origin == Origin::Default));
    assert_eq!(resolved.origins.len(), KEYS.len());
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "data = \"from-file\"\n[batch]\nevery = \"2m\"\n[serving]\nhttp = \"127.0.0.1:1\"\nresult_rows_max = 1_000\n";
    let environment = [("RIOMAR_BATCH_EVERY", "3m"), ("RIOMAR_SERVING_HTTP", "127.0.0.1:2"), ("PATH", "/bin")];
    let flags = [("serving.http", "--http", "127.0.0.1:3")];
    let resolved = resolve(Config::new(), &sources(file, &environment, &flags)).expect("valid");
    let shown = |key: &str| {
        let key = KEYS.iter().find(|known| known.name == key).expect("key");
        ((key.get)(&resolved.config), resolved.origins[key.name].to_string())
    };
    for (key, value, origin) in [
        ("serving.http", "127.0.0.1:3", "--http"),
        ("batch.every", "3m", "RIOMAR_BATCH_EVERY"),
        ("serving.result_rows_max", "1000", "riomar.toml:6"),
        ("data", "from-file", "riomar.toml:1"),
        ("speed.grace", "1m", "default"),
    ] {
        assert_eq!(shown(key), (value.to_owned(), origin.to_owned()), "{key}");
    }
}

#[test]
fn every_fault_of_a_file_is_named_with_its_line_and_key() {
    let file = "\
data = 5
[batch]
evry = \"1m\"
landing_age_max = \"soon\"
generations_kept = \"3\"
groups_per_view_max = 0
[serving]
http = \"here\"
postgres = \"127.0.0.1:5433\"
[log]
kind = \"pulsar\"
brokers = [\"b:9092\"]
[flux]
x = 1
";
    let expected = [
        "riomar.toml:1: data: integer is given where a string in quotation marks belongs",
        "riomar.toml:3: batch.evry: there is no such key: did you mean 'batch.every'?",
        "riomar.toml:4: batch.landing_age_max: 'soon' is not a duration: write a number with ms, s, m, h or d, such as \"500ms\" or \"1h30m\"",
        "riomar.toml:5: batch.generations_kept: string is given where a whole number without quotation marks belongs",
        "riomar.toml:6: batch.groups_per_view_max: it must be greater than zero",
        "riomar.toml:8: serving.http: 'here' is not an address: write IP:PORT, such as 127.0.0.1:8080",
        "riomar.toml:9: serving.postgres: not supported by this build: remove it",
        "riomar.toml:11: log.kind: 'pulsar' is no kind of log: use \"embedded\" or \"kafka\"",
        "riomar.toml:12: log.brokers: array is given where a string in quotation marks belongs",
        "riomar.toml:13: flux: there is no such key: riomar.toml in the source lists all of them",
    ];
    let mut found = faults(file, &[]);
    found.sort_by_key(|fault| fault.split(':').nth(1).and_then(|line| line.parse::<u32>().ok()));
    assert_eq!(found, expected);
}

#[test]
fn a_file_that_is_no_toml_is_named_with_its_line() {
    let found = faults("[batch]\nevery = 1m\n", &[]);
    assert!(found[0].starts_with("riomar.toml:2: this is not TOML: "), "{found:?}");
    let twice = faults("[batch]\nevery = \"1m\"\nevery = \"2m\"\n", &[]);
    assert!(twice[0].starts_with("riomar.toml:3: this is not TOML: duplicate key"), "{twice:?}");
}

#[test]
fn variables_are_named_too_and_unknown_ones_stop_the_start() {
    let found = faults("", &[("RIOMAR_BATCH_EVERY", "1"), ("RIOMAR_REALTIME_KIND", "disk")]);
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with("RIOMAR_BATCH_EVERY: batch.every: "), "{found:?}");
    let found = faults("", &[("RIOMAR_URL", "http://x"), ("RIOMAR_BATCH_EVRY", "1m"), ("RIOMAR_SERVICE_HOST", "10.0.0.1")]);
    assert_eq!(found, ["RIOMAR_BATCH_EVRY: there is no such variable: did you mean RIOMAR_BATCH_EVERY?"]);
}

#[test]
fn limits_have_to_fit_together() {
    for (file, environment, expected) in [
        (
            "[ingestion]\nevent_bytes_max = \"2MiB\"",
            &[][..],
            "riomar.toml:2: ingestion.event_bytes_max: 2MiB is more than the 1MiB of EVENT_BYTES_MAX: no event may be larger",
        ),
        (
            "[ingestion]\nbody_bytes_max = \"65MiB\"",
            &[],
            "riomar.toml:2: ingestion.body_bytes_max: 65MiB is more than the 64MiB of ingestion.decompressed_bytes_max: \
             a body that is sent as it is counts against both",
        ),
        (
            "[ingestion]\nrequests_bytes_max = \"63MiB\"",
            &[],
            "riomar.toml:2: ingestion.decompressed_bytes_max: 64MiB is more than the 63MiB of ingestion.requests_bytes_max: \
             one request of the largest size has to fit in",
        ),
        (
            "",
            &[("RIOMAR_SERVING_MEMORY_MAX", "100MiB")],
            "RIOMAR_SERVING_MEMORY_MAX: serving.result_bytes_max: 128MiB is more than the 100MiB of serving.memory_max: \
             one answer of the largest size has to fit in",
        ),
    ] {
        assert_eq!(faults(file, environment), [expected]);
    }
    let equal = "[ingestion]\nbody_bytes_max = \"64MiB\"\nrequests_bytes_max = \"64MiB\"\n[serving]\nmemory_max = \"128MiB\"\n";
    resolve(Config::new(), &sources(equal, &[], &[])).expect("limits may be equal");
}

#[test]
fn a_password_in_a_variable_never_shows() {
    let found = faults("", &[("RIOMAR_REALTIME_URL", "redis+unix://:hunter2@host")]);
    assert!(!found[0].contains("hunter2"), "{found:?}");
}

/// The example file in the repository's root.
const EXAMPLE: &str = include_str!("../../../riomar.toml");

#[test]
fn the_example_file_holds_every_key_with_its_default() {
    let resolved = resolve(Config::new(), &sources(EXAMPLE, &[], &[])).expect("the example is valid");
    assert_eq!(resolved.config, Config::new());
    for key in KEYS {
        assert!(matches!(resolved.origins[key.name], Origin::File { .. }), "{} is missing", key.name);
    }
}

#[test]
fn the_example_file_explains_every_key_and_writes_it_as_the_build_does() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for key in KEYS {
        let name = key.name.rsplit('.').next().expect("name");
        let written = format!("{name} = {}", key.toml(&Config::new()));
        let places = lines.iter().enumerate().filter(|(_, line)| line.replace('_', "") == written.replace('_', ""));
        let explained = places.filter(|(at, _)| *at > 0 && lines[at - 1].starts_with("# ")).count();
        assert!(explained > 0, "`{written}` with a comment above it is not in riomar.toml");
    }
}

#[test]
fn every_value_can_be_written_and_read_again() {
    for defaults in [Config::new(), Config::demo()] {
        for key in KEYS {
            let mut config = Config::new();
            (key.set)(&mut config, &(key.get)(&defaults)).unwrap_or_else(|error| panic!("{}: {error}", key.name));
            assert_eq!((key.get)(&config), (key.get)(&defaults), "{}", key.name);
        }
    }
}

#[test]
fn names_of_keys_and_variables_are_unique() {
    let names: std::collections::BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
    let variables: std::collections::BTreeSet<_> = KEYS.iter().map(Key::variable).collect();
    assert_eq!((names.len(), variables.len()), (KEYS.len(), KEYS.len()));
    assert!(variables.contains("RIOMAR_BATCH_EVERY") && variables.contains("RIOMAR_DATA"));
}

//! The deployment files name only what there is: configuration keys, commands, metrics, alerts, images.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use riomar::config::{Config, KEYS};
use riomar_tests::process::{self, binary, root};
use serde_json::Value;

/// The crates that record metrics.
const CRATES: &[&str] = &["event-log", "batch-layer", "speed-layer", "serving-layer", "riomar"];
/// What Prometheus makes of a histogram.
const HISTOGRAM_PARTS: &[&str] = &["_bucket", "_sum", "_count"];
const RECORDS: &str = "infra/prometheus/records.yml";
const ALERTS: &str = "infra/prometheus/alerts.yml";
const DASHBOARD: &str = "infra/grafana/dashboards/operations.json";

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words of a text that begin like this; a word is made of letters, digits, `_` and `:`.
fn words(text: &str, start: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || matches!(character, '_' | ':')));
    words.filter(|word| word.starts_with(start)).map(|word| word.trim_end_matches(':').to_owned()).collect()
}

/// The values of all lines `key: value`, in any list and at any depth; without quotes and comments.
fn values<'a>(yaml: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    yaml.lines().filter_map(move |line| {
        let value = line.trim_start().trim_start_matches("- ").strip_prefix(key)?.strip_prefix(':')?;
        let value = value.split(" #").next().unwrap_or_default().trim().trim_matches('"');
        (!value.is_empty()).then_some(value)
    })
}

fn check(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Whether a tool of the machine can be run; says so if not.
fn there_is(program: &str, arguments: &[&str]) -> bool {
    let there = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    if !there {
        println!("not checked: `{program} {}` does not work here", arguments.join(" "));
    }
    there
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output().expect("it ran before");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {}:\n{out}{err}", arguments.join(" "));
    out.into_owned()
}

#[test]
fn every_variable_is_a_key_with_a_value_that_it_takes() {
    let (compose, dockerfile) = (read("docker-compose.yml"), read("infra/Dockerfile"));
    let named = words(&(compose.clone() + &dockerfile), "RIOMAR_");
    assert!(named.len() > 8, "{named:?}");
    let mut broken = Vec::new();
    for name in &named {
        let Some(key) = KEYS.iter().find(|key| key.variable() == *name) else {
            broken.push(format!("{name} is no key of the configuration"));
            continue;
        };
        let given = dockerfile.split_whitespace().filter_map(|word| word.strip_prefix(name.as_str())?.strip_prefix('='));
        for value in values(&compose, name).chain(given) {
            if let Err(expected) = (key.set)(&mut Config::new(), value) {
                broken.push(format!("{name}: {value}: {expected}"));
            }
        }
    }
    check("variables", &broken);
}

/// The arguments of a list in JSON, or in YAML's flow style.
fn arguments(list: &str) -> Vec<String> {
    let list = list.trim().strip_prefix('[').and_then(|list| list.strip_suffix(']')).expect("a list in brackets");
    list.split(',').map(|argument| argument.trim().trim_matches('"').to_owned()).collect()
}

/// What the services of Riomar are started with.
fn commands() -> Vec<Vec<String>> {
    let compose = read("docker-compose.yml");
    values(&compose, "command").filter(|list| list.starts_with("[up")).map(arguments).collect()
}

#[test]
fn every_command_is_understood() {
    let mut commands = commands();
    assert_eq!(commands.len(), 4, "one for each role: {commands:?}");
    for line in read("infra/Dockerfile").lines() {
        let Some((_, list)) = line.trim_start().split_once("CMD [") else { continue };
        let mut command = arguments(&format!("[{list}"));
        command.retain(|argument| argument != "riomar");
        commands.push(command);
    }
    assert_eq!(commands.len(), 6, "the image's command and its health check as well: {commands:?}");
    let mut broken = Vec::new();
    for command in commands {
        // What comes before `--help` is understood first.
        let output = process::command(binary()).args(&command).arg("--help").output().expect("the binary starts");
        if !output.status.success() {
            broken.push(format!("riomar {}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr).trim()));
        }
    }
    check("commands", &broken);
}

#[test]
fn every_role_is_scraped_and_has_a_route() {
    let prometheus = read("infra/prometheus/prometheus.yml");
    let scraped: BTreeSet<String> = values(&prometheus, "names").flat_map(arguments).collect();
    let started: BTreeSet<String> = commands().iter().filter_map(|command| command.get(2).cloned()).collect();
    assert_eq!(scraped, started);
    let gateway = read("infra/compose/gateway.conf");
    for role in ["ingest", "batch", "serve"] {
        assert!(started.contains(role) && gateway.contains(&format!("http://{role}:8080")), "{role}");
    }
}

/// Whether an image says exactly what it is: by a version, or by its digest.
fn is_pinned(image: &str) -> bool {
    if let Some((_, digest)) = image.split_once("@sha256:") {
        return digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let tag = image.rsplit_once('/').map_or(image, |(_, name)| name).split_once(':').map_or("", |(_, tag)| tag);
    tag.contains('.') && tag.contains(|character: char| character.is_ascii_digit())
}

#[test]
fn every_image_is_pinned() {
    let (compose, dockerfile) = (read("docker-compose.yml"), read("infra/Dockerfile"));
    let bases = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")).filter_map(|line| line.split(' ').next());
    let images: Vec<&str> = values(&compose, "image").chain(bases).collect();
    assert!(images.len() > 7, "{images:?}");
    let broken: Vec<String> = images.iter().filter(|image| !is_pinned(image)).map(|image| (*image).to_owned()).collect();
    check("these images may change from one day to the next", &broken);
    let version = env!("CARGO_PKG_VERSION");
    assert!(images.contains(&format!("riomar:{version}").as_str()), "{images:?}");
    assert!(dockerfile.contains(&format!("image.version=\"{version}\"")), "the label names another version than {version}");
    for (image, expected) in
        [("a", false), ("a:latest", false), ("h:5000/a", false), ("a:8", false), ("h/a:1.2-alpine", true), ("a@sha256:12", false)]
    {
        assert_eq!(is_pinned(image), expected, "{image}");
    }
}

/// Names of metrics that the code records: its string literals that are nothing but such a name.
pub(super) fn recorded() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders: Vec<_> = CRATES.iter().map(|name| root().join(name).join("src")).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let is_test = path.file_stem().is_some_and(|name| name == "tests");
            if path.is_dir() && !is_test {
                folders.push(path);
            } else if !is_test && path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                let literals = text.split('"').skip(1).filter(|literal| literal.starts_with("riomar_"));
                let is_name = |literal: &&str| {
                    literal.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()) && !literal.ends_with('_')
                };
                names.extend(literals.filter(is_name).map(str::to_owned));
            }
        }
    }
    assert!(names.len() > 20, "{names:?}");
    names
}

#[test]
fn every_metric_is_one_that_the_code_records() {
    let (recorded, rules) = (recorded(), read(RECORDS));
    let rules: BTreeSet<&str> = values(&rules, "record").collect();
    let mut broken = Vec::new();
    for path in [RECORDS, ALERTS, "infra/prometheus/alerts.test.yml", DASHBOARD] {
        let text = read(path);
        for name in words(&text, "riomar_") {
            let base = HISTOGRAM_PARTS.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(&name);
            if !recorded.contains(&name) && !recorded.contains(base) {
                broken.push(format!("{path}: {name}"));
            }
        }
        let derived = words(&text, "riomar:");
        broken.extend(derived.iter().filter(|name| !rules.contains(name.as_str())).map(|name| format!("{path}: {name}")));
    }
    check("metrics that nobody records", &broken);
}

#[test]
fn every_alert_is_explained() {
    let (alerts, manual) = (read(ALERTS), read("docs/operations.md"));
    let alerts: BTreeSet<String> = values(&alerts, "alert").map(str::to_owned).collect();
    let explained: BTreeSet<String> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("| `Riomar")?.split_once('`'))
        .map(|(name, _)| format!("Riomar{name}"))
        .collect();
    assert!(alerts.len() > 15, "{alerts:?}");
    assert_eq!(alerts, explained, "docs/operations.md has one line for each alert");
}

/// The dashboard's variables that an expression uses: neither Grafana's own nor groups of a regular expression.
fn variables_of(expression: &str) -> Vec<String> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let names = expression.split('$').skip(1).map(|rest| rest.split(|character| !is_part(character)).next().unwrap_or_default());
    let names = names.filter(|name| !name.starts_with("__") && !name.bytes().all(|byte| byte.is_ascii_digit()));
    names.map(str::to_owned).collect()
}

#[test]
fn every_panel_can_be_read() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() > 30, "{} panels", panels.len());
    let source = read("infra/grafana/provisioning/datasources/prometheus.yml");
    let source = values(&source, "uid").next().expect("a data source").to_owned();
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let variables: BTreeSet<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(variables, BTreeSet::from(["stream", "view"]));
    let (mut broken, mut ids, mut cells) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap_or_default();
        if !ids.insert(panel["id"].as_u64()) {
            broken.push(format!("{title}: its id is another panel's"));
        }
        let place = |name: &str| panel["gridPos"][name].as_u64().expect("a place");
        for cell in (place("x")..place("x") + place("w")).flat_map(|x| (place("y")..place("y") + place("h")).map(move |y| (x, y)))
        {
            if let Some(other) = cells.insert(cell, title) {
                broken.push(format!("{title}: lies over {other}"));
                break;
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        let unit = &panel["fieldConfig"]["defaults"]["unit"];
        if title.is_empty() || panel["description"].as_str().is_none_or(str::is_empty) || !unit.is_string() {
            broken.push(format!("{title}: lacks a title, a description or a unit"));
        }
        let targets = panel["targets"].as_array().expect("targets");
        if targets.is_empty() || targets.iter().any(|target| target["datasource"]["uid"] != *source) {
            broken.push(format!("{title}: asks another data source than {source}"));
        }
        let expressions = targets.iter().filter_map(|target| target["expr"].as_str());
        let unknown = expressions.flat_map(variables_of).filter(|name| !variables.contains(name.as_str()));
        broken.extend(unknown.map(|name| format!("{title}: there is no variable ${name}")));
    }
    check("panels", &broken);
}

#[test]
fn the_rules_do_what_they_say() {
    if there_is("promtool", &["--version"]) {
        output_of("promtool", &["check", "rules", RECORDS, ALERTS]);
        output_of("promtool", &["test", "rules", "infra/prometheus/alerts.test.yml"]);
    }
}

#[test]
fn the_compose_file_is_valid_and_tight() {
    if !there_is("docker", &["compose", "version"]) {
        return;
    }
    output_of("docker", &["compose", "--env-file", ".env.example", "config", "--quiet"]);
    let config = output_of("docker", &["compose", "--env-file", ".env.example", "config", "--format", "json"]);
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let mut broken = Vec::new();
    for (name, service) in config["services"].as_object().expect("services") {
        let mut rule = |kept: bool, rule: &str| {
            if !kept {
                broken.push(format!("{name}: {rule}"));
            }
        };
        rule(service["cap_drop"] == serde_json::json!(["ALL"]), "drops all capabilities");
        rule(service["security_opt"] == serde_json::json!(["no-new-privileges:true"]), "gains no privileges");
        rule(service["mem_limit"].is_string(), "has a limit of memory");
        rule(service["restart"] == "unless-stopped", "is started again");
        rule(service["read_only"] == true || name == "kafka", "cannot write to its root file system");
        rule(
            service["healthcheck"].is_object() || service["image"] == format!("riomar:{}", env!("CARGO_PKG_VERSION")),
            "has a health check",
        );
        let ports = service["ports"].as_array().cloned().unwrap_or_default();
        rule(ports.iter().all(|port| port["host_ip"] == "127.0.0.1"), "listens on loopback only");
    }
    check("services", &broken);
}

//! The repository's own rules.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use riomar_tests::process::root;

/// Lines a source file may have.
const FILE_LINES_MAX: usize = 400;

/// Files that are longer, with their length. A number here may only go down; at [`FILE_LINES_MAX`] the line is taken out.
const LONGER_FILES: &[(&str, usize)] = &[];

/// Folders that are not part of the sources.
const NOT_SOURCES: &[&str] = &["target", ".git"];

/// Which of Riomar's crates each crate may stand on: for use, and for its own tests.
const CRATES: &[(&str, &[&str], &[&str])] = &[
    ("schemas", &[], &[]),
    ("event-log", &["riomar-schemas"], &["riomar-infra"]),
    ("batch-layer", &["riomar-schemas", "riomar-event-log"], &[]),
    ("speed-layer", &["riomar-schemas", "riomar-event-log"], &["riomar-infra"]),
    ("serving-layer", &["riomar-schemas", "riomar-event-log", "riomar-batch-layer", "riomar-speed-layer"], &["riomar-infra"]),
    (
        "riomar",
        &["riomar-schemas", "riomar-event-log", "riomar-batch-layer", "riomar-speed-layer", "riomar-serving-layer"],
        &["riomar-infra"],
    ),
    ("infra", &[], &[]),
];

/// What a crate knows nothing of: other crates that it must not use.
const IGNORANT_OF: &[(&str, &[&str])] = &[
    ("schemas", &["axum", "hyper", "redis", "fjall", "deltalake-core", "reqwest"]),
    ("event-log", &["axum", "hyper", "redis", "deltalake-core", "parquet", "reqwest"]),
    ("batch-layer", &["axum", "hyper", "redis", "fjall", "reqwest"]),
    ("speed-layer", &["axum", "hyper", "parquet", "fjall", "deltalake-core", "object_store", "reqwest"]),
    ("serving-layer", &["redis", "fjall", "deltalake-core"]),
];

/// Words that are not left in the project, with what to do instead.
const BANNED: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "do it, or describe what is lacking in the documentation"),
    (concat!("FIX", "ME"), "mend it"),
    (concat!("unimplemented", "!"), "implement it, or return an error"),
    (concat!("todo", "!("), "implement it, or return an error"),
    (concat!("dbg", "!("), "use tracing"),
    (concat!("/work", "/"), "name no place of the machine it was written on"),
    (concat!("../", "shared"), "name no place of the machine it was written on"),
];

/// Kinds of files that [`BANNED`] is about.
const TEXT_FILES: &[&str] = &["rs", "toml", "md", "sql", "yml", "yaml", "html", "js", "css", "json"];

/// All files of the repository, by path relative to its root.
fn files() -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            match path.is_dir() {
                true if NOT_SOURCES.contains(&name.as_str()) => {}
                true => folders.push(path),
                false => drop(found.insert(path.strip_prefix(root()).expect("below the root").display().to_string(), path)),
            }
        }
    }
    assert!(found.len() > 100, "the repository was not found at {}", root().display());
    found
}

fn sources() -> Vec<(String, String)> {
    let rust = files().into_iter().filter(|(name, _)| name.ends_with(".rs"));
    rust.map(|(name, path)| (name, fs::read_to_string(path).expect("UTF-8"))).collect()
}

fn check(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn every_source_file_says_what_it_is() {
    let broken = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! ") || text.lines().next().is_some_and(|line| line.len() < 12));
    check("these files do not begin with module documentation", &broken.map(|(name, _)| name).collect::<Vec<_>>());
}

#[test]
fn no_file_grows_beyond_its_allowance() {
    let allowance = |name: &str| LONGER_FILES.iter().find(|(file, _)| *file == name).map(|(_, lines)| *lines);
    let mut broken = Vec::new();
    let sources = sources();
    for (name, text) in &sources {
        let lines = text.lines().count();
        match allowance(name) {
            None if lines > FILE_LINES_MAX => {
                broken.push(format!("{name} has {lines} lines, allowed are {FILE_LINES_MAX}: split it by concern"))
            }
            Some(allowed) if lines > allowed => broken.push(format!("{name} has {lines} lines, its allowance is {allowed}")),
            Some(allowed) if lines < allowed => {
                broken.push(format!("{name} is down to {lines} lines: lower its allowance of {allowed}"))
            }
            _ => {}
        }
    }
    broken.extend(
        LONGER_FILES
            .iter()
            .filter(|(file, _)| !sources.iter().any(|(name, _)| name == file))
            .map(|(file, _)| format!("{file} is gone")),
    );
    check("lengths", &broken);
}

#[test]
fn no_banned_word_is_left() {
    let mut broken = Vec::new();
    for (name, path) in files() {
        if !path.extension().is_some_and(|extension| TEXT_FILES.contains(&&*extension.to_string_lossy())) {
            continue;
        }
        let text = fs::read_to_string(&path).expect("UTF-8");
        for (number, line) in (1..).zip(text.lines()) {
            let found = BANNED.iter().filter(|(word, _)| line.contains(word));
            broken.extend(found.map(|(word, instead)| format!("{name}:{number}: '{word}': {instead}")));
        }
    }
    check("banned words", &broken);
}

#[test]
fn paths_and_keys_are_written_in_one_place() {
    let rules = [
        ("schemas/src/keys.rs", concat!("\"riomar", ":{{")),
        ("schemas/src/paths.rs", concat!("from_iter([\"", "streams\"")),
        ("schemas/src/paths.rs", concat!("from_iter([\"", "views\"")),
        ("schemas/src/paths.rs", concat!("format!(\"", "streams/")),
        ("schemas/src/paths.rs", concat!("format!(\"", "views/")),
    ];
    let mut broken = Vec::new();
    for (name, text) in sources() {
        for (home, piece) in rules {
            if name != home && text.contains(piece) {
                broken.push(format!("{name} writes {piece}…, which belongs into {home}"));
            }
        }
    }
    check("paths and keys", &broken);
}

/// The names in one table of a crate's manifest.
fn dependencies(folder: &str, table: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
    let manifest: toml::Table = text.parse().expect("TOML");
    manifest.get(table).and_then(|table| table.as_table()).map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

#[test]
fn each_crate_stands_only_on_what_it_may_know() {
    let mut broken = Vec::new();
    for (folder, used, used_by_tests) in CRATES {
        for dependency in dependencies(folder, "dependencies").iter().filter(|name| name.starts_with("riomar")) {
            if !used.contains(&dependency.as_str()) {
                broken.push(format!("{folder} uses {dependency}"));
            }
        }
        for dependency in dependencies(folder, "dev-dependencies").iter().filter(|name| name.starts_with("riomar")) {
            if !used.contains(&dependency.as_str()) && !used_by_tests.contains(&dependency.as_str()) {
                broken.push(format!("{folder}'s tests use {dependency}"));
            }
        }
    }
    for (folder, unknown) in IGNORANT_OF {
        let used = dependencies(folder, "dependencies");
        broken.extend(
            unknown.iter().filter(|name| used.iter().any(|used| used == *name)).map(|name| format!("{folder} uses {name}")),
        );
    }
    check("dependencies", &broken);
}

#[test]
fn every_crate_is_held_to_these_rules() {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest").parse().expect("TOML");
    let members = manifest["workspace"]["members"].as_array().expect("a list").clone();
    let mut broken = Vec::new();
    for member in members.iter().filter_map(|member| member.as_str()) {
        let named = CRATES.iter().any(|(folder, ..)| *folder == member) || ["tests", "bench"].contains(&member);
        if !named {
            broken.push(format!("{member} is not in the table of crates"));
        }
        let text = fs::read_to_string(root().join(member).join("Cargo.toml")).expect("a manifest");
        if !text.contains("[lints]\nworkspace = true") {
            broken.push(format!("{member} does not take the workspace's lints"));
        }
        if !Path::new(&root()).join(member).join("src").is_dir() {
            broken.push(format!("{member} has no src"));
        }
    }
    check("members", &broken);
}

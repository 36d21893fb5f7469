//! What the lock lets in, by the rules of `deny.toml`: licences and sources. `cargo deny` says the same and asks for advisories too.

use std::{fs, process::Command};

use riomar_tests::process::root;
use serde_json::Value;

/// The licences that `deny.toml` allows.
fn allowed() -> Vec<String> {
    let rules = fs::read_to_string(root().join("deny.toml")).expect("there is a deny.toml");
    let (_, list) = rules.split_once("allow = [").expect("a list of licences");
    let (list, _) = list.split_once(']').expect("an end of the list");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met with the allowed licences: all parts of an AND, one part of an OR.
fn is_met(expression: &str, allowed: &[String]) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    plain.split(" AND ").all(|part| part.split(" OR ").any(|licence| allowed.iter().any(|known| known == licence.trim())))
}

#[test]
fn licences_and_sources_are_allowed() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(["metadata", "--locked", "--format-version", "1"]).current_dir(root()).output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 200, "{} packages", packages.len());
    let allowed = allowed();
    let mut wrong = Vec::new();
    for package in packages {
        let (name, licence) = (package["name"].as_str().unwrap_or_default(), package["license"].as_str().unwrap_or("none"));
        if !is_met(licence, &allowed) {
            wrong.push(format!("{name}: licence {licence}"));
        }
        if package["source"].as_str().is_some_and(|source| !source.starts_with("registry+")) {
            wrong.push(format!("{name}: comes from {}", package["source"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn expressions_are_understood() {
    let allowed = ["MIT".to_owned(), "Zlib".to_owned()];
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("Apache-2.0/MIT", true),
        ("(MIT OR Apache-2.0) AND Zlib", true),
        ("MIT AND GPL-3.0", false),
    ] {
        assert_eq!(is_met(expression, &allowed), expected, "{expression}");
    }
}

//! docs/ATTACKS.md names a test for every attack. Each of them must exist, and each test in here must be named there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// What stands in backquotes as `path::name`, with a path that ends in `.rs`.
fn named(text: &str) -> BTreeSet<(String, String)> {
    let quoted = text.split('`').skip(1).step_by(2);
    let tests = quoted.filter_map(|quoted| quoted.split_once(".rs::"));
    tests.map(|(path, name)| (format!("{path}.rs"), name.to_owned())).collect()
}

/// The tests of a source file.
fn tests_in(source: &str) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let name = line.split("fn ").nth(1).and_then(|rest| rest.split(['(', '<']).next());
        if let Some(name) = name.filter(|_| is_test && !line.starts_with("//")) {
            tests.insert(name.to_owned());
            is_test = false;
        }
    }
    // Properties are functions in the macro's body.
    let properties = source.split("proptest! {").skip(1).flat_map(|body| body.split("#[test]").skip(1));
    tests.extend(properties.filter_map(|rest| Some(rest.split("fn ").nth(1)?.split('(').next()?.to_owned())));
    tests
}

#[test]
fn every_named_test_exists_and_every_test_here_is_named() {
    let text = std::fs::read_to_string(root().join("docs/ATTACKS.md")).unwrap();
    let named = named(&text);
    assert!(named.len() > 80, "{} tests are named", named.len());
    for (path, name) in &named {
        let source =
            std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(tests_in(&source).contains(name), "docs/ATTACKS.md names {path}::{name}, which is not there");
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks");
    for entry in std::fs::read_dir(here).unwrap() {
        let path = entry.unwrap().path();
        let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if relative.ends_with("map.rs") {
            continue;
        }
        for name in tests_in(&std::fs::read_to_string(&path).unwrap()) {
            let wanted = (relative.clone(), name);
            assert!(named.contains(&wanted), "docs/ATTACKS.md does not name {}::{}", wanted.0, wanted.1);
        }
    }
}

#[test]
fn no_attack_is_without_a_test_or_a_reason() {
    let text = std::fs::read_to_string(root().join("docs/ATTACKS.md")).unwrap();
    let rows: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| attack")).collect();
    assert!(rows.len() > 60, "{} rows", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 4, "attack, adversary, test, outcome: {row}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{row}");
        assert!(
            cells[2].contains(".rs::") || cells[2].starts_with("later: "),
            "neither test nor reason: {row}"
        );
    }
}

//! The whole path as a newcomer runs it: real processes, a real database, the real model.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A folder that is removed with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("gainsay-test-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn gainsay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gainsay"))
        .args(arguments)
        .env_remove("GAINSAY_DATABASE_URL")
        .output()
        .expect("the program starts")
}

fn model_dir() -> PathBuf {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(".cache");
    let dir = gainsay_model_source::default_model_dir(&cache);
    gainsay_model_source::check(&dir)
        .unwrap_or_else(|error| panic!("{error}; run `cargo xtask fetch-model`"));
    dir
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[test]
fn the_demo_convicts_the_cheat_pays_the_honest_and_its_evidence_holds() {
    let folder = Folder::new("demo");
    let keep = folder.0.display().to_string();
    let model = model_dir().display().to_string();
    let output = gainsay(&["demo", "--json", "--model", &model, "--keep", &keep]);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));

    let report: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON object");
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(report["ledger_sum"], 0, "{report}");
    assert_eq!(report["model"]["arithmetic"], "exact-f32/1", "{report}");
    assert_eq!(report["jobs"]["submitted"], report["jobs"]["finalized"], "{report}");
    assert!(
        report["jobs"]["reassigned"].as_u64().unwrap() >= 1,
        "the cheat's job went to nobody else: {report}"
    );
    assert!(report["checks"].as_array().unwrap().iter().all(|check| check["ok"] == true), "{report}");
    let balances =
        report["accounts"].as_array().unwrap().iter().map(|account| account["balance"].as_i64().unwrap());
    assert_eq!(balances.sum::<i64>(), 0, "{report}");
    let disputes = report["disputes"].as_array().unwrap();
    for dispute in disputes {
        assert_eq!(dispute["verdict"], "challenger_wins", "{report}");
        assert!(dispute["witness_bytes"].as_u64().unwrap() <= 256 << 10, "{report}");
    }
    let lie = disputes.iter().find(|dispute| dispute["op"] == "sample").expect("a dispute about a token");
    assert_eq!(lie["element"], 5, "the token that was replaced: {report}");

    let evidence = evidence_files(&folder.0);
    assert!(!evidence.is_empty(), "no evidence was kept");
    for file in &evidence {
        let path = file.display().to_string();
        let verified = gainsay(&["verify", &path]);
        assert!(verified.status.success(), "{}", text(&verified.stderr));
        assert!(text(&verified.stdout).contains("the claim is wrong"), "{}", text(&verified.stdout));
    }
    a_changed_bundle_is_refused(&evidence[0]);
}

fn evidence_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "evidence")).collect()
}

/// A bundle that anyone can alter would be worth nothing.
fn a_changed_bundle_is_refused(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let changed = file.with_extension("changed");
    std::fs::write(&changed, bytes).unwrap();
    let verified = gainsay(&["verify", &changed.display().to_string()]);
    assert!(!verified.status.success(), "a changed bundle was believed: {}", text(&verified.stdout));
}

#[test]
fn a_folder_without_a_model_is_refused_with_the_name_of_what_is_missing() {
    let folder = Folder::new("no-model");
    let output = gainsay(&["demo", "--model", &folder.0.display().to_string()]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("config.json is missing"), "{}", text(&output.stderr));
}

#[test]
fn a_file_that_is_no_bundle_is_refused_in_words() {
    let folder = Folder::new("no-bundle");
    let file = folder.0.join("bundle");
    for content in [&b""[..], b"\x01", b"not a bundle at all"] {
        std::fs::write(&file, content).unwrap();
        let output = gainsay(&["verify", &file.display().to_string()]);
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains("not an evidence bundle"), "{}", text(&output.stderr));
    }
}

//! That the check of a machine with a GPU works, before there is such a machine: it runs on tiny shapes, on the emulated
//! device where the feature `cuda` is on, else on the CPU.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../examples/gpu_check/check.rs"]
mod check;

use std::path::{Path, PathBuf};

use check::Settings;
use gainsay_engine::DeviceChoice;
use serde_json::Value;

fn device() -> DeviceChoice {
    if cfg!(feature = "cuda") {
        gainsay_cuda_emulator::install();
        DeviceChoice::Cuda(0)
    } else {
        DeviceChoice::Cpu
    }
}

/// Settings whose results go to a folder of their own, which is empty.
fn settings(name: &str) -> Settings {
    let results = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gpu-check").join(name);
    if results.exists() {
        std::fs::remove_dir_all(&results).unwrap();
    }
    Settings {
        device: device(),
        smoke: true,
        families: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families"),
        results,
        commit: "tested".to_owned(),
        torch: None,
        only: Vec::new(),
        missing: false,
    }
}

/// The same with parts of these names alone.
fn only(settings: &Settings, names: &[&str]) -> Settings {
    Settings { only: names.iter().map(|&name| name.to_owned()).collect(), ..settings.clone() }
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn rows<'a>(results: &'a Value, what: &str, by: &str) -> Vec<&'a Value> {
    let rows = results["speed"].as_array().unwrap();
    rows.iter().filter(|row| row["what"] == what && row["by"] == by).collect()
}

fn finished(results: &Value) -> Vec<&str> {
    let parts = results["parts"].as_array().unwrap().iter();
    parts.filter(|part| part["finished"] == true).map(|part| part["part"].as_str().unwrap()).collect()
}

/// A script that stands for PyTorch's.
fn script(settings: &Settings, text: &str) -> PathBuf {
    std::fs::create_dir_all(&settings.results).unwrap();
    let script = settings.results.join("torch.py");
    std::fs::write(&script, text).unwrap();
    script
}

#[test]
fn the_check_finds_the_same_bits_and_fills_its_table_part_by_part() {
    let settings = settings("whole");
    check::run(&only(&settings, &["parity/"])).unwrap();
    let results = read(&check::run(&only(&settings, &["speed/"])).unwrap());
    assert_eq!(results["commit"], "tested");
    assert_eq!(results["parity"]["equal"], true);
    assert_eq!(finished(&results), check::chosen_names(&settings).unwrap());
    for (what, by) in [("prefill", 1), ("decode", 2)] {
        for arithmetic in ["f32 (bf16 weights)", "int8 per channel", "int8 groups of 8"] {
            let found = rows(&results, what, arithmetic);
            assert_eq!(found.len(), by, "{what} by {arithmetic}");
            for row in found {
                assert!(row["seconds_without_commitments"].is_f64() && row["times_candle"].is_f64(), "{row}");
            }
            assert!(rows(&results, "check", arithmetic)[0]["generate_over_check"].is_f64());
        }
    }
    assert!(rows(&results, "attention", "exact")[0]["times_candle"].is_f64());
    for arithmetic in ["exact-f32/1", "exact-int8/1"] {
        let row = rows(&results, "encode", arithmetic)[0];
        assert!(row["times_candle"].is_f64() && row["commitments"].is_f64(), "{row}");
    }
}

#[test]
fn rows_meet_those_that_they_are_held_against_whichever_run_finds_them() {
    let settings = settings("order");
    let row = r#"print('{"shape": "tiny", "what": "decode", "size": 1, "seconds": 1000.0}')"#;
    let settings = Settings { torch: Some(script(&settings, row)), ..settings };
    let ours = read(&check::run(&only(&settings, &["tiny-bf16"])).unwrap());
    let by = "f32 (bf16 weights)";
    assert!(rows(&ours, "decode", by)[0]["times_candle"].is_null());
    let all = read(&check::run(&only(&settings, &["tiny-candle", "torch"])).unwrap());
    let row = rows(&all, "decode", by)[0];
    assert!(row["times_candle"].is_f64(), "{row}");
    assert!(row["times_torch"].as_f64().is_some_and(|times| times > 1.0), "{row}");
    assert_eq!(rows(&all, "decode", "torch").len(), 1);
    assert!(all["parity"]["equal"].is_null(), "nothing was compared");
}

#[test]
fn a_part_that_fails_says_so_keeps_its_rows_and_is_missing() {
    let settings = settings("failing");
    let half =
        r#"print('{"shape": "tiny", "what": "decode", "size": 1, "seconds": 1.0}'); raise SystemExit(1)"#;
    let broken = Settings { torch: Some(script(&settings, half)), ..settings.clone() };
    let error = check::run(&only(&broken, &["torch", "tiny-candle"])).unwrap_err();
    assert!(error.to_string().contains("speed/torch"), "{error}");
    let results = read(&only_results(&settings));
    assert_eq!(finished(&results), ["speed/tiny-candle"]);
    assert_eq!(rows(&results, "decode", "torch").len(), 1);
    let before = rows(&results, "decode", "candle")[0].clone();

    let absent =
        Settings { torch: Some(script(&settings, r#"print('{"absent": "no PyTorch"}')"#)), ..broken };
    let rest = Settings { missing: true, ..only(&absent, &["torch", "tiny-candle"]) };
    let results = read(&check::run(&rest).unwrap());
    assert_eq!(finished(&results), ["speed/tiny-candle", "speed/torch"]);
    assert_eq!(rows(&results, "decode", "torch").len(), 0, "the part's earlier rows are gone");
    assert_eq!(*rows(&results, "decode", "candle")[0], before, "what was there was not measured again");
}

/// The one file of results.
fn only_results(settings: &Settings) -> PathBuf {
    let files = std::fs::read_dir(&settings.results).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|ext| ext == "json")).collect();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

#[test]
fn what_no_part_is_called_is_refused_and_the_parts_are_told() {
    let error = check::run(&only(&settings("unknown"), &["tiny", "nothing"])).unwrap_err().to_string();
    assert!(error.contains("\"nothing\"") && error.contains("speed/tiny-int8-grouped"), "{error}");
}

#[test]
fn results_of_another_card_are_not_mixed_in() {
    let settings = only(&settings("other"), &["tiny-candle"]);
    let file = check::run(&settings).unwrap();
    let mut results = read(&file);
    results["driver"] = "another".into();
    std::fs::write(&file, results.to_string()).unwrap();
    let error = check::run(&settings).unwrap_err().to_string();
    assert!(error.contains("another card, driver or commit"), "{error}");
    assert_eq!(read(&file), results, "it was not touched");
}

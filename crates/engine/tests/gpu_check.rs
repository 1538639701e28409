//! That the check of a machine with a GPU works, before there is such a machine: it runs on tiny shapes, on the emulated
//! device where the feature `cuda` is on, else on the CPU.

#[path = "../examples/gpu_check/check.rs"]
mod check;

use std::path::Path;

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

#[test]
fn the_check_finds_the_same_bits_and_fills_its_table() {
    let results = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gpu-check.json");
    let settings = Settings {
        device: device(),
        smoke: true,
        families: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families"),
        results: results.clone(),
        commit: "a test".to_owned(),
        torch: None,
        parity_only: false,
    };
    let found = check::run(&settings).unwrap();
    let written: Value = serde_json::from_slice(&std::fs::read(results).unwrap()).unwrap();
    assert_eq!(written["commit"], "a test");
    assert_eq!(found["parity"]["equal"], true);
    let rows = found["speed"].as_array().unwrap();
    for what in ["encode", "attention", "prefill", "decode", "check"] {
        assert!(rows.iter().any(|row| row["what"] == what), "no {what} in {rows:?}");
    }
    for by in ["candle", "f32 (bf16 weights)", "int8 per channel", "int8 groups of 8"] {
        assert!(rows.iter().any(|row| row["by"] == by), "nothing by {by} in {rows:?}");
    }
    let committed = rows.iter().filter(|row| row["what"] == "decode" && row["by"] != "candle");
    for row in committed {
        assert!(row["seconds_without_commitments"].is_f64() && row["times_candle"].is_f64(), "{row}");
    }
}

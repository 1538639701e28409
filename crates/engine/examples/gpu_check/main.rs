//! Holds a CUDA device against the CPU, and its speed against candle's own.
//!
//! `scripts/gpu-check` builds it, carries it to a machine with a GPU and runs it there. By hand:
//! `gpu_check [--smoke] [--parity-only] [--device cuda:0] [--families DIR] [--results FILE] [--commit ID] [--torch FILE]`

// With its path said, its modules are looked for beside it, as they are by the test.
#[path = "check.rs"]
mod check;

use std::path::Path;

use anyhow::{Context, Result, bail};
use check::Settings;
use gainsay_engine::DeviceChoice;

fn main() -> Result<()> {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    let mut settings = Settings {
        device: DeviceChoice::Cuda(0),
        smoke: false,
        families,
        results: "gpu-check.json".into(),
        commit: "unknown".to_owned(),
        torch: None,
        parity_only: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--smoke" => settings.smoke = true,
            "--parity-only" => settings.parity_only = true,
            "--device" => settings.device = value()?.parse()?,
            "--families" => settings.families = value()?.into(),
            "--results" => settings.results = value()?.into(),
            "--commit" => settings.commit = value()?,
            "--torch" => settings.torch = Some(value()?.into()),
            other => bail!("there is no option {other}"),
        }
    }
    check::run(&settings)?;
    println!("all the same bits; results in {}", settings.results.display());
    Ok(())
}

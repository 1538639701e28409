//! Holds a CUDA device against the CPU, and its speed against candle's own.
//!
//! `scripts/gpu-check` builds it, carries it to a machine with a GPU and runs it there. By hand:
//! `gpu_check [--smoke] [--parity-only | --speed-only | --only NAME...] [--missing] [--list] [--device cuda:0]
//! [--families DIR] [--results DIR] [--commit ID] [--torch SCRIPT]`
//!
//! It ends with 0 if all is well, with 2 where there is no device to check, and with 1 if the check has failed.

// With its path said, its modules are looked for beside it, as they are by the test.
#[path = "check.rs"]
mod check;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use check::Settings;
use gainsay_engine::DeviceChoice;

const NO_DEVICE: u8 = 2;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gpu_check: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let (settings, list) = settings()?;
    let names = check::chosen_names(&settings)?;
    if list {
        println!("{}", names.join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    match check::about(&settings) {
        Ok(about) => println!("{about}"),
        Err(error) => {
            eprintln!("gpu_check: there is no device to check here: {error:#}");
            return Ok(NO_DEVICE.into());
        }
    }
    let results = check::run(&settings)?;
    println!("all the same bits as far as they were compared; results in {}", results.display());
    Ok(ExitCode::SUCCESS)
}

fn settings() -> Result<(Settings, bool)> {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    let mut settings = Settings {
        device: DeviceChoice::Cuda(0),
        smoke: false,
        families,
        results: ".".into(),
        commit: "unknown".to_owned(),
        torch: None,
        only: Vec::new(),
        missing: false,
    };
    let mut list = false;
    let mut arguments = std::env::args().skip(1).peekable();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--smoke" => settings.smoke = true,
            "--parity-only" => settings.only.push("parity/".to_owned()),
            "--speed-only" => settings.only.push("speed/".to_owned()),
            "--only" => {
                settings.only.push(value()?);
                while let Some(name) = arguments.next_if(|next| !next.starts_with('-')) {
                    settings.only.push(name);
                }
            }
            "--missing" => settings.missing = true,
            "--list" => list = true,
            "--device" => settings.device = value()?.parse()?,
            "--families" => settings.families = value()?.into(),
            "--results" => settings.results = value()?.into(),
            "--commit" => settings.commit = value()?,
            "--torch" => settings.torch = Some(value()?.into()),
            other => bail!("there is no option {other}"),
        }
    }
    Ok((settings, list))
}

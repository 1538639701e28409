//! The check of a device: parity with the CPU, then the speed table, as lines on the terminal and as JSON.

mod candle;
mod parity;
mod shape;
mod speed;
#[path = "../../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with tests")]
mod support;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use candle_core::Device;
use gainsay_engine::{DeviceChoice, DeviceInfo, devices};
use serde_json::{Value, json};

/// What is checked, and where to.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The device.
    pub(crate) device: DeviceChoice,
    /// Tiny shapes alone: whether the check itself works.
    pub(crate) smoke: bool,
    /// Folder of the fixtures of model families.
    pub(crate) families: PathBuf,
    /// Where the results go.
    pub(crate) results: PathBuf,
    /// The commit that was built.
    pub(crate) commit: String,
    /// Results of PyTorch on the same machine, to go with the others.
    pub(crate) torch: Option<PathBuf>,
    /// Whether the speed table is left out.
    pub(crate) parity_only: bool,
}

impl Settings {
    fn batches(&self) -> &'static [usize] {
        if self.smoke { &[1, 3] } else { &[1, 2, 3, 8, 17, 32, 64] }
    }
}

/// Bytes a second that a card's memory gives by its data sheet.
const BANDWIDTHS: [(&str, f64); 5] =
    [("H200", 4.8e12), ("H100 NVL", 3.9e12), ("H100 PCIe", 2.0e12), ("H100", 3.35e12), ("A100", 2.0e12)];

/// Runs everything and writes the results, after each part anew.
///
/// # Errors
/// Something does not run, or the device gives other bits than the CPU.
pub(crate) fn run(settings: &Settings) -> Result<Value> {
    let mut results = about(settings)?;
    write(&settings.results, &results)?;
    let parity = parity::all(settings)?;
    let equal = parity.iter().all(|row| row["equal"] == true);
    results["parity"] = json!({"equal": equal, "rows": parity});
    write(&settings.results, &results)?;
    if !settings.parity_only {
        let bandwidth = results["bandwidth"].as_f64();
        results["speed"] = json!([]);
        results["candle"] = json!(if settings.smoke { "f32 on the CPU" } else { "bf16 on the device" });
        let mut keep = |mut row: Value| {
            if let (Some(limit), Some(read)) = (bandwidth, row["bytes_per_second"].as_f64()) {
                row["of_bandwidth"] = json!(read / limit);
            }
            results["speed"].as_array_mut().context("a list")?.push(row);
            write(&settings.results, &results)
        };
        speed::all(settings, &candle_device(settings)?, &mut keep)?;
    }
    ensure!(equal, "the device gives other bits than the CPU: see {}", settings.results.display());
    Ok(results)
}

/// Where candle's own passes run. An emulated device has none of candle's kernels, so a smoke test takes the CPU.
fn candle_device(settings: &Settings) -> Result<Device> {
    match settings.device {
        DeviceChoice::Cuda(index) if !settings.smoke => Ok(Device::new_cuda(index)?),
        _ => Ok(Device::Cpu),
    }
}

fn about(settings: &Settings) -> Result<Value> {
    let device = match settings.device {
        DeviceChoice::Cuda(index) => {
            let found = devices()?;
            let device = found.into_iter().nth(index).context("there is no such device")?;
            let DeviceInfo::Cuda { name, memory, capability: (major, minor), driver, .. } = device else {
                unreachable!("only CUDA devices are listed")
            };
            let bandwidth = BANDWIDTHS.iter().find(|(card, _)| name.contains(card)).map(|&(_, bytes)| bytes);
            json!({
                "card": name, "memory": memory, "capability": format!("{major}.{minor}"), "driver": driver,
                "bandwidth": bandwidth,
            })
        }
        _ => json!({"card": "cpu"}),
    };
    let mut about = device;
    about["commit"] = json!(settings.commit);
    about["smoke"] = json!(settings.smoke);
    if let Some(file) = &settings.torch {
        about["torch"] = serde_json::from_slice(&std::fs::read(file)?).context("the results of PyTorch")?;
    }
    println!("{about}");
    Ok(about)
}

fn write(file: &Path, results: &Value) -> Result<()> {
    let text = format!("{results:#}\n");
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

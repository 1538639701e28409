//! The check of a device: parity with the CPU, then the speed table, as lines on the terminal and as JSON. It is made of
//! parts that can be run alone, one after another or on different days; results of all of them are in one file.

mod candle;
mod parity;
mod results;
mod shape;
mod speed;
#[path = "../../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with tests")]
mod support;
mod timing;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use gainsay_engine::{DeviceChoice, DeviceInfo, devices, lost_device};
use results::Results;
use serde_json::{Value, json};

/// What is checked, and where to.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The device.
    pub(crate) device: DeviceChoice,
    /// Tiny shapes alone: whether the check itself works.
    pub(crate) smoke: bool,
    /// Folder of the fixtures of model families.
    pub(crate) families: PathBuf,
    /// Folder of results.
    pub(crate) results: PathBuf,
    /// The commit that was built.
    pub(crate) commit: String,
    /// A Python script that measures PyTorch, and prints each row as a line of JSON.
    pub(crate) torch: Option<PathBuf>,
    /// What the names of the parts contain that are run, any of these; all parts where there is none.
    pub(crate) only: Vec<String>,
    /// Whether parts are left out that the results have already.
    pub(crate) missing: bool,
}

impl Settings {
    fn batches(&self) -> &'static [usize] {
        if self.smoke { &[1, 3] } else { &[1, 2, 3, 8, 17, 32, 64] }
    }

    /// Where candle's own passes run. An emulated device has none of candle's kernels, so a smoke test takes the CPU.
    fn candle_device(&self) -> Result<Device> {
        match self.device {
            DeviceChoice::Cuda(index) if !self.smoke => Ok(Device::new_cuda(index)?),
            _ => Ok(Device::Cpu),
        }
    }
}

type RunPart = dyn Fn(&Settings, &mut Results) -> Result<()>;

/// A part of the check that runs alone.
pub(crate) struct Part {
    name: String,
    run: Box<RunPart>,
}

impl Part {
    fn new(name: impl Into<String>, run: impl Fn(&Settings, &mut Results) -> Result<()> + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// The names of the parts that these settings choose, in their order.
///
/// # Errors
/// A name that was asked for is no part's.
pub(crate) fn chosen_names(settings: &Settings) -> Result<Vec<String>> {
    Ok(chosen(settings)?.into_iter().map(|part| part.name).collect())
}

fn chosen(settings: &Settings) -> Result<Vec<Part>> {
    let mut parts = parity::parts(settings);
    parts.extend(speed::parts(settings));
    let unknown = settings.only.iter().find(|name| !parts.iter().any(|part| part.name.contains(*name)));
    if let Some(name) = unknown {
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        bail!("no part has {name:?} in its name: there are {}", names.join(", "));
    }
    parts
        .retain(|part| settings.only.is_empty() || settings.only.iter().any(|name| part.name.contains(name)));
    Ok(parts)
}

/// Bytes a second that a card's memory gives by its data sheet.
const BANDWIDTHS: [(&str, f64); 5] =
    [("H200", 4.8e12), ("H100 NVL", 3.9e12), ("H100 PCIe", 2.0e12), ("H100", 3.35e12), ("A100", 2.0e12)];

/// Runs the chosen parts, and says where the results are, which are written as they come. A part that fails does not keep
/// the others from running.
///
/// # Errors
/// Something does not run, or the device gives other bits than the CPU.
pub(crate) fn run(settings: &Settings) -> Result<PathBuf> {
    let parts = chosen(settings)?;
    let mut results = Results::open(&settings.results, about(settings)?)?;
    let mut failed = Vec::new();
    for part in parts {
        if settings.missing && results.has(&part.name) {
            continue;
        }
        println!("-- {}", part.name);
        results.begin(&part.name)?;
        let started = Instant::now();
        let outcome = (part.run)(settings, &mut results);
        results.end(started.elapsed(), &outcome)?;
        println!("-- {} took {:.1} s", part.name, started.elapsed().as_secs_f64());
        if let Err(error) = outcome {
            println!("-- {} FAILED: {error:#}", part.name);
            failed.push(part.name);
        }
        if let Some(reason) = lost_device() {
            bail!("the device is lost to this process: {reason}. Run the rest with --missing");
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    let file = results.file();
    ensure!(
        results.equal() != Some(false),
        "the device gives other bits than the CPU: see {}",
        file.display()
    );
    Ok(file.to_owned())
}

/// The card as its driver describes it.
///
/// # Errors
/// There is no driver or no such device.
pub(crate) fn about(settings: &Settings) -> Result<Value> {
    let mut about = match settings.device {
        DeviceChoice::Cuda(index) => {
            let found = devices()?;
            let count = found.len();
            let device = found.into_iter().nth(index);
            let device = device.with_context(|| format!("there is no CUDA device {index}: {count} found"))?;
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
    about["commit"] = json!(settings.commit);
    about["smoke"] = json!(settings.smoke);
    about["candle"] = json!(if settings.smoke { "f32 on the CPU" } else { "bf16 on the device" });
    Ok(about)
}

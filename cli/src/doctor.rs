//! `gainsay doctor`: what this machine can do, and whether it does it right.

use std::fmt::{self, Write as _};

use anyhow::Result;
use clap::Args;
use gainsay_engine::{
    Check, DeviceChoice, DeviceError, DeviceInfo, SelfTest, Simd, devices, float_environment_is_default,
    self_test,
};
use gainsay_participant::machine::{MemoryPlan, processor, threads};
use serde::Serialize;

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// Where models are to run: auto, cpu, cuda:0 and so on, as the setting of workers and challengers says.
    #[arg(long, env = "GAINSAY_DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON object, with the digest of what every operator gives.
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    /// Nothing keeps a worker or a challenger from running here.
    ok: bool,
    /// What does, if anything; and what else is not as it should be.
    problems: Vec<String>,
    /// Where models would run.
    device: Option<Device>,
    /// Why that is not a CUDA device, where one would have been taken.
    reason: Option<String>,
    cuda_devices: Vec<Device>,
    processor: String,
    threads: usize,
    instructions: Vec<Instructions>,
    /// Bytes, where nothing else is set.
    memory: Memory,
    /// Every operator, tried where models would run.
    self_test: Vec<Operator>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Device {
    Cpu { instructions: &'static str },
    Cuda { index: usize, name: String, memory: u64, capability: String, driver: String },
}

/// Vector instructions of the CPU.
#[derive(Debug, Serialize)]
struct Instructions {
    name: &'static str,
    /// Whether every operator gives by them what it should.
    agrees: bool,
}

#[derive(Debug, Serialize)]
struct Memory {
    available: Option<u64>,
    models: u64,
    job: u64,
    keys_and_values: u64,
}

#[derive(Debug, Serialize)]
struct Operator {
    op: &'static str,
    digest: String,
}

impl DoctorArguments {
    /// Prints what is found; whether all is well.
    pub(crate) fn run(&self) -> Result<bool> {
        let report = Report::of_this_machine(self.device);
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{report}");
        }
        Ok(report.ok)
    }
}

impl Report {
    fn of_this_machine(choice: DeviceChoice) -> Self {
        let mut problems = Vec::new();
        if !float_environment_is_default() {
            problems.push("the floating-point environment is not at its defaults".to_owned());
        }
        let (device, reason, self_test) = match self_test(choice, Simd::Auto) {
            Ok(SelfTest { device, passed_over, checks }) => {
                if let Some(error @ DeviceError::Differs { .. }) = &passed_over {
                    problems.push(error.to_string());
                }
                (Some(device.into()), passed_over.map(|error| error.to_string()), checks)
            }
            Err(error) => {
                problems.push(error.to_string());
                (None, None, Vec::new())
            }
        };
        let instructions: Vec<_> = Simd::available().into_iter().map(Instructions::tried).collect();
        for wrong in instructions.iter().filter(|instructions| !instructions.agrees) {
            problems.push(format!("the CPU gives other bits than it should by {}", wrong.name));
        }
        let MemoryPlan { available, models, job, cache } = MemoryPlan::for_device(choice);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            ok: problems.is_empty(),
            problems,
            device,
            reason,
            cuda_devices: devices().unwrap_or_default().into_iter().map(Device::from).collect(),
            processor: processor(),
            threads: threads(),
            instructions,
            memory: Memory { available, models, job, keys_and_values: cache },
            self_test: self_test.into_iter().map(Operator::from).collect(),
        }
    }
}

impl Instructions {
    fn tried(simd: Simd) -> Self {
        // Instructions that fail are not used: it would be others that are tried.
        let used = self_test(DeviceChoice::Cpu, simd).map(|found| found.device);
        Self { name: simd.name(), agrees: used == Ok(DeviceInfo::Cpu { simd }) }
    }
}

impl From<DeviceInfo> for Device {
    fn from(info: DeviceInfo) -> Self {
        match info {
            DeviceInfo::Cpu { simd } => Self::Cpu { instructions: simd.name() },
            DeviceInfo::Cuda { index, name, memory, capability: (major, minor), driver } => {
                Self::Cuda { index, name, memory, capability: format!("{major}.{minor}"), driver }
            }
        }
    }
}

impl From<Check> for Operator {
    fn from(Check { op, digest, .. }: Check) -> Self {
        Self { op, digest: digest.to_string() }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu { instructions } => write!(f, "cpu ({instructions})"),
            Self::Cuda { index, name, memory, capability, driver } => {
                let memory = gib(*memory);
                write!(
                    f,
                    "cuda:{index} ({name}, {memory}, compute capability {capability}, driver for CUDA {driver})"
                )
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |title: &str, text: String| writeln!(f, "{title:<15}{text}");
        line("gainsay", self.version.to_owned())?;
        let device = self.device.as_ref().map_or_else(|| "none".to_owned(), Device::to_string);
        let reason = self.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        line("models run on", device + &reason)?;
        for device in &self.cuda_devices {
            line("  there is", device.to_string())?;
        }
        line("processor", format!("{}, {} threads", self.processor, self.threads))?;
        let names: Vec<_> = self.instructions.iter().map(|instructions| instructions.name).collect();
        line("instructions", names.join(", "))?;
        let Memory { available, models, job, keys_and_values } = &self.memory;
        let mut text = available.map_or_else(|| "not known".to_owned(), gib);
        write!(text, "; models {}, one job {}, ", gib(*models), gib(*job))?;
        write!(text, "keys and values of a model {}", gib(*keys_and_values))?;
        line("memory", text)?;
        if !self.self_test.is_empty() {
            let count = self.self_test.len();
            line("self-test", format!("{count} operators give the bits that they give everywhere"))?;
        }
        if self.ok {
            return f.write_str("All is well: workers and challengers can run here.\n");
        }
        for problem in &self.problems {
            writeln!(f, "PROBLEM: {problem}")?;
        }
        Ok(())
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_a_problem_and_all_is_still_told() {
        let report = Report::of_this_machine(DeviceChoice::Cuda(1000));
        assert!(!report.ok && report.device.is_none() && report.problems.len() == 1, "{report:?}");
        let text = report.to_string();
        assert!(text.contains("PROBLEM: ") && text.contains("portable"), "{text}");
        assert!(!text.contains("All is well"), "{text}");
    }

    #[test]
    fn the_cpu_of_this_machine_is_well() {
        let report = Report::of_this_machine(DeviceChoice::Cpu);
        assert!(report.ok && matches!(report.device, Some(Device::Cpu { .. })), "{report:?}");
        assert!(report.self_test.len() > 10 && report.reason.is_none(), "{report:?}");
    }
}

//! What can be held to account of the CUDA side where there is no GPU: that it compiles, what the compiler made of the
//! kernels, and the engine's whole path on an emulated driver. Emulated kernels themselves are among the workspace's tests.

mod code;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{FEATURES, cargo, say, step};

/// Where the toolkit lies: 290 MB, fetched once.
const TOOLKIT: &str = ".cache/cuda";
const KERNELS: &str = "crates/engine/src/kernels/cuda";
/// As the engine's build has them, but for what is made of the source.
const FLAGS: [&str; 3] = ["-O3", "-fmad=false", "-std=c++17"];
/// Machine code is looked at for this GPU, PTX for the oldest that is meant.
const MACHINE: &str = "-gencode=arch=compute_90,code=sm_90";
const VIRTUAL: &str = "-arch=compute_80";

/// An installed toolkit.
struct Toolkit {
    home: PathBuf,
    path: OsString,
}

impl Toolkit {
    /// Fetches the pinned toolkit unless it is there.
    fn fetch(root: &Path) -> Result<Self> {
        let folder = root.join(TOOLKIT);
        let script = root.join("scripts/cuda-toolkit");
        // It prints what a shell would export.
        step("CUDA toolkit", Command::new(script).arg(&folder).stdout(Stdio::null()))?;
        let home = folder.join("nvidia/cu13");
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(home.join("bin")).chain(std::env::split_paths(&rest));
        let path = std::env::join_paths(folders).context("a folder of PATH has a colon in its name")?;
        Ok(Self { home, path })
    }

    /// The command with the environment in which nvcc and the build of candle's kernels find what they need.
    fn with<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("CUDA_HOME", &self.home)
            .env("PATH", &self.path)
            .env("CUDA_COMPUTE_CAP", "90")
            .env("NVCC_APPEND_FLAGS", "--compress-mode=size")
    }

    fn tool(&self, name: &str) -> Command {
        Command::new(self.home.join("bin").join(name))
    }
}

/// All of it.
pub(crate) fn check(root: &Path) -> Result<()> {
    let toolkit = Toolkit::fetch(root)?;
    kernels(root, &toolkit)?;
    let features = format!("{FEATURES},gainsay-engine/cuda");
    let all = ["--workspace", "--all-targets", "--locked", &features];
    step(
        "lint with the feature cuda",
        toolkit.with(cargo(["clippy"]).args(all).args(["--", "-D", "warnings"])),
    )?;
    let tests = ["test", "--workspace", "--locked", &features, "--test", "cuda", "--test", "gpu_check"];
    step("the engine on an emulated driver", toolkit.with(&mut cargo(tests)))?;
    let tests =
        ["test", "--workspace", "--locked", &features, "--test", "end_to_end", "--test", "generations"];
    let mut tests = cargo(tests);
    tests.env("GAINSAY_TEST_WORKER_DEVICE", "cuda:0");
    step("workers on an emulated driver, challenged from the CPU", toolkit.with(&mut tests))?;
    starts(root, &toolkit, &features)
}

/// Builds the program with the feature and runs it on this machine, which may have no driver: it has to say where models run,
/// and to run one.
fn starts(root: &Path, toolkit: &Toolkit, features: &str) -> Result<()> {
    // With what its tests are built with: cargo would build candle once more for the program alone.
    let build = ["test", "--workspace", "--locked", features, "--test", "demo", "--no-run"];
    step("build the program with the feature cuda", toolkit.with(&mut cargo(build)))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let program = || Command::new(target.join("debug/gainsay"));
    step("it says where models run", program().arg("doctor"))?;
    let bench = ["bench", "verify", "--prompt-tokens", "8", "--answer-tokens", "8", "--runs", "1"];
    step("it runs one", program().args(bench))
}

/// Compiles every kernel for real and looks at what came of it.
fn kernels(root: &Path, toolkit: &Toolkit) -> Result<()> {
    let folder = root.join("target/cuda-code");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut faults = Vec::new();
    say("kernel                          registers  spilled  shared");
    for source in sources(&root.join(KERNELS))? {
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let [virtual_code, machine_code] = ["ptx", "cubin"].map(|kind| folder.join(format!("{name}.{kind}")));
        let nvcc = |kind: &str, target: &str, to: &Path| {
            let mut command = toolkit.tool("nvcc");
            command.args(FLAGS).args([kind, target, "-Xptxas=-v"]).arg("-o").arg(to).arg(&source);
            toolkit.with(&mut command);
            // Compressed code could not be read.
            command.env_remove("NVCC_APPEND_FLAGS");
            output(&mut command)
        };
        nvcc("-ptx", VIRTUAL, &virtual_code)?;
        let usage = code::usage(&nvcc("-cubin", MACHINE, &machine_code)?);
        let ptx = std::fs::read_to_string(&virtual_code)?;
        let sass = output(toolkit.tool("cuobjdump").arg("-sass").arg(&machine_code))?;
        for kernel in &usage {
            say(&format!("{kernel}"));
        }
        let found = code::faults(&ptx, &sass, &usage);
        faults.extend(found.into_iter().map(|fault| format!("{name}.cu: {fault}")));
    }
    if faults.is_empty() {
        return Ok(());
    }
    bail!("the compiled kernels do what the arithmetic does not:\n{}", faults.join("\n"))
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut sources = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    sources.sort();
    if sources.is_empty() {
        bail!("{} has no kernels", folder.display());
    }
    Ok(sources)
}

/// What a program prints, on either of its outputs.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.output().with_context(|| format!("cannot run {program}"))?;
    let text = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if !done.status.success() {
        bail!("{program}: {}\n{text}", done.status);
    }
    Ok(text)
}

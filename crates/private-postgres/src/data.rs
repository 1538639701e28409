//! The data folder: what version wrote it, and making a new one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::programs::{Installation, run};
use crate::{Durability, Error, Lifetime, Place, ROLE, folder};

/// The major version that wrote the folder; `None` where it is missing or empty.
pub(crate) fn major_version(data_dir: &Path) -> Result<Option<u32>, Error> {
    let file = data_dir.join("PG_VERSION");
    match fs::read_to_string(&file) {
        Ok(version) => {
            version.trim().parse().map(Some).map_err(|_| Error::NotData { data_dir: data_dir.to_owned() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match is_empty(data_dir)? {
            true => Ok(None),
            false => Err(Error::NotData { data_dir: data_dir.to_owned() }),
        },
        Err(error) => Err(Error::folder("read", &file, error)),
    }
}

/// Whether the folder is missing or holds nothing.
fn is_empty(folder: &Path) -> Result<bool, Error> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::folder("read", folder, error)),
    }
}

/// Makes a new data folder unless there is one, and checks that the server's user can reach it.
pub(crate) fn prepare(
    place: Place<'_>,
    installation: &Installation,
    progress: &dyn Fn(&str),
) -> Result<(), Error> {
    let data_dir = place.data_dir;
    let parent = data_dir.parent().unwrap_or(data_dir);
    fs::create_dir_all(parent).map_err(|e| Error::folder("create", parent, e))?;
    if let Some(folder) = place.account.and_then(|account| account.barred_from(parent)) {
        return Err(Error::Unreachable { folder });
    }
    if major_version(data_dir)?.is_some() {
        return Ok(());
    }
    progress("Making a new PostgreSQL data folder.");
    let staging = staging_folder(data_dir);
    if staging.exists() {
        folder::remove(&staging);
    }
    let result = initialize(&staging, installation, place).and_then(|()| {
        fs::rename(&staging, data_dir).map_err(|e| Error::folder("move into place", data_dir, e))
    });
    if result.is_err() {
        folder::remove(&staging);
    }
    result
}

/// Where the data is made: beside its place, so that it appears there whole or not at all.
fn staging_folder(data_dir: &Path) -> PathBuf {
    let mut name = data_dir.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    data_dir.with_file_name(name)
}

fn initialize(staging: &Path, installation: &Installation, place: Place<'_>) -> Result<(), Error> {
    fs::create_dir(staging).map_err(|e| Error::folder("create", staging, e))?;
    if let Some(account) = place.account {
        account.own(staging)?;
    }
    let mut initdb = installation.command("initdb", place.account);
    initdb.arg("--pgdata").arg(staging);
    initdb.args([
        "--username",
        ROLE,
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-instructions",
    ]);
    if place.durability == Durability::TestOnly || place.lifetime == Lifetime::Temporary {
        initdb.arg("--no-sync");
    }
    run(initdb).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_or_empty_folder_is_taken_for_new_data() {
        let root = std::env::temp_dir().join(format!("gainsay-data-{}", folder::random_name()));
        assert!(matches!(major_version(&root), Ok(None)));
        fs::create_dir(&root).expect("the temporary folder is writable");
        assert!(matches!(major_version(&root), Ok(None)));
        fs::write(root.join("letters"), "dear").expect("own folder");
        assert!(matches!(major_version(&root), Err(Error::NotData { .. })));
        fs::write(root.join("PG_VERSION"), "16\n").expect("own folder");
        assert!(matches!(major_version(&root), Ok(Some(16))));
        fs::write(root.join("PG_VERSION"), "new").expect("own folder");
        assert!(matches!(major_version(&root), Err(Error::NotData { .. })));
        fs::remove_dir_all(&root).expect("own folder");
    }
}

//! The temporary folder of a running cluster: its socket, and its data where nobody named a folder for them.
//!
//! A process that is killed cannot remove its folder. So each holds a locked file; the lock ends with the
//! process, and the next cluster removes the folders whose lock nobody holds.

use std::fs::{self, DirBuilder, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::account::Account;
use crate::server::{self, SOCKET_NAME};

const PREFIX: &str = "gainsay-postgres-";
const LOCK: &str = "lock";

/// A folder that ends with its value.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl RunFolder {
    /// Makes a folder that only this user, and `account` in its place, can enter.
    pub(crate) fn create(account: Option<Account>) -> Result<Self, Error> {
        let base =
            bases().into_iter().find(|base| holds_sockets(base, account)).ok_or(Error::NoSocketFolder)?;
        let path = base.join(format!("{PREFIX}{}", random_name()));
        DirBuilder::new().mode(0o700).create(&path).map_err(|e| Error::folder("create", &path, e))?;
        let lock = lock_in(&path).inspect_err(|_| remove(&path))?;
        let folder = Self { path, _lock: lock };
        if let Some(account) = account {
            folder.give_to(account)?;
        }
        Ok(folder)
    }

    /// Hands the folder to a user.
    pub(crate) fn give_to(&self, account: Account) -> Result<(), Error> {
        account.own(&self.path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Where temporary folders may be, the preferred first.
fn bases() -> [PathBuf; 2] {
    [std::env::temp_dir(), PathBuf::from("/tmp")]
}

/// Whether a socket under `base` has a path that fits its address, and that PostgreSQL reads as one path.
fn holds_sockets(base: &Path, account: Option<Account>) -> bool {
    /// Room in a socket address on every Unix, less the final zero.
    const ADDRESS_BYTES: usize = 103;

    let socket = base.join(format!("{PREFIX}{}", random_name())).join(SOCKET_NAME);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.+".contains(&byte);
    let text = socket.as_os_str().as_encoded_bytes();
    base.is_dir()
        && base.is_absolute()
        && text.len() <= ADDRESS_BYTES
        && text.iter().copied().all(plain)
        && account.is_none_or(|account| account.barred_from(base).is_none())
}

/// Locks a file under another name before it gets its own: a lock file that exists has an owner or had one.
fn lock_in(folder: &Path) -> Result<File, Error> {
    let (unlocked, lock) = (folder.join("lock.new"), folder.join(LOCK));
    let make = || {
        let file = File::create_new(&unlocked)?;
        file.lock()?;
        fs::rename(&unlocked, &lock)?;
        Ok(file)
    };
    make().map_err(|e| Error::folder("create", &lock, e))
}

/// Removes the folders of processes that could not do it themselves, once their server has ended too.
pub(crate) fn remove_abandoned() {
    let [first, second] = bases();
    let bases = if first == second { vec![first] } else { vec![first, second] };
    let entries = bases.iter().flat_map(fs::read_dir).flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    for folder in ours.map(|entry| entry.path()) {
        // A folder without a lock is being made; one that cannot be opened is another user's.
        let Ok(lock) = File::open(folder.join(LOCK)) else { continue };
        if lock.try_lock().is_ok() && !server::runs_in(&folder.join("data")) {
            tracing::debug!(folder = %folder.display(), "removing what a killed process left");
            remove(&folder);
        }
    }
}

/// Removes a temporary folder. What cannot be removed stays; it is in nobody's way.
pub(crate) fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder) {
        tracing::warn!(folder = %folder.display(), %error, "cannot remove a temporary folder");
    }
}

/// A name that nobody else has.
pub(crate) fn random_name() -> String {
    // Each RandomState is seeded by the operating system's random source and a counter.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_removed_with_its_value_or_once_its_owner_is_gone() {
        let folder = RunFolder::create(None).expect("the temporary folder is writable");
        let path = folder.path().to_owned();
        remove_abandoned();
        assert!(path.join(LOCK).exists(), "removed under its owner");
        drop(folder);
        assert!(!path.exists());

        let folder = RunFolder::create(None).expect("the temporary folder is writable");
        let path = folder.path().to_owned();
        // As if the process had been killed: the lock ends, nothing is removed.
        let lock = folder._lock.try_clone().expect("the file is open");
        std::mem::forget(folder);
        lock.unlock().expect("the lock is held");
        // Another process that looks at the same moment may be the one that removes it.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while path.exists() {
            assert!(std::time::Instant::now() < deadline, "left behind");
            remove_abandoned();
        }
    }

    #[test]
    fn long_and_odd_paths_hold_no_sockets() {
        let root = std::env::temp_dir().join(random_name());
        for (name, expected) in [("plain", true), ("a,b", false), ("a b", false), (&"long".repeat(20), false)]
        {
            let base = root.join(name);
            fs::create_dir_all(&base).expect("the temporary folder is writable");
            assert_eq!(holds_sockets(&base, None), expected, "{}", base.display());
        }
        assert!(!holds_sockets(&root.join("missing"), None));
        remove(&root);
    }
}

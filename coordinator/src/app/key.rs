//! The coordinator's secret key, in a file that only its user reads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use gainsay_commitment::SecretKey;

use super::{AppError, AppResult};

/// Reads the key file, or makes it with a new key where there is none.
pub(super) fn read_or_make(path: &Path) -> AppResult<SecretKey> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let mode = fs::metadata(path).map_err(|error| failed(path, error))?.mode();
            if mode & 0o077 != 0 {
                let why =
                    "others may read this secret key: chmod 600 it, and make a new one if they might have";
                return Err(failed(path, why));
            }
            let wrong = |_| failed(path, "it does not hold 64 lower-case hex digits");
            text.trim_end().parse().map_err(wrong)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(failed(path, error)),
    }
}

/// Written beside and linked into place, so that there is a whole key or none: other processes of the same service may
/// be starting at the same moment, and this one may be killed at any.
fn make(path: &Path) -> AppResult<SecretKey> {
    let key = SecretKey::generate();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = folder.join(format!(".key-{}.new", uuid::Uuid::now_v7().simple()));
    let text = format!("{}\n", hex::encode(key.expose()));
    let made = fs::create_dir_all(folder).and_then(|()| write(&beside, &text));
    let linked = made.and_then(|()| fs::hard_link(&beside, path));
    // What cannot be removed is a stray file that nothing reads.
    drop(fs::remove_file(&beside));
    match linked {
        Ok(()) => {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(path, error))?;
            Ok(key)
        }
        // Another process of the same service was faster: its key is the key.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_or_make(path),
        Err(error) => Err(failed(path, error)),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn failed(path: &Path, why: impl std::fmt::Display) -> AppError {
    AppError::KeyFile(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn create() -> Self {
            let name = format!("gainsay-key-{}", uuid::Uuid::now_v7().simple());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    /// Two identities in one service would split it: each would call the database the other's.
    #[test]
    fn processes_that_start_at_once_share_one_key() {
        let folder = Folder::create();
        let path = folder.0.join("deep").join("coordinator.key");
        let starts: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || read_or_make(&path).map(|key| key.id()).unwrap())
            })
            .collect();
        let ids: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "a stray file was left: {left:?}");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = Folder::create();
        let path = folder.0.join("coordinator.key");
        read_or_make(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read_or_make(&path).unwrap_err().to_string().contains("others may read"));
    }
}

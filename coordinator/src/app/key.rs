//! The coordinator's secret key, in a file that only its user reads.

use std::io::{self, Write as _};
use std::path::Path;

use gainsay_commitment::SecretKey;

use super::{AppError, AppResult};

/// Reads the key file, or makes it with a new key where there is none.
pub(super) fn read_or_make(path: &Path) -> AppResult<SecretKey> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let wrong = |_| failed(path, "it does not hold 64 lower-case hex digits");
            text.trim_end().parse().map_err(wrong)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(failed(path, error)),
    }
}

fn make(path: &Path) -> AppResult<SecretKey> {
    let key = SecretKey::generate();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| failed(path, error))?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(mut file) => {
            let text = format!("{}\n", hex::encode(key.expose()));
            let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
            written.map(|()| key).map_err(|error| failed(path, error))
        }
        // Another process of the same service was faster: its key is the key.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_or_make(path),
        Err(error) => Err(failed(path, error)),
    }
}

fn failed(path: &Path, why: impl std::fmt::Display) -> AppError {
    AppError::KeyFile(format!("{}: {why}", path.display()))
}

//! Key files: one Ed25519 seed, 64 hex digits and a newline, readable by the owner alone.

use super::ClientError;
use super::files::{Privacy, at, create_atomically};
use gainsay_commitment::signature::SecretKey;
use std::fs;
use std::path::Path;

/// Reads the key in `path`; where there is no such file, makes a new key and writes it there.
///
/// # Errors
/// [`ClientError::KeyFile`] for a file that others may read or that holds no key; [`ClientError::File`] where it cannot
/// be read or written.
pub fn load_or_create(path: &Path) -> Result<SecretKey, ClientError> {
    if !path.exists() {
        let key = SecretKey::generate();
        let text = format!("{}\n", hex::encode(key.expose()));
        if create_atomically(path, text.as_bytes(), Privacy::Secret)? {
            tracing::info!(party = %key.id(), path = %path.display(), "made a new key");
            return Ok(key);
        }
    }
    load(path)
}

/// Reads the key in `path`.
///
/// # Errors
/// As [`load_or_create`], and where there is no such file.
pub fn load(path: &Path) -> Result<SecretKey, ClientError> {
    let refused = |reason| ClientError::KeyFile { path: path.to_owned(), reason };
    let metadata = fs::metadata(path).map_err(at(path))?;
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0 {
        return Err(refused(
            "others may read this secret key: chmod 600 it, and make a new one if they might have",
        ));
    }
    if metadata.len() > 100 {
        return Err(refused("this is not a key file: it should hold 64 hex digits"));
    }
    let text = fs::read_to_string(path).map_err(at(path))?;
    text.trim_end().parse().map_err(|_| refused("this is not a key file: it should hold 64 hex digits"))
}

//! What a hub says that a file hashes to.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Bytes read at a time.
const PART: usize = 1 << 20;

/// A file kept beside the repository, as all weights are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Lfs {
    sha256: String,
}

/// The hash that a file must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected<'a> {
    /// SHA-256 of its bytes.
    Sha256(&'a str),
    /// Of a file in the repository itself, its id as git has it: SHA-1 of a header and its bytes.
    Git(&'a str),
}

impl<'a> Expected<'a> {
    /// What a listing says of a file; nothing where it says nothing.
    pub(crate) fn of(lfs: Option<&'a Lfs>, blob: Option<&'a str>) -> Option<Self> {
        // The id of a file that is kept beside the repository is that of a pointer to it.
        match lfs {
            Some(lfs) => Some(Self::Sha256(&lfs.sha256)),
            None => blob.map(Self::Git),
        }
    }

    /// Refuses a file that hashes to something else. Reads all of it.
    pub(crate) fn check(self, path: &Path) -> Result<()> {
        let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let (found, expected) = match self {
            Self::Sha256(expected) => (hash(&mut file, Sha256::new())?, expected),
            Self::Git(expected) => {
                let length = file.metadata()?.len();
                (hash(&mut file, Sha1::new().chain_update(format!("blob {length}\0")))?, expected)
            }
        };
        if found == expected {
            return Ok(());
        }
        bail!(
            "it hashes to {found}, and the hub says that it should to {:?}",
            &expected.chars().take(64).collect::<String>()
        )
    }
}

fn hash(file: &mut File, mut hasher: impl Digest) -> Result<String> {
    let mut part = vec![0; PART];
    loop {
        match file.read(&mut part)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            read => hasher.update(&part[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `sha256sum` and `git hash-object` say of the same bytes.
    #[test]
    fn hashes_are_those_of_the_tools_that_everybody_has() {
        let path = std::env::temp_dir().join(format!("gainsay-hash-{}", std::process::id()));
        std::fs::write(&path, "hello\n").unwrap();
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        assert!(Expected::Sha256(sha256).check(&path).is_ok());
        assert!(Expected::Git(git).check(&path).is_ok());
        assert!(Expected::Sha256(git).check(&path).is_err());
        assert!(Expected::Git(sha256).check(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        let lfs = Lfs { sha256: sha256.to_owned() };
        assert_eq!(Expected::of(Some(&lfs), Some(git)), Some(Expected::Sha256(sha256)));
        assert_eq!(Expected::of(None, Some(git)), Some(Expected::Git(git)));
        assert_eq!(Expected::of(None, None), None);
    }
}

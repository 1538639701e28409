//! Weights by hash: a cache on disk that downloads what it lacks, and uploads.
//!
//! A blob is complete in the cache exactly when it lies under its own hash; until then it grows in a file beside,
//! which a later run continues. Several processes may share one cache: whoever downloads holds that file's lock, and
//! whoever uses blobs holds a lock on the list of them (`holds`), which keeps others from making room with them.

mod download;
mod holds;

pub use holds::Hold;

use super::files::at;
use super::transport::{Auth, Body, Call};
use super::{Client, ClientError};
use crate::limits::MAX_BLOB_BYTES;
use crate::routes;
use bytes::Bytes;
use download::Part;
use gainsay_commitment::TensorCommitment;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A folder of blobs, each under its hash.
#[derive(Clone, Debug)]
pub struct BlobCache {
    folder: PathBuf,
    /// Bytes that all blobs may take.
    limit: u64,
}

/// A blob that somebody needs, and what is known of its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its hash.
    pub hash: TensorCommitment,
    /// Its length in bytes, where it is known: a download that is longer is cut off.
    pub bytes: Option<u64>,
}

impl Wanted {
    fn limit(&self) -> u64 {
        self.bytes.unwrap_or(MAX_BLOB_BYTES).min(MAX_BLOB_BYTES)
    }
}

impl From<TensorCommitment> for Wanted {
    fn from(hash: TensorCommitment) -> Self {
        Self { hash, bytes: None }
    }
}

impl BlobCache {
    /// A cache in `folder`, which need not exist yet.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), limit: u64::MAX }
    }

    /// With room for so many bytes of blobs. What was not used for longest goes when room is needed.
    #[must_use]
    pub fn limited_to(self, bytes: u64) -> Self {
        Self { limit: bytes, ..self }
    }

    /// Keeps these blobs, whether they are here yet or not, for as long as the value lives; makes room for them by
    /// removing others that nobody holds. `name` stands for exactly this set: a model's id, say.
    ///
    /// # Errors
    /// [`ClientError::CacheFull`] where there is no room beside what others hold; then nothing was removed.
    pub async fn hold(&self, name: &str, blobs: Vec<Wanted>) -> Result<Hold, ClientError> {
        let (folder, limit, name) = (self.folder.clone(), self.limit, name.to_owned());
        let held = tokio::task::spawn_blocking(move || holds::hold(&folder, limit, &name, &blobs));
        held.await.expect("keeping a list of blobs does not panic")
    }

    /// The path of a blob of exactly these bytes, downloaded if it is not there yet.
    ///
    /// What was downloaded is verified. What lies there already was, when it came; whoever reads it as weights hashes
    /// it again, and calls [`BlobCache::discard`] if it has rotted since.
    ///
    /// # Errors
    /// [`ClientError::BlobMismatch`] if the coordinator serves other bytes; otherwise why it serves none.
    pub async fn fetch(&self, client: &Client, wanted: impl Into<Wanted>) -> Result<PathBuf, ClientError> {
        let wanted = wanted.into();
        let path = self.path(wanted.hash);
        if path.exists() {
            return Ok(path);
        }
        fs::create_dir_all(&self.folder).map_err(at(&self.folder))?;
        let mut part = Part::lock(self.folder.join(format!("{}.part", wanted.hash))).await?;
        if path.exists() {
            // Another process finished it while this one waited for the lock.
            return Ok(path);
        }
        for fresh in [false, true] {
            if fresh {
                part.clear()?;
            }
            if download::download(client, &wanted, &mut part).await? == wanted.hash {
                part.finish(&path)?;
                return Ok(path);
            }
        }
        // Nothing of it is worth going on from.
        part.clear()?;
        Err(ClientError::BlobMismatch { hash: wanted.hash })
    }

    /// Removes a blob whose bytes have turned out to be wrong.
    ///
    /// # Errors
    /// [`ClientError::File`] if it cannot be removed.
    pub fn discard(&self, hash: TensorCommitment) -> Result<(), ClientError> {
        let path = self.path(hash);
        fs::remove_file(&path).map_err(at(&path))
    }

    fn path(&self, hash: TensorCommitment) -> PathBuf {
        self.folder.join(hash.to_string())
    }
}

/// The hash of a file's bytes: the name that it has as a blob.
///
/// # Errors
/// [`ClientError::File`] if it cannot be read.
pub fn hash_file(path: &Path) -> Result<TensorCommitment, ClientError> {
    let mut hasher = blake3::Hasher::new();
    File::open(path).and_then(|file| download::hash_into(&mut hasher, &file)).map_err(at(path))?;
    Ok(TensorCommitment::from_bytes(*hasher.finalize().as_bytes()))
}

impl Client {
    /// Uploads a blob from memory; answers its hash. The same again changes nothing.
    ///
    /// # Errors
    /// [`ClientError::Refused`], with `blob_not_wanted` where no registered model names it.
    pub async fn put_blob(
        &self,
        auth: Auth<'_>,
        bytes: impl Into<Bytes>,
    ) -> Result<TensorCommitment, ClientError> {
        let bytes = bytes.into();
        let hash = gainsay_commitment::tensor::tensor_commitment(&bytes);
        self.done(Call::put(routes::blob(hash)).auth(auth).octets(bytes)).await.map(|()| hash)
    }

    /// Uploads a file as a blob, without holding it in memory; answers its hash.
    ///
    /// # Errors
    /// As [`Client::put_blob`], and where the file cannot be read.
    pub async fn put_blob_file(&self, auth: Auth<'_>, path: &Path) -> Result<TensorCommitment, ClientError> {
        let bytes = fs::metadata(path).map_err(at(path))?.len();
        let to_hash = path.to_owned();
        let hash = tokio::task::spawn_blocking(move || hash_file(&to_hash))
            .await
            .expect("hashing a file does not panic")?;
        let body = Body::File { path: path.to_owned(), hash: hash.to_bytes(), bytes };
        let call = Call { body, ..Call::put(routes::blob(hash)).auth(auth) };
        self.done(call).await.map(|()| hash)
    }
}

//! Weights by hash: a cache on disk that downloads what it lacks, and uploads.
//!
//! A blob is complete in the cache exactly when it lies under its own hash; until then it grows in a file beside,
//! which a later run continues. Several processes may share one cache: whoever downloads holds that file's lock.

use super::files::at;
use super::transport::{Auth, Body, Call};
use super::{Client, ClientError};
use crate::limits::MAX_BLOB_BYTES;
use crate::routes;
use bytes::Bytes;
use gainsay_commitment::TensorCommitment;
use reqwest::StatusCode;
use reqwest::header::{HeaderValue, RANGE};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A folder of blobs, each under its hash.
#[derive(Clone, Debug)]
pub struct BlobCache {
    folder: PathBuf,
}

impl BlobCache {
    /// A cache in `folder`, which need not exist yet.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The path of a blob of exactly these bytes, downloaded if it is not there yet.
    ///
    /// What was downloaded is verified. What lies there already was, when it came; whoever reads it as weights hashes
    /// it again, and calls [`BlobCache::discard`] if it has rotted since.
    ///
    /// # Errors
    /// [`ClientError::BlobMismatch`] if the coordinator serves other bytes; otherwise why it serves none.
    pub async fn fetch(&self, client: &Client, hash: TensorCommitment) -> Result<PathBuf, ClientError> {
        let path = self.path(hash);
        if path.exists() {
            return Ok(path);
        }
        fs::create_dir_all(&self.folder).map_err(at(&self.folder))?;
        let part = self.lock_part(hash).await?;
        if path.exists() {
            // Another process finished it while this one waited for the lock.
            return Ok(path);
        }
        for fresh in [false, true] {
            if fresh {
                part.file.set_len(0).map_err(at(&part.path))?;
            }
            if self.download(client, hash, &part).await? {
                fs::rename(&part.path, &path).map_err(at(&path))?;
                return Ok(path);
            }
        }
        Err(ClientError::BlobMismatch { hash })
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

    async fn lock_part(&self, hash: TensorCommitment) -> Result<Part, ClientError> {
        let path = self.folder.join(format!("{hash}.part"));
        let locked = tokio::task::spawn_blocking(move || Part::lock(path));
        locked.await.expect("locking a file does not panic")
    }

    /// Downloads what `part` lacks; answers whether it then has the right hash.
    async fn download(
        &self,
        client: &Client,
        hash: TensorCommitment,
        part: &Part,
    ) -> Result<bool, ClientError> {
        let mut failures = 0;
        loop {
            let before = part.length()?;
            match self.download_once(client, hash, part).await {
                Ok(()) => return part.hashes_to(hash).await,
                Err(error) if error.is_transient() => {
                    // Progress earns new patience: a long download may be cut many times.
                    failures = if part.length()? > before { 1 } else { failures + 1 };
                    if failures >= client.inner.retry.attempts {
                        return Err(error);
                    }
                    tracing::debug!(%hash, failures, %error, "download cut; going on where it stopped");
                    tokio::time::sleep(client.inner.retry.pause(failures)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn download_once(
        &self,
        client: &Client,
        hash: TensorCommitment,
        part: &Part,
    ) -> Result<(), ClientError> {
        let mut have = part.length()?;
        let mut call = Call::get(routes::blob(hash));
        if have > 0 {
            let range = HeaderValue::from_str(&format!("bytes={have}-")).expect("a range is a header value");
            call.headers.insert(RANGE, range);
        }
        let mut answer = match client.stream(&call).await {
            // Nothing follows what is there: it may be whole.
            Err(ClientError::Refused { status: 416, .. } | ClientError::Unexpected { status: 416, .. }) => {
                return Ok(());
            }
            answer => answer?,
        };
        if answer.response.status() != StatusCode::PARTIAL_CONTENT {
            part.file.set_len(0).map_err(at(&part.path))?;
            have = 0;
        }
        let mut file = &part.file;
        file.seek(SeekFrom::Start(have)).map_err(at(&part.path))?;
        while let Some(chunk) = client.next_chunk(&mut answer).await? {
            have += chunk.len() as u64;
            if have > MAX_BLOB_BYTES {
                return Err(ClientError::TooLarge { path: call.path, limit: MAX_BLOB_BYTES });
            }
            file.write_all(&chunk).map_err(at(&part.path))?;
        }
        file.sync_all().map_err(at(&part.path))
    }
}

/// A download under way, locked against other processes.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn lock(path: PathBuf) -> Result<Self, ClientError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(at(&path))?;
        file.lock().map_err(at(&path))?;
        Ok(Self { path, file })
    }

    fn length(&self) -> Result<u64, ClientError> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(at(&self.path))
    }

    async fn hashes_to(&self, hash: TensorCommitment) -> Result<bool, ClientError> {
        let path = self.path.clone();
        let hashed = tokio::task::spawn_blocking(move || hash_file(&path));
        hashed.await.expect("hashing a file does not panic").map(|found| found == hash)
    }
}

/// The hash of a file's bytes: the name that it has as a blob.
///
/// # Errors
/// [`ClientError::File`] if it cannot be read.
pub fn hash_file(path: &Path) -> Result<TensorCommitment, ClientError> {
    let mut file = File::open(path).map_err(at(path))?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut piece).map_err(at(path))?;
        if count == 0 {
            return Ok(TensorCommitment::from_bytes(*hasher.finalize().as_bytes()));
        }
        hasher.update(&piece[..count]);
    }
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

//! Downloading one blob: continued where it stopped, hashed as it comes.

use super::super::files::at;
use super::super::transport::{Call, unexpected};
use super::super::{Client, ClientError};
use super::Wanted;
use crate::routes;
use gainsay_commitment::TensorCommitment;
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Response, StatusCode};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Downloads what `part` lacks; answers what it then hashes to.
pub(super) async fn download(
    client: &Client,
    wanted: &Wanted,
    part: &mut Part,
) -> Result<TensorCommitment, ClientError> {
    let mut failures = 0;
    loop {
        let before = part.have;
        match download_once(client, wanted, part).await {
            Ok(()) => return Ok(part.hash()),
            Err(error) if error.is_transient() => {
                // Progress earns new patience: a long download may be cut many times.
                failures = if part.have > before { 1 } else { failures + 1 };
                if failures >= client.inner.retry.attempts {
                    return Err(error);
                }
                tracing::debug!(hash = %wanted.hash, failures, %error, "download cut; going on where it stopped");
                tokio::time::sleep(client.inner.retry.pause(failures)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn download_once(client: &Client, wanted: &Wanted, part: &mut Part) -> Result<(), ClientError> {
    if wanted.bytes == Some(part.have) {
        return Ok(());
    }
    let mut call = Call::get(routes::blob(wanted.hash));
    if part.have > 0 {
        let range = format!("bytes={}-", part.have);
        call.headers.insert(RANGE, HeaderValue::from_str(&range).expect("a range is a header value"));
    }
    let mut answer = match client.stream(&call).await {
        // Nothing follows what is there: it may be whole.
        Err(ClientError::Refused { status: 416, .. } | ClientError::Unexpected { status: 416, .. }) => {
            return Ok(());
        }
        answer => answer?,
    };
    if answer.response.status() != StatusCode::PARTIAL_CONTENT {
        part.clear()?;
    } else if !goes_on_at(&answer.response, part.have) {
        let reason = format!("asked for the bytes from {} on, it sends others", part.have);
        return Err(unexpected(&answer.base, &call.path, StatusCode::PARTIAL_CONTENT, reason));
    }
    while let Some(chunk) = client.next_chunk(&mut answer).await? {
        if part.have + chunk.len() as u64 > wanted.limit() {
            part.clear()?;
            return Err(ClientError::TooLarge { path: call.path, limit: wanted.limit() });
        }
        part.write(&chunk)?;
    }
    part.sync()
}

/// Whether a partial answer begins at this byte. One that does not say is taken at its word, and found out by the hash.
fn goes_on_at(response: &Response, start: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    first.is_none_or(|first| first == start)
}

/// A download under way, locked against other processes, and the hash of what has come.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    /// Bytes that are there.
    have: u64,
}

impl Part {
    /// Waits for the lock, and hashes what a former run has left.
    pub(super) async fn lock(path: PathBuf) -> Result<Self, ClientError> {
        let locked = tokio::task::spawn_blocking(move || Self::lock_now(path));
        locked.await.expect("locking a file does not panic")
    }

    fn lock_now(path: PathBuf) -> Result<Self, ClientError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(at(&path))?;
        file.lock().map_err(at(&path))?;
        let mut part = Self { path, file, hasher: blake3::Hasher::new(), have: 0 };
        part.have = hash_into(&mut part.hasher, &part.file).map_err(at(&part.path))?;
        Ok(part)
    }

    /// Throws away what is there.
    pub(super) fn clear(&mut self) -> Result<(), ClientError> {
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map_err(at(&self.path))?;
        self.hasher.reset();
        self.have = 0;
        Ok(())
    }

    fn write(&mut self, chunk: &[u8]) -> Result<(), ClientError> {
        self.file.write_all(chunk).map_err(at(&self.path))?;
        self.hasher.update(chunk);
        self.have += chunk.len() as u64;
        Ok(())
    }

    fn sync(&self) -> Result<(), ClientError> {
        self.file.sync_all().map_err(at(&self.path))
    }

    fn hash(&self) -> TensorCommitment {
        TensorCommitment::from_bytes(*self.hasher.finalize().as_bytes())
    }

    /// Gives it its name.
    pub(super) fn finish(self, path: &Path) -> Result<(), ClientError> {
        std::fs::rename(&self.path, path).map_err(at(path))
    }
}

/// Hashes all of a file from where it stands; answers how many bytes that were.
pub(super) fn hash_into(hasher: &mut blake3::Hasher, file: &File) -> std::io::Result<u64> {
    let (mut file, mut piece, mut bytes) = (file, vec![0; 1 << 20], 0);
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok(bytes);
        }
        hasher.update(&piece[..count]);
        bytes += count as u64;
    }
}

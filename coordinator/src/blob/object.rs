//! Model files in an object store: S3, or what speaks its language.

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use gainsay_commitment::TensorCommitment;
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, prefix::PrefixStore};
use tokio::io::AsyncWriteExt;

/// Bytes of one part of an upload: S3 takes ten thousand parts, and no file has more than 16 GiB.
const PART_BYTES: usize = 8 << 20;
/// Parts of one upload that are on their way at a time.
const PARTS_AT_ONCE: usize = 4;

/// An object store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The address of no store that is known.
    #[error("blob_url = {0:?} is no object store: expected s3://BUCKET or s3://BUCKET/FOLDER")]
    Url(String),
    /// The store cannot be set up or does not do what it is asked.
    #[error("the object store could not {operation} {key}")]
    Failed {
        /// What.
        operation: &'static str,
        /// With which object.
        key: String,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
}

fn failed(operation: &'static str, key: &Key) -> impl FnOnce(object_store::Error) -> ObjectError {
    let key = key.to_string();
    move |source| ObjectError::Failed { operation, key, source }
}

/// Objects named by the hashes of their bytes, spread over prefixes of two digits.
#[derive(Debug, Clone)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
}

impl Objects {
    /// The store at this address. What else it needs (keys, region, endpoint) comes from the variables that tools for S3
    /// read: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT`.
    ///
    /// # Errors
    /// An address of another kind, or variables that do not fit together.
    pub(super) fn open(url: &str) -> Result<Self, ObjectError> {
        let rest = url.strip_prefix("s3://").ok_or_else(|| ObjectError::Url(url.to_owned()))?;
        let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
        let folder = Key::parse(folder.trim_matches('/')).map_err(|_| ObjectError::Url(url.to_owned()))?;
        if bucket.is_empty() {
            return Err(ObjectError::Url(url.to_owned()));
        }
        // An error says that one is installed: as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bucket = AmazonS3Builder::from_env().with_bucket_name(bucket);
        let store = bucket.build().map_err(failed("open", &folder))?;
        Ok(Self::new(PrefixStore::new(store, folder)))
    }

    pub(super) fn new(store: impl ObjectStore) -> Self {
        Self { store: Arc::new(store) }
    }

    fn key(hash: &TensorCommitment) -> Key {
        let name = hash.to_string();
        Key::from_iter([&name[..2], &name[..]])
    }

    /// The object of this hash, if it is there.
    pub(super) async fn get(&self, hash: &TensorCommitment) -> Result<Option<Object>, ObjectError> {
        let key = Self::key(hash);
        match self.store.head(&key).await {
            Ok(found) => {
                Ok(Some(Object { store: self.store.clone(), key, bytes: found.size, start: 0, stream: None }))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("look up", &key)(error)),
        }
    }

    /// Puts a file there under its hash. Until all of it has come, there is nothing under that name.
    pub(super) async fn put(&self, file: &Path, hash: &TensorCommitment) -> Result<(), ObjectError> {
        let key = Self::key(hash);
        let writer = BufWriter::with_capacity(self.store.clone(), key.clone(), PART_BYTES);
        let mut writer = writer.with_max_concurrency(PARTS_AT_ONCE);
        let copied = async {
            let mut file = tokio::fs::File::open(file).await?;
            tokio::io::copy(&mut file, &mut writer).await?;
            writer.shutdown().await
        };
        if let Err(error) = copied.await {
            // Parts that have come would be paid for and never seen.
            let aborted = writer.abort().await;
            if let Err(error) = aborted {
                tracing::warn!(%error, %key, "the parts of a cut-off upload stay in the object store");
            }
            return Err(failed("take", &key)(generic(error)));
        }
        Ok(())
    }
}

fn generic(source: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "blobs", source: source.into() }
}

/// An object that is read from its start, or from where it was told to.
pub(super) struct Object {
    store: Arc<dyn ObjectStore>,
    key: Key,
    bytes: u64,
    start: u64,
    /// Opened by the first read.
    stream: Option<BoxStream<'static, object_store::Result<bytes::Bytes>>>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object").field("key", &self.key).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Object {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn seek(&mut self, start: u64) {
        self.start = start;
        self.stream = None;
    }

    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, ObjectError> {
        if self.start >= self.bytes {
            return Ok(None);
        }
        if self.stream.is_none() {
            let range = (self.start > 0).then_some(GetRange::Offset(self.start));
            let options = GetOptions { range, ..GetOptions::default() };
            let found = self.store.get_opts(&self.key, options).await.map_err(failed("read", &self.key))?;
            self.stream = Some(found.into_stream());
        }
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let next = stream.next().await.transpose().map_err(failed("read", &self.key))?;
        Ok(next.map(Vec::from))
    }
}

#[cfg(test)]
mod tests {
    use gainsay_commitment::tensor::tensor_commitment;
    use object_store::memory::InMemory;

    use super::*;

    async fn whole(object: &mut Object) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(part) = object.next().await.unwrap() {
            bytes.extend(part);
        }
        bytes
    }

    #[tokio::test]
    async fn what_was_put_comes_back_whole_and_from_the_middle() {
        let objects = Objects::new(PrefixStore::new(InMemory::new(), "models"));
        // More than one part.
        let bytes: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let hash = tensor_commitment(&bytes);
        assert!(objects.get(&hash).await.unwrap().is_none());
        let file = std::env::temp_dir().join(format!("gainsay-object-{}", uuid::Uuid::now_v7().simple()));
        std::fs::write(&file, &bytes).unwrap();
        objects.put(&file, &hash).await.unwrap();
        std::fs::remove_file(&file).unwrap();
        let mut object = objects.get(&hash).await.unwrap().unwrap();
        assert_eq!(object.bytes(), bytes.len() as u64);
        assert!(whole(&mut object).await == bytes);
        object.seek(19_000_001);
        assert!(whole(&mut object).await == bytes[19_000_001..]);
    }

    #[test]
    fn an_address_of_another_kind_is_refused_in_words() {
        for url in ["", "s3://", "http://bucket", "/tmp/blobs", "s3:///folder"] {
            let error = Objects::open(url).unwrap_err().to_string();
            assert!(error.contains("expected s3://BUCKET"), "{url}: {error}");
        }
    }
}

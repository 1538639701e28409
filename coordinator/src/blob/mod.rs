//! Model files by content: each file is named by the BLAKE3 hash of its bytes, so that a name is never reused. They lie
//! in a folder, or in an object store; what comes in is received in the folder in either case, and hashed as it comes.

mod object;

pub use object::ObjectError;

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gainsay_commitment::TensorCommitment;
use gainsay_program::weights::WeightTypes;
use object::{Object, Objects};
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;
/// No upload goes on after it has rested for so long.
const UPLOAD_REST: Duration = Duration::from_secs(60 * 60);

/// A file could not be kept or had.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// On this machine.
    #[error("could not {operation} {path}")]
    Local {
        /// What.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// In the object store.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError::Local { operation, path: path.to_owned(), source }
}

/// Files named by hash: in a folder, spread over 256 folders by their first two digits, or in an object store.
#[derive(Debug, Clone)]
pub struct FileStore {
    root: PathBuf,
    objects: Option<Objects>,
}

impl FileStore {
    /// Opens the folder, making it where it is missing, and the object store at `url` where there is one.
    ///
    /// # Errors
    /// The folder cannot be made, or the address is no object store's.
    pub async fn open(root: PathBuf, url: Option<&str>) -> Result<Self, FileError> {
        let objects = url.map(Objects::open).transpose()?;
        let incoming = root.join("incoming");
        fs::create_dir_all(&incoming).await.map_err(failed("make", &incoming))?;
        sweep(&incoming).await?;
        Ok(Self { root, objects })
    }

    fn path(&self, hash: &TensorCommitment) -> PathBuf {
        let name = hash.to_string();
        self.root.join(&name[..2]).join(&name)
    }

    /// The file of this hash, if it is there.
    ///
    /// # Errors
    /// It cannot be opened.
    pub async fn get(&self, hash: &TensorCommitment) -> Result<Option<Blob>, FileError> {
        if let Some(objects) = &self.objects {
            return Ok(objects.get(hash).await?.map(|object| Blob(Source::Object(object))));
        }
        let path = self.path(hash);
        let file = match File::open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let bytes = file.metadata().await.map_err(failed("read", &path))?.len();
        Ok(Some(Blob(Source::File { file, path, bytes })))
    }

    /// Starts to receive a file of at most `limit` bytes that is said to have this hash.
    ///
    /// # Errors
    /// No file can be made.
    pub async fn begin(&self, stated: TensorCommitment, limit: u64) -> Result<BlobUpload, FileError> {
        let path = self.root.join("incoming").join(uuid::Uuid::now_v7().to_string());
        let file = File::create_new(&path).await.map_err(failed("make", &path))?;
        let hasher = gainsay_commitment::TensorHasher::new();
        let incoming = Incoming { path, kept: false };
        let types = WeightTypes::default();
        Ok(BlobUpload { file, incoming, hasher, types, stated, limit, bytes: 0 })
    }

    /// Gives a received file its name; a file of that name already there is the same file.
    pub(crate) async fn keep(
        &self,
        mut upload: BlobUpload,
        hash: &TensorCommitment,
    ) -> Result<(), FileError> {
        if let Some(objects) = &self.objects {
            // The file that was received goes with the upload.
            return Ok(objects.put(&upload.incoming.path, hash).await?);
        }
        let target = self.path(hash);
        let folder = target.parent().expect("a file's path lies in its hash's folder");
        let from = upload.incoming.path.clone();
        upload.file.sync_all().await.map_err(failed("write", &from))?;
        fs::create_dir_all(folder).await.map_err(failed("make", folder))?;
        fs::rename(&from, &target).await.map_err(failed("name", &target))?;
        // Nothing may be recorded about a file whose name a power cut could take away.
        for folder in [folder, &self.root] {
            let opened = File::open(folder).await.map_err(failed("open", folder))?;
            opened.sync_all().await.map_err(failed("write", folder))?;
        }
        upload.incoming.kept = true;
        Ok(())
    }
}

/// Removes what uploads left that were cut off by the end of their process. Other coordinators may be receiving at this
/// moment: their files are new, since an upload that rests is ended long before.
async fn sweep(incoming: &Path) -> Result<(), FileError> {
    let mut entries = fs::read_dir(incoming).await.map_err(failed("read", incoming))?;
    while let Some(entry) = entries.next_entry().await.map_err(failed("read", incoming))? {
        let written = entry.metadata().await.and_then(|metadata| metadata.modified());
        // One that is gone or cannot be looked at is somebody else's business.
        let is_old = written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > UPLOAD_REST));
        if is_old && let Err(error) = fs::remove_file(entry.path()).await {
            tracing::warn!(%error, path = %entry.path().display(), "a cut-off upload cannot be removed");
        }
    }
    Ok(())
}

/// A file open for reading.
#[derive(Debug)]
pub struct Blob(Source);

#[derive(Debug)]
enum Source {
    File { file: File, path: PathBuf, bytes: u64 },
    Object(Object),
}

impl Blob {
    /// Its length, bytes.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Source::File { bytes, .. } => *bytes,
            Source::Object(object) => object.bytes(),
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next part, none at the end.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, FileError> {
        match &mut self.0 {
            Source::File { file, path, .. } => {
                let mut part = Vec::with_capacity(READ_BYTES);
                let read = file.take(READ_BYTES as u64).read_to_end(&mut part).await;
                read.map_err(failed("read", path))?;
                Ok(if part.is_empty() { None } else { Some(part) })
            }
            Source::Object(object) => Ok(object.next().await?),
        }
    }

    /// Goes on reading at this byte.
    ///
    /// # Errors
    /// It cannot be read there.
    pub async fn seek(&mut self, start: u64) -> Result<(), FileError> {
        match &mut self.0 {
            Source::File { file, path, .. } => {
                file.seek(SeekFrom::Start(start)).await.map_err(failed("read", path))?;
            }
            Source::Object(object) => object.seek(start),
        }
        Ok(())
    }

    /// All of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn read_all(mut self) -> Result<Vec<u8>, FileError> {
        let mut whole = Vec::with_capacity(usize::try_from(self.len()).unwrap_or(0));
        while let Some(part) = self.next().await? {
            whole.extend_from_slice(&part);
        }
        Ok(whole)
    }
}

/// A file being received. Dropped before it is kept, it leaves nothing.
#[derive(Debug)]
pub struct BlobUpload {
    file: File,
    incoming: Incoming,
    hasher: gainsay_commitment::TensorHasher,
    types: WeightTypes,
    stated: TensorCommitment,
    limit: u64,
    bytes: u64,
}

/// What is known of a file once all of it has come.
#[derive(Debug, Clone, Copy)]
pub struct ReceivedFile {
    /// Hash of its bytes.
    pub hash: TensorCommitment,
    /// Length, bytes.
    pub bytes: u64,
    /// The types as which it may be a weight, as [`WeightTypes::bits`] has them.
    pub types: u8,
}

#[derive(Debug)]
struct Incoming {
    path: PathBuf,
    kept: bool,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.kept {
            // What is left behind is a stray file in a folder that nothing reads.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl BlobUpload {
    /// The hash it is uploaded under.
    pub fn stated(&self) -> TensorCommitment {
        self.stated
    }

    /// The most bytes it may have.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes the next part; false if that is more than may come, and nothing is taken.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn write(&mut self, part: &[u8]) -> Result<bool, FileError> {
        let bytes = self.bytes.saturating_add(part.len() as u64);
        if bytes > self.limit {
            return Ok(false);
        }
        self.bytes = bytes;
        self.hasher.update(part);
        self.types.update(part);
        self.file.write_all(part).await.map_err(failed("write", &self.incoming.path))?;
        Ok(true)
    }

    /// All that has come and was [finished](Self::finish); none if that is more than `most` bytes.
    pub(crate) async fn read(&self, most: u64) -> Result<Option<Vec<u8>>, FileError> {
        let path = &self.incoming.path;
        if self.bytes > most {
            return Ok(None);
        }
        Ok(Some(fs::read(path).await.map_err(failed("read", path))?))
    }

    /// Ends the stream: what came.
    pub(crate) async fn finish(&mut self) -> Result<ReceivedFile, FileError> {
        self.file.flush().await.map_err(failed("write", &self.incoming.path))?;
        Ok(ReceivedFile { hash: self.hasher.commitment(), bytes: self.bytes, types: self.types.bits() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir_all, remove_dir_all};
    use std::time::SystemTime;

    use super::*;

    /// Each upload that a crash cuts off may be gigabytes, and nothing else ever removes it.
    #[tokio::test]
    async fn what_a_crash_left_is_swept_and_what_comes_in_now_is_not() {
        let root = std::env::temp_dir().join(format!("gainsay-blobs-{}", uuid::Uuid::now_v7().simple()));
        let incoming = root.join("incoming");
        create_dir_all(&incoming).unwrap();
        let (old, new) = (incoming.join("old"), incoming.join("new"));
        let long_ago = SystemTime::now() - 2 * UPLOAD_REST;
        File::create(&old).unwrap().set_modified(long_ago).unwrap();
        File::create(&new).unwrap();
        FileStore::open(root.clone(), None).await.unwrap();
        assert!(!old.exists() && new.exists());
        remove_dir_all(&root).unwrap();
    }
}

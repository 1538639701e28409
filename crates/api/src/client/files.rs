//! Files that survive a crash whole or not at all.

use super::ClientError;
use bytes::Bytes;
use futures_util::Stream;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// As the process's file mode says.
    Shared,
    /// The owner alone (0600).
    Secret,
}

/// Writes a file so that after a crash at any point it has either its old content or all of the new: written beside,
/// synchronised, renamed over, the folder synchronised.
///
/// # Errors
/// [`ClientError::File`] with the path that failed.
pub fn write_atomically(path: &Path, bytes: &[u8], privacy: Privacy) -> Result<(), ClientError> {
    let beside = write_beside(path, bytes, privacy).map_err(at(path))?;
    fs::rename(&beside, path).map_err(at(path))?;
    sync_folder(path).map_err(at(path))
}

/// Writes a file that must not exist yet; answers whether it did not. Of several processes that try at once, exactly
/// one wins.
///
/// # Errors
/// [`ClientError::File`] with the path that failed.
pub fn create_atomically(path: &Path, bytes: &[u8], privacy: Privacy) -> Result<bool, ClientError> {
    let beside = write_beside(path, bytes, privacy).map_err(at(path))?;
    let linked = fs::hard_link(&beside, path);
    fs::remove_file(&beside).map_err(at(&beside))?;
    match linked {
        Ok(()) => sync_folder(path).map_err(at(path)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(at(path)(error)),
    }
}

fn write_beside(path: &Path, bytes: &[u8], privacy: Privacy) -> io::Result<PathBuf> {
    let folder = folder_of(path);
    fs::create_dir_all(folder)?;
    let mut name = [0; 8];
    getrandom::fill(&mut name).map_err(io::Error::other)?;
    let beside = folder.join(format!(".{}.new", hex::encode(name)));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if privacy == Privacy::Secret {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    #[cfg(not(unix))]
    let _ = privacy;
    let mut file = options.open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(beside)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    // A folder cannot be opened for this everywhere; where it can, the rename becomes durable.
    if cfg!(unix) { File::open(folder_of(path))?.sync_all() } else { Ok(()) }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Names the file in an error.
pub fn at(path: &Path) -> impl FnOnce(io::Error) -> ClientError {
    let path = path.to_owned();
    move |source| ClientError::File { path, source }
}

/// A file's bytes as a stream, read in pieces of 256 KiB.
pub(super) fn read_stream(path: PathBuf) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    enum State {
        Closed(PathBuf),
        Open(tokio::fs::File),
    }
    futures_util::stream::try_unfold(State::Closed(path), |state| async move {
        let mut file = match state {
            State::Closed(path) => tokio::fs::File::open(path).await?,
            State::Open(file) => file,
        };
        let mut piece = bytes::BytesMut::with_capacity(256 << 10);
        let count = file.read_buf(&mut piece).await?;
        Ok((count > 0).then(|| (piece.freeze(), State::Open(file))))
    })
}

//! Who uses which blobs of a cache, and making room with those that nobody does.
//!
//! For each set of blobs that is or was used there is a list beside them, `NAME.held`: a hash and a length a line. Its
//! users hold a shared lock on it; its time of modification says when it was last taken up. Room is made under the
//! cache's own lock, which every new user takes too: so what is being removed and what is being taken up never meet.

use super::super::ClientError;
use super::super::files::at;
use super::Wanted;
use gainsay_commitment::TensorCommitment;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The cache's own lock.
const LOCK: &str = "cache.lock";
/// What lists end in.
const LIST: &str = "held";
/// What downloads under way end in.
const PART: &str = "part";
/// Bytes of a list that are read: more than any model names.
const LIST_MAX: u64 = 64 << 20;

/// Blobs that stay in the cache for as long as this lives.
#[derive(Debug)]
pub struct Hold {
    /// Locked, shared; the lock goes with it.
    _list: File,
}

/// Takes up a set of blobs, and makes room where they and the rest would be more than `limit` bytes.
pub(super) fn hold(folder: &Path, limit: u64, name: &str, blobs: &[Wanted]) -> Result<Hold, ClientError> {
    fs::create_dir_all(folder).map_err(at(folder))?;
    let _lock = open(&folder.join(LOCK)).and_then(|lock| lock.lock().map(|()| lock)).map_err(at(folder))?;
    let path = folder.join(format!("{name}.{LIST}"));
    let list = open(&path).map_err(at(&path))?;
    // Never waits: lists are locked against sharing only under the cache's lock.
    list.lock_shared().map_err(at(&path))?;
    write_list(&list, blobs).map_err(at(&path))?;
    let shelf = Shelf::read(folder).map_err(at(folder))?;
    let in_use = shelf.bytes_in_use();
    if in_use > limit {
        return Err(ClientError::CacheFull { folder: folder.to_owned(), needed: in_use, limit });
    }
    for path in shelf.to_remove(limit) {
        // One that cannot be removed now is found again next time.
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "a file of the cache cannot be removed");
        }
    }
    Ok(Hold { _list: list })
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Writes what is listed, unless it is listed already, and that it is used now.
fn write_list(mut list: &File, blobs: &[Wanted]) -> io::Result<()> {
    let lines: Vec<String> =
        blobs.iter().map(|blob| format!("{} {}\n", blob.hash, blob.bytes.unwrap_or(0))).collect();
    let mut before = String::new();
    // What a crash left half written is no text of this form, and written again.
    let is_text = list.take(LIST_MAX).read_to_string(&mut before).is_ok();
    if !is_text || before != lines.concat() {
        list.set_len(0)?;
        list.seek(SeekFrom::Start(0))?;
        list.write_all(lines.concat().as_bytes())?;
    }
    list.set_modified(SystemTime::now())
}

/// A list that nobody uses.
struct Idle {
    path: PathBuf,
    used: SystemTime,
    blobs: Vec<TensorCommitment>,
}

/// What lies in a cache.
#[derive(Default)]
struct Shelf {
    /// Lengths of what is used, as long as it will be when it is all there.
    in_use: HashMap<TensorCommitment, u64>,
    /// Lists that nobody uses, last used first.
    idle: Vec<Idle>,
    /// Files of each blob, whole or growing, and their lengths.
    files: HashMap<TensorCommitment, Vec<(PathBuf, u64)>>,
}

impl Shelf {
    fn read(folder: &Path) -> io::Result<Self> {
        let mut shelf = Self::default();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let (Some(stem), extension) = (path.file_stem(), path.extension()) else { continue };
            if extension.is_some_and(|extension| extension == LIST) {
                shelf.take_list(path)?;
            } else if extension.is_none_or(|extension| extension == PART)
                && let Some(hash) = stem.to_str().and_then(|stem| stem.parse().ok())
                // What is renamed or removed meanwhile is not there.
                && let Ok(metadata) = fs::metadata(&path)
            {
                shelf.files.entry(hash).or_default().push((path, metadata.len()));
            }
        }
        shelf.idle.sort_by_key(|idle| std::cmp::Reverse(idle.used));
        Ok(shelf)
    }

    fn take_list(&mut self, path: PathBuf) -> io::Result<()> {
        let list = open(&path)?;
        let is_used = list.try_lock().is_err();
        let mut text = String::new();
        // A list that a crash cut off names at least what stands in it.
        let _ = (&list).take(LIST_MAX).read_to_string(&mut text);
        let blobs = text.lines().filter_map(|line| {
            let (hash, bytes) = line.split_once(' ')?;
            Some((hash.parse::<TensorCommitment>().ok()?, bytes.parse::<u64>().ok()?))
        });
        if is_used {
            self.in_use.extend(blobs);
        } else {
            let used = list.metadata()?.modified()?;
            self.idle.push(Idle { path, used, blobs: blobs.map(|(hash, _)| hash).collect() });
        }
        Ok(())
    }

    /// Bytes that a blob takes on disk now.
    fn bytes(&self, hash: &TensorCommitment) -> u64 {
        self.files.get(hash).into_iter().flatten().map(|(_, bytes)| bytes).sum()
    }

    fn bytes_in_use(&self) -> u64 {
        let lengths = self.in_use.iter().map(|(hash, bytes)| self.bytes(hash).max(*bytes));
        lengths.fold(0, u64::saturating_add)
    }

    /// The files that must go, and the lists that name them: first what no list names, then the sets that were not used
    /// for longest. None where all have room.
    fn to_remove(&self, limit: u64) -> Vec<PathBuf> {
        let mut room = limit.saturating_sub(self.bytes_in_use());
        let mut kept: HashSet<TensorCommitment> = self.in_use.keys().copied().collect();
        let others = self.files.keys().filter(|hash| !kept.contains(hash));
        if others.map(|hash| self.bytes(hash)).fold(0, u64::saturating_add) <= room {
            return Vec::new();
        }
        let mut removed = Vec::new();
        for idle in &self.idle {
            let new: HashSet<_> = idle.blobs.iter().copied().filter(|hash| !kept.contains(hash)).collect();
            let bytes = new.iter().map(|hash| self.bytes(hash)).fold(0, u64::saturating_add);
            // Once a set has no room, none that was used before it stays.
            if removed.is_empty() && bytes <= room {
                room -= bytes;
                kept.extend(new);
            } else {
                removed.push(idle.path.clone());
            }
        }
        let gone = self.files.iter().filter(|(hash, _)| !kept.contains(hash));
        removed.extend(gone.flat_map(|(_, files)| files.iter().map(|(path, _)| path.clone())));
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gainsay_commitment::tensor::tensor_commitment;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("gainsay-holds-{name}-{}", std::process::id()));
            // What an aborted run left.
            drop(fs::remove_dir_all(&path));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// A set of blobs of these lengths, which lie in the cache.
        fn blobs(&self, name: &str, lengths: &[usize]) -> Vec<Wanted> {
            let blob = |(index, length): (usize, &usize)| {
                let hash = tensor_commitment(format!("{name}{index}").as_bytes());
                fs::write(self.0.join(hash.to_string()), vec![0; *length]).unwrap();
                Wanted { hash, bytes: Some(*length as u64) }
            };
            lengths.iter().enumerate().map(blob).collect()
        }

        fn has(&self, blobs: &[Wanted]) -> bool {
            blobs.iter().all(|blob| self.0.join(blob.hash.to_string()).exists())
        }

        fn used(&self, name: &str, seconds_ago: u64) {
            let list = open(&self.0.join(format!("{name}.{LIST}"))).unwrap();
            let used = SystemTime::now() - std::time::Duration::from_secs(seconds_ago);
            list.set_modified(used).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let folder = Folder::new("lru");
        let sets = ["a", "b", "c"].map(|name| (name, folder.blobs(name, &[10, 20])));
        for (name, blobs) in &sets {
            drop(hold(&folder.0, 1_000, name, blobs).unwrap());
        }
        for (name, ago) in [("a", 10), ("b", 30), ("c", 20)] {
            folder.used(name, ago);
        }
        let new = [Wanted { hash: tensor_commitment(b"new"), bytes: Some(40) }];
        let _held = hold(&folder.0, 100, "new", &new).unwrap();
        let [a, b, c] = sets.map(|(_, blobs)| folder.has(&blobs));
        assert!(a && !b && c, "only as much as is needed, and the oldest first");
    }

    #[test]
    fn what_is_held_stays_whoever_else_needs_room() {
        let folder = Folder::new("held");
        let (mine, yours) = (folder.blobs("mine", &[60]), folder.blobs("yours", &[30]));
        let held = hold(&folder.0, 100, "mine", &mine).unwrap();
        drop(hold(&folder.0, 100, "yours", &yours).unwrap());
        let large = [Wanted { hash: tensor_commitment(b"large"), bytes: Some(50) }];
        let refused = hold(&folder.0, 100, "large", &large);
        assert!(matches!(refused, Err(ClientError::CacheFull { needed: 110, limit: 100, .. })));
        assert!(folder.has(&mine) && folder.has(&yours), "a set that has no room takes no other away");
        drop(held);
        drop(hold(&folder.0, 100, "large", &large).unwrap());
        assert!(!folder.has(&mine));
    }

    #[test]
    fn a_blob_of_two_sets_stays_while_one_of_them_is_held() {
        let folder = Folder::new("shared");
        let (shared, own) = (folder.blobs("shared", &[40]), folder.blobs("own", &[40]));
        let _held = hold(&folder.0, 200, "one", &shared).unwrap();
        let both = [shared.clone(), own.clone()].concat();
        drop(hold(&folder.0, 200, "both", &both).unwrap());
        let new = [Wanted { hash: tensor_commitment(b"new"), bytes: Some(50) }];
        let _new = hold(&folder.0, 100, "new", &new).unwrap();
        assert!(folder.has(&shared) && !folder.has(&own));
    }

    #[test]
    fn strays_and_cut_off_downloads_go_first() {
        let folder = Folder::new("strays");
        let kept = folder.blobs("kept", &[40]);
        drop(hold(&folder.0, 1_000, "kept", &kept).unwrap());
        let stray = folder.blobs("stray", &[30]);
        let part = folder.0.join(format!("{}.{PART}", tensor_commitment(b"cut off")));
        fs::write(&part, [0; 30]).unwrap();
        let unrelated = folder.0.join("notes.txt");
        fs::write(&unrelated, [0; 500]).unwrap();
        let new = [Wanted { hash: tensor_commitment(b"new"), bytes: Some(50) }];
        let _new = hold(&folder.0, 100, "new", &new).unwrap();
        assert!(folder.has(&kept) && !folder.has(&stray) && !part.exists());
        assert!(unrelated.exists(), "what is not the cache's is left alone");
    }
}

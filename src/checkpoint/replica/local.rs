//! A replica in a directory: durable put-if-absent out of files, hard links and fsync.
//!
//! It deliberately trusts no earlier sync: whoever finds an object, a directory or the name of either makes it durable
//! before it says that it is there, since the process that made it may have died in between. It takes no lock either: two
//! drivers may have the directory at once, and put-if-absent is what keeps them apart.
//!
//! # How an object is put
//!
//! Its bytes are written to a file of a name of its own in `#staging` and synced; a hard link gives that file the
//! object's name, which fails where the name is taken; the directory is synced; the first name is removed. So the name
//! never stands for less than all bytes, also after a loss of power, and what is left over is found in one place.
//! Each directory on the way is made durable in the one above it before anything is put into it.
//!
//! # What is not defended
//!
//! A directory whose sync has failed once, and succeeds when it is asked again, is believed. The file systems that are
//! in use stop writing after such a failure. And directories stay when their last object is deleted.
//!
//! # What was tried
//!
//! The local store of the crate `object_store`, with its fsync. A request of it that finds the object there answers at
//! once, although the link may not be durable yet; directories are synced only by the process that made them; and a
//! staging file is named after its object and a small number, so that with a sweep of left-overs beside a driver that
//! still runs, one writer can link the half-written file of another.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::disk::{Disk, Entry, EntryKind, Identity, Node, SystemDisk};
use super::{Key, Put, Replica, ReplicaError, ReplicaErrorKind, Reply, takes};
use crate::checkpoint::container::MAX_OBJECT;

/// Where files are written before they get their names; no key is called so.
const STAGING: &str = "#staging";

/// How often a put is begun again whose staging file a driver that starts has swept away.
const STAGINGS: usize = 4;

/// A replica in a directory.
///
/// ```
/// use bytes::Bytes;
/// use tidemill::checkpoint::replica::contract::wait;
/// use tidemill::checkpoint::replica::{Key, LocalReplica, Put, Replica};
/// # let directory = std::env::temp_dir().join(format!("tidemill-local-{}", std::process::id()));
/// let replica = LocalReplica::open(&directory)?;
/// assert_eq!(wait(replica.put_new(&Key::job(), Bytes::from_static(b"mine")))?, Put::Created);
/// assert_eq!(wait(replica.put_new(&Key::job(), Bytes::from_static(b"yours")))?, Put::Exists);
/// assert_eq!(wait(LocalReplica::open(&directory)?.get(&Key::job()))?.as_deref(), Some(&b"mine"[..]));
/// # std::fs::remove_dir_all(&directory).unwrap();
/// # Ok::<(), tidemill::error::Error>(())
/// ```
pub struct LocalReplica {
    shared: Arc<Shared>,
}

impl LocalReplica {
    /// The replica in `directory`, which is made where it is not there. Files that nobody finished are swept up.
    pub fn open(directory: &Path) -> Result<Self, ReplicaError> {
        Self::open_on(Arc::new(SystemDisk), directory)
    }

    /// The same on a disk of one's own.
    pub fn open_on(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self, ReplicaError> {
        let root = std::path::absolute(directory)
            .map_err(|error| ReplicaError::of_system("find", &directory.display().to_string(), &error))?;
        let shared = Shared::open(disk, root)?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Runs `work` where it may block: on the runtime's threads for that, or here where there is no runtime.
    fn blocking<T, F>(&self, work: F) -> Reply<'_, T>
    where
        T: Send + 'static,
        F: FnOnce(&Shared) -> Result<T, ReplicaError> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let Ok(runtime) = tokio::runtime::Handle::try_current() else { return work(&shared) };
            let done = runtime.spawn_blocking({
                let shared = Arc::clone(&shared);
                move || work(&shared)
            });
            done.await.unwrap_or_else(|ended| Err(shared.gave_up(&ended)))
        })
    }
}

impl fmt::Debug for LocalReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalReplica({})", self.shared.url)
    }
}

impl Replica for LocalReplica {
    fn url(&self) -> &str {
        &self.shared.url
    }

    fn put_new(&self, key: &Key, bytes: Bytes) -> Reply<'_, Put> {
        let key = key.clone();
        self.blocking(move |shared| shared.put_new(&key, &bytes))
    }

    fn overwrite(&self, key: &Key, bytes: Bytes) -> Reply<'_, ()> {
        let key = key.clone();
        self.blocking(move |shared| shared.overwrite(&key, &bytes))
    }

    fn get(&self, key: &Key) -> Reply<'_, Option<Bytes>> {
        let key = key.clone();
        self.blocking(move |shared| shared.get(&key))
    }

    fn list(&self, prefix: &Key) -> Reply<'_, Vec<(Key, u64)>> {
        let prefix = prefix.clone();
        self.blocking(move |shared| shared.list(&prefix))
    }

    fn delete(&self, key: &Key) -> Reply<'_, ()> {
        let key = key.clone();
        self.blocking(move |shared| shared.delete(&key))
    }
}

/// What all requests share, also those that run after their reply was dropped.
struct Shared {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    url: String,
    identity: Identity,
    /// Taken for a look or a change, never while the disk works.
    settled: Mutex<Settled>,
    /// No two writers ever have the same staging file, in whatever process: a sweep must never let one link what another
    /// is still writing.
    staging: String,
    staged: AtomicU64,
}

/// What is known to be durable.
#[derive(Default)]
struct Settled {
    /// Directories whose names, and those of all above them, are.
    directories: HashSet<Key>,
    /// The objects that the last listing found, and their files: reading a whole log needs one sync and not one an object.
    listed: HashMap<Key, Node>,
}

/// What to do about a directory that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Leave,
}

impl Shared {
    fn open(disk: Arc<dyn Disk>, root: PathBuf) -> Result<Self, ReplicaError> {
        let shown = root.display().to_string();
        let made = make_root(&*disk, &root).and_then(|()| disk.identity(&root));
        let identity = made.map_err(|error| ReplicaError::of_system("make the directory", &shown, &error))?;
        // The standard library's own randomness: the replica needs no other.
        let nonce = RandomState::new().build_hasher().finish();
        let shared = Self {
            disk,
            url: format!("file://{shown}"),
            root,
            identity,
            settled: Mutex::default(),
            staging: format!("{}-{nonce:016x}", std::process::id()),
            staged: AtomicU64::new(0),
        };
        shared.sweep()?;
        Ok(shared)
    }

    /// Removes the files that nobody finished. One that another driver is still writing goes too; it notices.
    fn sweep(&self) -> Result<(), ReplicaError> {
        let staging = self.root.join(STAGING);
        let left_over = match self.disk.read_directory(&staging) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(|error| failed("list", &staging, &error))?,
        };
        let files = left_over.iter().filter(|entry| entry.what != EntryKind::Directory);
        files.map(|entry| staging.join(&entry.name)).try_for_each(|file| self.remove_left_over(&file))
    }

    fn remove_left_over(&self, path: &Path) -> Result<(), ReplicaError> {
        match self.disk.remove(path) {
            // What cannot be written can still be read, which is all that a recovery may need.
            Err(error) if !is_gone(&error) && !is_read_only(&error) => Err(failed("remove", path, &error)),
            _ => Ok(()),
        }
    }

    fn put_new(&self, key: &Key, bytes: &Bytes) -> Result<Put, ReplicaError> {
        takes(&self.url, key, bytes)?;
        self.publish(key, bytes, |staged, place| match self.disk.hard_link(staged, place) {
            Ok(()) => Ok(Put::Created),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Put::Exists),
            Err(error) => Err(error),
        })
    }

    fn overwrite(&self, key: &Key, bytes: &Bytes) -> Result<(), ReplicaError> {
        takes(&self.url, key, bytes)?;
        self.publish(key, bytes, |staged, place| self.disk.rename(staged, place))
    }

    /// Writes `bytes` and lets `name` give them the key's name, durably.
    fn publish<T>(
        &self,
        key: &Key,
        bytes: &Bytes,
        name: impl Fn(&Path, &Path) -> io::Result<T>,
    ) -> Result<T, ReplicaError> {
        let directory = key.parent().unwrap_or_else(Key::root);
        for _ in 0..STAGINGS {
            self.is_the_same_root().map_err(ReplicaError::undone)?;
            self.settle(&directory, Missing::Make).map_err(ReplicaError::undone)?;
            let staged = self.stage(bytes).map_err(ReplicaError::undone)?;
            match name(&staged.path, &self.path(key)) {
                Ok(done) => {
                    self.sync(&directory)?;
                    self.is_the_same_root()?;
                    return Ok(done);
                }
                Err(error) if !is_gone(&error) => return Err(not_named(&self.path(key), &error)),
                Err(_) if staged.is_gone() => {}
                Err(_) => return Err(self.removed(&directory).undone()),
            }
        }
        let message = format!("the files that are written to {} are swept away each time", self.url);
        Err(ReplicaError::new(ReplicaErrorKind::Unavailable, message)
            .help("is a driver started there over and over?")
            .undone())
    }

    /// A new file with `bytes`, durable but for its name.
    fn stage(&self, bytes: &[u8]) -> Result<Staged<'_>, ReplicaError> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed); // a name only; nothing hangs on the order
        let directory = self.root.join(STAGING);
        let path = directory.join(format!("{}-{number}", self.staging));
        let created = self.disk.create(&path).or_else(|error| {
            // At the first put, or after somebody has tidied up.
            let missing = is_gone(&error).then(|| self.disk.make_directory(&directory));
            missing.map_or(Err(error), |_| self.disk.create(&path))
        });
        let mut file = created.map_err(|error| failed("create", &path, &error))?;
        let staged = Staged { disk: &*self.disk, path };
        let written = file.write(bytes).and_then(|()| file.sync());
        written.map_err(|error| failed("write", &staged.path, &error))?;
        Ok(staged)
    }

    fn get(&self, key: &Key) -> Result<Option<Bytes>, ReplicaError> {
        if !key.is_object() {
            return Ok(None);
        }
        let path = self.path(key);
        match self.disk.read(&path, MAX_OBJECT + 1) {
            Ok(found) => self.settle_object(key, found.node).map(|()| Some(Bytes::from(found.bytes))),
            Err(error) if is_gone(&error) => {
                self.is_surely_absent(&key.parent().unwrap_or_else(Key::root)).map(|()| None)
            }
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    fn list(&self, prefix: &Key) -> Result<Vec<(Key, u64)>, ReplicaError> {
        let mut found = Vec::new();
        if !prefix.is_object() {
            self.collect(prefix, &mut found)?;
        }
        found.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        self.lock().listed = found.iter().map(|(key, _, node)| (key.clone(), *node)).collect();
        Ok(found.into_iter().map(|(key, length, _)| (key, length)).collect())
    }

    /// What is below `directory`, which has at most four levels; what has no key is nothing of ours.
    fn collect(&self, directory: &Key, found: &mut Vec<(Key, u64, Node)>) -> Result<(), ReplicaError> {
        let path = self.path(directory);
        let entries = match self.disk.read_directory(&path) {
            Err(error) if is_gone(&error) => return self.is_surely_absent(directory),
            entries => entries.map_err(|error| failed("list", &path, &error))?,
        };
        // After the look, so that whatever was seen is durable.
        self.settle(directory, Missing::Leave)?;
        self.sync(directory)?;
        for Entry { name, what } in entries {
            match (directory.child(&name), what) {
                (Some(key), EntryKind::File { length, node }) if key.is_object() => {
                    found.push((key, length, node));
                }
                (Some(key), EntryKind::Directory) if !key.is_object() => self.collect(&key, found)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn delete(&self, key: &Key) -> Result<(), ReplicaError> {
        takes(&self.url, key, &[])?;
        let path = self.path(key);
        self.lock().listed.remove(key);
        match self.disk.remove(&path) {
            Ok(()) => Ok(()),
            Err(error) if is_gone(&error) => self.is_surely_absent(&key.parent().unwrap_or_else(Key::root)),
            Err(error) => Err(failed("remove", &path, &error)),
        }
    }

    /// Makes the name of an object durable that somebody, perhaps long dead, has put.
    fn settle_object(&self, key: &Key, node: Node) -> Result<(), ReplicaError> {
        if self.lock().listed.get(key) == Some(&node) {
            return Ok(());
        }
        let directory = key.parent().unwrap_or_else(Key::root);
        self.settle(&directory, Missing::Leave)?;
        self.sync(&directory)
    }

    /// Makes the names of `directory` and of all above it durable, below the root, which is so already.
    fn settle(&self, directory: &Key, missing: Missing) -> Result<(), ReplicaError> {
        let Some(above) = directory.parent() else { return Ok(()) };
        if self.lock().directories.contains(directory) {
            return Ok(());
        }
        self.settle(&above, missing)?;
        if missing == Missing::Make {
            self.make(directory)?;
        }
        self.sync(&above)?;
        self.lock().directories.insert(directory.clone());
        Ok(())
    }

    fn make(&self, directory: &Key) -> Result<(), ReplicaError> {
        let path = self.path(directory);
        match self.disk.make_directory(&path) {
            Err(error) if is_gone(&error) => Err(self.removed(directory)),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(failed("make the directory", &path, &error))
            }
            _ => Ok(()),
        }
    }

    fn sync(&self, directory: &Key) -> Result<(), ReplicaError> {
        let path = self.path(directory);
        let synced = self.disk.sync_directory(&path);
        synced.map_err(|error| {
            if is_gone(&error) { self.removed(directory) } else { failed("make durable", &path, &error) }
        })
    }

    /// A directory that is gone takes acknowledged objects along: what was in it is not absent, but unknown.
    fn is_surely_absent(&self, directory: &Key) -> Result<(), ReplicaError> {
        self.is_the_same_root()?;
        let mut level = Some(directory.clone());
        while let Some(directory) = level {
            let known = self.lock().directories.contains(&directory);
            let is_gone = || self.disk.identity(&self.path(&directory)).is_err_and(|error| is_gone(&error));
            if known && is_gone() {
                return Err(self.removed(&directory));
            }
            level = directory.parent();
        }
        Ok(())
    }

    /// Where a file system is no longer mounted, its mount point is an empty directory like any other; a log that went on
    /// there would lack what came before.
    fn is_the_same_root(&self) -> Result<(), ReplicaError> {
        match self.disk.identity(&self.root) {
            Ok(identity) if identity == self.identity => Ok(()),
            Err(error) if !is_gone(&error) => Err(failed("look at", &self.root, &error)),
            _ => Err(self.removed(&Key::root())),
        }
    }

    fn removed(&self, directory: &Key) -> ReplicaError {
        let path = self.path(directory);
        let message =
            format!("the directory {} was removed or replaced while the stream ran", path.display());
        ReplicaError::new(ReplicaErrorKind::Unavailable, message)
            .help("put it back (is the disk still mounted?), or start again to have this replica filled anew")
    }

    fn gave_up(&self, ended: &tokio::task::JoinError) -> ReplicaError {
        ReplicaError::new(
            ReplicaErrorKind::Unavailable,
            format!("a request to {} ended early: {ended}", self.url),
        )
    }

    fn path(&self, key: &Key) -> PathBuf {
        // Part by part: a key's separator need not be the system's.
        key.as_str()
            .split('/')
            .filter(|part| !part.is_empty())
            .fold(self.root.clone(), |path, part| path.join(part))
    }

    fn lock(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file in the staging directory, removed when it has its name or never will.
struct Staged<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
}

impl Staged<'_> {
    fn is_gone(&self) -> bool {
        self.disk.read(&self.path, 0).is_err_and(|error| is_gone(&error))
    }
}

impl Drop for Staged<'_> {
    /// What cannot be removed now is swept up at the next start.
    fn drop(&mut self) {
        let _ = self.disk.remove(&self.path);
    }
}

/// Makes `root` and those above it, and each durable in the one that it is in. The nearest that is there already may
/// have been made by a process that died before it could do the same, so that one is made durable too.
fn make_root(disk: &dyn Disk, root: &Path) -> io::Result<()> {
    let Some(above) = root.parent() else { return Ok(()) };
    match disk.identity(root) {
        Ok(_) => match disk.sync_directory(above) {
            // Where this process may not look it has made nothing, and nothing can be made where nothing can be written.
            Err(error) if is_read_only(&error) => Ok(()),
            synced => synced,
        },
        Err(error) if is_gone(&error) => {
            make_root(disk, above)?;
            match disk.make_directory(root) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => disk.sync_directory(above),
            }
        }
        Err(error) => Err(error),
    }
}

/// A name that the system refuses to give is not given; one over a network that fails may be.
fn not_named(path: &Path, error: &io::Error) -> ReplicaError {
    let failed = failed("put", path, error);
    match failed.kind() {
        ReplicaErrorKind::Unavailable => failed,
        // So says a system that knows the files but no second names of them, as it does of a lack of rights.
        ReplicaErrorKind::Denied => failed
            .help("give this user the right to write there; on FAT and exFAT, which have no hard links, nobody has it")
            .undone(),
        _ => failed.undone(),
    }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> ReplicaError {
    ReplicaError::of_system(what, &path.display().to_string(), error)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

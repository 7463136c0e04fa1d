//! What a replica in a directory needs of a file system, as a trait, and the system's own.
//!
//! It deliberately knows no objects and no keys. The trait is there for the tests, which lose power in the middle of
//! every sequence of these calls: nothing else of the replica may touch the disk.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// The calls of a file system. Errors are the system's.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Which directory stands at `path`.
    fn identity(&self, path: &Path) -> io::Result<Identity>;

    /// Makes one directory, in one that is there.
    fn make_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable: what was made, linked, renamed or removed in it.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes a file where none is.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives the file at `from` a second name, where nothing has that name.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives the file at `from` another name, and takes that from whoever has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The first `limit` bytes of a file, or all.
    fn read(&self, path: &Path, limit: usize) -> io::Result<Content>;

    /// What is in a directory, in any order.
    fn read_directory(&self, path: &Path) -> io::Result<Vec<Entry>>;
}

/// A file that is being written.
pub trait DiskFile: Send {
    /// Appends bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file's content durable, which says nothing of its name.
    fn sync(&mut self) -> io::Result<()>;
}

/// What tells a directory from another that took its place, such as the mount point below a file system that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(pub u64, pub u64);

/// What was read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Which file it is.
    pub node: Node,
}

/// What tells a file from another that took its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(pub u64);

/// Something in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name; what is no text is nothing of ours, and left out.
    pub name: String,
    /// What it is.
    pub what: EntryKind,
}

/// What something in a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File {
        /// How many bytes it has.
        length: u64,
        /// Which file it is.
        node: Node,
    },
    /// A directory.
    Directory,
}

/// The system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn identity(&self, path: &Path) -> io::Result<Identity> {
        let found = fs::metadata(path)?;
        if found.is_dir() { Ok(identity(&found)) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        sync_directory(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Box::new(file))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<Content> {
        let file = File::open(path)?;
        let found = file.metadata()?;
        let length = usize::try_from(found.len()).unwrap_or(limit);
        // One more than there are tells `read_to_end` of the end without a larger buffer.
        let mut bytes = Vec::with_capacity(length.min(limit).saturating_add(1));
        file.take(limit as u64).read_to_end(&mut bytes)?;
        Ok(Content { bytes, node: Node(identity(&found).1) })
    }

    fn read_directory(&self, path: &Path) -> io::Result<Vec<Entry>> {
        fs::read_dir(path)?.filter_map(|entry| described(entry).transpose()).collect()
    }
}

impl DiskFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// What a directory's entry is; none for what is neither file nor directory, has a name that is no text, or is gone.
fn described(entry: io::Result<fs::DirEntry>) -> io::Result<Option<Entry>> {
    let entry = entry?;
    let found = match entry.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    let what = if found.is_file() {
        EntryKind::File { length: found.len(), node: Node(identity(&found).1) }
    } else if found.is_dir() {
        EntryKind::Directory
    } else {
        return Ok(None);
    };
    Ok(entry.file_name().into_string().ok().map(|name| Entry { name, what }))
}

#[cfg(unix)]
fn identity(found: &fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    Identity(found.dev(), found.ino())
}

/// Elsewhere no two directories, and no two files, are told apart.
#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> Identity {
    Identity(0, 0)
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Elsewhere a directory cannot be opened to be synced: a crash of the process loses nothing, one of the system may.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

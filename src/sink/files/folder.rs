//! A directory that files appear in whole: written under a hidden name, made durable, then renamed.
//!
//! It deliberately knows nothing of rows. One writer at a time has the directory, by a lock that the system lets go
//! of when its process ends, however it ends: only so are hidden files without an owner sure to be left-overs.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Hidden files begin and end so; readers of data sets skip names that begin with a dot.
const HIDDEN: (&str, &str) = (".tidemill-", ".tmp");

/// A directory to write to.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Held for its lock; none where the file system has no locks.
    lock: Option<File>,
}

impl Folder {
    /// Makes the directory where it is not there, takes it, and tries to write in it.
    pub(super) fn take(path: &Path) -> Result<Self> {
        ensure(path)?;
        let folder = Self { path: path.to_owned(), lock: lock(path)? };
        folder.sweep()?;
        folder.probe()?;
        Ok(folder)
    }

    /// Files that are about to be written.
    pub(super) fn stage(&self) -> Staged<'_> {
        Staged { folder: self, files: Vec::new() }
    }

    /// Removes what a writer that is gone did not finish. Without a lock it may be another's, and stays.
    fn sweep(&self) -> Result<()> {
        if self.lock.is_none() {
            return Ok(());
        }
        let entries = fs::read_dir(&self.path).map_err(|error| failed("list", &self.path, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| failed("list", &self.path, &error))?;
            if is_hidden(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path()).map_err(|error| failed("remove", &entry.path(), &error))?;
            }
        }
        Ok(())
    }

    /// A directory that cannot be written is better told before the stream starts than after its first batch.
    fn probe(&self) -> Result<()> {
        let path = self.hidden("probe");
        let written = fs::write(&path, b"");
        written.and_then(|()| fs::remove_file(&path)).map_err(|error| failed("write to", &self.path, &error))
    }

    fn hidden(&self, name: &str) -> PathBuf {
        self.path.join(format!("{}{name}{}", HIDDEN.0, HIDDEN.1))
    }
}

/// Files that are being written: hidden until they are published, and removed where they never are.
#[derive(Debug)]
pub(super) struct Staged<'a> {
    folder: &'a Folder,
    files: Vec<StagedFile>,
}

#[derive(Debug)]
struct StagedFile {
    hidden: PathBuf,
    file: PathBuf,
}

impl Staged<'_> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// A new file, to appear as `name` in `directory` below the folder, and its path for errors. All are written in the
    /// folder itself, where a sweep finds them without a walk through all directories below it.
    pub(super) fn create(&mut self, directory: &Path, name: &str) -> Result<(File, PathBuf)> {
        let hidden = self.folder.hidden(name);
        let created = File::create(&hidden).map_err(|error| failed("create", &hidden, &error))?;
        self.files
            .push(StagedFile { hidden: hidden.clone(), file: self.folder.path.join(directory).join(name) });
        Ok((created, hidden))
    }

    /// Lets them appear, one after the other, and returns once that is durable. Their content must be so already.
    pub(super) fn publish(self) -> Result<()> {
        let mut touched = BTreeSet::new();
        for StagedFile { hidden, file } in &self.files {
            let directory = file.parent().unwrap_or(&self.folder.path);
            if touched.insert(directory.to_owned()) {
                make(directory)?;
            }
            fs::rename(hidden, file).map_err(|error| failed("rename a finished file to", file, &error))?;
        }
        touched.iter().try_for_each(|directory| sync(directory))
    }
}

impl Drop for Staged<'_> {
    /// Those that were renamed are not under their hidden names any more; what cannot be removed here is swept up at the
    /// next start.
    fn drop(&mut self) {
        for staged in &self.files {
            let _ = fs::remove_file(&staged.hidden);
        }
    }
}

/// Makes the directory of an output where it is not there.
pub(super) fn ensure(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err(no_directory(path)),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(failed("look at", path, &error)),
    }
}

/// Makes `directory` and those above it, and each new one durable in the one that it is in.
pub(super) fn make(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = directory.parent().filter(|above| !above.as_os_str().is_empty());
    let above = above.unwrap_or_else(|| Path::new("."));
    make(above)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(failed("create the directory", directory, &error))
        }
        _ if directory.is_dir() => sync(above),
        _ => Err(no_directory(directory)),
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| failed("make durable", directory, &error))
}

/// Takes the directory for one writer: two would sweep up each other's files, and those of two outputs of one stream
/// would have the same names.
fn lock(path: &Path) -> Result<Option<File>> {
    let directory = File::open(path).map_err(|error| failed("open", path, &error))?;
    match directory.try_lock() {
        Ok(()) => Ok(Some(directory)),
        Err(TryLockError::WouldBlock) => Err(taken(path)),
        Err(TryLockError::Error(error)) => {
            log::warn!(
                "to_files({}) cannot lock its directory ({error}); make sure that no other stream writes there",
                path.display()
            );
            Ok(None)
        }
    }
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(HIDDEN.0) && name.ends_with(HIDDEN.1)
}

fn taken(path: &Path) -> Error {
    Error::config(format!(
        "to_files() needs a directory that no other stream writes to, and one does write to {}",
        path.display()
    ))
    .help("give each output a directory of its own, below this one if they belong together")
}

fn no_directory(path: &Path) -> Error {
    Error::config(format!("to_files() writes to a directory, found a file at {}", path.display()))
        .help("name a directory; it is made where it is not there")
}

/// What the system refused, where, and what to do about it.
pub(super) fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    let message = format!("could not {what} {}: {error}", path.display());
    let refused = Error::sink(message).caused_by(io::Error::from(error.kind()));
    match remedy(error.kind()) {
        Some(remedy) => refused.help(remedy),
        None => refused,
    }
}

fn remedy(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Some("give this user the right to write there, or choose another directory")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("make room and start again: no file of this batch was left half written")
        }
        io::ErrorKind::FileTooLarge => Some(
            "raise the limit on a file's size (ulimit -f), or lower max_bytes; no file was left half written",
        ),
        io::ErrorKind::NotADirectory => Some("a part of the path is a file; choose another directory"),
        io::ErrorKind::InvalidFilename => {
            Some("a value of a column in partition_by is too long for a name; partition by another column")
        }
        io::ErrorKind::NotFound => Some("has the directory been removed while the stream runs?"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::{failed, is_hidden};

    #[test]
    fn a_full_disk_says_what_to_do() {
        let error = failed("write", Path::new("/data/x"), &io::Error::from(io::ErrorKind::StorageFull));
        let text = error.to_string();
        assert!(text.starts_with("could not write /data/x: ") && text.contains("make room"), "{text}");
    }

    #[test]
    fn only_our_own_hidden_files_are_swept() {
        assert!(is_hidden(".tidemill-20231114T221320250Z-00000001-0-0000.csv.tmp"));
        assert!(!is_hidden(".tidemill-notes") && !is_hidden("a.tmp") && !is_hidden(".a.tmp"));
    }
}

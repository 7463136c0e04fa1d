//! A directory whose files count once a manifest names them: drafts, manifests, and the one step between them.
//!
//! ```text
//! out/                                   what manifests name, for whoever reads the directory as it is
//!     _tidemill/owner                    the job that writes here
//!              /drafts/{name}.tmp        written and durable, not published
//!              /manifests/{slot}         published: slots count from 0, and none is left out
//! ```
//!
//! A slot is put if it is absent. So whoever publishes next meets whoever was faster there, and of two drivers one is told
//! that it is too late, however long it has slept. It deliberately locks nothing: a lock would keep a driver that takes
//! over waiting for one that hangs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::folder::{ensure, failed, make, sync};
use super::manifest::{DataFile, Manifest};
use crate::error::{Error, Result};
use crate::sink::digest::Digest;
use crate::sink::marker::Owner;

/// The directory of everything that is not output; readers of data sets skip names that begin so.
const OWN: &str = "_tidemill";

/// An output's directory.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
}

/// What has become of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It is there, and nobody was faster with anything else.
    Done,
    /// Something else is there.
    Taken,
}

impl Ledger {
    /// Makes the directory where it is not there, and tries to put something in it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        ensure(path)?;
        let ledger = Self { path: path.to_owned() };
        make(&ledger.drafts())?;
        make(&ledger.manifests())?;
        ledger.probe()?;
        Ok(ledger)
    }

    /// One to read from; nothing is written.
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Finds out before the stream starts whether what is there keeps what comes later out.
    fn probe(&self) -> Result<()> {
        let path = self.own().join(format!("probe-{}", std::process::id()));
        let first = put(&path, b"first", &self.own());
        let second = first.and_then(|_| put(&path, b"second", &self.own()));
        let removed = fs::remove_file(&path).map_err(|error| failed("remove", &path, &error));
        match (second?, removed) {
            (Put::Taken, removed) => removed,
            (Put::Done, _) => Err(Error::sink(format!(
                "expected a file system that keeps what is there, found that a second file took the first one's place in {}",
                self.own().display()
            ))
            .help("write to another file system")),
        }
    }

    /// Makes sure that no other job writes here.
    pub(super) fn take(&self, owner: &Owner) -> Result<()> {
        let (path, text) = (self.own().join("owner"), format!("{}\n", owner.job));
        if put(&path, text.as_bytes(), &self.own())? == Put::Done {
            return Ok(());
        }
        let found = fs::read_to_string(&path).map_err(|error| failed("read", &path, &error))?;
        let message = format!(
            "to_files({}) needs a directory of job {} alone, found that of job {}",
            self.path.display(),
            owner.job,
            found.trim()
        );
        Err(Error::config(message)
            .help("give each job, and each new beginning of one, a directory of its own"))
    }

    /// A new draft.
    pub(super) fn draft(&self, name: &str) -> Result<(File, PathBuf)> {
        let path = self.drafts().join(name);
        let file = File::create(&path).map_err(|error| failed("create", &path, &error))?;
        Ok((file, path))
    }

    /// Makes the names of drafts durable.
    pub(super) fn sync_drafts(&self) -> Result<()> {
        sync(&self.drafts())
    }

    /// The newest slot, and the manifest that is there.
    pub(super) fn newest(&self) -> Result<Option<(u64, Manifest)>> {
        let newest = self.slots()?.into_iter().next_back();
        newest.map(|slot| self.manifest(slot).map(|manifest| (slot, manifest))).transpose()
    }

    /// All slots there are, in order.
    pub(super) fn slots(&self) -> Result<Vec<u64>> {
        let mut slots: Vec<u64> = names(&self.manifests())?.iter().filter_map(|name| slot_of(name)).collect();
        slots.sort_unstable();
        Ok(slots)
    }

    /// The manifest in a slot.
    pub(super) fn manifest(&self, slot: u64) -> Result<Manifest> {
        let path = self.slot(slot);
        let bytes = fs::read(&path).map_err(|error| failed("read", &path, &error))?;
        Manifest::read(&bytes).map_err(|error| error.at(path.display().to_string()))
    }

    /// Puts a manifest into a slot if nothing is there; the same manifest may be there already.
    pub(super) fn put(&self, slot: u64, manifest: &Manifest) -> Result<Put> {
        put(&self.slot(slot), manifest.text().as_bytes(), &self.manifests())
    }

    /// Gives the files of a published batch their names; those that have them stay.
    pub(super) fn reveal(&self, manifest: &Manifest) -> Result<()> {
        let mut touched = BTreeSet::new();
        for file in &manifest.body.files {
            let (draft, path) = (self.drafts().join(&file.draft), self.path.join(&file.path));
            let directory = path.parent().unwrap_or(&self.path).to_owned();
            make(&directory)?;
            match fs::rename(&draft, &path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => {}
                Err(error) => return Err(failed("rename a published file to", &path, &error)),
            }
            touched.insert(directory);
        }
        touched.iter().try_for_each(|directory| sync(directory))
    }

    /// Where a published file is: between the put of its manifest and its last name it still has the draft's.
    pub(super) fn find(&self, file: &DataFile) -> Result<PathBuf> {
        let places =
            [self.path.join(&file.path), self.drafts().join(&file.draft), self.path.join(&file.path)];
        let found = places.into_iter().find_map(|path| Some((fs::metadata(&path).ok()?, path)));
        let (metadata, path) = found.ok_or_else(|| {
            let missing = self.path.join(&file.path);
            Error::sink(format!("a manifest names {}, which is not there", missing.display()))
                .help("was it removed? read the directory itself where what is left is enough")
        })?;
        if metadata.len() == file.bytes {
            return Ok(path);
        }
        let (expected, found) = (file.bytes, metadata.len());
        Err(Error::sink(format!("{} should have {expected} bytes, found {found}", path.display())))
    }

    /// Makes sure that a draft is what was written.
    pub(super) fn verify(&self, file: &DataFile) -> Result<()> {
        let path = self.find(file)?;
        let mut hasher = blake3::Hasher::new();
        let read = File::open(&path).and_then(|mut content| io::copy(&mut content, &mut hasher));
        read.map_err(|error| failed("read", &path, &error))?;
        if Digest(*hasher.finalize().as_bytes()) == file.hash {
            return Ok(());
        }
        Err(Error::sink(format!("the bytes of {} are not those that were written", path.display())))
    }

    /// Removes the drafts that `is_left` says nobody can publish any more.
    pub(super) fn collect(&self, is_left: impl Fn(&str) -> bool) -> Result<()> {
        for name in names(&self.drafts())?.iter().filter(|name| is_left(name)) {
            let path = self.drafts().join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn own(&self) -> PathBuf {
        self.path.join(OWN)
    }

    fn drafts(&self) -> PathBuf {
        self.own().join("drafts")
    }

    fn manifests(&self) -> PathBuf {
        self.own().join("manifests")
    }

    fn slot(&self, slot: u64) -> PathBuf {
        self.manifests().join(format!("{slot:020}"))
    }
}

/// The slot that a file of this name is in; none of what is still on its way there.
fn slot_of(name: &str) -> Option<u64> {
    let slot = name.parse().ok()?;
    (format!("{slot:020}") == name).then_some(slot)
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).map_err(|error| failed("list", directory, &error))?;
    let name =
        |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<io::Result<_>>().map_err(|error| failed("list", directory, &error))
}

/// Makes `path` appear with these bytes, whole and durable, if it is not there. The same bytes may be there: whoever has
/// lost the answer to a put asks so whether it was his.
fn put(path: &Path, bytes: &[u8], directory: &Path) -> Result<Put> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = directory.join(format!(".{name}-{}.tmp", std::process::id()));
    let written =
        File::create(&draft).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    // A link takes nobody's place, as a rename would.
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    let _ = fs::remove_file(&draft); // one that stays takes up a little room, and no reader looks at it
    match linked {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::read(path).map_err(|error| failed("read", path, &error))?;
            if found != bytes {
                return Ok(Put::Taken);
            }
        }
        Err(error) => return Err(failed("put", path, &error)),
    }
    sync(directory).map(|()| Put::Done)
}

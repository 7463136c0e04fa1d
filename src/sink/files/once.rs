//! Files where batches are published exactly once: drafts that are durable before a batch is decided, then a manifest.
//!
//! The put of the manifest is the moment at which a batch is there; only then do its files get the names by which others
//! find them. So whoever reads the directory as it is sees whole files of published batches only, and whoever follows the
//! manifests sees whole batches. It deliberately removes nothing of another driver before its own first put: until then
//! what that has prepared may still be published.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;

use super::ledger::{Ledger, Put};
use super::manifest::{Body, DataFile, Manifest, schema_bytes};
use super::writer::{Hashing, Written};
use super::{Batch, FileFormat, FileSink, Place, SLICE_ROWS, Shape, compact};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::sink::Delivery;
use crate::sink::digest::{Digest, Digester};
use crate::sink::marker::{Epoch, Marker, Owner};
use crate::sink::transactional::{Prepared, Publication, Published, Publishing, Transactional};
use crate::time::BatchId;

/// What there is between `open` and `close`.
#[derive(Debug)]
pub(super) struct Once {
    ledger: Ledger,
    shape: Shape,
    schema: Vec<u8>,
    /// None before `init`, and after an error.
    term: Option<Term>,
    /// So many batches have been prepared: the same one may be twice.
    attempts: u64,
}

/// A driver's time as the one who publishes.
#[derive(Clone, Copy, Debug)]
struct Term {
    epoch: Epoch,
    next: u64,
    newest: Option<Marker>,
    /// Whether this driver has put a manifest: who was replaced by it can put none any more.
    has_put: bool,
}

/// The drafts of a batch, as they are written; removed where they are not kept.
pub(super) struct Drafts<'a> {
    ledger: &'a Ledger,
    prefix: String,
    begun: Vec<(String, PathBuf)>,
    files: Vec<DataFile>,
}

impl Place for Drafts<'_> {
    const HASHING: Hashing = Hashing::Yes;

    fn len(&self) -> usize {
        self.begun.len()
    }

    fn create(&mut self, directory: &Path, name: &str) -> Result<(File, PathBuf)> {
        let draft = format!("{}-{:04}.tmp", self.prefix, self.begun.len());
        let created = self.ledger.draft(&draft)?;
        self.begun.push((draft, directory.join(name)));
        Ok(created)
    }

    fn finished(&mut self, written: &Written) {
        let Written { rows, bytes, hash } = *written;
        if let (Some((draft, path)), Some(hash)) = (self.begun.last().cloned(), hash) {
            self.files.push(DataFile { hash, bytes, rows, draft, path });
        }
    }
}

impl Drafts<'_> {
    /// Makes them durable, and keeps them.
    fn keep(mut self) -> Result<Vec<DataFile>> {
        self.ledger.sync_drafts()?;
        self.begun.clear();
        Ok(std::mem::take(&mut self.files))
    }
}

impl Drop for Drafts<'_> {
    fn drop(&mut self) {
        if !self.begun.is_empty() {
            let _ = self.ledger.collect(|name| self.begun.iter().any(|(begun, _)| begun == name));
        }
    }
}

/// What a draft's name begins with: whose it is, and of which batch.
fn prefix(epoch: Epoch, batch: BatchId, attempt: u64) -> String {
    format!("{:020}-{:020}-{attempt:06}", epoch.0, batch.0)
}

/// Whose draft has this name, and of which batch it is.
fn owner_of(name: &str) -> Option<(Epoch, BatchId)> {
    let mut parts = name.split('-');
    let (epoch, batch) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((Epoch(epoch), BatchId(batch)))
}

impl FileSink {
    fn body(&mut self, delivery: &Delivery) -> Result<Body> {
        let once = self.once.as_mut().ok_or_else(not_open)?;
        let epoch = once.term.map_or(Epoch::default(), |term| term.epoch);
        once.attempts += 1;
        let prefix = prefix(epoch, delivery.batch, once.attempts);
        let time = compact(delivery.time);
        let stem = format!("{time}-{:08}-{}-{}", delivery.batch.0, epoch, once.attempts);
        let (begun, files) = (Vec::new(), Vec::new());
        let place = Drafts { ledger: &once.ledger, prefix, begun, files };
        let (shape, settings) = (&once.shape, &self.settings);
        let mut batch = Batch { shape, settings, delivery, stem, place, rows: 0 };
        batch.write_all(&recut(&delivery.rows)?)?;
        let (format, by) = (settings.format, settings.partition_by.clone());
        Ok(Body { format, schema: once.schema.clone(), by, files: batch.place.keep()? })
    }

    fn put(&mut self, publication: &Publication<'_>) -> Result<()> {
        let once = self.once.as_mut().ok_or_else(not_open)?;
        let mut term = once
            .term
            .take()
            .ok_or_else(|| Error::internal("publishing files before init, or again after an error"))?;
        let marker = *publication.marker;
        let Some(output) = publication.outputs.first() else {
            once.term = Some(term); // files do not forget their marker
            return Ok(());
        };
        let manifest = Manifest { marker, body: Body::clone(&*output.content::<Body>()?) };
        if publication.cancel.is_cancelled() {
            return Err(Error::cancelled("the batch was given up before its manifest was put").take_over());
        }
        if term.newest != Some(marker) {
            if once.ledger.put(term.next, &manifest)? == Put::Taken {
                return Err(too_late(&marker));
            }
            term = Term { next: term.next + 1, newest: Some(marker), has_put: true, ..term };
        }
        once.ledger.reveal(&manifest)?;
        once.term = Some(term);
        Ok(())
    }
}

fn not_open() -> Error {
    Error::internal("a batch for a sink that is not open")
}

fn too_late(marker: &Marker) -> Error {
    let message =
        format!("another driver has published before this one could publish batch {}", marker.batch);
    Error::fenced(message).take_over()
}

impl Transactional for FileSink {
    /// As [`Sink::open`](crate::sink::Sink::open) does, but without taking the directory from anyone.
    fn open(&mut self, schema: &SchemaRef, _: &Cancel) -> Result<()> {
        let shape = Shape::new(&self.settings, schema)?;
        let ledger = Ledger::open(&self.settings.path).map_err(|error| error.at(self.name.clone()))?;
        let schema = schema_bytes(schema)?;
        self.once = Some(Once { ledger, shape, schema, term: None, attempts: 0 });
        Ok(())
    }

    fn publishing(&self) -> Publishing {
        Publishing::Puts
    }

    fn place(&self) -> String {
        let path = &self.settings.path;
        let known = path.canonicalize().or_else(|_| std::path::absolute(path)); // it may not be there yet
        known.unwrap_or_else(|_| path.clone()).display().to_string()
    }

    fn init(&mut self, owner: &Owner, _: &Cancel) -> Result<Option<Marker>> {
        let once = self.once.as_mut().ok_or_else(not_open)?;
        once.term = None;
        once.ledger.take(owner)?;
        let newest = once.ledger.newest()?;
        if let Some((_, manifest)) = &newest {
            once.ledger.reveal(manifest)?;
        }
        let next = newest.as_ref().map_or(0, |(slot, _)| slot + 1);
        let newest = newest.map(|(_, manifest)| manifest.marker);
        once.term = Some(Term { epoch: owner.epoch, next, newest, has_put: false });
        Ok(newest)
    }

    /// Writes the batch's files, and returns once they are durable. The digest is one of their bytes: the same rows are
    /// cut into the same files.
    fn prepare(&mut self, delivery: &Delivery) -> Result<Prepared> {
        let body = self.body(delivery).map_err(|error| self.placed(error, delivery))?;
        let mut digester = Digester::new("tidemill files 1");
        digester.number(delivery.batch.0);
        digester.number(delivery.time.0.cast_unsigned());
        for file in &body.files {
            digester.text(&file.path.parent().unwrap_or(Path::new("")).to_string_lossy());
            digester.number(file.rows);
            digester.bytes(&file.hash.0);
        }
        let (rows, record) = (body.rows(), body.text().into_bytes());
        Ok(Prepared::new(digester.finish(), rows, Arc::new(body)).with_record(record))
    }

    /// Files that another driver has prepared are read once more before they are published.
    fn restore(&mut self, record: &[u8]) -> Result<Prepared> {
        let once = self.once.as_ref().ok_or_else(not_open)?;
        let text = std::str::from_utf8(record);
        let body = Body::read(text.map_err(|_| Error::sink("a record of prepared files is not text"))?)?;
        body.files.iter().try_for_each(|file| once.ledger.verify(file))?;
        let digest = Digest::of(record);
        Ok(Prepared::new(digest, body.rows(), Arc::new(body)).with_record(record.to_vec()))
    }

    fn publish(&mut self, publication: &Publication<'_>) -> Result<Published> {
        self.put(publication).map(|()| Published::default())
    }

    fn collect(&mut self) -> Result<()> {
        let once = self.once.as_ref().ok_or_else(not_open)?;
        let Some(Term { epoch, newest: Some(newest), has_put: true, .. }) = once.term else {
            return Ok(());
        };
        let is_left = |(owner, batch): (Epoch, BatchId)| owner < epoch || batch <= newest.batch;
        once.ledger.collect(|name| owner_of(name).is_some_and(is_left))
    }
}

/// The same rows in pieces that depend on their number alone.
fn recut(chunks: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let (mut cut, mut open, mut held) = (Vec::new(), Vec::new(), 0);
    for chunk in chunks {
        let mut from = 0;
        while from < chunk.num_rows() {
            let rows = (SLICE_ROWS - held).min(chunk.num_rows() - from);
            open.push(chunk.slice(from, rows));
            (from, held) = (from + rows, held + rows);
            if held == SLICE_ROWS {
                cut.extend(joined(&std::mem::take(&mut open))?);
                held = 0;
            }
        }
    }
    cut.extend(joined(&open)?);
    Ok(cut)
}

fn joined(pieces: &[RecordBatch]) -> Result<Option<RecordBatch>> {
    match pieces {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [first, ..] => Ok(Some(concat_batches(&first.schema(), pieces)?)),
    }
}

/// Files that are published and alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedFiles {
    /// What they are.
    pub format: FileFormat,
    /// The columns of their rows, as an Arrow IPC stream without rows.
    pub schema: Vec<u8>,
    /// The columns whose values are directories.
    pub by: Vec<String>,
    /// Where they are, in the order of the batches.
    pub paths: Vec<PathBuf>,
    /// The directory of each, whose parts are the values of the columns in `by`.
    pub directories: Vec<PathBuf>,
    /// How many rows they have.
    pub rows: u64,
}

/// What is published in the directory of an output: exactly what manifests name, batch after batch.
///
/// ```
/// use tidemill::sink::files::read_output;
/// let error = read_output(std::path::Path::new("/no/such/directory")).unwrap_err();
/// assert!(error.to_string().contains("no manifests"), "{error}");
/// ```
pub fn read_output(path: &Path) -> Result<Vec<PublishedFiles>> {
    let ledger = Ledger::at(path);
    let slots = ledger.slots().map_err(|_| no_manifests(path))?;
    let mut outputs: Vec<PublishedFiles> = Vec::new();
    for slot in slots {
        let Body { format, schema, by, files } = ledger.manifest(slot)?.body;
        let alike =
            |last: &&mut PublishedFiles| last.format == format && last.schema == schema && last.by == by;
        let paths = files.iter().map(|file| ledger.find(file)).collect::<Result<Vec<_>>>()?;
        let directory = |file: &DataFile| file.path.parent().unwrap_or(Path::new("")).to_owned();
        let directories: Vec<_> = files.iter().map(directory).collect();
        let rows = files.iter().map(|file| file.rows).sum::<u64>();
        match outputs.last_mut().filter(alike) {
            Some(last) => {
                last.paths.extend(paths);
                last.directories.extend(directories);
                last.rows += rows;
            }
            None => outputs.push(PublishedFiles { format, schema, by, paths, directories, rows }),
        }
    }
    Ok(outputs)
}

fn no_manifests(path: &Path) -> Error {
    Error::config(format!("there are no manifests in {}", path.display())).help(
        "they are there where to_files() was part of a job with a checkpoint that delivers exactly once; read other \
         directories as they are, say with pyarrow.dataset",
    )
}

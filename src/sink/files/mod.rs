//! A sink that writes every batch as files of its own into a directory: Parquet, JSON or CSV, by partition if wanted.
//!
//! It deliberately keeps no file open from one batch to the next, though that would make fewer and larger ones: when
//! `deliver` returns, all rows of the batch are on the disk, in files that nobody will change. A file appears whole or
//! not at all, under a name that says its batch, so that a batch which is delivered again replaces what it wrote.
//! The files of one batch appear one after the other: whoever must not see half a batch follows the manifests that there
//! are where batches are published exactly once ([`read_output`]), or needs a table format.

mod folder;
mod hive;
mod ledger;
mod manifest;
mod once;
mod writer;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use xxhash_rust::xxh3::Xxh3;

use self::folder::{Folder, Staged};
use self::hive::{Hive, Piece};
pub use self::manifest::{Body, DataFile, Manifest};
use self::once::Once;
pub use self::once::{PublishedFiles, read_output};
use self::writer::{Hashing, Writer, Written};
use super::encode::text::{Zone, push_timestamp};
use super::transactional::Part;
use super::{Delivery, Sink};
use crate::cancel::Cancel;
use crate::error::{Error, Result, nearest};
use crate::time::BatchTime;

/// So many rows are written before the file's size is looked at, and before a request to give up is.
const SLICE_ROWS: usize = 4_096;

/// What the files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileFormat {
    /// Columns, compressed with Zstandard.
    #[default]
    Parquet,
    /// One JSON object a line, as [`json_rows`](super::encode::json_rows) writes it.
    Json,
    /// A line of names and one a row, as [`OutputFormat::Csv`](super::encode::OutputFormat::Csv) writes them.
    Csv,
}

impl FileFormat {
    const ALL: [(&'static str, Self); 3] =
        [("parquet", Self::Parquet), ("json", Self::Json), ("csv", Self::Csv)];

    /// The format called `name`, which is also what its files' names end in.
    ///
    /// ```
    /// use tidemill::sink::files::FileFormat;
    /// assert_eq!(FileFormat::named("csv").unwrap(), FileFormat::Csv);
    /// assert!(FileFormat::named("parket").unwrap_err().to_string().contains("did you mean \"parquet\"?"));
    /// ```
    pub fn named(name: &str) -> Result<Self> {
        if let Some((_, format)) = Self::ALL.iter().find(|(known, _)| *known == name) {
            return Ok(*format);
        }
        let error =
            Error::config(format!("the format of files is \"parquet\", \"json\" or \"csv\", found {name:?}"));
        Err(match nearest(name, Self::ALL.iter().map(|(known, _)| *known)) {
            Some(near) => error.help(format!("did you mean {near:?}?")),
            None => error,
        })
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parquet => "parquet",
            Self::Json => "json",
            Self::Csv => "csv",
        })
    }
}

/// Where and how rows are written.
#[derive(Clone, Debug)]
pub struct FileSinkSettings {
    /// The directory; made where it is not there.
    pub path: PathBuf,
    /// What the files are.
    pub format: FileFormat,
    /// The columns whose values are directories (`day=2026-11-21/`) and not in the files.
    pub partition_by: Vec<String>,
    /// A batch's next file is begun when one has about so many bytes.
    pub max_bytes: u64,
}

impl FileSinkSettings {
    /// Parquet files of up to 128 MiB right in `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: FileFormat::default(),
            partition_by: Vec::new(),
            max_bytes: 128 << 20,
        }
    }

    /// Every mistake that rows of `schema` would be to this sink. The disk is not looked at.
    ///
    /// ```
    /// use tidemill::sink::contract::schema;
    /// use tidemill::sink::files::FileSinkSettings;
    /// let mut settings = FileSinkSettings::new("/data/readings");
    /// assert!(settings.check(&schema()).is_empty());
    /// settings.partition_by = vec!["day".to_owned()];
    /// assert!(settings.check(&schema())[0].to_string().contains("there is no column \"day\""));
    /// ```
    pub fn check(&self, schema: &Schema) -> Vec<Error> {
        let mistakes = match Hive::new(schema, &self.partition_by) {
            Ok(hive) => self.format.refuse(&hive.left(schema)),
            Err(mistakes) => mistakes,
        };
        mistakes.into_iter().map(|mistake| mistake.at(self.sink_name())).collect()
    }

    fn sink_name(&self) -> String {
        format!("to_files({})", self.path.display())
    }
}

/// Writes batches as files.
///
/// ```
/// use tidemill::cancel::Cancel;
/// use tidemill::sink::files::{FileFormat, FileSink, FileSinkSettings};
/// use tidemill::sink::{Sink, contract};
/// let path = std::env::temp_dir().join(format!("tidemill-doc-{}", std::process::id()));
/// let settings = FileSinkSettings { format: FileFormat::Csv, ..FileSinkSettings::new(&path) };
/// let mut sink = FileSink::new(settings);
/// sink.open(&contract::schema(), &Cancel::default())?;
/// sink.deliver(&contract::delivery(7, 1..3))?;
/// sink.close()?;
/// let files: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
/// assert!(files[0].to_string_lossy().contains("20231114T221327000Z-00000007-"));
/// assert_eq!(std::fs::read_to_string(&files[0]).unwrap(), "row,text\n1,row 1\n2,row 2\n");
/// # std::fs::remove_dir_all(&path).unwrap();
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Debug)]
pub struct FileSink {
    settings: FileSinkSettings,
    name: String,
    open: Option<Open>,
    once: Option<Once>,
}

#[derive(Debug)]
struct Open {
    folder: Folder,
    shape: Shape,
}

/// How rows become files.
#[derive(Debug)]
struct Shape {
    hive: Hive,
    schema: SchemaRef,
}

impl Shape {
    /// Of rows of `schema`; all mistakes where these settings are not for them.
    fn new(settings: &FileSinkSettings, schema: &SchemaRef) -> Result<Self> {
        if let Some(mistakes) = Error::of_all(settings.check(schema)) {
            return Err(mistakes);
        }
        let hive = Hive::new(schema, &settings.partition_by);
        let hive = hive.map_err(|_| Error::internal("checked a moment ago"))?;
        Ok(Self { schema: hive.left(schema), hive })
    }
}

impl FileSink {
    /// A sink that is not open yet.
    pub fn new(settings: FileSinkSettings) -> Self {
        Self { name: settings.sink_name(), settings, open: None, once: None }
    }

    /// The batch's files, whole but not yet to be seen; they are gone again where this fails.
    fn stage<'a>(&'a self, open: &'a Open, delivery: &'a Delivery) -> Result<Staged<'a>> {
        let mut batch = Batch {
            shape: &open.shape,
            settings: &self.settings,
            delivery,
            stem: stem(delivery),
            place: open.folder.stage(),
            rows: 0,
        };
        batch.write_all(&delivery.rows)?;
        Ok(batch.place)
    }
}

impl Sink for FileSink {
    fn name(&self) -> &str {
        &self.name
    }

    /// Makes the directory, takes it for this stream alone, tries whether it can be written, and sweeps up what a
    /// crash left half written.
    fn open(&mut self, schema: &SchemaRef, _: &Cancel) -> Result<()> {
        let shape = Shape::new(&self.settings, schema)?;
        let folder = Folder::take(&self.settings.path).map_err(|error| error.at(self.name.clone()))?;
        self.open = Some(Open { folder, shape });
        Ok(())
    }

    fn deliver(&mut self, delivery: &Delivery) -> Result<()> {
        let open = self.open.as_ref().ok_or_else(|| Error::internal(format!("{} is not open", self.name)))?;
        let staged = self.stage(open, delivery).map_err(|error| self.placed(error, delivery))?;
        staged.publish().map_err(|error| self.placed(error, delivery))
    }

    fn part(&mut self) -> Part<'_> {
        Part::Publishes(self)
    }

    /// Lets the directory go.
    fn close(&mut self) -> Result<()> {
        self.open = None;
        self.once = None;
        Ok(())
    }
}

impl FileSink {
    fn placed(&self, error: Error, delivery: &Delivery) -> Error {
        if error.is_cancelled() {
            return error;
        }
        error.at(self.name.clone()).at(format!("batch {}", delivery.batch.0))
    }
}

/// Where the files of a batch are written until they may be seen.
trait Place {
    /// Whether it wants to know files by their hashes.
    const HASHING: Hashing;

    /// How many files there are.
    fn len(&self) -> usize;

    /// A new file, to appear as `name` in `directory` below the output's own, and its path for errors.
    fn create(&mut self, directory: &Path, name: &str) -> Result<(File, PathBuf)>;

    /// The file that was created last is finished.
    fn finished(&mut self, written: &Written);
}

impl Place for Staged<'_> {
    const HASHING: Hashing = Hashing::No;

    fn len(&self) -> usize {
        Staged::len(self)
    }

    fn create(&mut self, directory: &Path, name: &str) -> Result<(File, PathBuf)> {
        Staged::create(self, directory, name)
    }

    fn finished(&mut self, _: &Written) {}
}

/// The files of a batch, as they are written.
struct Batch<'a, P> {
    shape: &'a Shape,
    settings: &'a FileSinkSettings,
    delivery: &'a Delivery,
    stem: String,
    place: P,
    rows: usize,
}

impl<P: Place> Batch<'_, P> {
    fn write_all(&mut self, chunks: &[RecordBatch]) -> Result<()> {
        for piece in self.shape.hive.pieces(chunks)? {
            self.write(&piece)?;
        }
        Ok(())
    }

    /// Writes one directory's rows, in as many files as their size asks for.
    fn write(&mut self, piece: &Piece<'_>) -> Result<()> {
        let mut writer: Option<Writer> = None;
        for rows in piece.slices(SLICE_ROWS) {
            let rows = rows?;
            self.go_on()?;
            let mut current = match writer.take() {
                Some(writer) => writer,
                None => self.begin(piece)?,
            };
            current.write(&rows)?;
            self.rows += rows.num_rows();
            if current.bytes() >= self.settings.max_bytes {
                self.place.finished(&current.finish()?);
            } else {
                writer = Some(current);
            }
        }
        if let Some(writer) = writer {
            self.place.finished(&writer.finish()?);
        }
        Ok(())
    }

    fn begin(&mut self, piece: &Piece<'_>) -> Result<Writer> {
        let name = format!("{}-{:04}.{}", self.stem, self.place.len(), self.settings.format);
        let (file, path) = self.place.create(&piece.directory, &name)?;
        Writer::new(self.settings.format, &self.shape.schema, file, path, P::HASHING)
    }

    fn go_on(&self) -> Result<()> {
        if !self.delivery.cancel.is_cancelled() {
            return Ok(());
        }
        let (written, all) = (self.rows, self.delivery.num_rows());
        Err(self.delivery.given_up(format!("{written} of {all} rows were written, and are taken away again")))
    }
}

/// The name of a batch: its time, so that names sort as batches came, also those of one run behind those of another;
/// its number; and what it read, since the batches of two runs may have both in common.
fn stem(delivery: &Delivery) -> String {
    let mut read = Xxh3::new();
    for range in delivery.ranges.iter() {
        read.update(range.to_string().as_bytes());
        read.update(b"\n");
    }
    format!("{}-{:08}-{:016x}", compact(delivery.time), delivery.batch.0, read.digest())
}

/// `20231114T221320250Z`.
fn compact(time: BatchTime) -> String {
    let mut text = Vec::new();
    let seconds = time.0.div_euclid(1_000);
    push_timestamp(seconds, arrow::datatypes::TimeUnit::Second, Zone::Unsaid, &mut text);
    text.retain(|byte| !matches!(byte, b'-' | b':'));
    format!("{}{:03}Z", String::from_utf8_lossy(&text), time.0.rem_euclid(1_000))
}

/// Pieces of `rows` of at most `size` rows.
fn slices(rows: &RecordBatch, size: usize) -> impl Iterator<Item = RecordBatch> + '_ {
    let starts = (0..rows.num_rows()).step_by(size.max(1));
    starts.map(move |start| rows.slice(start, size.min(rows.num_rows() - start)))
}

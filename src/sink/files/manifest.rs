//! A manifest: which files hold a batch, as lines of text that end in a hash of them all.
//!
//! It deliberately does no I/O and believes nothing: a line that is not as it must be, a path that leads elsewhere or a
//! byte that has changed makes the whole of it unreadable.
//!
//! ```text
//! tidemill manifest 1
//! marker tm1:7:2:<digest of the whole batch>
//! format parquet
//! schema <Arrow IPC, base64>
//! by <column that is a directory>
//! file <hash> <bytes> <rows> <name while it is prepared> <path below the output's directory>
//! end <hash of all lines before>
//! ```

use std::fmt::{self, Write as _};
use std::path::{Component, Path, PathBuf};

use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::writer::StreamWriter;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::FileFormat;
use crate::error::{Error, ErrorKind, Result};
use crate::sink::digest::Digest;
use crate::sink::marker::Marker;

const HEAD: &str = "tidemill manifest 1\n";

/// A file of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// The hash of its bytes.
    pub hash: Digest,
    /// How many bytes it has.
    pub bytes: u64,
    /// How many rows.
    pub rows: u64,
    /// The name that it has until it is published.
    pub(super) draft: String,
    /// Where it is once it is published, below the output's directory.
    pub path: PathBuf,
}

/// What a batch is, without the marker: all that another driver needs to publish it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// What its files are.
    pub format: FileFormat,
    /// The columns of its rows, as an Arrow IPC stream without rows.
    pub schema: Vec<u8>,
    /// The columns whose values are directories.
    pub by: Vec<String>,
    /// The files, in the order of the rows.
    pub files: Vec<DataFile>,
}

/// A batch that is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Which batch it is.
    pub marker: Marker,
    /// Its files.
    pub body: Body,
}

impl Body {
    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// As lines.
    pub(super) fn text(&self) -> String {
        self.to_string()
    }

    /// From lines.
    pub(super) fn read(text: &str) -> Result<Self> {
        read_body(text).ok_or_else(|| unreadable("its lines are not those of a batch of files"))
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "format {}\nschema {}", self.format, STANDARD.encode(&self.schema))?;
        self.by.iter().try_for_each(|column| writeln!(f, "by {}", STANDARD.encode(column)))?;
        self.files.iter().try_for_each(|file| {
            let DataFile { hash, bytes, rows, draft, path } = file;
            writeln!(f, "file {hash} {bytes} {rows} {draft} {}", path.display())
        })
    }
}

impl Manifest {
    /// As it is put.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{HEAD}marker {}\n{}", self.marker, self.body);
        let end = Digest::of(text.as_bytes());
        let _ = writeln!(text, "end {end}"); // writing to a text cannot fail
        text
    }

    /// From the bytes of its file.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|_| unreadable("it is not text"))?;
        let (lines, end) = text.trim_end_matches('\n').rsplit_once('\n').unwrap_or((text, ""));
        let covered = text.get(..=lines.len()).unwrap_or_default();
        if end.strip_prefix("end ") != Some(&Digest::of(covered.as_bytes()).to_string()) {
            return Err(unreadable("its hash is not that of its lines"));
        }
        let rest = covered.strip_prefix(HEAD).ok_or_else(|| {
            unreadable(&format!("expected it to begin with {HEAD:?}")).help("a newer tidemill has written it")
        })?;
        let (marker, body) = rest.split_once('\n').unwrap_or((rest, ""));
        let marker = marker.strip_prefix("marker ").ok_or_else(|| unreadable("it has no marker"))?;
        Ok(Self { marker: marker.parse()?, body: Body::read(body)? })
    }
}

fn unreadable(why: &str) -> Error {
    Error::new(ErrorKind::Sink, format!("expected a manifest, found that {why}"))
}

fn read_body(text: &str) -> Option<Body> {
    let mut lines = text.lines();
    let format = FileFormat::named(lines.next()?.strip_prefix("format ")?).ok()?;
    let schema = STANDARD.decode(lines.next()?.strip_prefix("schema ")?).ok()?;
    let (mut by, mut files) = (Vec::new(), Vec::new());
    for line in lines {
        if let Some(column) = line.strip_prefix("by ").filter(|_| files.is_empty()) {
            by.push(String::from_utf8(STANDARD.decode(column).ok()?).ok()?);
        } else {
            files.push(read_file(line.strip_prefix("file ")?)?);
        }
    }
    Some(Body { format, schema, by, files })
}

fn read_file(line: &str) -> Option<DataFile> {
    let parts: Vec<&str> = line.split(' ').collect();
    let [hash, bytes, rows, draft, path] = parts.try_into().ok()?;
    let file = DataFile {
        hash: hash.parse().ok()?,
        bytes: bytes.parse().ok()?,
        rows: rows.parse().ok()?,
        draft: draft.to_owned(),
        path: PathBuf::from(path),
    };
    (stays_below(Path::new(draft)) && stays_below(&file.path)).then_some(file)
}

/// Whether a path leads nowhere but further down.
fn stays_below(path: &Path) -> bool {
    let mut parts = path.components();
    parts.clone().next().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// The columns of rows as an Arrow IPC stream without any. Views, which some readers do not know, as plain columns.
pub(super) fn schema_bytes(schema: &Schema) -> Result<Vec<u8>> {
    let plain = |field: &Field| {
        let data_type = match field.data_type() {
            DataType::Utf8View => DataType::Utf8,
            DataType::BinaryView => DataType::Binary,
            other => other.clone(),
        };
        field.clone().with_data_type(data_type).with_nullable(true)
    };
    let fields: Vec<Field> = schema.fields().iter().map(|field| plain(field)).collect();
    let mut writer = StreamWriter::try_new(Vec::new(), &Schema::new(fields))?;
    writer.finish()?;
    Ok(writer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Body, DataFile, Manifest};
    use crate::sink::digest::Digest;
    use crate::sink::files::FileFormat;
    use crate::sink::marker::{Epoch, Marker};
    use crate::time::BatchId;

    fn manifest() -> Manifest {
        let file = |name: &str| DataFile {
            hash: Digest::of(name.as_bytes()),
            bytes: 10,
            rows: 3,
            draft: format!("{name}.tmp"),
            path: PathBuf::from(format!("day=2026-11-21/{name}.csv")),
        };
        let body = Body {
            format: FileFormat::Csv,
            schema: vec![1, 2, 3],
            by: vec!["day".to_owned(), "a b\n".to_owned()],
            files: vec![file("a"), file("b")],
        };
        Manifest { marker: Marker { batch: BatchId(7), epoch: Epoch(2), digest: Digest::of(b"x") }, body }
    }

    #[test]
    fn what_is_written_is_read() {
        let manifest = manifest();
        assert_eq!(Manifest::read(manifest.text().as_bytes()).unwrap(), manifest);
        assert_eq!(Body::read(&manifest.body.text()).unwrap(), manifest.body);
        let empty = Manifest { body: Body { files: vec![], by: vec![], ..manifest.body }, ..manifest };
        assert_eq!(Manifest::read(empty.text().as_bytes()).unwrap(), empty);
    }

    #[test]
    fn no_changed_byte_and_no_missing_one_is_believed() {
        let text = manifest().text().into_bytes();
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert!(Manifest::read(&changed).is_err(), "byte {at}");
            assert!(Manifest::read(&text[..at]).is_err() || at == text.len() - 1, "cut at {at}");
        }
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        for path in ["../a", "/a", "a/../../b", "", "./a"] {
            let mut body = manifest().body;
            body.files[0].path = PathBuf::from(path);
            assert!(Body::read(&body.text()).is_err(), "{path:?}");
        }
    }
}

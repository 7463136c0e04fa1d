//! Rows into one file: Parquet by the `parquet` crate, JSON lines and CSV as text.
//!
//! It deliberately knows neither directories nor names, and counts a file's bytes as they will be on the disk, as far
//! as they are known: of Parquet's open row group there is an estimate.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::FileFormat;
use super::folder::failed;
use crate::csv::Header;
use crate::error::{Error, Result};
use crate::sink::digest::Digest;
use crate::sink::encode::{csv_rows, json_rows};

impl FileFormat {
    /// The columns that the format has no form for: asked before the stream starts, with one row of nulls.
    pub(super) fn refuse(self, schema: &Schema) -> Vec<Error> {
        let refuse = |field: &Arc<Field>| {
            let wrong = self.try_one(field).err()?;
            Some(wrong.help("leave it out with select, cast it, or choose another format"))
        };
        schema.fields().iter().filter_map(refuse).collect()
    }

    fn try_one(self, field: &Field) -> Result<()> {
        let schema: SchemaRef = Arc::new(Schema::new(vec![field.clone().with_nullable(true)]));
        let row = RecordBatch::try_new(Arc::clone(&schema), vec![new_null_array(field.data_type(), 1)])?;
        match self {
            Self::Parquet => {
                let written = parquet_writer(io::sink(), &schema).and_then(|mut writer| {
                    writer.write(&row)?;
                    writer.close().map(drop)
                });
                let (name, found) = (field.name(), field.data_type());
                let refused =
                    |error| format!("column {name:?} of {found} cannot be written as Parquet: {error}");
                written.map_err(|error: ParquetError| Error::schema(refused(error)))
            }
            Self::Json => json_rows(&row).map(drop),
            Self::Csv => csv_rows(&row, Header::Present).map(drop),
        }
    }
}

/// One file, being written.
pub(super) struct Writer {
    path: PathBuf,
    rows: Rows,
    count: u64,
}

enum Rows {
    Parquet(Box<ArrowWriter<Out>>),
    Json(Out),
    Csv(Out),
}

/// Where the bytes go.
struct Out {
    file: File,
    bytes: u64,
    hasher: Option<blake3::Hasher>,
}

/// Whether the content of files is to be known by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hashing {
    Yes,
    No,
}

/// A file that is finished and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// The hash of its bytes, where that was asked for.
    pub(super) hash: Option<Digest>,
}

impl Writer {
    /// Rows of `schema` into `file`, which errors call `path`.
    pub(super) fn new(
        format: FileFormat,
        schema: &SchemaRef,
        file: File,
        path: PathBuf,
        hashing: Hashing,
    ) -> Result<Self> {
        let hasher = (hashing == Hashing::Yes).then(blake3::Hasher::new);
        let out = Out { file, bytes: 0, hasher };
        let rows = match format {
            FileFormat::Parquet => match parquet_writer(out, schema) {
                Ok(writer) => Rows::Parquet(Box::new(writer)),
                Err(error) => return Err(refused(&path, error)),
            },
            FileFormat::Json => Rows::Json(out),
            FileFormat::Csv => Rows::Csv(out),
        };
        Ok(Self { path, rows, count: 0 })
    }

    /// How many bytes it has so far.
    pub(super) fn bytes(&self) -> u64 {
        match &self.rows {
            Rows::Parquet(writer) => (writer.bytes_written() + writer.in_progress_size()) as u64,
            Rows::Json(out) | Rows::Csv(out) => out.bytes,
        }
    }

    /// Appends rows.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.count += rows.num_rows() as u64;
        let written = match &mut self.rows {
            Rows::Parquet(writer) => return writer.write(rows).map_err(|error| refused(&self.path, error)),
            Rows::Json(out) => out.write_all(&json_rows(rows)?),
            Rows::Csv(out) => {
                let header = if out.bytes == 0 { Header::Present } else { Header::Absent };
                out.write_all(&csv_rows(rows, header)?)
            }
        };
        written.map_err(|error| failed("write", &self.path, &error))
    }

    /// Ends the file, and returns once it is durable.
    pub(super) fn finish(mut self) -> Result<Written> {
        let out = match &mut self.rows {
            Rows::Parquet(writer) => {
                // Not `into_inner`, which says of a full disk only that there was an error.
                writer.finish().map_err(|error| refused(&self.path, error))?;
                writer.inner()
            }
            Rows::Json(out) | Rows::Csv(out) => out,
        };
        out.file.sync_all().map_err(|error| failed("make durable", &self.path, &error))?;
        let hash = out.hasher.as_ref().map(|hasher| Digest(*hasher.finalize().as_bytes()));
        Ok(Written { rows: self.count, bytes: out.bytes, hash })
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes.get(..written).unwrap_or(bytes));
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn parquet_writer<W: Write + Send>(out: W, schema: &SchemaRef) -> Result<ArrowWriter<W>, ParquetError> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
    ArrowWriter::try_new(out, Arc::clone(schema), Some(properties.build()))
}

/// What the system refused, where that is what went wrong.
fn refused(path: &Path, error: ParquetError) -> Error {
    let cause = match &error {
        ParquetError::External(cause) => cause.downcast_ref::<io::Error>(),
        _ => None,
    };
    match cause {
        Some(cause) => failed("write", path, cause),
        None => Error::sink(format!("could not write {}: {error}", path.display())).caused_by(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, IntervalUnit, Schema};

    use super::FileFormat;

    #[test]
    fn what_a_format_has_no_form_for_is_refused_by_name() {
        let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
        let odd = DataType::Interval(IntervalUnit::MonthDayNano);
        let schema = Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("list", list, false),
            Field::new("odd", odd, true),
        ]);
        let refused = |format: FileFormat| {
            let texts: Vec<String> = format.refuse(&schema).iter().map(ToString::to_string).collect();
            texts.join("; ")
        };
        let (csv, parquet) = (refused(FileFormat::Csv), refused(FileFormat::Parquet));
        assert!(csv.starts_with("column \"list\" of ") && csv.contains("as CSV"), "{csv}");
        assert!(parquet.starts_with("column \"odd\" of ") && !parquet.contains("\"list\""), "{parquet}");
    }
}

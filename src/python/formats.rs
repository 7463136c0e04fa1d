//! Formats, from Python's words to the core's.
//!
//! It deliberately reads and writes nothing: what a format means is the decoder's business, and the encoder's.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::csv::{Dialect, Header};
use crate::decode::Format;
use crate::error::{Error, Result};
use crate::python::schema::Schema;
use crate::sink::encode::OutputFormat;

/// How CSV is spelled.
#[pyclass(frozen, module = "tidemill._native")]
#[derive(Clone, Debug)]
pub(crate) struct CsvDialect(pub(crate) Dialect);

#[pymethods]
impl CsvDialect {
    #[new]
    fn new(delimiter: &str, quote: &str, header: bool, null: &str) -> PyResult<Self> {
        let header = if header { Header::Present } else { Header::Absent };
        Ok(Self(Dialect::new(delimiter, quote, header, null)?))
    }
}

/// A format's name, and what belongs to it.
#[derive(FromPyObject)]
pub(crate) struct FormatArguments<'py>(String, Option<Bound<'py, Schema>>, Option<Bound<'py, CsvDialect>>);

impl FormatArguments<'_> {
    /// How payloads are read.
    pub(crate) fn reading(&self) -> Result<Format> {
        let Self(name, schema, dialect) = self;
        let schema = schema.as_ref().map(|schema| Arc::clone(&schema.get().0));
        let dialect = dialect.as_ref().map(|dialect| dialect.get().0.clone());
        match (name.as_str(), schema, dialect) {
            ("json", Some(schema), _) => Ok(Format::Json(schema)),
            ("csv", Some(schema), Some(dialect)) => Ok(Format::Csv(schema, dialect)),
            ("text", ..) => Ok(Format::Text),
            ("raw", ..) => Ok(Format::Raw),
            _ => Err(Error::internal(format!("there is no way to read the format {name:?}"))),
        }
    }
    /// How rows are written; `column` is the payload's, where it is not all of them.
    pub(crate) fn writing(self, column: Option<String>) -> Result<OutputFormat> {
        let Self(name, _, dialect) = self;
        let dialect = dialect.map(|dialect| dialect.get().0.clone());
        match (name.as_str(), dialect, column) {
            ("text", _, column) => Ok(OutputFormat::Text { column }),
            ("raw", _, column) => Ok(OutputFormat::Raw { column }),
            (_, _, Some(_)) => Err(Error::config(
                "value= names the payload's column for tm.Raw() and tm.Text(); other formats have all columns",
            )
            .help("pass format=tm.Raw() too, or select() the columns before")),
            ("json", ..) => Ok(OutputFormat::Json),
            ("csv", Some(dialect), None) => Ok(OutputFormat::Csv(dialect)),
            _ => Err(Error::internal(format!("there is no way to write the format {name:?}"))),
        }
    }
}

//! Rows become bytes: the values, keys and headers of records, a chunk at a time.
//!
//! It deliberately knows no sink: what it fills are columns of byte strings, each one contiguous buffer. Schemas are
//! checked when an encoder is made, so that encoding meets no surprise.

mod csv;
mod headers;
mod json;
mod key;
mod records;
pub(crate) mod text;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};

pub(crate) use headers::HeaderReader;
pub use headers::HeaderSpec;
pub(crate) use key::KeyEncoder;
pub use key::KeySpec;
pub(crate) use records::{Header as RecordHeader, Records};

use crate::csv::{Dialect, Header};
use crate::error::{Error, Result, nearest};
use crate::types::type_name;
use csv::CsvEncoder;
use json::JsonEncoder;

/// How a row becomes a record's value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// One JSON object a row: all columns by name, timestamps ISO 8601, binary as base64, NaN and null as null.
    #[default]
    Json,
    /// One record of CSV a row: all columns in their order, in this spelling.
    Csv(Dialect),
    /// The text of one column as it is; null is a tombstone.
    Text {
        /// The column; may be left out where there is only one.
        column: Option<String>,
    },
    /// The bytes of one column as they are; null is a tombstone.
    Raw {
        /// The column; may be left out where there is only one.
        column: Option<String>,
    },
}

/// Byte strings, each null or a piece of one buffer; kept from chunk to chunk so that its memory is reused.
#[derive(Debug, Default)]
pub(crate) struct ByteRows {
    bytes: Vec<u8>,
    /// Where each row ends, times two, and one more where it is null: a whole batch is held at once, so that a word a
    /// row counts.
    marks: Vec<usize>,
}

impl ByteRows {
    /// Forgets the rows and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.marks.clear();
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The bytes of all rows, one after the other.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A number for each row that says where it ends, and whether it is null.
    pub(crate) fn marks(&self) -> impl ExactSizeIterator<Item = u64> {
        self.marks.iter().map(|mark| *mark as u64)
    }

    /// The value of `row`; `None` where it is null or there is no such row.
    #[inline]
    pub(crate) fn get(&self, row: usize) -> Option<&[u8]> {
        let mark = self.marks.get(row).filter(|mark| *mark & NULL == 0)?;
        let start = row.checked_sub(1).and_then(|before| self.marks.get(before)).map_or(0, |mark| mark >> 1);
        self.bytes.get(start..mark >> 1)
    }

    /// Appends the value that `write` appends to the buffer.
    fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.marks.push(self.bytes.len() << 1);
    }

    /// Appends a value, or null.
    fn push(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.push_with(|bytes| bytes.extend_from_slice(value)),
            None => self.marks.push(self.bytes.len() << 1 | NULL),
        }
    }
}

/// In a mark of [`ByteRows`]: the row is null.
const NULL: usize = 1;

/// The rows as JSON objects, one a line: what [`OutputFormat::Json`] writes, for those who want the text itself.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, Float64Array, RecordBatch};
/// use tidemill::sink::encode::json_rows;
/// let temp: ArrayRef = Arc::new(Float64Array::from(vec![20.5, f64::NAN]));
/// let rows = RecordBatch::try_from_iter([("temp", temp)]).unwrap();
/// assert_eq!(json_rows(&rows).unwrap(), b"{\"temp\":20.5}\n{\"temp\":null}\n");
/// ```
pub fn json_rows(rows: &RecordBatch) -> Result<Vec<u8>> {
    let encoder = JsonEncoder::objects(&rows.schema(), (0..rows.num_columns()).collect())?;
    let mut lines = ByteRows::default();
    encoder.encode_lines(rows, &mut lines)?;
    Ok(lines.bytes)
}

/// The rows as lines of CSV, the first one the columns' names where `header` says so.
pub(crate) fn csv_rows(rows: &RecordBatch, header: Header) -> Result<Vec<u8>> {
    let dialect = Dialect::default().with_header(header);
    let columns: Vec<usize> = (0..rows.num_columns()).collect();
    let mut lines = Vec::new();
    CsvEncoder::new(&rows.schema(), &columns, &dialect)?.encode_lines(rows, &mut lines)?;
    Ok(lines)
}

/// Rows to values.
#[derive(Debug)]
pub(crate) enum ValueEncoder {
    Json(JsonEncoder),
    Csv(CsvEncoder),
    Raw(usize),
}

impl ValueEncoder {
    /// An encoder for rows of `schema`; the column at `left_out`, which travels beside the value, is not part of it.
    pub(crate) fn new(schema: &Schema, format: &OutputFormat, left_out: Option<usize>) -> Result<Self> {
        let columns =
            || (0..schema.fields().len()).filter(|column| Some(*column) != left_out).collect::<Vec<_>>();
        match format {
            OutputFormat::Json => JsonEncoder::objects(schema, columns()).map(Self::Json),
            OutputFormat::Csv(dialect) => CsvEncoder::new(schema, &columns(), dialect).map(Self::Csv),
            OutputFormat::Text { column } => raw(schema, column.as_deref(), &columns(), Payload::Text),
            OutputFormat::Raw { column } => raw(schema, column.as_deref(), &columns(), Payload::Bytes),
        }
    }

    /// Appends the value of each row.
    pub(crate) fn encode(&self, rows: &RecordBatch, out: &mut ByteRows) -> Result<()> {
        match self {
            Self::Json(encoder) => encoder.encode(rows, out),
            Self::Csv(encoder) => encoder.encode(rows, out),
            Self::Raw(column) => push_bytes(rows.column(*column), out),
        }
    }
}

/// What a column that is the whole payload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payload {
    Text,
    Bytes,
}

impl Payload {
    /// The format's name, the columns that it takes, and what to do with another.
    fn words(self) -> [&'static str; 3] {
        match self {
            Self::Text => ["Text", "string", "use format Raw for bytes, or format Json"],
            Self::Bytes => ["Raw", "binary or string", "cast the column to string, or use format Json"],
        }
    }
}

/// The column called `name`, or the only one of `columns`, is the payload.
fn raw(schema: &Schema, name: Option<&str>, columns: &[usize], payload: Payload) -> Result<ValueEncoder> {
    let [format, takes, help] = payload.words();
    let place = match (name, columns) {
        (Some(name), _) => column(schema, name)?,
        (None, [only]) => *only,
        (None, several) => {
            let found = several.len();
            let message = format!("format {format} writes one column, found {found}: {}", names(schema));
            return Err(Error::schema(message).help("name it with value=, or select it"));
        }
    };
    let field = schema.field(place);
    if is_payload(field.data_type(), payload) {
        return Ok(ValueEncoder::Raw(place));
    }
    let (name, found) = (field.name(), type_name(field.data_type()));
    Err(Error::schema(format!("format {format} writes a {takes} column, found {name:?} of {found}"))
        .help(help))
}

/// The place of the column called `name`.
pub(crate) fn column(schema: &Schema, name: &str) -> Result<usize> {
    schema.fields().iter().position(|field| field.name() == name).ok_or_else(|| {
        let error = Error::schema(format!("there is no column {name:?}; there are {}", names(schema)));
        match nearest(name, schema.fields().iter().map(|field| field.name().as_str())) {
            Some(near) => error.help(format!("did you mean {near:?}?")),
            None => error,
        }
    })
}

fn names(schema: &Schema) -> String {
    schema.fields().iter().map(|field| format!("{:?}", field.name())).collect::<Vec<_>>().join(", ")
}

/// Whether a column of `data_type` can be such a payload.
fn is_payload(data_type: &DataType, payload: Payload) -> bool {
    match payload {
        Payload::Text => is_text(data_type),
        Payload::Bytes => is_bytes(data_type),
    }
}

/// Whether values of `data_type` are text, also behind a dictionary.
fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        other => other.is_string(),
    }
}

/// Whether values of `data_type` are byte strings, also behind a dictionary.
fn is_bytes(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_bytes(values),
        other => other.is_string() || other.is_binary(),
    }
}

/// Appends the bytes of each value of a column of strings or binary.
fn push_bytes(column: &ArrayRef, out: &mut ByteRows) -> Result<()> {
    match column.data_type() {
        DataType::Utf8 => push_texts(column.as_string::<i32>(), out),
        DataType::Utf8View => push_texts(column.as_string_view(), out),
        DataType::Binary => push_binaries(column.as_binary::<i32>(), out),
        DataType::BinaryView => push_binaries(column.as_binary_view(), out),
        // Rarer forms (dictionaries, large strings, fixed sizes) are worth a copy, not a loop of their own.
        _ => push_binaries(cast(column, &DataType::LargeBinary)?.as_binary::<i64>(), out),
    }
    Ok(())
}

fn push_texts<'a>(texts: impl IntoIterator<Item = Option<&'a str>>, out: &mut ByteRows) {
    texts.into_iter().for_each(|text| out.push(text.map(str::as_bytes)));
}

fn push_binaries<'a>(values: impl IntoIterator<Item = Option<&'a [u8]>>, out: &mut ByteRows) {
    values.into_iter().for_each(|value| out.push(value));
}

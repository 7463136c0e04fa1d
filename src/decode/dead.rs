//! Dead letters: the bad records of a chunk as rows, each with its bytes, why it is bad, and where it came from.
//!
//! Only the columns that somebody reads are made, as of good records. It deliberately judges nothing: which records
//! are bad, and why, is told by the formats.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::decode::Metadata;
use crate::error::{Error, Result};
use crate::raw::RawChunk;

/// One bad record.
#[derive(Debug)]
pub(super) struct Dead {
    /// Its row in the chunk.
    pub(super) row: usize,
    /// The byte of its payload where it goes wrong.
    pub(super) at: usize,
    /// What was expected there, and what was found.
    pub(super) reason: String,
}

/// A column of dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    /// `value`: the payload, as it came.
    Value,
    /// `reason`.
    Reason,
    /// `position`: the byte of the payload where it goes wrong.
    Position,
    Around(Metadata),
}

const COLUMNS: [Column; 9] = [
    Column::Value,
    Column::Reason,
    Column::Position,
    Column::Around(Metadata::Topic),
    Column::Around(Metadata::Partition),
    Column::Around(Metadata::Offset),
    Column::Around(Metadata::Timestamp),
    Column::Around(Metadata::Key),
    Column::Around(Metadata::Headers),
];

/// The columns of dead letters, whatever the format of the records that they should have been.
///
/// ```
/// let schema = tidemill::decode::dead_letter_schema();
/// let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
/// assert_eq!(names[..4], ["value", "reason", "position", "kafka_topic"]);
/// assert_eq!(names[4..], ["kafka_partition", "kafka_offset", "kafka_timestamp", "kafka_key", "kafka_headers"]);
/// ```
pub fn dead_letter_schema() -> SchemaRef {
    schema_of(&COLUMNS)
}

fn schema_of(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|column| column.field()).collect::<Vec<_>>()))
}

/// Makes the rows of those columns that somebody reads.
#[derive(Debug)]
pub(super) struct DeadLetters {
    columns: Vec<Column>,
    schema: SchemaRef,
}

impl DeadLetters {
    /// Those of these names, in the order of the whole schema.
    pub(super) fn new(names: &[String]) -> Result<Self> {
        let hidden = Column::Around(Metadata::Provenance);
        let all = || COLUMNS.into_iter().chain([hidden]);
        let known = |name: &String| all().any(|column| column.field().name() == name);
        if let Some(unknown) = names.iter().find(|name| !known(name)) {
            return Err(Error::internal(format!("dead letters have no column {unknown:?}")));
        }
        let read = |column: &Column| names.contains(column.field().name());
        let columns: Vec<Column> = all().filter(read).collect();
        let schema = schema_of(&columns);
        Ok(Self { columns, schema })
    }

    pub(super) fn reads(&self, metadata: Metadata) -> bool {
        self.columns.contains(&Column::Around(metadata))
    }

    /// The rows, in order of offset.
    pub(super) fn batch(&self, chunk: &RawChunk, dead: &[Dead]) -> Result<RecordBatch> {
        let rows: Vec<usize> = dead.iter().map(|dead| dead.row).collect();
        let arrays = self.columns.iter().map(|column| column.array(chunk, dead, &rows));
        let options = RecordBatchOptions::new().with_row_count(Some(dead.len()));
        let arrays = arrays.collect::<Result<_>>()?;
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?)
    }
}

impl Column {
    fn field(self) -> Field {
        match self {
            Self::Value => Field::new("value", DataType::Binary, true),
            Self::Reason => Field::new("reason", DataType::Utf8, true),
            Self::Position => Field::new("position", DataType::Int64, true),
            Self::Around(metadata) => metadata.field(),
        }
    }

    fn array(self, chunk: &RawChunk, dead: &[Dead], rows: &[usize]) -> Result<ArrayRef> {
        Ok(match self {
            Self::Value => payloads(chunk, rows),
            Self::Reason => Arc::new(StringArray::from_iter_values(dead.iter().map(|dead| &dead.reason))),
            Self::Position => {
                Arc::new(dead.iter().map(|dead| i64::try_from(dead.at).ok()).collect::<Int64Array>())
            }
            Self::Around(metadata) => metadata.array(chunk, rows)?,
        })
    }
}

fn payloads(chunk: &RawChunk, rows: &[usize]) -> ArrayRef {
    let mut builder = BinaryBuilder::with_capacity(rows.len(), 0);
    for row in rows {
        builder.append_option(chunk.payloads.get(*row));
    }
    Arc::new(builder.finish())
}

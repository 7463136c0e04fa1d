//! Raw columns → typed Arrow columns, by a schema that the user gave.
//!
//! A decoder is told which columns some operator reads and builds only those. It deliberately knows neither
//! sources nor plans: a chunk of bytes goes in, a [`RecordBatch`] and exact counts come out. What is bad, and
//! what null, missing and duplicate mean, is settled in [`Decoder::decode`].

mod bad;
mod csv;
mod dead;
mod doubts;
mod each;
mod event_time;
mod json;
mod metadata;
mod raw;
mod schema;
mod text;
mod utf8;

use std::time::Duration;

use arrow::array::ArrayRef;
use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::csv::Dialect;
use crate::decode::csv::CsvPayloads;
use crate::decode::dead::{Dead, DeadLetters};
use crate::decode::doubts::Look;
use crate::decode::event_time::EventTimes;
use crate::decode::json::JsonPayloads;
use crate::decode::raw::RawPayloads;
use crate::decode::schema::{Origin, Projection};
use crate::decode::text::TextPayloads;
use crate::error::{Error, Result};
use crate::event::Counts;
use crate::raw::{RawChunk, RawColumns};
use crate::time::{BatchTime, EventTime};

pub use crate::decode::csv::SUPPORTED as CSV_TYPES;
pub use crate::decode::dead::dead_letter_schema;
pub use crate::decode::doubts::Doubts;
pub use crate::decode::event_time::believed;
pub use crate::decode::json::{Inference, Inferred, SUPPORTED as JSON_TYPES};
pub use crate::decode::schema::{csv_mistakes, date_unit, full_schema, json_mistakes, with_date_unit};

/// How payloads are to be read.
#[derive(Clone, Debug)]
pub enum Format {
    /// One JSON object a record, with these fields.
    Json(SchemaRef),
    /// One record of CSV, with these fields, in this spelling.
    Csv(SchemaRef, Dialect),
    /// The payload as text, in one string column called `value`.
    Text,
    /// The payload as it is, in one binary column called `value`.
    Raw,
}

/// A column that comes from the record around the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metadata {
    /// `kafka_key`: binary.
    Key,
    /// `kafka_topic`: string.
    Topic,
    /// `kafka_partition`: int32.
    Partition,
    /// `kafka_offset`: int64.
    Offset,
    /// `kafka_timestamp`: timestamp[ms, UTC].
    Timestamp,
    /// `kafka_headers`: list<struct<key: string, value: binary>>.
    Headers,
    /// The [`Provenance`](crate::provenance::Provenance) of each row, under a name that no user's column has. A plan
    /// adds it where an operator reads it, and it is shown to nobody.
    Provenance,
}

/// What a record that does not fit does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBad {
    /// It fails the batch, with topic, partition, offset, byte position and reason.
    #[default]
    Fail,
    /// It is dropped and counted.
    Drop,
    /// It is counted, and becomes a row of its own beside the good ones: see [`Decoder::with_dead_letters`].
    DeadLetter,
}

/// Which column tells when a record happened, and what of it is believed.
#[derive(Clone, Debug)]
pub struct EventTimeSpec {
    /// The column; a timestamp.
    pub column: String,
    /// A time later than the batch time by more than this moves no watermark.
    pub max_future: Duration,
}

/// What a chunk became.
#[derive(Debug)]
pub struct Decoded {
    /// The rows, in order of offset, with the columns asked for.
    pub batch: RecordBatch,
    /// Records, bytes, bad ones, tombstones, rows without or with a future event time.
    pub counts: Counts,
    /// The largest believable event time.
    pub max_event_time: Option<EventTime>,
    /// The bad records as rows, in order of offset; none where there are none, or nobody asked for them.
    pub dead: Option<RecordBatch>,
}

/// All that a decoder has to know.
#[derive(Clone, Debug)]
pub struct DecodeSpec {
    /// How payloads are to be read.
    pub format: Format,
    /// The columns taken from around the payload.
    pub metadata: Vec<Metadata>,
    /// What bad records do.
    pub on_bad: OnBad,
    /// The column that tells when a record happened; decoded even where nobody reads it.
    pub event_time: Option<EventTimeSpec>,
    /// The columns that somebody reads, in any order; `None` means all.
    pub columns: Option<Vec<String>>,
}

/// Turns the chunks of one ingest thread into batches; keeps its buffers and what it learnt of the records' shape
/// from chunk to chunk, which speeds it up but never changes a result.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use tidemill::decode::{DecodeSpec, Decoder, Format, OnBad};
/// use tidemill::offset::TopicPartition;
/// use tidemill::raw::{Bytes, RawChunk};
/// use tidemill::time::BatchTime;
///
/// let schema = Arc::new(Schema::new(vec![Field::new("temp", DataType::Float64, true)]));
/// let mut decoder = Decoder::new(DecodeSpec {
///     format: Format::Json(schema), metadata: vec![], on_bad: OnBad::Drop, event_time: None, columns: None,
/// })?;
/// let chunk = RawChunk {
///     at: TopicPartition::new("readings", 0),
///     offsets: vec![7, 8],
///     payloads: Bytes::copied([Some(&b"{\"temp\": 21.5}"[..]), Some(&b"{\"temp\": \"warm\"}"[..])]),
///     keys: None, timestamps: None, headers: None,
/// };
/// let decoded = decoder.decode(&chunk, BatchTime(0))?;
/// assert_eq!((decoded.batch.num_rows(), decoded.counts.bad), (1, 1));
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    projection: Projection,
    payloads: Payloads,
    on_bad: OnBad,
    event_times: Option<EventTimes>,
    doubts: Option<Doubts>,
    dead: Option<DeadLetters>,
}

/// The part of the work that differs by format.
#[derive(Debug)]
enum Payloads {
    Json(JsonPayloads),
    Csv(CsvPayloads),
    Text(TextPayloads),
    Raw(RawPayloads),
}

/// The rows of a chunk that became rows of a batch, and what was counted of the others.
#[derive(Debug, Default)]
struct Kept {
    rows: Vec<usize>,
    bad: u64,
    tombstones: u64,
    /// The bad ones, where they become dead letters.
    dead: Vec<Dead>,
}

impl Kept {
    fn with_capacity(rows: usize) -> Self {
        Self { rows: Vec::with_capacity(rows), ..Self::default() }
    }
}

impl Payloads {
    /// What reads `fields`, some of those of the format.
    fn new(spec: &DecodeSpec, fields: &[FieldRef]) -> Result<Self> {
        Ok(match &spec.format {
            Format::Json(schema) => Self::Json(JsonPayloads::new(fields, date_unit(schema)?, spec.on_bad)?),
            Format::Csv(schema, dialect) => {
                Self::Csv(CsvPayloads::new(schema, fields, dialect, spec.on_bad)?)
            }
            Format::Text => Self::Text(TextPayloads::new(!fields.is_empty(), spec.on_bad)?),
            Format::Raw => Self::Raw(RawPayloads::new(!fields.is_empty())),
        })
    }
}

impl Decoder {
    /// A decoder; refuses unknown columns, types that it cannot decode, and names that clash.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a spec is made for one decoder, and later parts may keep it"
    )]
    pub fn new(spec: DecodeSpec) -> Result<Self> {
        let projection = Projection::new(&spec)?;
        let payloads = Payloads::new(&spec, &projection.payload_fields())?;
        let event_times =
            spec.event_time.as_ref().map(|time| EventTimes::new(time, &projection)).transpose()?;
        Ok(Self { projection, payloads, on_bad: spec.on_bad, event_times, doubts: None, dead: None })
    }

    /// The same, which shows all that it decodes to `doubts`.
    #[must_use]
    pub fn doubting(self, doubts: &Doubts) -> Self {
        Self { doubts: Some(doubts.clone()), ..self }
    }

    /// The same, which under [`OnBad::DeadLetter`] makes these columns of [`dead_letter_schema`] of the bad records.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use arrow::array::AsArray;
    /// use arrow::datatypes::{DataType, Field, Schema};
    /// use tidemill::decode::{DecodeSpec, Decoder, Format, OnBad};
    /// use tidemill::offset::TopicPartition;
    /// use tidemill::raw::{Bytes, RawChunk};
    /// use tidemill::time::BatchTime;
    ///
    /// let decoder = Decoder::new(DecodeSpec {
    ///     format: Format::Json(Arc::new(Schema::new(vec![Field::new("temp", DataType::Float64, true)]))),
    ///     metadata: vec![], on_bad: OnBad::DeadLetter, event_time: None, columns: None,
    /// })?;
    /// let mut decoder = decoder.with_dead_letters(&["value".to_owned(), "reason".to_owned()])?;
    /// let chunk = RawChunk {
    ///     at: TopicPartition::new("readings", 0),
    ///     offsets: vec![7, 8],
    ///     payloads: Bytes::copied([Some(&b"{\"temp\": 21.5}"[..]), Some(&b"{\"temp\": \"warm\"}"[..])]),
    ///     keys: None, timestamps: None, headers: None,
    /// };
    /// let decoded = decoder.decode(&chunk, BatchTime(0))?;
    /// let dead = decoded.dead.unwrap();
    /// assert_eq!(dead.column(0).as_binary::<i32>().value(0), b"{\"temp\": \"warm\"}");
    /// assert_eq!(
    ///     dead.column(1).as_string::<i32>().value(0),
    ///     "expected a number within float64 in column \"temp\", found `\"warm\"}`",
    /// );
    /// # Ok::<(), tidemill::error::Error>(())
    /// ```
    pub fn with_dead_letters(self, columns: &[String]) -> Result<Self> {
        Ok(Self { dead: Some(DeadLetters::new(columns)?), ..self })
    }

    /// The columns of every batch: those asked for, in the order in which they are declared.
    pub fn schema(&self) -> SchemaRef {
        self.projection.schema()
    }

    /// What a source must yield beside offset and payload.
    pub fn wanted(&self) -> RawColumns {
        let dead = |metadata| self.dead.as_ref().is_some_and(|dead| dead.reads(metadata));
        let reads = |metadata| self.projection.reads(metadata) || dead(metadata);
        RawColumns {
            key: reads(Metadata::Key),
            timestamp: reads(Metadata::Timestamp),
            headers: reads(Metadata::Headers),
        }
    }

    /// What bad records do.
    pub fn on_bad(&self) -> OnBad {
        self.on_bad
    }

    /// Decodes a chunk; `time` is its batch's, against which the future is told.
    ///
    /// * A record is **bad** when it is not exactly one JSON object in valid UTF-8, nested at most 128 deep, or
    ///   when a column that is read does not fit. Other columns are checked for syntax only. A bad record costs
    ///   no good one: nothing of it stays in any column.
    /// * A missing column is null, as is JSON's `null`; a null where the field is declared non-null does not fit.
    ///   Unknown keys are ignored; of duplicates the last wins, whatever the earlier ones were.
    /// * A null payload is a **tombstone**: skipped, counted, never bad.
    /// * Numbers fit integers when their value is whole (`1.0`, `1e3`) and within range; a number in a timestamp or
    ///   date counts in the column's unit, or in the schema's [`date_unit`]. Text in a timestamp is ISO 8601, UTC where it
    ///   names no zone; what is finer than the column's unit is rounded down, of text and of numbers. Only where numbers
    ///   count seconds in a column of seconds they have to be whole. A decimal takes numbers that it holds without rounding,
    ///   and binary is base64 text with its padding. Nothing else is converted: a number is no string, and a
    ///   string no number.
    /// * CSV: a record is one line, its fields in the order of the schema, as many as that has, or in that of a line
    ///   of names before it. A bare field that is the dialect's null is null, a quoted one never; others are read as
    ///   JSON's, but that text needs no quotes. Text: what is no valid UTF-8 is bad.
    pub fn decode(&mut self, chunk: &RawChunk, time: BatchTime) -> Result<Decoded> {
        let (kept, payload_arrays) = match &mut self.payloads {
            Payloads::Json(json) => json.decode(chunk)?,
            Payloads::Csv(csv) => csv.decode(chunk)?,
            Payloads::Text(text) => text.decode(chunk)?,
            Payloads::Raw(raw) => raw.decode(chunk),
        };
        let arrays = self.arrange(chunk, &kept, &payload_arrays)?;
        let mut counts = Counts {
            records: chunk.len() as u64,
            bytes: chunk.value_bytes() as u64,
            bad: kept.bad,
            tombstones: kept.tombstones,
            ..Counts::default()
        };
        let max_event_time = match &self.event_times {
            Some(times) => times.observe(&arrays, time, &mut counts)?,
            None => None,
        };
        if let Some(doubts) = &self.doubts {
            let told = |times: &EventTimes| times.told(&arrays, counts.future, max_event_time);
            let told = self.event_times.as_ref().and_then(told);
            doubts.look(&Look { chunk, rows: &kept.rows, payload: &payload_arrays, time, told });
        }
        let batch = self.batch(arrays, kept.rows.len())?;
        let dead = self.dead.as_ref().filter(|_| !kept.dead.is_empty());
        let dead = dead.map(|dead| dead.batch(chunk, &kept.dead)).transpose()?;
        Ok(Decoded { batch, counts, max_event_time, dead })
    }

    /// The arrays of all decoded columns in declared order, a hidden event-time column included.
    fn arrange(&self, chunk: &RawChunk, kept: &Kept, payload: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let array = |origin: &Origin| match origin {
            Origin::Payload(index) => {
                payload.get(*index).cloned().ok_or_else(|| Error::internal("a decoded column is missing"))
            }
            Origin::Metadata(metadata) => metadata.array(chunk, &kept.rows),
        };
        self.projection.origins().map(array).collect()
    }

    fn batch(&self, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let arrays = self.projection.visible(arrays);
        Ok(RecordBatch::try_new_with_options(self.projection.schema(), arrays, &options)?)
    }
}

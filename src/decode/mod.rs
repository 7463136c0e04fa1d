//! Raw columns → typed Arrow columns, by a schema that the user gave.
//!
//! A decoder is told which columns some operator reads and builds only those. It deliberately knows neither
//! sources nor plans: a chunk of bytes goes in, a [`RecordBatch`] and exact counts come out. What is bad, and
//! what null, missing and duplicate mean, is settled in [`Decoder::decode`].

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::event::Counts;
use crate::time::EventTime;

/// How payloads are to be read.
#[derive(Clone, Debug)]
pub enum Format {
    /// One JSON object a record, with these fields.
    Json(SchemaRef),
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
}

/// What a record that does not fit does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBad {
    /// It fails the batch, with topic, partition, offset, byte position and reason.
    #[default]
    Fail,
    /// It is dropped and counted.
    Drop,
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
}

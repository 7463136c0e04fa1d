//! What makes a declaration of a source doubtful: columns that no record has, event times that all lie in another age.
//!
//! It deliberately refuses nothing: such records are as well-formed as any, and the rows are what was asked for. It says
//! once what a person would want to know. A chunk costs a look at each column's count of nulls; a record is looked at
//! again only to show what is wrong with it.

mod columns;
mod times;

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::ArrayRef;

use crate::decode::doubts::columns::Columns;
use crate::decode::doubts::times::Times;
use crate::decode::schema::Projection;
use crate::decode::{DecodeSpec, Format};
use crate::error::{Error, Result};
use crate::raw::RawChunk;
use crate::time::BatchTime;

pub(super) use crate::decode::doubts::times::Told;

/// So many records are enough to say something of all of them…
const RECORDS: u64 = 1_000;
/// … and so are those of so many batches.
const BATCHES: u64 = 3;
/// Of a record no more than this is kept to be shown.
const SAMPLE: usize = 64 << 10;

/// What the decoders of one source have seen together: which of them meets the only records with a column is chance.
///
/// ```
/// # use std::sync::Arc;
/// # use arrow::datatypes::{DataType, Field, Schema};
/// # use tidemill::decode::{DecodeSpec, Decoder, Doubts, Format, OnBad};
/// # use tidemill::offset::TopicPartition;
/// # use tidemill::raw::{Bytes, RawChunk};
/// # use tidemill::time::BatchTime;
/// # let schema = Arc::new(Schema::new(vec![Field::new("temprature", DataType::Float64, true)]));
/// # let spec = DecodeSpec {
/// #     format: Format::Json(schema), metadata: vec![], on_bad: OnBad::Drop, event_time: None, columns: None,
/// # };
/// # let chunk = RawChunk {
/// #     at: TopicPartition::new("readings", 0),
/// #     offsets: vec![7],
/// #     payloads: Bytes::copied([Some(&b"{\"temperature\": 21.5}"[..])]),
/// #     keys: None, timestamps: None, headers: None,
/// # };
/// let doubts = Doubts::of(&spec)?;
/// let mut decoder = Decoder::new(spec)?.doubting(&doubts);
/// decoder.decode(&chunk, BatchTime(0))?; // records without the column "temprature"
/// assert!(doubts.judge(BatchTime(0))[0].to_string().ends_with("did you mean \"temperature\"?"));
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Doubts(Arc<Mutex<Seen>>); // taken by the source's ingest threads for some comparisons a chunk

#[derive(Debug)]
struct Seen {
    columns: Columns,
    times: Option<Times>,
}

/// A chunk that has been decoded.
pub(super) struct Look<'a> {
    pub(super) chunk: &'a RawChunk,
    /// Of its records, those that became rows.
    pub(super) rows: &'a [usize],
    /// The columns that were read from payloads.
    pub(super) payload: &'a [ArrayRef],
    pub(super) time: BatchTime,
    /// What the rows told of event time, where they do.
    pub(super) told: Option<Told<'a>>,
}

impl Look<'_> {
    /// The record that became this row, as far as it is worth keeping.
    fn record(&self, row: usize) -> Option<Vec<u8>> {
        let payload = self.chunk.payloads.get(*self.rows.get(row)?)?;
        Some(payload.get(..SAMPLE).unwrap_or(payload).to_vec())
    }
}

impl Doubts {
    /// Nothing seen yet of a source that is read so.
    pub fn of(spec: &DecodeSpec) -> Result<Self> {
        let projection = Projection::new(spec)?;
        // Other formats have no keys that a name could miss.
        let has_keys = matches!(spec.format, Format::Json(_));
        let fields = if has_keys { projection.payload_fields() } else { Vec::new() };
        let columns = Columns::new(fields.iter().map(|field| field.name().clone()).collect());
        let times = spec.event_time.as_ref().map(|time| Times::new(time, spec, &projection)).transpose()?;
        Ok(Self(Arc::new(Mutex::new(Seen { columns, times: times.flatten() }))))
    }

    /// Takes in a chunk.
    pub(super) fn look(&self, look: &Look<'_>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.columns.look(look);
        if let Some(times) = &mut seen.times {
            times.look(look);
        }
    }

    /// What there is to be said after a batch at `time`; each doubt is told once.
    pub fn judge(&self, time: BatchTime) -> Vec<Error> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let columns = seen.columns.judge();
        let times = seen.times.as_mut().and_then(|times| times.judge(time));
        columns.into_iter().chain(times).collect()
    }
}

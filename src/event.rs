//! What a running stream reports: one event for each thing that happened, and the progress of a batch.
//!
//! It deliberately holds plain values only: listeners, metrics and the page read events and nothing else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::time::{BatchId, BatchTime, EventTime};

/// One thing that happened to a stream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The stream has started; its first batch will be this one.
    Started(BatchId),
    /// A batch has been planned: exactly these ranges will be read.
    Planned {
        /// The batch.
        batch: BatchId,
        /// Its time.
        time: BatchTime,
        /// What it reads.
        ranges: Vec<OffsetRange>,
        /// The time of day.
        at: BatchTime,
    },
    /// The work on a batch has begun.
    BatchStarted {
        /// The batch.
        batch: BatchId,
        /// The time of day.
        at: BatchTime,
    },
    /// An output is given a batch.
    OutputStarted(Output),
    /// An output has taken a batch, or has failed to.
    OutputCompleted(Output, OutputEnd),
    /// A batch has been delivered to every output.
    Completed(Arc<Progress>),
    /// A source, by its name, is read.
    SourceStarted(String),
    /// Something went wrong with a source; a warning or a failure tells of it too.
    SourceFailed(String, Error),
    /// A source is read no more.
    SourceStopped(String),
    /// Something went wrong that does not stop the stream.
    Warning(Error),
    /// The stream has failed; nothing more will be planned.
    Failed(Error),
    /// This listener was too slow: so many events were left out for it, the oldest first.
    Missed(u64),
    /// The stream has ended.
    Stopped,
}

/// A batch as it goes to one of the outputs.
#[derive(Clone, Debug)]
pub struct Output {
    /// The batch.
    pub batch: BatchId,
    /// The number of the output, in the order in which they were made.
    pub id: usize,
    /// The name of the output, for people.
    pub name: String,
    /// How many rows it is given.
    pub rows: u64,
    /// When, by the time of day.
    pub at: BatchTime,
}

/// How an output has ended with a batch.
#[derive(Clone, Debug)]
pub struct OutputEnd {
    /// How long it took.
    pub took: Duration,
    /// Why it failed, if it did.
    pub error: Option<Error>,
}

/// What one batch did, in figures.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The batch.
    pub batch: BatchId,
    /// Its time.
    pub time: BatchTime,
    /// What it read.
    pub ranges: Vec<OffsetRange>,
    /// How long it waited between being planned and its work beginning.
    pub scheduling_delay: Duration,
    /// How long fetch, decode and the stateless stage took.
    pub map_time: Duration,
    /// How long the stateful stages took.
    pub reduce_time: Duration,
    /// How long delivery to the outputs took.
    pub deliver_time: Duration,
    /// From planned to delivered.
    pub total_delay: Duration,
    /// Records a second that arrived: those of the batch over the batch time since the one before.
    pub input_rate: f64,
    /// Records a second that were worked off: those of the batch over the time from its map to its end.
    pub processing_rate: f64,
    /// Records a second that back-pressure holds the next batches to; none where it does not.
    pub rate_limit: Option<f64>,
    /// What was counted on the way.
    pub counts: Counts,
    /// What all batches since the start have counted, this one included.
    pub totals: Totals,
    /// Of each partition, how many offsets remained behind the last stable one.
    pub lag: Vec<(TopicPartition, u64)>,
    /// W(n): no row older than this is expected any more.
    pub watermark: Option<EventTime>,
    /// The partition that holds the watermark back.
    pub watermark_holder: Option<TopicPartition>,
    /// The bytes of all keyed state after the batch.
    pub state_bytes: u64,
    /// The number of states after the batch: of each detector one a key, of each aggregation one a key in each pane of
    /// its windows (a pane is the length, where windows do not overlap, else what length and slide have in common).
    pub state_entries: u64,
    /// The number of windows after the batch that rows have come to and that are still open, of each aggregation; how many
    /// keys a window has does not count.
    pub open_windows: u64,
}

impl Progress {
    /// Map, reduce and delivery together.
    pub fn processing_time(&self) -> Duration {
        self.map_time + self.reduce_time + self.deliver_time
    }

    /// The offsets that remained behind the last stable ones, of all partitions.
    pub fn total_lag(&self) -> u64 {
        self.lag.iter().map(|(_, lag)| lag).sum()
    }
}

/// The line that a log has of each batch.
///
/// ```
/// use tidemill::event::Progress;
/// assert_eq!(Progress::default().to_string(), "batch 0: 0 records in, 0 rows out, 0.0 ms, lag 0");
/// ```
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, rows) = (self.counts.records, self.counts.output_rows);
        let (millis, lag) = (self.processing_time().as_secs_f64() * 1e3, self.total_lag());
        write!(f, "batch {}: {records} records in, {rows} rows out, {millis:.1} ms, lag {lag}", self.batch)
    }
}

/// What a batch counted; adding up the parts of a batch gives the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records read.
    pub records: u64,
    /// Bytes of their payloads and keys.
    pub bytes: u64,
    /// Records that did not fit the format and were dropped.
    pub bad: u64,
    /// Records without payload, skipped.
    pub tombstones: u64,
    /// Records without event time.
    pub without_time: u64,
    /// Records with an event time too far in the future to be believed.
    pub future: u64,
    /// Rows that came to a window after its end; a row counts once for each operator that it came to.
    pub late: u64,
    /// Rows delivered to outputs.
    pub output_rows: u64,
    /// Offsets that were gone before they were read, and were skipped.
    pub lost: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.bad += other.bad;
        self.tombstones += other.tombstones;
        self.without_time += other.without_time;
        self.future += other.future;
        self.late += other.late;
        self.output_rows += other.output_rows;
        self.lost += other.lost;
    }
}

/// What the batches of a stream have counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Batches that were delivered to every output.
    pub batches: u64,
    /// What was counted in them.
    pub counts: Counts,
}

impl std::ops::AddAssign<Counts> for Totals {
    /// Takes in one batch more.
    fn add_assign(&mut self, counts: Counts) {
        self.batches += 1;
        self.counts += counts;
    }
}

/// The position reached in each partition: the first offset not yet processed.
pub type Positions = Vec<(TopicPartition, Offset)>;

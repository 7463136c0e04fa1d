//! Sinks: where the rows of a batch go.
//!
//! A sink gets whole batches, in order, on one delivery thread, and answers once they are safe; it deliberately
//! knows nothing of plans, state or positions. Delivery is at least once: a batch that was interrupted may be
//! delivered again, with the same number and the same rows. Every sink passes the suite in [`contract`].
//!
//! Some sinks can do more ([`transactional`]): what they publish carries a marker, by which a driver that takes over
//! finds out which batch is there. [`outputs`] says how the sinks of one job do that together.

pub mod callback;
pub mod channel;
pub mod contract;
pub mod digest;
pub mod encode;
pub mod files;
pub mod kafka;
pub mod marker;
pub mod outputs;
pub mod pprint;
pub mod scripted;
pub mod table;
pub mod transactional;

use std::fmt;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::offset::OffsetRange;
use crate::time::{BatchId, BatchTime, EventTime};

use transactional::Part;

/// The rows of one batch for one sink.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The batch.
    pub batch: BatchId,
    /// Its time.
    pub time: BatchTime,
    /// W(n-1): what `batch.watermark` shows.
    pub watermark: Option<EventTime>,
    /// What the batch read.
    pub ranges: std::sync::Arc<[OffsetRange]>,
    /// The rows' columns, also where there are no rows.
    pub schema: SchemaRef,
    /// The rows, in order; chunks that are never empty.
    pub rows: Vec<RecordBatch>,
    /// Asks for the delivery to be given up.
    pub cancel: Cancel,
}

impl Delivery {
    /// How many rows it brings.
    pub fn num_rows(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }

    /// The outcome of a delivery that was given up; `found` says how far it had come.
    pub fn given_up(&self, found: impl fmt::Display) -> Error {
        let message = format!("the delivery was given up because the stream was stopped at once: {found}");
        Error::cancelled(message).help("the batch counts as not delivered, and its rows may come again")
    }
}

/// The outcome of an opening that was given up; `found` says how far it had come.
pub fn opening_given_up(found: impl fmt::Display) -> Error {
    Error::cancelled(format!(
        "the opening was given up because the stream was stopped before it began: {found}"
    ))
}

/// A place for the rows of a stream.
///
/// ```
/// use arrow::datatypes::SchemaRef;
/// use tidemill::cancel::Cancel;
/// use tidemill::error::Result;
/// use tidemill::sink::{Delivery, Sink, contract};
///
/// /// Counts rows.
/// #[derive(Debug, Default)]
/// struct Counter(usize);
///
/// impl Sink for Counter {
///     fn name(&self) -> &str {
///         "counter"
///     }
///     fn open(&mut self, _: &SchemaRef, _: &Cancel) -> Result<()> {
///         Ok(())
///     }
///     fn deliver(&mut self, delivery: &Delivery) -> Result<()> {
///         self.0 += delivery.num_rows();
///         Ok(())
///     }
///     fn close(&mut self) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// let mut counter = Counter::default();
/// counter.open(&contract::schema(), &Cancel::default())?;
/// counter.deliver(&contract::delivery(0, 0..5))?;
/// assert_eq!(counter.0, 5);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
pub trait Sink: Send + std::fmt::Debug {
    /// The name it has in errors and in `explain()`.
    fn name(&self) -> &str;

    /// Checks, before the stream starts, that rows of `schema` can be taken, and gets ready (connects, reads the
    /// topic's partition count). Called once a start, before the first delivery.
    ///
    /// A sink that can wait for long gives up soon after `cancel` is set, with [`opening_given_up`] for its error; the
    /// driver then neither delivers to it nor closes it.
    fn open(&mut self, schema: &SchemaRef, cancel: &Cancel) -> Result<()>;

    /// Takes a batch; returns once its rows are safe. An error fails the batch.
    ///
    /// A sink that can wait for long gives up soon after [`Delivery::cancel`] is set, with [`Delivery::given_up`] for
    /// its error, also where some rows are safe already; the driver calls nothing but [`Sink::close`] after that.
    fn deliver(&mut self, delivery: &Delivery) -> Result<()>;

    /// Whether it wants to hear of batches without rows.
    fn wants_empty(&self) -> bool {
        false
    }

    /// How it takes part where a log decides batches; each batch is then either published once by what this gives, or
    /// delivered as above.
    fn part(&mut self) -> Part<'_> {
        Part::AtLeastOnce
    }

    /// Adds to an error of [`Sink::part`] where the sink was made, where it knows.
    fn locate(&self, error: Error) -> Error {
        error
    }

    /// Ends the sink; called once after the last delivery, also after a failure.
    fn close(&mut self) -> Result<()>;
}

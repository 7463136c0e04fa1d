//! A sink that hands batches to a loop: `for batch in stream`.
//!
//! It deliberately buffers nothing. A batch counts as delivered when the loop comes back for the next one, so that
//! a loop that dies with a batch in its hands has not been told that it was safe; and a slow loop holds the stream
//! back instead of filling memory.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

use super::callback::EmptyBatches;
use super::transactional::Part;
use super::{Delivery, Sink};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// A sink and the receiver that its batches come out of.
///
/// The channels hold one message each: there is never more than one batch under way, and a sender that could leave
/// its message behind need not be woken twice.
///
/// ```
/// use tidemill::sink::callback::EmptyBatches;
/// use tidemill::sink::channel::{Next, channel};
/// let (sink, mut batches) = channel("loop", EmptyBatches::Skip);
/// drop(sink);
/// assert!(matches!(batches.next(std::time::Duration::ZERO), Next::Ended));
/// ```
pub fn channel(name: impl Into<String>, empty: EmptyBatches) -> (ChannelSink, Batches) {
    let (batches, incoming) = bounded(1);
    let (taken, done) = bounded(1);
    let sink = ChannelSink { name: name.into(), empty, link: Some(Link { batches, done }) };
    (sink, Batches { incoming, taken, hand: Hand::Empty })
}

/// The sink's side: waits for the loop at every batch.
#[derive(Debug)]
pub struct ChannelSink {
    name: String,
    empty: EmptyBatches,
    link: Option<Link>,
}

#[derive(Debug)]
struct Link {
    batches: Sender<Delivery>,
    done: Receiver<()>,
}

impl Link {
    /// Waits until the loop comes back for more, or the delivery is cancelled.
    fn await_return(&self, delivery: &Delivery) -> Result<()> {
        let (cancel, cancelled) = bounded(1); // a cancel comes once
        let _guard = delivery.cancel.on_cancel(Arc::new(move || {
            let _ = cancel.try_send(()); // nobody may be there to hear it any more
        }));
        select! {
            // A closed channel says that the loop was left with this batch in hand: it was seen.
            recv(self.done) -> _ => Ok(()),
            recv(cancelled) -> _ => Err(delivery.given_up("the loop has not come back from the batch")),
        }
    }
}

impl Sink for ChannelSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&mut self, _: &SchemaRef, _: &Cancel) -> Result<()> {
        match &self.link {
            Some(_) => Ok(()),
            None => Err(Error::sink("a loop over a stream cannot be opened again").help("start a new loop")),
        }
    }

    /// Returns when the loop is done with the batch. A loop that was left takes no more: what was already planned
    /// then goes to nobody, and that is no error, because its reader chose to leave. A batch that the loop has in hand
    /// when the delivery is cancelled counts as not delivered: nobody knows how far the loop has come with it.
    fn deliver(&mut self, delivery: &Delivery) -> Result<()> {
        match &self.link {
            Some(link) if link.batches.send(delivery.clone()).is_ok() => link.await_return(delivery),
            _ => Ok(()),
        }
    }

    fn wants_empty(&self) -> bool {
        self.empty == EmptyBatches::Deliver
    }

    fn part(&mut self) -> Part<'_> {
        Part::Shows
    }

    fn close(&mut self) -> Result<()> {
        self.link = None;
        Ok(())
    }
}

/// What a loop finds when it asks for the next batch.
#[derive(Debug)]
pub enum Next {
    /// A batch.
    Batch(Delivery),
    /// None yet.
    Pending,
    /// There will be none: the stream has ended.
    Ended,
}

/// The loop's side. Dropping it leaves the loop: the sink then waits for it no more.
#[derive(Debug)]
pub struct Batches {
    incoming: Receiver<Delivery>,
    taken: Sender<()>,
    hand: Hand,
}

/// Whether the loop has a batch that it has not come back from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hand {
    Empty,
    Full,
}

impl Batches {
    /// Says that the batch before is done with, and waits at most `timeout` for the next: in steps, so that a
    /// caller can look for signals in between.
    pub fn next(&mut self, timeout: Duration) -> Next {
        if std::mem::replace(&mut self.hand, Hand::Empty) == Hand::Full {
            // The sink may be gone already, as after a failure elsewhere; then nobody wants to know.
            let _ = self.taken.send(());
        }
        match self.incoming.recv_timeout(timeout) {
            Ok(delivery) => {
                self.hand = Hand::Full;
                Next::Batch(delivery)
            }
            Err(RecvTimeoutError::Timeout) => Next::Pending,
            Err(RecvTimeoutError::Disconnected) => Next::Ended,
        }
    }
}

//! A place in memory that sinks publish to, with the faults that a cluster has: fencing, lost and late answers.
//!
//! It is for tests, of a driver above all: what a test scripts happens once, at the call that it names, and nothing ever
//! happens by itself. It deliberately knows no time and no threads of its own.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};

use super::digest::Digester;
use super::encode::json_rows;
use super::marker::{Marker, Owner};
use super::transactional::{GroupOffsets, Part, Prepared, Publication, Published, Publishing, Transactional};
use super::{Delivery, Sink};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// A step of a sink at which a fault may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A driver takes the place over.
    Init,
    /// The marker is read after that.
    Marker,
    /// Output goes into an open transaction.
    Send,
    /// The transaction is committed.
    Commit,
}

/// What goes wrong. Whoever made the call gets an error that needs a take-over, and cannot tell which of these it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call never arrived.
    Lost,
    /// The call had its effect, and its answer was lost.
    AnswerLost,
    /// The call is on its way, and has its effect at [`ScriptedPlace::deliver_late`].
    Late,
}

/// A place in memory; every clone is the same one.
///
/// ```
/// use tidemill::cancel::Cancel;
/// use tidemill::sink::Sink;
/// use tidemill::sink::contract::{delivery, schema};
/// use tidemill::sink::marker::{Epoch, Owner};
/// use tidemill::sink::outputs::Outputs;
/// use tidemill::sink::scripted::{Fault, ScriptedPlace, ScriptedSink, Step};
///
/// let (place, cancel) = (ScriptedPlace::default(), Cancel::default());
/// let mut sink = ScriptedSink::new(&place);
/// let mut sinks: [&mut dyn Sink; 1] = [&mut sink];
/// let outputs = Outputs::of(&mut sinks)?;
/// let owner = |epoch| Owner { job: "test".to_owned(), epoch: Epoch(epoch) };
/// outputs.open(&mut sinks, &[schema()], &cancel)?;
/// outputs.init(&mut sinks, &owner(1), &cancel)?;
///
/// place.fail_next(Step::Commit, Fault::AnswerLost);
/// let batch = outputs.prepare(&mut sinks, &[delivery(0, 0..3)], Epoch(1))?;
/// let error = outputs.publish(&mut sinks, &batch, &[], &cancel).unwrap_err();
/// assert!(error.needs_take_over());
/// assert_eq!(outputs.init(&mut sinks, &owner(2), &cancel)?, Some(*batch.marker())); // it was committed after all
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct ScriptedPlace(Arc<Mutex<Place>>); // held for one call of one sink, or of the test

#[derive(Default)]
struct Place {
    /// The number of the producer that the place takes output from; every init makes a new one.
    producer: u64,
    open: Option<Transaction>,
    committed: Vec<Committed>,
    marker: Option<Marker>,
    late: Vec<Late>,
    faults: VecDeque<(Step, Fault)>,
}

/// What a producer has sent and not committed.
#[derive(Default)]
struct Transaction {
    producer: u64,
    rows: Vec<RecordBatch>,
    marker: Option<Marker>,
    offsets: Vec<GroupOffsets>,
}

/// What appeared as one.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The marker that came with it.
    pub marker: Option<Marker>,
    /// The rows.
    pub rows: Vec<RecordBatch>,
    /// The offsets of sources.
    pub offsets: Vec<GroupOffsets>,
}

/// A call that is still on its way.
enum Late {
    Init,
    Send(Transaction),
    Commit { producer: u64 },
}

impl ScriptedPlace {
    /// Makes the next such step go wrong, once.
    pub fn fail_next(&self, step: Step, fault: Fault) {
        self.lock().faults.push_back((step, fault));
    }

    /// Lets all calls that are on their way arrive, in order.
    pub fn deliver_late(&self) {
        let mut place = self.lock();
        for late in std::mem::take(&mut place.late) {
            match late {
                Late::Init => {
                    place.init();
                }
                Late::Send(sent) => place.send(sent),
                Late::Commit { producer } => place.commit(producer),
            }
        }
    }

    /// Has a stranger take the place over: whoever has it is fenced, and what is open is aborted.
    pub fn fence(&self) {
        self.lock().init();
    }

    /// Forgets the marker, as a cluster does whose group is deleted.
    pub fn forget_marker(&self) {
        self.lock().marker = None;
    }

    /// The marker, as whoever takes over now would read it.
    pub fn marker(&self) -> Option<Marker> {
        self.lock().marker
    }

    /// Everything that has appeared, in order.
    pub fn committed(&self) -> Vec<Committed> {
        self.lock().committed.clone()
    }

    /// The numbers in the first column of all rows that have appeared, in order.
    pub fn rows(&self) -> Vec<i64> {
        let numbers = |rows: &RecordBatch| -> Vec<i64> {
            let column = rows.columns().first().and_then(|column| column.as_primitive_opt::<Int64Type>());
            column.map_or_else(Vec::new, |numbers| numbers.values().to_vec())
        };
        self.lock().committed.iter().flat_map(|one| &one.rows).flat_map(numbers).collect()
    }

    /// Whether somebody has sent output that is not committed.
    pub fn has_open(&self) -> bool {
        self.lock().open.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ScriptedPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScriptedPlace")
    }
}

impl Place {
    fn fault(&mut self, step: Step) -> Option<Fault> {
        let found = self.faults.iter().position(|(wanted, _)| *wanted == step)?;
        self.faults.remove(found).map(|(_, fault)| fault)
    }

    fn init(&mut self) -> u64 {
        self.producer += 1;
        self.open = None;
        self.producer
    }

    /// As a cluster takes it: what the same producer has open is gone on with.
    fn send(&mut self, sent: Transaction) {
        if sent.producer != self.producer {
            return;
        }
        let open = self.open.get_or_insert_default();
        open.producer = sent.producer;
        open.rows.extend(sent.rows);
        open.marker = sent.marker.or(open.marker);
        open.offsets.extend(sent.offsets);
    }

    /// Commits what the producer has open, whatever that is by now.
    fn commit(&mut self, producer: u64) {
        if producer != self.producer {
            return;
        }
        if let Some(Transaction { rows, marker, offsets, .. }) = self.open.take() {
            self.marker = marker.or(self.marker);
            self.committed.push(Committed { marker, rows, offsets });
        }
    }
}

/// Whether a sink goes on with its producer after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterError {
    Drops,
    Keeps,
}

/// A sink that publishes to a [`ScriptedPlace`]; one driver's.
#[derive(Debug)]
pub struct ScriptedSink {
    name: String,
    place: ScriptedPlace,
    producer: Option<u64>,
    after_error: AfterError,
}

impl ScriptedSink {
    /// A sink for `place`.
    pub fn new(place: &ScriptedPlace) -> Self {
        Self {
            name: "scripted".to_owned(),
            place: place.clone(),
            producer: None,
            after_error: AfterError::Drops,
        }
    }

    /// One that breaks the contract: after an error it goes on with the same producer, so that what was late for one
    /// batch may commit the next. A test of a driver must find it out.
    #[must_use]
    pub fn careless(mut self) -> Self {
        self.after_error = AfterError::Keeps;
        self
    }

    /// Sends and commits; both may go wrong.
    fn attempt(&mut self, publication: &Publication<'_>) -> Result<()> {
        let producer = self.producer.ok_or_else(|| {
            Error::internal("publishing to a place that was not taken over since the last error")
        })?;
        let outputs = publication.outputs.iter().map(|output| output.content::<Vec<RecordBatch>>());
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        let rows = outputs.iter().flat_map(|rows| rows.iter().cloned()).collect();
        let (marker, offsets) = (Some(*publication.marker), publication.offsets.to_vec());
        let mut place = self.place.lock();
        if place.producer != producer {
            return Err(fenced());
        }
        let sent = Transaction { producer, rows, marker, offsets };
        match place.fault(Step::Send) {
            None => place.send(sent),
            Some(Fault::Lost) => return Err(unanswered(Step::Send)),
            Some(Fault::AnswerLost) => {
                place.send(sent);
                return Err(unanswered(Step::Send));
            }
            Some(Fault::Late) => {
                place.late.push(Late::Send(sent));
                return Err(unanswered(Step::Send));
            }
        }
        if publication.cancel.is_cancelled() {
            place.open = None;
            return Err(Error::cancelled("the batch was given up before it was committed"));
        }
        match place.fault(Step::Commit) {
            None => {
                place.commit(producer);
                return Ok(());
            }
            Some(Fault::Lost) => {}
            Some(Fault::AnswerLost) => place.commit(producer),
            Some(Fault::Late) => place.late.push(Late::Commit { producer }),
        }
        Err(unanswered(Step::Commit))
    }
}

fn fenced() -> Error {
    Error::fenced("another driver has taken the place over").take_over()
}

fn unanswered(step: Step) -> Error {
    Error::sink(format!("no answer came at {step:?}")).take_over()
}

impl Sink for ScriptedSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&mut self, _: &SchemaRef, _: &Cancel) -> Result<()> {
        Ok(())
    }

    /// At least once: the rows are there at once, without a marker.
    fn deliver(&mut self, delivery: &Delivery) -> Result<()> {
        let mut place = self.place.lock();
        if place.fault(Step::Send).is_some() {
            return Err(Error::sink("no answer came"));
        }
        let rows = delivery.rows.clone();
        place.committed.push(Committed { marker: None, rows, offsets: Vec::new() });
        Ok(())
    }

    fn part(&mut self) -> Part<'_> {
        Part::Publishes(self)
    }

    fn close(&mut self) -> Result<()> {
        self.producer = None;
        Ok(())
    }
}

impl Transactional for ScriptedSink {
    fn open(&mut self, _: &SchemaRef, _: &Cancel) -> Result<()> {
        Ok(())
    }

    fn publishing(&self) -> Publishing {
        Publishing::Appends
    }

    fn place(&self) -> String {
        self.name.clone()
    }

    fn joins(&self, leader: &dyn Transactional) -> bool {
        let leader: &dyn std::any::Any = leader;
        leader.downcast_ref::<Self>().is_some_and(|leader| Arc::ptr_eq(&leader.place.0, &self.place.0))
    }

    fn init(&mut self, _: &Owner, _: &Cancel) -> Result<Option<Marker>> {
        self.producer = None;
        let mut place = self.place.lock();
        let producer = match place.fault(Step::Init) {
            None => place.init(),
            Some(Fault::Lost) => return Err(unanswered(Step::Init)),
            Some(Fault::AnswerLost) => {
                place.init();
                return Err(unanswered(Step::Init));
            }
            Some(Fault::Late) => {
                place.late.push(Late::Init);
                return Err(unanswered(Step::Init));
            }
        };
        if place.fault(Step::Marker).is_some() {
            return Err(unanswered(Step::Marker));
        }
        let marker = place.marker;
        drop(place);
        self.producer = Some(producer);
        Ok(marker)
    }

    fn prepare(&mut self, delivery: &Delivery) -> Result<Prepared> {
        let mut digester = Digester::new("scripted");
        digester.number(delivery.batch.0);
        digester.number(delivery.time.0.cast_unsigned());
        let mut text = Vec::new();
        for rows in &delivery.rows {
            text.extend(json_rows(rows)?);
        }
        digester.bytes(&text);
        let rows = delivery.num_rows() as u64;
        Ok(Prepared::new(digester.finish(), rows, Arc::new(delivery.rows.clone())))
    }

    fn publish(&mut self, publication: &Publication<'_>) -> Result<Published> {
        let attempted = self.attempt(publication);
        if attempted.is_err() && self.after_error == AfterError::Drops {
            self.producer = None;
        }
        attempted.map(|()| Published::default())
    }
}

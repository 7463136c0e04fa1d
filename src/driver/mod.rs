//! The driver: decides when a batch runs and what it reads, and sees it through to its outputs.
//!
//! It is a pure state machine ([`machine`]) and a thin loop that performs the machine's commands on a few threads.
//! It deliberately touches no row: the work is the [`Engine`]'s, the bytes are the sources' and sinks'.
//!
//! What the machine decides is spread over one file a question: which offsets ([`planning`], [`share`], `rate`), when
//! ([`schedule`]), how far event time has come ([`watermark`]), which step of which batch is next (`pipeline`)
//! and how a stream ends (`shutdown`). None of these does I/O, reads a clock or starts a thread.

pub mod durable;
pub mod laggard;
mod listeners;
pub mod log;
pub mod machine;
pub mod memory;
mod pipeline;
pub mod planning;
mod rate;
mod run;
mod running;
pub mod schedule;
pub mod share;
mod shutdown;
mod steady;
mod timing;
pub mod watermark;
mod workers;

pub use pipeline::OpenWindows;
pub use rate::{BackPressure, PidRateEstimator};
pub use running::{Running, Waited};

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use crate::driver::log::{Log, NoLog};
use crate::error::Result;
use crate::event::Event;
use crate::exec::Engine;
use crate::ingest::{Bound, Source};
use crate::sink::Sink;
use crate::time::{Clock, Interval};

/// When the next batch is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// At every tick; missed ticks are skipped.
    Interval(Interval),
    /// As soon as there are records and the batch before has been mapped.
    AsSoonAsPossible,
    /// What is there at the start, in bounded batches; then stop.
    AvailableNow,
}

/// How a stream is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Batches that are planned are finished; a stream that has not begun yet is given up. Asking again changes nothing.
    Graceful,
    /// Whatever is under way is asked to give up. A batch that a sink is taking is finished where the sink can do so
    /// at once; else it counts as not delivered, and a sink that was not given it yet never is.
    Now,
}

/// How much a batch may take on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records a batch, over all partitions.
    pub max_records: u64,
    /// Bytes of raw and decoded rows held at once, over all batches in flight.
    pub max_memory: u64,
    /// Whether, and how, a stream with ticks takes less while its batches take longer than their interval.
    pub back_pressure: Option<BackPressure>,
}

/// A source, and how the driver is to read it.
#[derive(Debug)]
pub struct JobSource {
    /// The source.
    pub source: Arc<dyn Source>,
    /// Where it starts.
    pub starting: Bound,
    /// Where it ends, if it does: resolved once, at start.
    pub ending: Option<Bound>,
    /// How far the watermark stays behind the largest event time; none where the source has no event time.
    pub watermark: Option<Duration>,
    /// After how long at its end a partition holds the watermark no more.
    pub idle_timeout: Option<Duration>,
    /// At most this many records a second and partition.
    pub max_rate_per_partition: Option<f64>,
}

/// A sink, and the columns it gets.
#[derive(Debug)]
pub struct JobSink {
    /// The sink.
    pub sink: Box<dyn Sink>,
    /// The columns of its rows.
    pub schema: SchemaRef,
}

/// Hears of everything that happens, in order, on the listener's own thread.
pub type Listener = Box<dyn FnMut(&Event) + Send>;

/// Everything that a stream needs to run; sources and sinks in the order of the plan's numbers.
pub struct Job {
    /// The name, for errors and logs.
    pub name: String,
    /// Where records come from.
    pub sources: Vec<JobSource>,
    /// Who does the work.
    pub engine: Arc<dyn Engine>,
    /// Where rows go.
    pub sinks: Vec<JobSink>,
    /// When batches are due.
    pub trigger: Trigger,
    /// How much a batch may take on.
    pub limits: Limits,
    /// What becomes of open windows when every source has been read to its end.
    pub at_end: OpenWindows,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Who hears of it.
    pub listeners: Vec<Listener>,
}

/// Starts a stream on threads of its own and returns at once, so that it can be stopped while it begins. What is
/// wrong with a source or a sink comes from [`Running::begun`], since only asking them tells.
pub fn start(job: Job) -> Result<Running> {
    start_with_log(job, Box::new(NoLog))
}

/// Starts a stream that goes on from its checkpoint, and keeps it.
pub fn start_durable(job: durable::DurableJob) -> Result<Running> {
    run::start_durable(job)
}

/// Starts a stream that writes its decisions to `log` before it acts on them.
pub fn start_with_log(job: Job, log: Box<dyn Log>) -> Result<Running> {
    run::start(job, log)
}

//! How a plan is done: one micro-batch in parallel.
//!
//! The driver reaches the work only through [`Engine`], and an engine reaches its executors only through
//! [`Executor`], so that one process and a cluster share all of it. State and rows move by value: no operator can
//! reach a source, a sink or the clock, and so a batch can be run again from its plan and the state before it.

use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::event::Counts;
use crate::offset::{OffsetRange, TopicPartition};
use crate::plan::{OutputId, SourceId};
use crate::time::{BatchId, BatchTime, EventTime};

/// One batch, as planned: nothing else of the outside world enters its computation.
#[derive(Clone, Debug)]
pub struct MapTask {
    /// The batch.
    pub batch: BatchId,
    /// Its time.
    pub time: BatchTime,
    /// What it reads of each source, empty ranges included.
    pub ranges: Vec<(SourceId, Vec<OffsetRange>)>,
    /// W(n-1).
    pub watermark: Option<EventTime>,
}

/// What the map side of a batch found out, and the rows it holds for the reduce side.
pub struct Mapped {
    /// The rows that wait for the reduce side.
    pub tickets: Tickets,
    /// What each partition brought.
    pub partitions: Vec<PartitionReport>,
    /// What was counted.
    pub counts: Counts,
}

/// What one partition brought to a batch: the planner learns sizes from it, the watermark moves by it.
#[derive(Clone, Debug)]
pub struct PartitionReport {
    /// The source.
    pub source: SourceId,
    /// The partition.
    pub at: TopicPartition,
    /// Records read.
    pub records: u64,
    /// Bytes of their payloads and keys.
    pub bytes: u64,
    /// The largest believable event time.
    pub max_event_time: Option<EventTime>,
}

/// What a batch comes to.
#[derive(Default)]
pub struct Reduced {
    /// The rows of each output, in order.
    pub outputs: Vec<(OutputId, Vec<RecordBatch>)>,
    /// The bytes and keys of all state after the batch.
    pub state: StateSize,
    /// What was counted.
    pub counts: Counts,
}

/// How much state there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSize {
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// Rows between two stages, known only to the engine that made them.
pub type Tickets = Box<dyn std::any::Any + Send>;

/// Who does the work of a batch. The driver maps batch n + 1 while batch n is reduced, never two maps and never
/// two reduces at once, and reduces in the order of the batches.
pub trait Engine: Send + Sync + fmt::Debug {
    /// Fetches, decodes and runs everything before the first exchange. Blocks until it is done.
    fn map(&self, task: &MapTask) -> Result<Mapped>;

    /// Runs everything after it. `watermark` is W(n). Blocks until it is done.
    fn reduce(&self, task: &MapTask, mapped: Mapped, watermark: Option<EventTime>) -> Result<Reduced>;

    /// Asks a running map to give up; it then returns an error soon.
    fn cancel(&self);
}

//! How a plan is done: one micro-batch in parallel.
//!
//! The driver reaches the work only through [`Engine`], and an engine reaches its executors only through
//! [`Executor`], so that one process and a cluster share all of it. State and rows move by value: no operator can
//! reach a source, a sink or the clock, and so a batch can be run again from its plan and the state before it.
//!
//! A checked plan is compiled into a `Program`: fused stateless steps between barriers. The barriers are the
//! exchange, where rows go to the shard of their key, and every user function, where the chunks of one partition
//! come together. Whatever waits at a barrier waits in a `Mailbox`, by the slot (partition or shard) that it
//! comes from, and is taken from it in the order of slots: so timing never shows in a result.

mod aggregate;
mod budget;
pub mod capture;
mod compile;
pub mod detect;
mod exchange;
mod executor;
mod explode;
mod function;
pub mod keyed;
mod lane;
pub mod local;
mod mailbox;
pub mod manifest;
mod pipeline;
mod program;
mod provenance;
pub mod resume;
mod room;
mod shard;
pub mod unscored;

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::event::Counts;
use crate::exec::capture::Capture;
use crate::exec::manifest::{Manifest, Matched, OnStateChange};
use crate::exec::program::Program;
use crate::exec::resume::Archive;
use crate::exec::unscored::Unscored;
use crate::offset::{OffsetRange, TopicPartition};
use crate::plan::{Checked, OutputId, SourceId};
use crate::state::group::KeyGroup;
use crate::state::window::OpenWindows;
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
    /// What the records made doubtful, to be told to the user.
    pub warnings: Vec<Error>,
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
    /// How much state there is after the batch.
    pub state: StateSize,
    /// What was counted.
    pub counts: Counts,
    /// What operators could make nothing of, to be told to the user.
    pub warnings: Vec<Error>,
    /// Keeps the rows' memory accounted for; dropped once they have been delivered.
    pub hold: Option<Box<dyn Any + Send>>,
}

/// How much state there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSize {
    /// States: of a detector one a key, of an aggregation one a key in each pane of its windows.
    pub entries: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Windows of each aggregation that rows have come to and that are still open, whatever the number of keys.
    pub windows: u64,
}

impl std::ops::AddAssign for StateSize {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.windows += other.windows;
    }
}

/// How much state an operator has in the shards of one executor, or of all.
#[derive(Clone, Debug, Default)]
pub struct OperatorState {
    /// States: as in [`StateSize`].
    pub entries: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// The open windows themselves: a window is one, in however many shards it has keys.
    pub open: OpenWindows,
    /// Of a detector, the values without a score.
    pub unscored: Unscored,
}

impl OperatorState {
    /// Takes in what other shards have.
    pub fn extend(&mut self, other: &Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.open.extend(&other.open);
        self.unscored += other.unscored;
    }

    /// How much it is.
    pub fn size(&self) -> StateSize {
        StateSize { entries: self.entries, bytes: self.bytes, windows: self.open.count() }
    }
}

/// Rows between two stages, known only to the engine that made them.
pub type Tickets = Box<dyn Any + Send + Sync>;

/// The key groups of each executor, in the order of the executors.
pub type ExecutorGroups = Vec<Range<KeyGroup>>;

/// Who does the work of a batch. The driver maps batch n + 1 while batch n is reduced, never two maps and never
/// two reduces at once, and reduces in the order of the batches.
pub trait Engine: Send + Sync + fmt::Debug {
    /// Fetches, decodes and runs everything before the first exchange. Blocks until it is done.
    fn map(&self, task: &MapTask) -> Result<Mapped>;

    /// Runs everything after it. `watermark` is W(n). Blocks until it is done.
    fn reduce(&self, task: &MapTask, mapped: Mapped, watermark: Option<EventTime>) -> Result<Reduced>;

    /// Asks the running map, and any after it, to give up; it then returns an error soon. A reduce goes on.
    fn cancel(&self);

    /// Copies what is remembered after the last reduce, and before the next: of each operator and executor all, or what
    /// changed since it was copied last, as `manifest` wants it. What has not changed is left out. Once it has been called,
    /// every copy has to be kept, or the next has to be of all.
    fn capture(&self, manifest: &Manifest) -> Result<Vec<Capture>> {
        Err(remembers_nothing(manifest))
    }

    /// The key groups of each executor.
    fn groups(&self) -> ExecutorGroups {
        Vec::new()
    }

    /// Takes back what is kept, before the first batch, held against the operators that there are now.
    fn resume(&self, archive: Archive<'_>, on_change: OnStateChange) -> Result<Matched> {
        let _ = on_change;
        Err(remembers_nothing(archive.manifest))
    }
}

fn remembers_nothing(manifest: &Manifest) -> Error {
    let shards = manifest.shards();
    Error::internal(format!("state in {shards} shards was asked of an engine that remembers nothing"))
}

/// An error unless all that the operators of a plan remember can be kept: it names each that cannot, and what to do.
pub fn check_kept(checked: &Checked) -> Result<()> {
    Program::compile(checked)?.check_kept()
}

/// A driver's term of office: what an executor loaded for an earlier one is void.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// The rows of one partition, or of one shard after an exchange: the unit within which order is kept. Slots are
/// ordered: partitions by source, topic and number, then the shards of each exchange.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// A partition of a source.
    Partition(SourceId, TopicPartition),
    /// A shard of the exchange of this number.
    Shard(usize, usize),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(_, at) => write!(f, "partition {at}"),
            Self::Shard(_, shard) => write!(f, "shard {shard}"),
        }
    }
}

/// The state of some shards: of each, a snapshot of each stateful operator.
pub type ShardStates = Vec<(usize, Vec<RecordBatch>)>;

/// One node's worth of work: in this process, or an actor elsewhere. What it holds of a batch between two calls
/// stays with it; only what an exchange moves is handed over, as tickets.
///
/// It is made with its engine's [`Cancel`](crate::cancel::Cancel), which ends the maps of all executors at once, also
/// where one of them fails; an actor elsewhere is told by [`Cancel::on_cancel`](crate::cancel::Cancel::on_cancel).
pub trait Executor: Send + Sync + fmt::Debug {
    /// Takes over `shards`, with their state; whatever it held before is dropped.
    fn load(&self, epoch: Epoch, shards: Range<usize>, state: ShardStates) -> Result<()>;

    /// Fetches and decodes `task`'s ranges and runs stage 0 over them.
    fn map(&self, epoch: Epoch, task: &MapTask) -> Result<Mapped>;

    /// Runs stage `stage` over what all executors' tickets bring to the shards it owns. `closing` is W(n).
    fn step(
        &self,
        epoch: Epoch,
        task: &MapTask,
        closing: Option<EventTime>,
        stage: usize,
        tickets: &[Tickets],
    ) -> Result<Tickets>;

    /// Gives the batch's outputs and forgets the batch.
    fn finish(&self, epoch: Epoch, batch: BatchId) -> Result<Receipt>;

    /// The state of each shard that it owns.
    fn snapshot(&self, epoch: Epoch) -> Result<ShardStates>;

    /// Copies of what each operator remembers, by name: all, or what changed, as `wants` says for the key groups that it
    /// owns.
    fn capture(&self, epoch: Epoch, manifest: &Manifest) -> Result<Vec<Capture>>;

    /// Takes over `shards` with the state that is kept; whatever it held before is dropped.
    fn resume(&self, epoch: Epoch, shards: Range<usize>, archive: Archive<'_>) -> Result<()>;
}

/// What one executor has of a finished batch.
#[derive(Default)]
pub struct Receipt {
    /// The rows of each output, by the slot that they come from.
    pub outputs: Vec<(OutputId, Slot, Vec<RecordBatch>)>,
    /// The size of the state it holds, by operator.
    pub state: Vec<OperatorState>,
    /// What was counted behind the first exchange.
    pub counts: Counts,
}

/// What a step needs to know of the batch around the rows.
#[derive(Clone, Debug)]
pub(crate) struct BatchContext {
    pub(crate) batch: BatchId,
    pub(crate) time: BatchTime,
    /// W(n-1).
    pub(crate) watermark: Option<EventTime>,
    /// W(n), behind the first exchange; before it nobody knows it yet.
    pub(crate) closing: Option<EventTime>,
    pub(crate) ranges: Arc<[OffsetRange]>,
}

impl BatchContext {
    pub(crate) fn new(task: &MapTask) -> Self {
        let ranges = task.ranges.iter().flat_map(|(_, ranges)| ranges).cloned().collect();
        Self { batch: task.batch, time: task.time, watermark: task.watermark, closing: None, ranges }
    }

    /// The same batch, once W(n) is known.
    pub(crate) fn closing(self, closing: Option<EventTime>) -> Self {
        Self { closing, ..self }
    }
}

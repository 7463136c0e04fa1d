//! An executor in this process: ingest lanes before the first exchange, shards behind it.
//!
//! It deliberately decides nothing about batches: what to read, and when, it is told; in which order results
//! stand, the slots say.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::ThreadPool;
use rayon::iter::{IntoParallelRefMutIterator, ParallelIterator};

use crate::error::{Error, Result};
use crate::event::Counts;
use crate::exec::budget::Budget;
use crate::exec::exchange::Split;
use crate::exec::lane::{Lane, Work, Yield};
use crate::exec::mailbox::{Mailbox, Waiting};
use crate::exec::pipeline::{Operators, Run};
use crate::exec::program::{FunctionStep, Program};
use crate::exec::shard::{Shard, Shards};
use crate::exec::{
    BatchContext, Epoch, Executor, MapTask, Mapped, PartitionReport, Receipt, ShardStates, Slot, StateSize,
    Tickets,
};
use crate::ingest::{Cancel, deal};
use crate::offset::TopicPartition;
use crate::plan::SourceId;
use crate::time::BatchId;

/// What an exchange hands over: for each exchange, the rows of each slot.
struct Ticket(BTreeMap<usize, Waiting<Split>>);

/// An executor in this process.
pub(crate) struct LocalExecutor {
    program: Arc<Program>,
    lanes: BTreeMap<SourceId, Vec<Lane>>,
    pool: Arc<ThreadPool>,
    budget: Arc<Budget>,
    /// The number of shards of the job.
    shards: usize,
    office: Mutex<Office>, // one map and one reduce at a time; both look at the epoch, only the reduce at the state
    batches: Mutex<BTreeMap<BatchId, Mailbox>>, // put in by the map of n + 1 while n is reduced
    recent: Mutex<BTreeMap<TopicPartition, u64>>, // the last batch's bytes, by which partitions are dealt
    cancel: Cancel,        // for good: a stream that is cancelled, or a batch that fails, ends it
}

/// What an executor holds in one epoch.
#[derive(Default)]
struct Office {
    epoch: Epoch,
    shards: Shards,
}

impl LocalExecutor {
    pub(crate) fn new(
        program: Arc<Program>,
        lanes: BTreeMap<SourceId, Vec<Lane>>,
        pool: Arc<ThreadPool>,
        budget: Arc<Budget>,
        shards: usize,
    ) -> Self {
        let (office, batches, recent, cancel) =
            (Mutex::default(), Mutex::default(), Mutex::default(), Cancel::default());
        Self { program, lanes, pool, budget, shards, office, batches, recent, cancel }
    }

    /// Asks every lane for its share, and puts together what they made.
    fn ingest(&self, task: &MapTask, context: &Arc<BatchContext>) -> Result<Yield> {
        let cancel = &self.cancel;
        let mut answers = Vec::new();
        for (source, ranges) in &task.ranges {
            let lanes = self.lanes.get(source).map(Vec::as_slice).unwrap_or_default();
            for (lane, ranges) in lanes.iter().zip(self.deal(ranges, lanes.len())) {
                let work = Work {
                    context: Arc::clone(context),
                    ranges,
                    cancel: cancel.clone(),
                    shards: self.shards,
                };
                answers.push(lane.ask(work));
            }
        }
        let gone = || Err(Error::internal("an ingest thread is gone"));
        // A lane that fails cancels the others; every answer is awaited, so that none is still at work afterwards.
        let made: Vec<Result<Yield>> = answers
            .into_iter()
            .map(|answer| {
                let made = answer.recv().unwrap_or_else(|_| gone());
                made.inspect_err(|_| cancel.cancel())
            })
            .collect();
        let whole = self.collect(made)?;
        if cancel.is_cancelled() { Err(Error::internal("the batch was cancelled")) } else { Ok(whole) }
    }

    fn deal(
        &self,
        ranges: &[crate::offset::OffsetRange],
        lanes: usize,
    ) -> Vec<Vec<crate::offset::OffsetRange>> {
        let recent: Vec<(TopicPartition, u64)> =
            lock(&self.recent).iter().map(|(at, bytes)| (at.clone(), *bytes)).collect();
        deal(ranges, &recent, lanes)
    }

    fn collect(&self, made: Vec<Result<Yield>>) -> Result<Yield> {
        let (mailbox, partitions, counts) = (Mailbox::new(self.shards), Vec::new(), Counts::default());
        let mut whole = Yield { mailbox, partitions, counts };
        for part in made {
            let part = part?;
            whole.mailbox.absorb(part.mailbox);
            whole.partitions.extend(part.partitions);
            whole.counts += part.counts;
        }
        self.remember(&whole.partitions);
        Ok(whole)
    }

    fn remember(&self, partitions: &[PartitionReport]) {
        *lock(&self.recent) = partitions.iter().map(|report| (report.at.clone(), report.bytes)).collect();
    }

    /// Calls the functions whose input is complete after `stage`, in the order of the plan.
    fn call_functions(
        &self,
        stage: usize,
        context: &BatchContext,
        mailbox: &mut Mailbox,
        shards: &mut Shards,
    ) -> Result<()> {
        let due = self.program.functions.iter().enumerate().filter(|(_, function)| function.stage == stage);
        for (place, function) in due {
            for (slot, rows) in mailbox.take_function(place) {
                self.call(function, &slot, &rows, context, mailbox, shards)?;
            }
        }
        Ok(())
    }

    fn call(
        &self,
        function: &FunctionStep,
        slot: &Slot,
        rows: &[arrow::record_batch::RecordBatch],
        context: &BatchContext,
        mailbox: &mut Mailbox,
        shards: &mut Shards,
    ) -> Result<()> {
        let mut none = Operators::new();
        let operators = match slot {
            Slot::Shard(_, shard) => shards.get_mut(shard).map_or(&mut none, |shard| &mut shard.operators),
            Slot::Partition(..) => &mut none,
        };
        let before = mailbox.bytes();
        function.run(&mut Run { program: &self.program, context, slot, operators, mailbox }, rows)?;
        let kept = mailbox.bytes() - before;
        self.budget.reserve(context.batch, kept, &self.cancel, &slot.to_string())
    }

    /// Runs what lies behind the exchange `place` over each shard that is owned, in parallel.
    fn exchange(
        &self,
        place: usize,
        splits: &[&Split],
        context: &BatchContext,
        shards: &mut Shards,
        mailbox: &mut Mailbox,
    ) -> Result<()> {
        let (program, count) = (&self.program, self.shards);
        let run = |shard: &mut Shard| shard.run(program, context, place, splits, count);
        let mut owned: Vec<&mut Shard> = shards.values_mut().collect();
        let made: Result<Vec<Mailbox>> =
            self.pool.install(|| owned.par_iter_mut().map(|shard| run(shard)).collect());
        made?.into_iter().for_each(|part| mailbox.absorb(part));
        Ok(())
    }

    /// The office of `epoch`; an error where another one has been loaded since.
    fn office(&self, epoch: Epoch) -> Result<MutexGuard<'_, Office>> {
        let office = lock(&self.office);
        if office.epoch == epoch {
            return Ok(office);
        }
        let message = format!("the executor has epoch {} loaded, asked for {}", office.epoch.0, epoch.0);
        Err(Error::new(crate::error::ErrorKind::Fenced, message))
    }
}

impl Executor for LocalExecutor {
    fn load(&self, epoch: Epoch, shards: Range<usize>, state: ShardStates) -> Result<()> {
        let state: BTreeMap<usize, Vec<_>> = state.into_iter().collect();
        let load = |number| {
            let shard = Shard::load(&self.program, number, state.get(&number).map(Vec::as_slice))?;
            Ok((number, shard))
        };
        let shards = shards.map(load).collect::<Result<Shards>>()?;
        *lock(&self.office) = Office { epoch, shards };
        lock(&self.batches).clear();
        Ok(())
    }

    fn map(&self, _epoch: Epoch, task: &MapTask) -> Result<Mapped> {
        let context = Arc::new(BatchContext::new(task));
        let mut made = self.ingest(task, &context)?;
        // No shard is touched before the first exchange: the reduce of the batch before may be at work on them.
        self.call_functions(0, &context, &mut made.mailbox, &mut Shards::new())?;
        let ticket = Ticket(made.mailbox.take_exchanges());
        lock(&self.batches).insert(task.batch, made.mailbox);
        Ok(Mapped { tickets: Box::new(ticket), partitions: made.partitions, counts: made.counts })
    }

    fn step(&self, epoch: Epoch, task: &MapTask, stage: usize, tickets: &[Tickets]) -> Result<Tickets> {
        let mut office = self.office(epoch)?;
        let context = BatchContext::new(task);
        let mut mailbox =
            lock(&self.batches).remove(&task.batch).unwrap_or_else(|| Mailbox::new(self.shards));
        for (place, exchange) in self.program.exchanges.iter().enumerate() {
            if exchange.stage == stage {
                let splits = in_order(tickets, place);
                self.exchange(place, &splits, &context, &mut office.shards, &mut mailbox)?;
            }
        }
        self.call_functions(stage, &context, &mut mailbox, &mut office.shards)?;
        let ticket = Ticket(mailbox.take_exchanges());
        lock(&self.batches).insert(task.batch, mailbox);
        Ok(Box::new(ticket))
    }

    fn finish(&self, epoch: Epoch, batch: BatchId) -> Result<Receipt> {
        let office = self.office(epoch)?;
        let mut state = StateSize::default();
        office.shards.values().for_each(|shard| state += shard.size());
        let outputs = lock(&self.batches).remove(&batch).map(|mut mailbox| mailbox.take_outputs());
        Ok(Receipt { outputs: outputs.unwrap_or_default(), state })
    }

    fn snapshot(&self, epoch: Epoch) -> Result<ShardStates> {
        let office = self.office(epoch)?;
        office.shards.values().map(|shard| Ok((shard.number, shard.snapshot()?))).collect()
    }

    fn cancel(&self) {
        self.cancel.cancel();
    }
}

/// What all tickets hold for the exchange `place`, in the order of slots.
fn in_order(tickets: &[Tickets], place: usize) -> Vec<&Split> {
    let mut by_slot: BTreeMap<&Slot, Vec<&Split>> = BTreeMap::new();
    let tickets = tickets.iter().filter_map(|ticket| ticket.downcast_ref::<Ticket>());
    for (slot, splits) in tickets.filter_map(|ticket| ticket.0.get(&place)).flatten() {
        by_slot.entry(slot).or_default().extend(splits);
    }
    by_slot.into_values().flatten().collect()
}

impl std::fmt::Debug for LocalExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalExecutor")
            .field("lanes", &self.lanes)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! An executor in this process: ingest lanes before the first exchange, shards behind it.
//!
//! It deliberately decides nothing about batches: what to read, and when, it is told; in which order results
//! stand, the slots say.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::ThreadPool;
use rayon::iter::{IntoParallelRefMutIterator, ParallelIterator};

use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Counts;
use crate::exec::budget::Budget;
use crate::exec::capture::{Capture, Copied};
use crate::exec::exchange::Split;
use crate::exec::lane::{Lane, Work, Yield};
use crate::exec::mailbox::{Mailbox, Waiting, bytes_of};
use crate::exec::manifest::Manifest;
use crate::exec::pipeline::{Operators, Run};
use crate::exec::program::{FunctionStep, Program};
use crate::exec::resume::Archive;
use crate::exec::room::Room;
use crate::exec::shard::{EXCHANGE, Memory, Shard, Shards};
use crate::exec::{
    BatchContext, Epoch, Executor, MapTask, Mapped, OperatorState, PartitionReport, Receipt, ShardStates,
    Slot, Tickets,
};
use crate::ingest::deal;
use crate::offset::{OffsetRange, TopicPartition};
use crate::plan::SourceId;
use crate::state::chunk::Kind;
use crate::state::group::KeyGroup;
use crate::time::{BatchId, EventTime};

/// What an exchange hands over: for each exchange, the rows of each slot.
pub(crate) struct Ticket(BTreeMap<usize, Waiting<Split>>);

impl Ticket {
    /// Lets the rows of the exchanges of `stage` go, once every executor has taken its part; says their bytes.
    pub(crate) fn let_go(&mut self, program: &Program, stage: usize) -> u64 {
        let done =
            |place: &usize| program.exchanges.get(*place).is_some_and(|exchange| exchange.stage == stage);
        let gone = self.0.extract_if(.., |place, _| done(place));
        gone.flat_map(|(_, waiting)| waiting.into_values().flatten()).map(|split| split.bytes()).sum()
    }
}

/// What the executors of one process share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) budget: Arc<Budget>,
    pub(crate) room: Arc<Room>,
    /// Set for good: a stream that is cancelled, or a batch that fails, ends it.
    pub(crate) cancel: Cancel,
}

/// An executor in this process.
pub(crate) struct LocalExecutor {
    program: Arc<Program>,
    lanes: BTreeMap<SourceId, Vec<Lane>>,
    pool: Arc<ThreadPool>,
    budget: Arc<Budget>,
    room: Arc<Room>,
    /// The number of shards of the job.
    shards: usize,
    epoch: AtomicU64,     // looked at by a map while a reduce holds the shards
    owned: Mutex<Shards>, // one reduce at a time
    batches: Mutex<BTreeMap<BatchId, Mailbox>>, // put in by the map of n + 1 while n is reduced
    recent: Mutex<BTreeMap<TopicPartition, u64>>, // the last batch's bytes, by which partitions are dealt
    cancel: Cancel,
}

impl LocalExecutor {
    pub(crate) fn new(
        program: Arc<Program>,
        lanes: BTreeMap<SourceId, Vec<Lane>>,
        pool: Arc<ThreadPool>,
        shared: Shared,
        shards: usize,
    ) -> Self {
        let Shared { budget, room, cancel } = shared;
        let (owned, batches, recent) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self {
            program,
            lanes,
            pool,
            budget,
            room,
            shards,
            epoch: AtomicU64::new(0),
            owned,
            batches,
            recent,
            cancel,
        }
    }

    /// Lets every ingest thread end, and waits for none.
    pub(crate) fn hang_up(&mut self) {
        self.lanes.values_mut().flatten().for_each(Lane::hang_up);
    }

    /// Asks every lane for its share, and puts together what they made.
    fn ingest(&self, task: &MapTask, context: &Arc<BatchContext>) -> Result<Yield> {
        let mut answers = Vec::new();
        for (source, ranges) in &task.ranges {
            let lanes = self.lanes.get(source).map(Vec::as_slice).unwrap_or_default();
            for (lane, ranges) in lanes.iter().zip(self.deal(ranges, lanes.len())) {
                let (context, cancel) = (Arc::clone(context), self.cancel.clone());
                answers.push(lane.ask(Work { context, ranges, cancel, shards: self.shards }));
            }
        }
        let gone = || Err(Error::internal("an ingest thread is gone"));
        // Every answer is awaited, so that no lane is still at work afterwards.
        let made: Vec<Result<Yield>> =
            answers.into_iter().map(|answer| answer.recv().unwrap_or_else(|_| gone())).collect();
        let made = self.collect(made)?;
        self.budget.give_back(task.batch, made.at_hand);
        Ok(made)
    }

    fn deal(&self, ranges: &[OffsetRange], lanes: usize) -> Vec<Vec<OffsetRange>> {
        let recent: Vec<(TopicPartition, u64)> =
            lock(&self.recent).iter().map(|(at, bytes)| (at.clone(), *bytes)).collect();
        deal(ranges, &recent, lanes)
    }

    fn collect(&self, made: Vec<Result<Yield>>) -> Result<Yield> {
        let (mailbox, partitions, counts) = (Mailbox::new(self.shards), Vec::new(), Counts::default());
        let mut whole = Yield { mailbox, partitions, counts, at_hand: 0 };
        for part in made {
            let part = part?;
            whole.mailbox.absorb(part.mailbox)?;
            whole.partitions.extend(part.partitions);
            whole.counts += part.counts;
            whole.at_hand += part.at_hand;
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
                // Only of a map: a reduce whose batch is finished must not see that the map after it was cancelled.
                if stage == 0 && self.cancel.is_cancelled() {
                    return Ok(());
                }
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
        // What the call made stands for what it was given: of one slot, both are there for a moment.
        self.budget.give_back(context.batch, rows.iter().map(bytes_of).sum());
        let made = mailbox.bytes().saturating_sub(before);
        self.budget.reserve(context.batch, made, &self.cancel, &slot.to_string())
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
        let memory =
            Memory { budget: &self.budget, room: &self.room, cancel: &self.cancel, shards: self.shards };
        let run = |shard: &mut Shard| shard.run(&self.program, context, place, splits, &memory);
        let mut owned: Vec<&mut Shard> = shards.values_mut().collect();
        let made: Result<Vec<(Mailbox, u64)>> =
            self.pool.install(|| owned.par_iter_mut().map(|shard| run(shard)).collect());
        let (before, mut asked) = (mailbox.bytes(), 0);
        for (part, own) in made? {
            asked += own;
            mailbox.absorb(part)?;
        }
        let moved = mailbox.bytes().saturating_sub(before);
        self.budget.give_back(context.batch, asked.saturating_sub(moved));
        self.budget.reserve(context.batch, moved.saturating_sub(asked), &self.cancel, EXCHANGE)
    }

    /// An error unless `epoch` is the one that was loaded last.
    fn expect(&self, epoch: Epoch) -> Result<()> {
        let loaded = self.epoch.load(Ordering::Acquire);
        if loaded == epoch.0 {
            return Ok(());
        }
        let message = format!("the executor has epoch {loaded} loaded, asked for {}", epoch.0);
        Err(Error::new(ErrorKind::Fenced, message))
    }

    /// Has `shards` instead of whatever it had.
    fn take_over(&self, epoch: Epoch, shards: Shards) {
        let mut owned = lock(&self.owned);
        *owned = shards;
        self.epoch.store(epoch.0, Ordering::Release);
        lock(&self.batches).clear();
    }

    /// The key groups of `shards`, which follow each other.
    fn groups(&self, shards: &Shards) -> Range<KeyGroup> {
        let groups = |shard: &usize| KeyGroup::of_shard(*shard, self.shards);
        match (shards.keys().next(), shards.keys().next_back()) {
            (Some(first), Some(last)) => groups(first).start..groups(last).end,
            _ => KeyGroup(0)..KeyGroup(0),
        }
    }

    /// What the operator at `place` remembers in each shard, in their order.
    fn copied(&self, place: usize, kind: Kind, shards: &mut Shards) -> Result<Vec<Copied>> {
        let mut owned: Vec<&mut Shard> = shards.values_mut().collect();
        self.pool.install(|| owned.par_iter_mut().map(|shard| shard.capture(place, kind)).collect())
    }

    /// The shards of `epoch`.
    fn owned(&self, epoch: Epoch) -> Result<MutexGuard<'_, Shards>> {
        let shards = lock(&self.owned);
        self.expect(epoch)?;
        Ok(shards)
    }
}

impl Executor for LocalExecutor {
    fn load(&self, epoch: Epoch, shards: Range<usize>, state: ShardStates) -> Result<()> {
        let state: BTreeMap<usize, Vec<_>> = state.into_iter().collect();
        let load = |number| {
            let shard = Shard::load(&self.program, number, state.get(&number).map(Vec::as_slice))?;
            Ok((number, shard))
        };
        self.take_over(epoch, shards.map(load).collect::<Result<_>>()?);
        Ok(())
    }

    fn map(&self, epoch: Epoch, task: &MapTask) -> Result<Mapped> {
        self.expect(epoch)?;
        let context = Arc::new(BatchContext::new(task));
        let mut made = self.ingest(task, &context)?;
        // No shard is touched before the first exchange: the reduce of the batch before may be at work on them.
        self.call_functions(0, &context, &mut made.mailbox, &mut Shards::new())?;
        made.mailbox.finish_partials()?;
        made.counts += made.mailbox.take_counts();
        let ticket = Ticket(made.mailbox.take_exchanges());
        lock(&self.batches).insert(task.batch, made.mailbox);
        Ok(Mapped {
            tickets: Box::new(ticket),
            partitions: made.partitions,
            counts: made.counts,
            warnings: Vec::new(),
        })
    }

    fn step(
        &self,
        epoch: Epoch,
        task: &MapTask,
        closing: Option<EventTime>,
        stage: usize,
        tickets: &[Tickets],
    ) -> Result<Tickets> {
        let mut shards = self.owned(epoch)?;
        let context = BatchContext::new(task).closing(closing);
        let mut mailbox =
            lock(&self.batches).remove(&task.batch).unwrap_or_else(|| Mailbox::new(self.shards));
        for (place, exchange) in self.program.exchanges.iter().enumerate() {
            if exchange.stage == stage {
                let splits = in_order(tickets, place);
                self.exchange(place, &splits, &context, &mut shards, &mut mailbox)?;
            }
        }
        self.call_functions(stage, &context, &mut mailbox, &mut shards)?;
        mailbox.finish_partials()?;
        let ticket = Ticket(mailbox.take_exchanges());
        lock(&self.batches).insert(task.batch, mailbox);
        Ok(Box::new(ticket))
    }

    fn finish(&self, epoch: Epoch, batch: BatchId) -> Result<Receipt> {
        let shards = self.owned(epoch)?;
        let mut state = vec![OperatorState::default(); self.program.operators.len()];
        shards.values().for_each(|shard| shard.add_sizes(&mut state));
        let mailbox = lock(&self.batches).remove(&batch);
        let mut mailbox = mailbox.unwrap_or_else(|| Mailbox::new(self.shards));
        Ok(Receipt { outputs: mailbox.take_outputs(), state, counts: mailbox.take_counts() })
    }

    fn snapshot(&self, epoch: Epoch) -> Result<ShardStates> {
        let shards = self.owned(epoch)?;
        shards.values().map(|shard| Ok((shard.number, shard.snapshot()?))).collect()
    }

    fn capture(&self, epoch: Epoch, manifest: &Manifest) -> Result<Vec<Capture>> {
        let mut shards = self.owned(epoch)?;
        let groups = self.groups(&shards);
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let mut captures = Vec::new();
        for (place, operator) in self.program.operators.iter().enumerate() {
            let Some(form) = &operator.form else { continue };
            let kind = manifest.wants(&operator.name, form, &groups);
            let copied = self.copied(place, kind, &mut shards);
            let copied = copied.map_err(|error| self.program.locate(operator.node, error))?;
            let (name, form) = (operator.name.clone(), form.clone());
            captures.push(Capture { operator: name, form, kind, groups: groups.clone(), shards: copied });
        }
        captures.retain(|capture| !capture.is_empty());
        Ok(captures)
    }

    fn resume(&self, epoch: Epoch, shards: Range<usize>, archive: Archive<'_>) -> Result<()> {
        let shards = self.pool.install(|| archive.load(&self.program, shards))?;
        self.take_over(epoch, shards);
        Ok(())
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

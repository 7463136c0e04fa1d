//! The engine of one process: one executor, or several that share the work as the nodes of a cluster would.
//!
//! Several in one process are no faster than one; they are there so that what a cluster does is tested on every
//! machine: partitions are dealt to executors, shards are owned by them, and results are the same bits.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::cancel::Cancel;
use crate::decode::Doubts;
use crate::error::{Error, Result, in_bytes, in_thousands};
use crate::event::Counts;
use crate::exec::budget::Budget;
use crate::exec::capture::Capture;
use crate::exec::executor::{LocalExecutor, Shared, Ticket};
use crate::exec::lane::{Ingest, Lane};
use crate::exec::manifest::{Manifest, Matched, OnStateChange};
use crate::exec::program::{OperatorKind, OperatorSpec, Program, SourceProgram};
use crate::exec::resume::Archive;
use crate::exec::room::Room;
use crate::exec::{
    Engine, Epoch, Executor, ExecutorGroups, MapTask, Mapped, OperatorState, Receipt, Reduced, ShardStates,
    Slot, StateSize, Tickets,
};
use crate::ingest::{Source, deal};
use crate::offset::OffsetRange;
use crate::plan::{Checked, OutputId, SourceId};
use crate::state::form::StateForm;
use crate::state::group::KeyGroup;
use crate::time::{BatchId, EventTime};

/// How the work of one process is cut up.
#[derive(Clone, Copy, Debug)]
pub struct LocalSettings {
    /// The number of executors.
    pub executors: usize,
    /// The number of threads that ingest, and of those that reduce; the machine's cores where none is given.
    pub threads: Option<usize>,
    /// The bytes that all batches in flight may hold, with what the clients have read ahead and the chunks at hand.
    pub max_memory: u64,
    /// The bytes that all state may hold.
    pub max_state: u64,
    /// The number of shards; fixed for the life of a job's state.
    pub shards: usize,
}

impl Default for LocalSettings {
    fn default() -> Self {
        Self { executors: 1, threads: None, max_memory: 1 << 30, max_state: 1 << 30, shards: 8 }
    }
}

/// The engine of one process.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use tidemill::decode::{Format, OnBad};
/// use tidemill::exec::local::{LocalEngine, LocalSettings};
/// use tidemill::exec::{Engine, MapTask};
/// use tidemill::ingest::{Source, scripted::ScriptedSource};
/// use tidemill::offset::{Offset, OffsetRange, TopicPartition};
/// use tidemill::plan::{Operator, Plan, SourceSpec};
/// use tidemill::time::{BatchId, BatchTime};
///
/// let spec = SourceSpec {
///     name: "readings".to_owned(),
///     format: Format::Json(Arc::new(Schema::new(vec![Field::new("t", DataType::Float64, true)]))),
///     metadata: vec![],
///     on_bad: OnBad::Fail,
///     event_time: None,
/// };
/// let mut plan = Plan::default();
/// let id = plan.add_source(spec);
/// let readings = plan.add(Operator::Source(id), vec![], None);
/// plan.add_output(readings, None);
/// let source = ScriptedSource::new("readings");
/// source.push(0, None, Some(br#"{"t": 20.5}"#), 0);
///
/// let engine = LocalEngine::start(&plan.check()?, &[Arc::new(source) as Arc<dyn Source>], LocalSettings::default())?;
/// let range = OffsetRange::new(TopicPartition::new("readings", 0), Offset(0), Offset(1));
/// let task = MapTask { batch: BatchId(0), time: BatchTime(0), ranges: vec![(id, vec![range])], watermark: None };
/// let mapped = engine.map(&task)?;
/// let reduced = engine.reduce(&task, mapped, None)?;
/// assert_eq!(reduced.counts.output_rows, 1);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Debug)]
pub struct LocalEngine {
    executors: Vec<LocalExecutor>,
    program: Arc<Program>,
    /// In the order of the plan.
    sources: Vec<Arc<dyn Source>>,
    shared: Shared,
    /// Of each source of the program.
    doubts: Vec<Doubts>,
    /// The detectors of which it was told what they make nothing of.
    told: Mutex<BTreeSet<usize>>, // by the reduces, one after the other; the engine is shared with the maps
    max_state: u64,
    epoch: Epoch,
    shards: usize,
}

impl Drop for LocalEngine {
    /// All ingest threads end at the same time: each closes a client of its own, which takes a tenth of a second with
    /// Kafka, and the end would wait for one after the other.
    fn drop(&mut self) {
        self.executors.iter_mut().for_each(LocalExecutor::hang_up);
    }
}

impl LocalEngine {
    /// Compiles `checked`, connects to `sources` (in the order of the plan) and starts the ingest threads.
    pub fn start(checked: &Checked, sources: &[Arc<dyn Source>], settings: LocalSettings) -> Result<Self> {
        let program = Arc::new(Program::compile(checked)?);
        let parts = Parts {
            shared: Shared {
                budget: Arc::new(Budget::new(row_budget(&settings))),
                room: Arc::new(Room::new(settings.max_state)),
                cancel: Cancel::default(),
            },
            pool: Arc::new(pool(&settings)?),
            doubts: program.sources.iter().map(|source| Doubts::of(&source.decode)).collect::<Result<_>>()?,
            program,
            sources,
            settings,
        };
        let count = settings.executors.max(1);
        let executors = (0..count).map(|_| parts.executor()).collect::<Result<Vec<_>>>()?;
        let Parts { program, shared, doubts, .. } = parts;
        let sources = sources.to_vec();
        let (told, max_state, shards) = (Mutex::default(), settings.max_state, settings.shards);
        let engine =
            Self { executors, program, sources, shared, doubts, told, max_state, epoch: Epoch(1), shards };
        engine.load(shards, &ShardStates::new())?;
        Ok(engine)
    }

    /// The shards of each executor, evenly and in order.
    fn owned(&self, place: usize, shards: usize) -> Range<usize> {
        let count = self.executors.len().max(1);
        place * shards / count..(place + 1) * shards / count
    }

    /// Gives each executor its shards.
    fn load(&self, shards: usize, state: &ShardStates) -> Result<()> {
        for (place, executor) in self.executors.iter().enumerate() {
            let owned = self.owned(place, shards);
            let own = state.iter().filter(|(shard, _)| owned.contains(shard)).cloned().collect();
            executor.load(self.epoch, owned, own)?;
        }
        Ok(())
    }

    /// The state of every shard: the same whatever the number of executors and threads that made it.
    pub fn snapshot(&self) -> Result<ShardStates> {
        let parts: Result<Vec<_>> =
            self.executors.iter().map(|executor| executor.snapshot(self.epoch)).collect();
        Ok(parts?.into_iter().flatten().collect())
    }

    /// Replaces all state by `state`, as a snapshot gave it.
    pub fn restore(&self, state: &ShardStates) -> Result<()> {
        self.load(state.len(), state)
    }

    /// The operators that remember something from batch to batch, by name, and what.
    pub fn remembers(&self) -> Vec<(String, StateForm)> {
        let form = |operator: &OperatorSpec| Some((operator.name.clone(), operator.form.clone()?));
        self.program.operators.iter().filter_map(form).collect()
    }

    /// The key groups of each executor.
    pub fn executor_groups(&self) -> Vec<Range<KeyGroup>> {
        let groups = |owned: Range<usize>| {
            let shard = |shard| KeyGroup::of_shard(shard, self.shards);
            shard(owned.start).start..if owned.is_empty() {
                shard(owned.start).start
            } else {
                shard(owned.end - 1).end
            }
        };
        (0..self.executors.len()).map(|place| groups(self.owned(place, self.shards))).collect()
    }

    /// Each executor's part of the task.
    fn deal(&self, task: &MapTask) -> Vec<MapTask> {
        let count = self.executors.len();
        let mut parts = vec![Vec::new(); count];
        for (source, ranges) in &task.ranges {
            let dealt: Vec<Vec<OffsetRange>> = deal(ranges, &[], count);
            parts.iter_mut().zip(dealt).for_each(|(part, ranges)| part.push((*source, ranges)));
        }
        parts.into_iter().map(|ranges| MapTask { ranges, ..task.clone() }).collect()
    }

    /// Has every executor do `work`, at the same time; the error of the first that failed.
    fn all<T: Send>(&self, work: impl Fn(usize, &LocalExecutor) -> Result<T> + Sync) -> Result<Vec<T>> {
        if let [only] = &self.executors[..] {
            return Ok(vec![work(0, only)?]);
        }
        let panicked = || Err(Error::internal("an executor panicked"));
        let made: Vec<Result<T>> = std::thread::scope(|scope| {
            let work = &work;
            let running: Vec<_> = self
                .executors
                .iter()
                .enumerate()
                .map(|(place, executor)| scope.spawn(move || work(place, executor)))
                .collect();
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
        });
        made.into_iter().collect()
    }

    fn map_all(&self, task: &MapTask) -> Result<Mapped> {
        let parts = self.deal(task);
        let lost = || Error::internal("an executor has no part of the task");
        let made =
            self.all(|place, executor| executor.map(self.epoch, parts.get(place).ok_or_else(lost)?))?;
        let (mut tickets, mut partitions, mut counts) = (Vec::new(), Vec::new(), Counts::default());
        for part in made {
            tickets.push(part.tickets);
            partitions.extend(part.partitions);
            counts += part.counts;
        }
        if self.shared.cancel.is_cancelled() {
            return Err(Error::cancelled("the batch was given up before it was mapped"));
        }
        partitions.sort_by(|a, b| (a.source, &a.at).cmp(&(b.source, &b.at)));
        let mut warnings = self.doubts(task);
        warnings.extend(self.losses(&mut counts));
        Ok(Mapped { tickets: Box::new(tickets), partitions, counts, warnings })
    }

    /// What has gone while it was fetched, counted and told.
    fn losses(&self, counts: &mut Counts) -> Vec<Error> {
        let mut warnings = Vec::new();
        for source in &self.sources {
            for loss in source.take_losses() {
                counts.lost += loss.offsets();
                warnings.push(loss.warning().at(format!("source {}", source.name())));
            }
        }
        warnings
    }

    /// What the records up to this batch make doubtful in the declarations of their sources.
    fn doubts(&self, task: &MapTask) -> Vec<Error> {
        let of_source = |(source, doubts): (&SourceProgram, &Doubts)| {
            let place = format!("source {}", source.name);
            doubts.judge(task.time).into_iter().map(move |error| error.at(place.clone()))
        };
        self.program.sources.iter().zip(&self.doubts).flat_map(of_source).collect()
    }

    fn reduce_all(&self, task: &MapTask, mapped: Mapped, closing: Option<EventTime>) -> Result<Reduced> {
        let foreign = |_| Error::internal("the tickets are another engine's");
        let mut tickets = *mapped.tickets.downcast::<Vec<Tickets>>().map_err(foreign)?;
        for stage in 1..=self.program.last_stage() {
            let handed: &[Tickets] = &tickets;
            let more = self.all(|_, executor| executor.step(self.epoch, task, closing, stage, handed))?;
            self.let_go(&mut tickets, stage, task.batch);
            tickets.extend(more);
        }
        let receipts = self.all(|_, executor| executor.finish(self.epoch, task.batch))?;
        let states = self.states(&receipts);
        let sizes: Vec<StateSize> = states.iter().map(OperatorState::size).collect();
        self.expect_room(&sizes)?;
        Ok(Reduced { warnings: self.unscored(&states), ..self.gather(receipts, &sizes, task.batch) })
    }

    /// Each operator's state, in all executors.
    fn states(&self, receipts: &[Receipt]) -> Vec<OperatorState> {
        let mut states = vec![OperatorState::default(); self.program.operators.len()];
        for receipt in receipts {
            states.iter_mut().zip(&receipt.state).for_each(|(sum, state)| sum.extend(state));
        }
        states
    }

    /// What detectors made nothing of, each told once.
    fn unscored(&self, states: &[OperatorState]) -> Vec<Error> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut warnings = Vec::new();
        for (place, (operator, state)) in self.program.operators.iter().zip(states).enumerate() {
            let OperatorKind::Detect(spec, _) = &operator.kind else { continue };
            if !told.contains(&place)
                && let Some(warning) = state.unscored.warning(&spec.columns)
            {
                told.insert(place);
                warnings.push(self.program.locate(operator.node, warning));
            }
        }
        warnings
    }

    /// An error where the state has outgrown its limit, naming the operator that holds most of it.
    fn expect_room(&self, sizes: &[StateSize]) -> Result<()> {
        let bytes: u64 = sizes.iter().map(|size| size.bytes).sum();
        self.shared.room.settle(bytes);
        let largest = self.program.operators.iter().zip(sizes).max_by_key(|(_, size)| size.bytes);
        match largest {
            Some((operator, &size)) if bytes > self.max_state => {
                Err(self.program.locate(operator.node, too_much_state(bytes, self.max_state, size)))
            }
            _ => Ok(()),
        }
    }

    /// Lets the rows go that the exchanges of `stage` moved.
    fn let_go(&self, tickets: &mut [Tickets], stage: usize, batch: BatchId) {
        let tickets = tickets.iter_mut().filter_map(|ticket| ticket.downcast_mut::<Ticket>());
        self.shared.budget.give_back(batch, tickets.map(|ticket| ticket.let_go(&self.program, stage)).sum());
    }

    /// One result of all receipts: the rows of each output in the order of slots.
    fn gather(&self, receipts: Vec<Receipt>, sizes: &[StateSize], batch: BatchId) -> Reduced {
        let mut rows: BTreeMap<OutputId, BTreeMap<Slot, Vec<RecordBatch>>> = BTreeMap::new();
        let (mut state, mut counts) = (StateSize::default(), Counts::default());
        for size in sizes {
            state += *size;
        }
        for receipt in receipts {
            counts += receipt.counts;
            for (output, slot, batches) in receipt.outputs {
                rows.entry(output).or_default().entry(slot).or_default().extend(batches);
            }
        }
        let outputs: Vec<(OutputId, Vec<RecordBatch>)> = rows
            .into_iter()
            .map(|(output, slots)| (output, slots.into_values().flatten().collect()))
            .collect();
        let count = outputs.iter().flat_map(|(_, rows)| rows).map(|rows| rows.num_rows() as u64).sum();
        counts.output_rows = count;
        let hold = Hold { budget: Arc::clone(&self.shared.budget), batch };
        Reduced { outputs, state, counts, warnings: Vec::new(), hold: Some(Box::new(hold)) }
    }
}

impl Engine for LocalEngine {
    fn map(&self, task: &MapTask) -> Result<Mapped> {
        self.map_all(task).map_err(|error| {
            self.shared.budget.release(task.batch);
            error.at(format!("batch {}", task.batch))
        })
    }

    fn reduce(&self, task: &MapTask, mapped: Mapped, watermark: Option<EventTime>) -> Result<Reduced> {
        self.reduce_all(task, mapped, watermark).map_err(|error| {
            self.shared.budget.release(task.batch);
            error.at(format!("batch {}", task.batch))
        })
    }

    fn cancel(&self) {
        self.shared.cancel.cancel();
    }

    fn capture(&self, manifest: &Manifest) -> Result<Vec<Capture>> {
        let captures = self.all(|_, executor| executor.capture(self.epoch, manifest))?;
        Ok(captures.into_iter().flatten().collect())
    }

    fn groups(&self) -> ExecutorGroups {
        self.executor_groups()
    }

    fn resume(&self, archive: Archive<'_>, on_change: OnStateChange) -> Result<Matched> {
        self.program.check_kept()?;
        let matched = archive.manifest.matched(self.shards, &self.remembers(), on_change)?;
        let archive = Archive { manifest: &matched.manifest, ..archive };
        self.all(|place, executor| executor.resume(self.epoch, self.owned(place, self.shards), archive))?;
        Ok(matched)
    }
}

/// Gives a batch's memory back when its rows have been delivered.
struct Hold {
    budget: Arc<Budget>,
    batch: BatchId,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.budget.release(self.batch);
    }
}

/// What executors are made of.
struct Parts<'a> {
    program: Arc<Program>,
    sources: &'a [Arc<dyn Source>],
    settings: LocalSettings,
    pool: Arc<ThreadPool>,
    shared: Shared,
    doubts: Vec<Doubts>,
}

impl Parts<'_> {
    fn executor(&self) -> Result<LocalExecutor> {
        let mut lanes = BTreeMap::new();
        for place in 0..self.program.sources.len() {
            let (id, own) = self.lanes(place)?;
            lanes.insert(id, own);
        }
        let (program, pool) = (Arc::clone(&self.program), Arc::clone(&self.pool));
        Ok(LocalExecutor::new(program, lanes, pool, self.shared.clone(), self.settings.shards))
    }

    /// The ingest threads of one source in one executor: together as many as there are threads.
    fn lanes(&self, place: usize) -> Result<(SourceId, Vec<Lane>)> {
        let lost = || Error::internal("a source is missing from the program");
        let program = self.program.sources.get(place).ok_or_else(lost)?;
        let source = self.sources.get(program.id.0).ok_or_else(lost)?;
        let doubts = self.doubts.get(place).ok_or_else(lost)?;
        let count = (threads(&self.settings) / self.settings.executors.max(1)).max(1);
        let lane = |number: usize| {
            let decoder = program.decoder()?.doubting(doubts);
            let fetcher = source.fetcher(decoder.wanted(), self.fetch_budget(count))?;
            let (program, budget) = (Arc::clone(&self.program), Arc::clone(&self.shared.budget));
            let ingest = Ingest { program, source: place, fetcher, decoder, budget };
            Lane::start(&format!("{}-{number}", source.name()), ingest)
        };
        Ok((program.id, (0..count).map(lane).collect::<Result<_>>()?))
    }

    /// A quarter of the memory for what the clients have read ahead, in equal parts.
    fn fetch_budget(&self, lanes: usize) -> usize {
        let fetchers = lanes * self.settings.executors.max(1) * self.program.sources.len().max(1);
        usize::try_from(self.settings.max_memory / 4).unwrap_or(usize::MAX) / fetchers
    }
}

/// `largest` is the state of the operator that has most of it, whose place the error is told with.
fn too_much_state(bytes: u64, limit: u64, largest: StateSize) -> Error {
    let (what, help) = match largest.windows {
        0 => (format!("{} keys", in_thousands(largest.entries)), "use fewer keys, or raise max_state_bytes"),
        windows => (
            format!("{} states in {} open windows", in_thousands(largest.entries), in_thousands(windows)),
            "use fewer keys or shorter windows, look whether the watermark stands still (progress says who holds it), \
             or raise max_state_bytes",
        ),
    };
    let all = format!("{}, more than max_state_bytes allows: {}", in_bytes(bytes), in_bytes(limit));
    let message = match largest.bytes {
        own if own == bytes => format!("{what} take {all}"),
        own => format!("the stream remembers {all}; {what} take most of it, {}", in_bytes(own)),
    };
    Error::memory_limit(message).help(help)
}

/// Three quarters of the memory are for rows and the chunks that they come in; the rest is for what the clients have read
/// ahead.
fn row_budget(settings: &LocalSettings) -> u64 {
    settings.max_memory - settings.max_memory / 4
}

fn threads(settings: &LocalSettings) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    settings.threads.unwrap_or_else(cores).max(1)
}

fn pool(settings: &LocalSettings) -> Result<ThreadPool> {
    let name = |number| format!("tidemill-reduce-{number}");
    let built = ThreadPoolBuilder::new().num_threads(threads(settings)).thread_name(name).build();
    built.map_err(|error| Error::internal("the reduce threads cannot be started").caused_by(error))
}

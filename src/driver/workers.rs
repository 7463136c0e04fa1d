//! The threads that perform the machine's commands, and how they answer.
//!
//! Each kind of command has its own thread, so that none waits for another: a slow sink does not hold the map, a
//! slow broker does not hold a commit. A worker deliberately decides nothing: it does what it is told, turns a
//! panic into an error, and answers exactly once.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle, ThreadId};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::cancel::Cancel;
use crate::driver::durable::{Keeper, Publisher};
use crate::driver::listeners::Listeners;
use crate::driver::log::{Entry, EntryKind, Log};
use crate::driver::machine::{Input, Purpose, Question, Task};
use crate::driver::memory::Memory;
use crate::driver::running::Bell;
use crate::driver::{Job, JobSink};
use crate::error::{Error, Result};
use crate::event::{Event, Output, OutputEnd, Positions};
use crate::exec::{Engine, MapTask, Mapped, Reduced};
use crate::ingest::{Bound, Source};
use crate::plan::{OutputId, SourceId};
use crate::sink::outputs::Role;
use crate::sink::{Delivery, Sink, opening_given_up};
use crate::time::{BatchId, Clock, EventTime};

/// Most workers have one command at a time: the machine gives the next after the answer.
const ONE: usize = 1;

/// The log may have the PLAN of the next batch and the PREPARE or COMMIT of this one.
const ENTRIES: usize = 2;

/// Room for the answer to every command that can be under way, so that no worker ever waits for the loop.
const ANSWERS: usize = 8;

/// What a worker answers. Rows stay out of the machine: the loop keeps them until the next command needs them.
pub(crate) enum Answer {
    Input(Input),
    Mapped(BatchId, Mapped),
    Reduced(BatchId, Reduced),
}

/// What the planning thread asks.
pub(crate) enum Ask {
    Bounds(Vec<Question>),
    Heads,
}

/// What the delivery thread does; all of a sink's life is on this one thread.
pub(crate) enum SinkWork {
    Open,
    /// What a batch comes to is made safe, where the job has a checkpoint.
    Prepare(Arc<MapTask>, Reduced, Box<Memory>),
    Deliver(Arc<MapTask>, Reduced),
    /// The batch that was prepared is delivered.
    Publish(BatchId),
    /// That it is done is made safe.
    Commit(BatchId),
    Close,
}

/// A batch to reduce: its rows, and W(n).
pub(crate) type ReduceWork = (Arc<MapTask>, Mapped, Option<EventTime>);

/// How long the end waits for a thread that asks a source: long for an answer that is on its way, and short for who
/// has asked the stream to end.
const ASKING_PATIENCE: Duration = Duration::from_millis(250);

/// How long it waits for a listener to hear what has happened: what a slow one has still to hear may take minutes.
const HEARING_PATIENCE: Duration = Duration::from_secs(2);

/// For whom a thread may be waiting when the stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    /// For the stream alone: it ends as soon as nobody feeds it.
    Work,
    /// For the answer of a source, which may never come and cannot be called off.
    Source,
    /// For a listener, whose time is its own.
    Listener,
}

impl WaitsFor {
    /// How long the end waits for such a thread; none where it waits until the thread has ended.
    fn patience(self) -> Option<Duration> {
        match self {
            Self::Work => None,
            Self::Source => Some(ASKING_PATIENCE),
            Self::Listener => Some(HEARING_PATIENCE),
        }
    }
}

struct Thread {
    waits: WaitsFor,
    handle: JoinHandle<()>,
    ended: Receiver<()>, // nothing is ever sent: it is heard that the thread has dropped the sender
}

/// The threads of one stream.
#[derive(Default)]
pub(crate) struct Threads(Vec<Thread>);

impl Threads {
    /// Starts a thread.
    pub(crate) fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let (end, ended) = bounded(0);
        let handle = spawn(name, move || {
            let _end: Sender<()> = end;
            work();
        })?;
        self.0.push(Thread { waits: WaitsFor::Work, handle, ended });
        Ok(())
    }

    /// Marks the thread that was started last as one that asks sources.
    fn asks_sources(&mut self) {
        self.last_waits(WaitsFor::Source);
    }

    /// Marks the thread that was started last as one that calls a listener.
    pub(crate) fn calls_listener(&mut self) {
        self.last_waits(WaitsFor::Listener);
    }

    fn last_waits(&mut self, waits: WaitsFor) {
        if let Some(thread) = self.0.last_mut() {
            thread.waits = waits;
        }
    }

    /// Who they are.
    pub(crate) fn ids(&self) -> Vec<ThreadId> {
        self.0.iter().map(|thread| thread.handle.thread().id()).collect()
    }

    /// Waits for all of them; each ends once whoever feeds it is gone. One that still waits for a source, or a listener,
    /// after a little while is left behind: it ends by itself when the source has answered, and nobody hears the answer, or
    /// when the listener has heard everything.
    pub(crate) fn join(self) {
        for Thread { waits, handle, ended } in self.0 {
            let ends = |patience| ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected);
            if waits.patience().is_none_or(ends) {
                // Every panic inside was caught and answered.
                drop(handle.join());
            } else if waits == WaitsFor::Listener {
                log::warn!(
                    "a listener is slow: the stream has ended, and what it has still to hear is not waited for"
                );
            }
        }
    }
}

/// Starts a named thread.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(work).map_err(|cause| {
        let message = format!("expected to start thread {name}, found that the system gives no more");
        Error::internal(message).help("raise the limit of threads").caused_by(cause)
    })
}

/// Runs `work`; a panic becomes an error.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Whoever panicked is not called again but to be closed, so that nobody sees what it left half done.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::internal(format!("a panic: {}", text.unwrap_or("without a message")))
}

/// Who makes entries safe.
pub(crate) enum Recorder {
    /// The caller, since the log waits for nothing.
    Here(Box<dyn Log>),
    /// A thread, which answers.
    There(Sender<Entry>),
}

impl Recorder {
    /// Makes `entry` safe; says so at once, or has the thread answer.
    pub(crate) fn record(&mut self, entry: Entry) -> Result<Option<Input>> {
        match self {
            Self::Here(log) => {
                Ok(Some(recorded(log.as_mut(), &entry).unwrap_or_else(|error| {
                    Input::Failed(recording(&entry), place(recording(&entry), error))
                })))
            }
            Self::There(thread) => hand(thread, entry).map(|()| None),
        }
    }
}

fn recorded(log: &mut dyn Log, entry: &Entry) -> Result<Input> {
    guarded(|| log.append(entry)).map(|()| Input::Recorded(entry.batch(), entry.kind()))
}

/// The ways to the workers, and from them.
pub(crate) struct Workers {
    pub(crate) ask: Sender<Ask>,
    pub(crate) log: Recorder,
    pub(crate) map: Sender<Arc<MapTask>>,
    pub(crate) reduce: Sender<ReduceWork>,
    pub(crate) sinks: Sender<SinkWork>,
    pub(crate) acknowledge: Sender<Vec<(SourceId, Positions)>>,
    pub(crate) answers: Receiver<Answer>,
    /// Asks the sinks, opening or delivering, and whoever tells the sources, to give up.
    pub(crate) cancel: Cancel,
}

impl Workers {
    /// Starts a thread for each kind of command of `job`.
    pub(crate) fn start(
        job: &mut Job,
        keeping: Keeping,
        threads: &mut Threads,
        bell: &Arc<Bell>,
        listeners: &Arc<Listeners>,
    ) -> Result<Self> {
        let (answer, answers) = bounded(ANSWERS);
        let mut hire = Hire { threads, answer, bell };
        let sources: Vec<_> = job.sources.iter().map(|source| Arc::clone(&source.source)).collect();
        let acknowledged = sources.clone();
        let (mapper, reducer) = (Arc::clone(&job.engine), Arc::clone(&job.engine));
        let Keeping { log, keeper, publisher, cancel } = keeping;
        let mut sinks = Sinks {
            all: std::mem::take(&mut job.sinks),
            opened: 0,
            publisher,
            cancel: cancel.clone(),
            clock: Arc::clone(&job.clock),
            listeners: Arc::clone(listeners),
        };
        let cancelled = cancel.clone();
        let ask = hire.worker("tidemill-plan", ONE, asked, move |ask| answer_ask(&sources, ask))?;
        hire.threads.asks_sources();
        Ok(Self {
            ask,
            log: if log.is_immediate() { Recorder::Here(log) } else { Recorder::There(hire.log(log)?) },
            map: hire.worker("tidemill-map", ONE, mapping, move |task| map(&*mapper, &task))?,
            reduce: hire.worker("tidemill-reduce", ONE, reducing, move |work| {
                reduce(&*reducer, keeper.as_deref(), work)
            })?,
            sinks: hire.worker("tidemill-sinks", ONE, sunk, move |work| sinks.perform(work))?,
            acknowledge: hire.worker(
                "tidemill-ack",
                ONE,
                |_| Task::Acknowledge,
                move |positions: Vec<_>| Ok(acknowledge(&acknowledged, &positions, &cancelled)),
            )?,
            answers,
            cancel,
        })
    }
}

/// How what is decided is made safe, and who is asked to give up.
pub(crate) struct Keeping {
    pub(crate) log: Box<dyn Log>,
    /// Puts the state after each batch, where the job has a checkpoint.
    pub(crate) keeper: Option<Arc<Keeper>>,
    /// Publishes, where it has one; its sinks are open.
    pub(crate) publisher: Option<Publisher>,
    pub(crate) cancel: Cancel,
}

/// Hands a command to a worker. There is always room, since the machine waits for answers.
pub(crate) fn hand<T>(worker: &Sender<T>, work: T) -> Result<()> {
    worker.try_send(work).map_err(|refused| {
        let found = match refused {
            TrySendError::Full(_) => "it busy",
            TrySendError::Disconnected(_) => "it gone",
        };
        Error::internal(format!("expected a worker that waits for its next command, found {found}"))
    })
}

struct Hire<'a> {
    threads: &'a mut Threads,
    answer: Sender<Answer>,
    bell: &'a Arc<Bell>,
}

impl Hire<'_> {
    fn log(&mut self, mut log: Box<dyn Log>) -> Result<Sender<Entry>> {
        self.worker("tidemill-log", ENTRIES, recording, move |entry| {
            recorded(log.as_mut(), &entry).map(Answer::Input)
        })
    }

    fn worker<T: Send + 'static>(
        &mut self,
        name: &str,
        bound: usize,
        task: impl Fn(&T) -> Task + Send + 'static,
        mut perform: impl FnMut(T) -> Result<Answer> + Send + 'static,
    ) -> Result<Sender<T>> {
        let (sender, work) = bounded(bound);
        let (answer, bell) = (self.answer.clone(), Arc::clone(self.bell));
        self.threads.spawn(name, move || {
            for work in work {
                let task = task(&work);
                let done = guarded(|| perform(work));
                let done =
                    done.unwrap_or_else(|error| Answer::Input(Input::Failed(task, place(task, error))));
                if answer.send(done).is_err() {
                    return; // the loop has ended
                }
                bell.wake();
            }
        })?;
        Ok(sender)
    }
}

/// Adds the batch to an error that does not name it yet.
fn place(task: Task, error: Error) -> Error {
    let (Task::Record(batch) | Task::Map(batch) | Task::Reduce(batch) | Task::Deliver(batch)) = task else {
        return error;
    };
    let batch = format!("batch {batch}");
    if error.places().contains(&batch) { error } else { error.at(batch) }
}

fn asked(ask: &Ask) -> Task {
    match ask {
        Ask::Bounds(_) => Task::Resolve,
        Ask::Heads => Task::Heads,
    }
}

fn recording(entry: &Entry) -> Task {
    Task::Record(entry.batch())
}

fn mapping(task: &Arc<MapTask>) -> Task {
    Task::Map(task.batch)
}

fn reducing((task, ..): &ReduceWork) -> Task {
    Task::Reduce(task.batch)
}

fn sunk(work: &SinkWork) -> Task {
    match work {
        SinkWork::Open => Task::Open,
        SinkWork::Deliver(task, _) => Task::Deliver(task.batch),
        SinkWork::Publish(batch) => Task::Deliver(*batch),
        SinkWork::Prepare(task, ..) => Task::Record(task.batch),
        SinkWork::Commit(batch) => Task::Record(*batch),
        SinkWork::Close => Task::Close,
    }
}

fn answer_ask(sources: &[Arc<dyn Source>], ask: Ask) -> Result<Answer> {
    let of = |source: &dyn Source| source_place(source.name());
    let input = match ask {
        Ask::Heads => {
            let heads = sources.iter().map(|source| source.heads().map_err(|error| error.at(of(&**source))));
            Input::Heads(heads.collect::<Result<_>>()?)
        }
        Ask::Bounds(questions) => {
            let resolve = |question: Question| {
                let Some(source) = sources.get(question.source.0) else { return Ok(Vec::new()) };
                let positions = source.resolve(&question.bound).map_err(|error| error.at(of(&**source)))?;
                if question.purpose == Purpose::Starting {
                    tell_of_start(source.name(), &question.bound, &positions);
                }
                Ok(positions)
            };
            Input::Resolved(questions.into_iter().map(resolve).collect::<Result<_>>()?)
        }
    };
    Ok(Answer::Input(input))
}

/// Who sees no rows finds here that there may be none yet: reading starts at the latest record unless told otherwise.
fn tell_of_start(name: &str, bound: &Bound, positions: &Positions) {
    const SHOWN: usize = 16;
    let shown = positions.iter().take(SHOWN).map(|(at, offset)| format!("{at} at {offset}"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = if positions.len() > SHOWN { ", …" } else { "" };
    log::info!("{name} is read from {bound} on: {shown}{more}");
}

fn map(engine: &dyn Engine, task: &MapTask) -> Result<Answer> {
    Ok(Answer::Mapped(task.batch, engine.map(task)?))
}

/// The state after the batch is put before the next is reduced, which would change it.
fn reduce(
    engine: &dyn Engine,
    keeper: Option<&Keeper>,
    (task, mapped, watermark): ReduceWork,
) -> Result<Answer> {
    let reduced = engine.reduce(&task, mapped, watermark)?;
    if let Some(keeper) = keeper {
        keeper.capture(engine, task.batch)?;
    }
    Ok(Answer::Reduced(task.batch, reduced))
}

/// How an error names the source that it comes from.
pub(crate) fn source_place(name: &str) -> String {
    format!("source {name}")
}

/// Tells every source, also after one has refused.
fn acknowledge(sources: &[Arc<dyn Source>], positions: &[(SourceId, Positions)], cancel: &Cancel) -> Answer {
    let told =
        positions.iter().filter_map(|(id, positions)| sources.get(id.0).map(|source| (source, positions)));
    let refuse = |(source, positions): (&Arc<dyn Source>, &Positions)| {
        let place = |error: Error| error.at(source_place(source.name()));
        source.acknowledge(positions, cancel).map_err(place).err()
    };
    Answer::Input(Input::Acknowledged(told.filter_map(refuse).collect()))
}

/// The sinks on the delivery thread.
struct Sinks {
    all: Vec<JobSink>,
    opened: usize,
    publisher: Option<Publisher>,
    cancel: Cancel,
    clock: Arc<dyn Clock>,
    listeners: Arc<Listeners>,
}

impl Sinks {
    fn perform(&mut self, work: SinkWork) -> Result<Answer> {
        let done = match work {
            SinkWork::Open => self.open().map(|()| Input::Opened),
            SinkWork::Deliver(task, reduced) => {
                self.deliver(&task, reduced).map(|()| Input::Delivered(task.batch))
            }
            SinkWork::Prepare(task, reduced, memory) => self
                .prepare(&task, reduced, *memory)
                .map(|()| Input::Recorded(task.batch, EntryKind::Prepare)),
            SinkWork::Publish(batch) => self.publish().map(|()| Input::Delivered(batch)),
            SinkWork::Commit(batch) => self.commit().map(|()| Input::Recorded(batch, EntryKind::Commit)),
            SinkWork::Close => self.close().map(|()| Input::Closed),
        };
        done.map(Answer::Input)
    }

    fn open(&mut self) -> Result<()> {
        if self.publisher.is_some() {
            self.opened = self.all.len(); // by who took the checkpoint over
            return Ok(());
        }
        for JobSink { sink, schema } in &mut self.all {
            at_sink(&mut **sink, |sink| open_for(sink, schema, &self.cancel))?;
            self.opened += 1;
        }
        Ok(())
    }

    fn deliver(&mut self, task: &MapTask, mut reduced: Reduced) -> Result<()> {
        let deliveries = self.deliveries(task, std::mem::take(&mut reduced.outputs));
        self.give(deliveries.into_iter().enumerate())
    }

    /// What each sink is to have of a batch.
    fn deliveries(&self, task: &MapTask, mut outputs: Vec<(OutputId, Vec<RecordBatch>)>) -> Vec<Delivery> {
        let ranges: Arc<[_]> = task.ranges.iter().flat_map(|(_, ranges)| ranges.iter().cloned()).collect();
        let mut of = |(index, JobSink { schema, .. }): (usize, &JobSink)| {
            let rows = outputs.iter_mut().filter(|(output, _)| *output == OutputId(index));
            let rows = rows.flat_map(|(_, rows)| std::mem::take(rows));
            Delivery {
                batch: task.batch,
                time: task.time,
                watermark: task.watermark,
                ranges: Arc::clone(&ranges),
                schema: Arc::clone(schema),
                rows: rows.filter(|rows| rows.num_rows() > 0).collect(),
                cancel: self.cancel.clone(),
            }
        };
        self.all.iter().enumerate().map(&mut of).collect()
    }

    /// Gives sinks, by their numbers, what is for them.
    fn give(&mut self, deliveries: impl IntoIterator<Item = (usize, Delivery)>) -> Result<()> {
        let witness = Witness { clock: &*self.clock, listeners: &self.listeners };
        for (index, delivery) in deliveries {
            let Some(JobSink { sink, .. }) = self.all.get_mut(index) else { continue };
            if !delivery.rows.is_empty() || sink.wants_empty() {
                witness.sees(index, &mut **sink, &delivery)?;
            }
        }
        Ok(())
    }

    fn prepare(&mut self, task: &MapTask, mut reduced: Reduced, memory: Memory) -> Result<()> {
        let deliveries = self.deliveries(task, std::mem::take(&mut reduced.outputs));
        let (mut sinks, publisher) = publishing(&mut self.all, &mut self.publisher)?;
        publisher.prepare(&mut sinks, deliveries, memory, reduced.hold)
    }

    /// Whoever may be given a batch twice has it before it is there for good: a failure then costs nothing.
    fn publish(&mut self) -> Result<()> {
        let early = publishing(&mut self.all, &mut self.publisher)?.1.deliveries(Role::AtLeastOnce)?;
        self.give(early)?;
        let (mut sinks, publisher) = publishing(&mut self.all, &mut self.publisher)?;
        let name = |index: usize| sinks.get(index).map(|sink| sink.name().to_owned()).unwrap_or_default();
        let (batch, outputs) = publisher.publishing()?;
        let outputs: Vec<_> = outputs.into_iter().map(|(id, rows)| (id, name(id), rows)).collect();
        let witness = Witness { clock: &*self.clock, listeners: &self.listeners };
        witness.sees_all(batch, outputs, || publisher.publish(&mut sinks, &self.cancel))
    }

    fn commit(&mut self) -> Result<()> {
        let publisher = publishing(&mut self.all, &mut self.publisher)?.1;
        publisher.commit()?;
        let shown = publisher.deliveries(Role::Shows)?;
        publisher.done();
        self.give(shown)
    }

    /// Closes every sink that was opened, also after one has failed; the first error counts.
    fn close(&mut self) -> Result<()> {
        let opened = self.all.iter_mut().take(std::mem::take(&mut self.opened));
        let closed = opened.map(|JobSink { sink, .. }| at_sink(&mut **sink, |sink| sink.close()));
        let closed = closed.fold(Ok(()), Result::and);
        if let Some(publisher) = &self.publisher {
            publisher.stop();
        }
        closed
    }
}

/// The sinks, and who publishes to them.
fn publishing<'a>(
    sinks: &'a mut [JobSink],
    publisher: &'a mut Option<Publisher>,
) -> Result<(Vec<&'a mut dyn Sink>, &'a mut Publisher)> {
    let lost = || Error::internal("a batch is to be published by a job without a checkpoint");
    let sinks = sinks.iter_mut().map(|sink| &mut *sink.sink as &mut dyn Sink).collect();
    publisher.as_mut().map(|publisher| (sinks, publisher)).ok_or_else(lost)
}

/// Tells the listeners of what an output does.
struct Witness<'a> {
    clock: &'a dyn Clock,
    listeners: &'a Listeners,
}

impl Witness<'_> {
    /// Outputs that are there together or not at all: by their numbers, with their names and rows.
    fn sees_all(
        &self,
        batch: BatchId,
        outputs: Vec<(usize, String, u64)>,
        publish: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let at = self.clock.now();
        let outputs = outputs.into_iter().map(|(id, name, rows)| Output { batch, id, name, rows, at });
        let outputs: Vec<Output> = outputs.collect();
        for output in &outputs {
            self.listeners.tell(&Event::OutputStarted(output.clone()));
        }
        let began = self.clock.elapsed();
        let done = guarded(publish).map_err(|error| place(Task::Deliver(batch), error));
        let took = self.clock.elapsed().saturating_sub(began);
        for output in outputs {
            let end = OutputEnd { took, error: done.as_ref().err().cloned() };
            self.listeners.tell(&Event::OutputCompleted(output, end));
        }
        done
    }

    fn sees(&self, id: usize, sink: &mut dyn Sink, delivery: &Delivery) -> Result<()> {
        let rows = delivery.rows.iter().map(|rows| rows.num_rows() as u64).sum();
        let (name, at) = (sink.name().to_owned(), self.clock.now());
        let output = Output { batch: delivery.batch, id, name, rows, at };
        self.listeners.tell(&Event::OutputStarted(output.clone()));
        let began = self.clock.elapsed();
        // Placed here already: the listener's error and the stream's are then the same, with one note for the user.
        let done = at_sink(sink, |sink| deliver_to(sink, delivery));
        let done = done.map_err(|error| place(Task::Deliver(delivery.batch), error));
        let took = self.clock.elapsed().saturating_sub(began);
        let end = OutputEnd { took, error: done.as_ref().err().cloned() };
        self.listeners.tell(&Event::OutputCompleted(output, end));
        done
    }
}

/// None begins to open after a stop that would call it off.
fn open_for(sink: &mut dyn Sink, schema: &SchemaRef, cancel: &Cancel) -> Result<()> {
    if cancel.is_cancelled() {
        return Err(opening_given_up("the sink had not been asked to open"));
    }
    sink.open(schema, cancel)
}

/// What a sink does with a batch may not be to be called off, a user's function least of all: so none begins it after
/// a stop at once.
fn deliver_to(sink: &mut dyn Sink, delivery: &Delivery) -> Result<()> {
    if delivery.cancel.is_cancelled() {
        return Err(delivery.given_up("the sink had not been given the batch"));
    }
    sink.deliver(delivery)
}

fn at_sink(sink: &mut dyn Sink, work: impl FnOnce(&mut dyn Sink) -> Result<()>) -> Result<()> {
    let name = format!("sink {}", sink.name());
    guarded(|| work(sink)).map_err(|error| error.at(name))
}

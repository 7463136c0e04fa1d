//! The public Rust API: a context holds a plan with its sources and outputs, and runs it.
//!
//! It wires plan, engine and driver together and deliberately does no work of its own. Several contexts live side
//! by side in one process, and a stopped one may be started again: sources and sinks are opened anew at each start.

mod checkpoint;
mod memory;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::cancel::Cancel;
use crate::driver::durable::DurableJob;
use crate::driver::{
    Job, JobSink, JobSource, Limits, Listener, OpenWindows, Running, Stop, Trigger, Waited, start,
    start_durable,
};
use crate::error::{Error, Result};
use crate::event::Progress;
use crate::exec::local::{LocalEngine, LocalSettings};
use crate::ingest::{Bound, Source};
use crate::plan::{CallSite, Checked, Demand, Node, NodeId, Operator, Plan, SourceId, SourceSpec};
use crate::sink::transactional::Part;
use crate::sink::{Delivery, Sink};
use crate::time::Clock;

pub use checkpoint::CheckpointSettings;
pub use memory::usable_memory;

/// Makes a source at each start.
pub type OpenSource = Arc<dyn Fn() -> Result<Arc<dyn Source>> + Send + Sync>;

/// Makes a sink at each start; it is told the columns by which its rows are keyed, where they are.
pub type OpenSink = Arc<dyn Fn(Option<&[String]>) -> Result<Box<dyn Sink>> + Send + Sync>;

/// Where rows leave the job.
#[derive(Clone)]
pub struct Output {
    /// Makes the sink.
    pub open: OpenSink,
    /// What the sink asks of its rows, which is checked with the whole plan, before anything is opened.
    pub demand: Option<Arc<dyn Demand>>,
}

impl From<OpenSink> for Output {
    /// An output that takes any rows.
    fn from(open: OpenSink) -> Self {
        Self { open, demand: None }
    }
}

/// What holds for the whole of a job.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The job's name, for errors and logs.
    pub name: String,
    /// When batches are due.
    pub trigger: Trigger,
    /// How many executors share the work, in this process.
    pub executors: usize,
    /// How many threads ingest, and how many reduce, of all executors together; as many as cores where none is said.
    pub threads: Option<usize>,
    /// How much a batch may take on.
    pub limits: Limits,
    /// The bytes that all state may hold.
    pub max_state: u64,
    /// What becomes of open windows when every source has been read to its end.
    pub at_end: OpenWindows,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where progress and state are kept, so that a later start goes on from there.
    pub checkpoint: Option<CheckpointSettings>,
}

/// A source, and how it is read.
#[derive(Clone)]
pub struct Reading {
    /// Makes the source.
    pub open: OpenSource,
    /// Where it starts; by default at the earliest record of what ends, else at the latest.
    pub starting: Option<Bound>,
    /// Where it ends, if it does.
    pub ending: Option<Bound>,
    /// How far the watermark stays behind the largest event time.
    pub watermark: Duration,
    /// After how long at its end a partition holds the watermark no more.
    pub idle_timeout: Option<Duration>,
    /// At most this many records a second and partition.
    pub max_rate_per_partition: Option<f64>,
}

/// A job: what to do, and the run of it. Dropping it stops the run at once and waits for its threads.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use tidemill::context::{Context, OpenSink, Reading, Settings};
/// use tidemill::decode::{Format, OnBad};
/// use tidemill::driver::{Limits, OpenWindows, Trigger};
/// use tidemill::expr::Expression;
/// use tidemill::ingest::{Source, scripted::ScriptedSource};
/// use tidemill::plan::{Operator, SourceSpec};
/// use tidemill::sink::table::{Keep, Table, TableSink};
/// use tidemill::time::SystemClock;
///
/// let context = Context::new(Settings {
///     name: "hot".to_owned(),
///     trigger: Trigger::AvailableNow,
///     executors: 1,
///     threads: None,
///     limits: Limits { max_records: 1_000_000, max_memory: 1 << 28, back_pressure: None },
///     max_state: 1 << 28,
///     at_end: OpenWindows::Close,
///     clock: Arc::new(SystemClock::new()),
///     checkpoint: None,
/// });
///
/// let source = ScriptedSource::new("readings");
/// source.push(0, None, Some(br#"{"t": 20.5}"#), 0);
/// source.push(0, None, Some(br#"{"t": 99.0}"#), 0);
/// let spec = SourceSpec {
///     name: "readings".to_owned(),
///     format: Format::Json(Arc::new(Schema::new(vec![Field::new("t", DataType::Float64, true)]))),
///     metadata: vec![],
///     on_bad: OnBad::Fail,
///     event_time: None,
/// };
/// let reading = Reading {
///     open: Arc::new(move || Ok(Arc::new(source.clone()) as Arc<dyn Source>)),
///     starting: None,
///     ending: None,
///     watermark: Duration::ZERO,
///     idle_timeout: None,
///     max_rate_per_partition: None,
/// };
/// let readings = context.source(spec, reading, None)?;
/// let hot = context.add(Operator::Filter(Expression::sql("t > 90")), vec![readings], None)?;
///
/// let table = Table::new(Keep::All);
/// let filled = table.clone();
/// let open: OpenSink = Arc::new(move |_| Ok(Box::new(TableSink::new("hot", filled.clone()))));
/// context.output(hot, open, None)?;
///
/// context.start(vec![])?;
/// context.wait(None)?;
/// assert_eq!(table.snapshot().num_rows(), 1);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
pub struct Context {
    settings: Settings,
    /// The plan grows on the script's thread while `explain` may be read from another.
    /// Never held while a source or sink is asked for anything: a getter must not wait for a broker.
    state: Mutex<State>,
    /// A start has come to its end, one way or the other.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    plan: Plan,
    readings: Vec<Reading>,
    sinks: Vec<OpenSink>,
    opening: Option<Opening>,
    running: Option<Arc<Running>>,
}

/// What is ready to run.
enum Ready {
    Plain(Box<Job>),
    Durable(Box<DurableJob>),
}

/// A start whose sources are being opened: nothing runs yet, and dropping this calls it off.
struct Opening {
    _called_off: Sender<()>,
}

impl Context {
    /// A context without sources.
    pub fn new(settings: Settings) -> Self {
        Self { settings, state: Mutex::default(), changed: Condvar::new() }
    }

    /// What holds for the whole job.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Adds a source; the result stands for its rows.
    pub fn source(&self, spec: SourceSpec, reading: Reading, site: Option<CallSite>) -> Result<NodeId> {
        let mut state = self.growing()?;
        let source = state.plan.add_source(spec);
        state.readings.push(reading);
        Ok(state.plan.add(Operator::Source(source), Vec::new(), site))
    }

    /// Adds an operator; the result stands for its rows.
    pub fn add(&self, operator: Operator, inputs: Vec<NodeId>, site: Option<CallSite>) -> Result<NodeId> {
        Ok(self.growing()?.plan.add(operator, inputs, site))
    }

    /// The bad records of the source at `node`, as rows; an error where `node` is none that keeps them.
    pub fn dead_letters(&self, node: NodeId, site: Option<CallSite>) -> Result<NodeId> {
        self.growing()?.plan.add_dead_letters(node, site)
    }

    /// Adds a sample of the rows of `input`, with a seed of its own where none is given.
    pub fn sample(
        &self,
        input: NodeId,
        fraction: f64,
        seed: Option<i64>,
        site: Option<CallSite>,
    ) -> Result<NodeId> {
        Ok(self.growing()?.plan.add_sample(input, fraction, seed, site))
    }

    /// Adds an output for the rows of `input`.
    pub fn output(&self, input: NodeId, output: impl Into<Output>, site: Option<CallSite>) -> Result<()> {
        self.growing()?.put_out(input, output.into(), site);
        Ok(())
    }

    /// The columns of a node's rows.
    pub fn schema(&self, node: NodeId) -> Result<SchemaRef> {
        self.lock().plan.schema(node)
    }

    /// The name of a node's operator.
    pub fn operator(&self, node: NodeId) -> Result<String> {
        Ok(self.lock().plan.node(node)?.operator.name().to_owned())
    }

    /// The checked plan as text.
    pub fn explain(&self) -> Result<String> {
        self.lock().plan.check()?.explain()
    }

    /// The part of the plan that leads to `node`, as text.
    pub fn explain_node(&self, node: NodeId) -> Result<String> {
        upstream(&self.lock().plan, node).check_part()?.explain()
    }

    /// The sources that `node`'s rows come from.
    pub fn sources_of(&self, node: NodeId) -> Vec<NodeId> {
        let state = self.lock();
        let is_source = |id: &NodeId| {
            state.plan.nodes.get(id.0).is_some_and(|node| matches!(node.operator, Operator::Source(_)))
        };
        upstream_nodes(&state.plan, node).into_iter().filter(is_source).collect()
    }

    /// Checks the whole plan, then starts it, and returns once the sinks are open and it is known where reading
    /// starts. All mistakes of a plan come in one error, before anything runs. A stop from another thread meanwhile
    /// calls it off, which is no error.
    pub fn start(&self, listeners: Vec<Listener>) -> Result<()> {
        self.launch(listeners, None)
    }

    /// Starts with one output more, which belongs to this run only: how a loop over a stream reads it.
    pub fn start_with(&self, input: NodeId, open: OpenSink, listeners: Vec<Listener>) -> Result<()> {
        self.launch(listeners, Some((input, open)))
    }

    fn launch(&self, listeners: Vec<Listener>, extra: Option<(NodeId, OpenSink)>) -> Result<()> {
        let (run, called_off) = self.begin(extra)?;
        let opened = run.open(self.settings.clone(), listeners);
        let job = opened.and_then(|opened| {
            select! {
                recv(opened) -> job => job.unwrap_or_else(|_| Err(lost())).map(Some),
                recv(called_off) -> _ => Ok(None),
            }
        });
        match self.settle(job, &called_off)? {
            Some(running) => running.begun(),
            None => Ok(()),
        }
    }

    /// Marks the start as begun; a copy of the plan to open, and where it is heard that the start was called off.
    fn begin(&self, extra: Option<(NodeId, OpenSink)>) -> Result<(State, Receiver<()>)> {
        let mut state = self.growing().map_err(|error| {
            error.help("it was started before: wait for its end with await_termination(), or stop it first")
        })?;
        let mut run = State { plan: state.plan.clone(), ..State::default() };
        run.readings.clone_from(&state.readings);
        run.sinks.clone_from(&state.sinks);
        if let Some((input, open)) = extra {
            run.put_out(input, open.into(), None);
        }
        let (sender, called_off) = bounded(1); // nothing is ever sent: it is heard that the sender is gone
        state.opening = Some(Opening { _called_off: sender });
        Ok((run, called_off))
    }

    /// Starts what was opened, unless the start was called off meanwhile: then another may be under way already.
    fn settle(&self, job: Result<Option<Ready>>, called_off: &Receiver<()>) -> Result<Option<Arc<Running>>> {
        let mut state = self.lock();
        if called_off.try_recv().is_err_and(|found| found.is_disconnected()) {
            return Ok(None);
        }
        state.opening = None;
        self.changed.notify_all();
        let Some(job) = job? else { return Ok(None) };
        let running = Arc::new(match job {
            Ready::Plain(job) => start(*job)?,
            Ready::Durable(job) => start_durable(*job)?,
        });
        state.running = Some(Arc::clone(&running));
        Ok(Some(running))
    }

    /// Asks the run to end and returns at once. A start that has not come to run yet is called off.
    pub fn request_stop(&self, stop: Stop) {
        let mut state = self.lock();
        if state.opening.take().is_some() {
            self.changed.notify_all();
        } else if let Some(running) = &state.running {
            running.stop(stop);
        }
    }

    /// Waits until the run has ended, `timeout` at most. The error that ended it, if one did; it may be asked for
    /// again. A context that was never started has ended.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Waited> {
        let state = self.opened(timeout);
        if state.opening.is_some() {
            return Ok(Waited::TimedOut);
        }
        let running = state.running.clone();
        drop(state);
        running.map_or(Ok(Waited::Ended), |running| running.wait(timeout))
    }

    /// The state once no start is under way, or after `timeout`.
    fn opened(&self, timeout: Option<Duration>) -> MutexGuard<'_, State> {
        let opening = |state: &mut State| state.opening.is_some();
        match timeout {
            None => self.changed.wait_while(self.lock(), opening).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.changed.wait_timeout_while(self.lock(), timeout, opening);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Whether there has been a run; a start that failed or was called off is none.
    pub fn has_run(&self) -> bool {
        self.lock().running.is_some()
    }

    /// Whether rows leave the job anywhere.
    pub fn has_outputs(&self) -> bool {
        !self.lock().sinks.is_empty()
    }

    /// Whether a run goes on.
    pub fn is_running(&self) -> bool {
        self.lock().is_running()
    }

    /// What ended the last run, if that was an error.
    pub fn error(&self) -> Option<Error> {
        self.running().and_then(|running| running.error())
    }

    /// The figures of the last batch that was delivered.
    pub fn progress(&self) -> Option<Progress> {
        self.running().and_then(|running| running.progress())
    }

    fn running(&self) -> Option<Arc<Running>> {
        self.lock().running.clone()
    }

    /// The state, to be changed: not while a run goes on, which would not see the change.
    fn growing(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.is_running() {
            let doing = if state.opening.is_some() { "starting" } else { "running" };
            let text = format!("the context {:?} is {doing}", self.settings.name);
            return Err(
                Error::config(text).help("add sources, operators and outputs before start, or stop it first")
            );
        }
        Ok(state)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl State {
    fn is_running(&self) -> bool {
        self.opening.is_some() || self.running.as_ref().is_some_and(|running| running.is_running())
    }

    fn put_out(&mut self, input: NodeId, output: Output, site: Option<CallSite>) {
        self.plan.add_demanding_output(input, output.demand, site);
        self.sinks.push(output.open);
    }

    /// Opens the job on a thread of its own: what connects to a broker cannot be called off, only left behind.
    fn open(self, settings: Settings, listeners: Vec<Listener>) -> Result<Receiver<Result<Ready>>> {
        let (sender, opened) = bounded(1); // room for the one answer, so that nobody need be there to take it
        let work = move || drop(sender.send(self.ready(&settings, listeners)));
        let started = Builder::new().name("tidemill-open".to_owned()).spawn(work);
        match started {
            Ok(_) => Ok(opened),
            Err(cause) => {
                let text = "expected to start a thread, found that the system gives no more";
                Err(Error::internal(text).help("raise the limit of threads").caused_by(cause))
            }
        }
    }

    fn ready(&self, settings: &Settings, listeners: Vec<Listener>) -> Result<Ready> {
        let job = self.job(settings, listeners)?;
        Ok(match &settings.checkpoint {
            None => Ready::Plain(Box::new(job)),
            Some(checkpoint) => Ready::Durable(Box::new(checkpoint.take_over(job)?)),
        })
    }

    fn job(&self, settings: &Settings, listeners: Vec<Listener>) -> Result<Job> {
        self.not_empty()?;
        let checked = self.plan.check()?;
        let sinks = self.open_sinks(&checked)?;
        let sources = self.open_sources()?;
        let local = LocalSettings {
            executors: settings.executors,
            threads: settings.threads,
            max_memory: settings.limits.max_memory,
            max_state: settings.max_state,
            ..LocalSettings::default()
        };
        let engine = LocalEngine::start(&checked, &sources, local)?;
        Ok(Job {
            name: settings.name.clone(),
            sources: self.job_sources(&checked, sources, settings.trigger),
            engine: Arc::new(engine),
            sinks,
            trigger: settings.trigger,
            limits: settings.limits,
            at_end: settings.at_end,
            clock: Arc::clone(&settings.clock),
            listeners,
        })
    }

    fn not_empty(&self) -> Result<()> {
        if self.readings.is_empty() {
            return Err(Error::config("the context has no source").help("add one, say with ctx.kafka(...)"));
        }
        if self.sinks.is_empty() {
            return Err(Error::config("no stream of the context has an output")
                .help("add one, say with pprint(), foreach_batch(...) or to_kafka(...)"));
        }
        Ok(())
    }

    fn open_sources(&self) -> Result<Vec<Arc<dyn Source>>> {
        let nodes = self.plan.nodes.iter().filter(|node| matches!(node.operator, Operator::Source(_)));
        let opened = nodes.zip(&self.readings);
        opened.map(|(node, reading)| (reading.open)().map_err(|error| node.locate(error))).collect()
    }

    fn open_sinks(&self, checked: &Checked) -> Result<Vec<JobSink>> {
        let outputs = self.plan.nodes.iter().filter(|node| matches!(node.operator, Operator::Output(_)));
        let pairs = outputs.flat_map(|node| node.inputs.iter().map(|input| (*input, node.site.clone())));
        let open_one = |((input, site), open): ((NodeId, Option<CallSite>), &OpenSink)| {
            let sink = open(checked.keys(input)?)?;
            Ok(JobSink { sink: Box::new(Located { sink, site }), schema: Arc::clone(checked.schema(input)?) })
        };
        pairs.zip(&self.sinks).map(open_one).collect()
    }

    fn job_sources(
        &self,
        checked: &Checked,
        sources: Vec<Arc<dyn Source>>,
        trigger: Trigger,
    ) -> Vec<JobSource> {
        let delay = |id: SourceId, reading: &Reading| {
            let column = self.plan.sources.get(id.0).and_then(|spec| spec.event_time.as_ref());
            let computed = checked.computed_time(id).map(|(_, time)| time.delay);
            column.map(|_| reading.watermark).or(computed)
        };
        let each = sources.into_iter().zip(&self.readings).zip((0..).map(SourceId));
        each.map(|((source, reading), id)| JobSource {
            source,
            starting: reading.starting.clone().unwrap_or_else(|| default_start(reading, trigger)),
            ending: reading.ending.clone(),
            watermark: delay(id, reading),
            idle_timeout: reading.idle_timeout,
            max_rate_per_partition: reading.max_rate_per_partition,
        })
        .collect()
    }
}

/// A sink whose errors say which line of the script made it.
#[derive(Debug)]
struct Located {
    sink: Box<dyn Sink>,
    site: Option<CallSite>,
}

impl Located {
    fn locate(&self, error: Error) -> Error {
        match &self.site {
            Some(site) => error.at(site.to_string()),
            None => error,
        }
    }
}

impl Sink for Located {
    fn name(&self) -> &str {
        self.sink.name()
    }

    fn open(&mut self, schema: &SchemaRef, cancel: &Cancel) -> Result<()> {
        self.sink.open(schema, cancel).map_err(|error| self.locate(error))
    }

    fn deliver(&mut self, delivery: &Delivery) -> Result<()> {
        self.sink.deliver(delivery).map_err(|error| self.locate(error))
    }

    fn wants_empty(&self) -> bool {
        self.sink.wants_empty()
    }

    fn part(&mut self) -> Part<'_> {
        self.sink.part()
    }

    fn locate(&self, error: Error) -> Error {
        Self::locate(self, self.sink.locate(error))
    }

    fn close(&mut self) -> Result<()> {
        self.sink.close().map_err(|error| self.locate(error))
    }
}

fn lost() -> Error {
    Error::internal("expected the thread that opens the sources to answer, found that it has panicked")
}

/// What ends is read whole, what goes on is read from now on.
fn default_start(reading: &Reading, trigger: Trigger) -> Bound {
    match (trigger, &reading.ending) {
        (Trigger::AvailableNow, _) | (_, Some(_)) => Bound::Earliest,
        _ => Bound::Latest,
    }
}

/// `node` and all that lead to it, in order.
fn upstream_nodes(plan: &Plan, node: NodeId) -> Vec<NodeId> {
    let mut wanted = vec![node];
    let mut next = 0;
    while let Some(node) = wanted.get(next).and_then(|id| plan.nodes.get(id.0)) {
        let new: Vec<NodeId> = node.inputs.iter().copied().filter(|input| !wanted.contains(input)).collect();
        wanted.extend(new);
        next += 1;
    }
    wanted.sort_unstable();
    wanted
}

/// The plan of those nodes alone that lead to `node`, with an output behind it.
fn upstream(plan: &Plan, node: NodeId) -> Plan {
    let wanted = upstream_nodes(plan, node);
    let place = |id: &NodeId| NodeId(wanted.binary_search(id).unwrap_or_default());
    let moved = |node: &Node| Node { inputs: node.inputs.iter().map(place).collect(), ..node.clone() };
    let mut part = Plan { sources: plan.sources.clone(), ..Plan::default() };
    part.nodes = wanted.iter().filter_map(|id| plan.nodes.get(id.0)).map(moved).collect();
    part.add_output(place(&node), None);
    part
}

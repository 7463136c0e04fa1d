//! The context as Python holds it: the core's context, the user's functions in it, and who waits for its end.
//!
//! It deliberately keeps no logic of a run: starting, stopping and failing are the core's. What is Python's own is
//! here: signals are heard while waiting, a circle through a user's function can be collected, and a process made
//! by `fork` is refused.

use std::collections::BTreeMap;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict};
use pyo3::{PyTraverseError, PyVisit};

use crate::context::{CheckpointSettings, Context as Core, OpenSource, Reading, Settings, usable_memory};
use crate::driver::{Limits, Listener, Stop, Waited};
use crate::error::{Error, Result, in_thousands, nearest};
use crate::event::Event as CoreEvent;
use crate::exec::manifest::OnStateChange;
use crate::ingest::Source;
use crate::ingest::kafka::Topics;
use crate::kafka::Cluster;
use crate::plan::{CallSite, NodeId};
use crate::python::batch::Batch;
use crate::python::dstream::Stream;
use crate::python::event::{Event, Progress};
use crate::python::functions::Callable;
use crate::python::gil;
use crate::python::logging;
use crate::python::pressure::BackPressure;
use crate::python::security::Security;
use crate::python::sinks::BatchIterator;
use crate::python::sources::{KafkaArguments, ReadingArguments, on_loss_of};
use crate::python::testing::{ManualClock, ScriptedSource};
use crate::python::trigger::Trigger;
use crate::python::units::{Size, Span};
use crate::sink::table::{Snapshot, Table};
use crate::time::{Clock, SystemClock};

/// What a Kafka source reads.
struct Origin {
    cluster: Cluster,
    topics: Topics,
}

/// A streaming job.
#[pyclass(frozen, weakref, module = "tidemill._native")]
pub(crate) struct Context {
    /// Shared only with the thread that drops it.
    core: Arc<Core>,
    /// The process that made it: threads and connections do not come along through a fork.
    process: u32,
    /// Every Python object that the core holds, for the garbage collector to see; appended to, never long held.
    callables: Mutex<Vec<Callable>>,
    /// What each Kafka source reads, for outputs that name no cluster, or the same topic.
    origins: Mutex<BTreeMap<usize, Origin>>,
    /// What `to_table` keeps, by its name, with the operator whose rows they are.
    tables: Mutex<BTreeMap<String, (NodeId, Table)>>,
    /// How many outputs print.
    printed: Arc<AtomicUsize>,
    dispatch: Callable,
    /// The thread that runs a loop over a stream: it cannot wait for an end that waits for its loop.
    looping: Mutex<Option<ThreadId>>,
    /// How many wait for the end, who will be told of an error; nobody: it is logged.
    waiters: Arc<AtomicUsize>,
}

#[pymethods]
impl Context {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "the arguments, as Python names them")]
    #[pyo3(signature = (name, trigger, *, executors, threads, max_memory, max_state_bytes, back_pressure, clock, dispatch, checkpoint, on_state_change))]
    fn new(
        name: String,
        trigger: &Trigger,
        executors: &Bound<'_, PyAny>,
        threads: Option<&Bound<'_, PyAny>>,
        max_memory: Size,
        max_state_bytes: Size,
        back_pressure: Option<&BackPressure>,
        clock: Option<&ManualClock>,
        dispatch: Py<PyAny>,
        checkpoint: Vec<String>,
        on_state_change: &str,
    ) -> PyResult<Self> {
        let usable = usable_memory();
        let (max_memory, max_state) = (max_memory.bytes(usable), max_state_bytes.bytes(usable));
        let settings = Settings {
            name,
            trigger: trigger.when,
            executors: count("executors", executors)?,
            threads: threads.map(|threads| count("threads", threads)).transpose()?,
            limits: Limits {
                max_records: trigger.max_records,
                max_memory,
                back_pressure: back_pressure.map(|settings| settings.0),
            },
            max_state,
            at_end: trigger.at_end(!checkpoint.is_empty())?,
            clock: clock_of(clock),
            checkpoint: kept_at(checkpoint, on_state_change)?,
        };
        let dispatch = Callable::new(dispatch);
        Ok(Self {
            core: Arc::new(Core::new(settings)),
            process: process::id(),
            callables: Mutex::new(vec![dispatch.clone()]),
            origins: Mutex::default(),
            tables: Mutex::default(),
            printed: Arc::default(),
            dispatch,
            looping: Mutex::default(),
            waiters: Arc::default(),
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the arguments, as Python names them")]
    #[pyo3(signature = (topics, pattern, partitions, bootstrap_servers, config, security, group_id, on_data_loss, **reading))]
    fn kafka(
        slf: &Bound<'_, Self>,
        topics: Vec<String>,
        pattern: Option<String>,
        partitions: Vec<(String, i32)>,
        bootstrap_servers: String,
        config: BTreeMap<String, String>,
        security: Option<&Security>,
        group_id: Option<String>,
        on_data_loss: &str,
        reading: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        let mut arguments = ReadingArguments::from_keywords(reading)?;
        let security = security.map(|security| security.core(slf.py(), slf.get()));
        let on_loss = on_loss_of(on_data_loss)?;
        let kafka = KafkaArguments {
            topics,
            pattern,
            partitions,
            bootstrap_servers,
            config,
            group_id,
            security,
            on_loss,
        };
        let origin = Origin { cluster: kafka.cluster(), topics: kafka.topics()? };
        let open = kafka.open(&arguments.name, &slf.get().core.settings().clock)?;
        arguments.infer(slf.py(), &open)?;
        let node = slf.get().read(slf.py(), &arguments, open)?;
        lock(&slf.get().origins).insert(node.0, origin);
        Ok(Stream::new(slf, node))
    }

    #[pyo3(signature = (source, **reading))]
    fn scripted(
        slf: &Bound<'_, Self>,
        source: &ScriptedSource,
        reading: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        let mut arguments = ReadingArguments::from_keywords(reading)?;
        let source = source.source.clone();
        let open: OpenSource = Arc::new(move || Ok(Arc::new(source.clone()) as Arc<dyn Source>));
        arguments.infer(slf.py(), &open)?;
        let node = slf.get().read(slf.py(), &arguments, open)?;
        Ok(Stream::new(slf, node))
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        self.same_process()?;
        self.launch(py, |core, listeners| core.start(listeners))
    }

    /// Starts with one output more: the batches of `stream`, for a loop.
    fn iterate(&self, py: Python<'_>, stream: &Stream) -> PyResult<BatchIterator> {
        self.same_process()?;
        let (iterator, open) = BatchIterator::new();
        let node = stream.node;
        self.launch(py, move |core, listeners| core.start_with(node, open, listeners))?;
        *lock(&self.looping) = Some(thread::current().id());
        Ok(iterator)
    }

    /// Says that the loop has been left.
    fn loop_left(&self) {
        *lock(&self.looping) = None;
    }

    fn request_stop(&self, graceful: bool) {
        self.core.request_stop(how(graceful));
    }

    /// Ends the run and waits for that, but for a call from within the run's own functions.
    fn stop(&self, py: Python<'_>, graceful: bool) -> PyResult<()> {
        self.same_process()?;
        self.core.request_stop(how(graceful));
        if !gil::in_call() && !self.in_loop() {
            gil::wait(py, None, |turn| self.ended(turn))?;
        }
        Ok(())
    }

    /// Waits for the end and raises what caused it, if that was an error.
    fn wait(&self, py: Python<'_>, timeout: Option<Span>) -> PyResult<bool> {
        self.same_process()?;
        if gil::in_call() {
            let error = Error::config("a function of the stream cannot wait for the stream's end");
            return Err(error.help("call ctx.stop() there, and wait in the main thread").into());
        }
        let _waiting = Waiting::new(&self.waiters);
        let ended = gil::wait(py, timeout.map(|span| span.0), |turn| self.ended(turn))?;
        match self.core.error() {
            Some(error) if ended => Err(error.into()),
            _ => Ok(ended),
        }
    }

    /// Says that somebody will wait for the end: an error is raised there, and need not be logged.
    fn expect_waiter(&self) {
        self.waiters.fetch_add(1, Ordering::SeqCst);
    }

    /// Says that whoever was to wait does so no more.
    fn waiter_left(&self) {
        // Never below zero, whatever a caller does: the count only decides whether an error is logged.
        let _ =
            self.waiters.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |waiters| waiters.checked_sub(1));
    }

    /// Ends the run at once, because nobody can reach it any more; waits for nothing.
    fn abandon(&self) {
        if self.process == process::id() {
            self.core.request_stop(Stop::Now);
        }
    }

    #[getter]
    fn name(&self) -> &str {
        &self.core.settings().name
    }

    #[getter]
    fn is_running(&self) -> bool {
        self.process == process::id() && self.core.is_running()
    }

    #[getter]
    fn has_run(&self) -> bool {
        self.core.has_run()
    }

    #[getter]
    fn has_outputs(&self) -> bool {
        self.core.has_outputs()
    }

    #[getter]
    fn progress(&self) -> Option<Progress> {
        self.core.progress().map(Progress)
    }

    #[getter]
    fn error(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.core.error().map(|error| PyErr::from(error).into_value(py).into_any())
    }

    /// The rows that `to_table(name)` keeps now, and how many were delivered.
    fn table(&self, py: Python<'_>, name: &str) -> PyResult<(Batch, u64)> {
        let (node, table) = self.find_table(name)?;
        let Snapshot { schema, rows, delivered } = gil::release(py, || table.snapshot());
        let schema = schema.map_or_else(|| self.core.schema(node), Ok)?;
        Ok((Batch::of_table(schema, rows), delivered))
    }

    fn explain(&self) -> PyResult<String> {
        Ok(self.core.explain()?)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        // Taken only for a moment elsewhere, with the GIL held as here, and so never found locked.
        match self.callables.try_lock() {
            Ok(callables) => callables.iter().try_for_each(|callable| callable.traverse(&visit)),
            Err(_) => Ok(()),
        }
    }

    fn __clear__(&self) {
        self.abandon();
        let taken: Vec<_> = lock(&self.callables).drain(..).collect();
        for callable in taken {
            drop(callable.clear());
        }
    }
}

impl Context {
    /// The core's own context.
    pub(crate) fn core(&self) -> Result<&Core> {
        self.same_process()?;
        Ok(&self.core)
    }

    /// Keeps a user's function where the garbage collector sees it.
    pub(crate) fn keep(&self, callable: Py<PyAny>) -> Callable {
        let callable = Callable::new(callable);
        lock(&self.callables).push(callable.clone());
        callable
    }

    /// Refuses a name that a table has.
    pub(crate) fn no_table_yet(&self, name: &str) -> Result<()> {
        if lock(&self.tables).contains_key(name) {
            return Err(Error::config(format!("the context has a table {name:?} already"))
                .help("give this one another name, or make a new context"));
        }
        Ok(())
    }

    /// Keeps a table that an output of `node`'s rows fills, for `table` to find.
    pub(crate) fn keep_table(&self, name: String, node: NodeId, table: Table) {
        lock(&self.tables).insert(name, (node, table));
    }

    fn find_table(&self, name: &str) -> Result<(NodeId, Table)> {
        let tables = lock(&self.tables);
        tables.get(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = tables.keys().map(String::as_str).collect();
            let error = Error::config(match names[..] {
                [] => format!("there is no table {name:?}, nor any other"),
                _ => format!("there is no table {name:?}; the tables are {}", names.join(", ")),
            });
            let help = nearest(name, names).map(|near| format!("did you mean {near:?}?"));
            error.help(
                help.unwrap_or_else(|| format!("a stream's to_table({name:?}) makes it, before the start")),
            )
        })
    }

    /// How many outputs print; each of them may look when the job starts.
    pub(crate) fn printed(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.printed)
    }

    /// The clusters of the sources that `node`'s rows come from, each once.
    pub(crate) fn clusters_of(&self, node: NodeId) -> Vec<Cluster> {
        let origins = lock(&self.origins);
        let mut found: Vec<Cluster> = Vec::new();
        for origin in self.core.sources_of(node).iter().filter_map(|source| origins.get(&source.0)) {
            if !found.contains(&origin.cluster) {
                found.push(origin.cluster.clone());
            }
        }
        found
    }

    /// Whether `node`'s rows come from this very topic.
    pub(crate) fn comes_from(&self, node: NodeId, topic: &str, cluster: &Cluster) -> bool {
        let origins = lock(&self.origins);
        let mut found = self.core.sources_of(node).into_iter().filter_map(|source| origins.get(&source.0));
        found.any(|origin| origin.topics.include(topic) && origin.cluster.shares_address(cluster))
    }

    fn read(&self, py: Python<'_>, arguments: &ReadingArguments<'_>, open: OpenSource) -> PyResult<NodeId> {
        let reading: Reading = arguments.reading(open)?;
        Ok(self.core()?.source(arguments.spec()?, reading, call_site(py)?)?)
    }

    /// Starts the core while signals are heard. Whoever is interrupted has not started anything: the start is called
    /// off, now or, where its thread has not come to it yet, once it has.
    fn launch(
        &self,
        py: Python<'_>,
        start: impl FnOnce(&Core, Vec<Listener>) -> Result<()> + Send + 'static,
    ) -> PyResult<()> {
        logging::refresh(py)?;
        let _waiting = Waiting::new(&self.waiters);
        let (core, listeners) = (Arc::clone(&self.core), self.listeners());
        let left = Arc::new(AtomicBool::new(false));
        let is_left = Arc::clone(&left);
        let work = move || {
            let started = start(&core, listeners);
            if is_left.load(Ordering::SeqCst) {
                core.request_stop(Stop::Now);
            }
            started
        };
        gil::on_thread(py, work, || {
            left.store(true, Ordering::SeqCst);
            self.core.request_stop(Stop::Now);
        })
    }

    fn ended(&self, turn: Duration) -> bool {
        !matches!(self.core.wait(Some(turn)), Ok(Waited::TimedOut))
    }

    fn in_loop(&self) -> bool {
        *lock(&self.looping) == Some(thread::current().id())
    }

    fn same_process(&self) -> Result<()> {
        if self.process == process::id() {
            return Ok(());
        }
        Err(Error::config(
            "the context was made in another process: threads and connections do not survive a fork",
        )
        .help("make the context in this process, or start the process with multiprocessing's \"spawn\""))
    }

    fn listeners(&self) -> Vec<Listener> {
        let (dispatch, waiters) = (self.dispatch.clone(), Arc::clone(&self.waiters));
        vec![Box::new(move |event| tell(&dispatch, &waiters, event))]
    }
}

impl Drop for Context {
    /// Dropping the core waits for its threads, which may be waiting for the GIL that this thread holds (or may be
    /// this thread): another one does it.
    fn drop(&mut self) {
        // Taken and not shared: were it the other thread's that goes first, this one would be the last, and wait.
        let nothing = Arc::new(Core::new(self.core.settings().clone()));
        let core = std::mem::replace(&mut self.core, nothing);
        if self.process == process::id() {
            core.request_stop(Stop::Now);
            drop(thread::Builder::new().name("tidemill-drop".to_owned()).spawn(move || drop(core)));
        } else {
            std::mem::forget(core); // its threads are the parent's
        }
    }
}

/// Tells Python of an event. Nothing is raised: what a listener does wrong is logged by the dispatcher.
fn tell(dispatch: &Callable, waiters: &AtomicUsize, event: &CoreEvent) {
    let told = gil::attach(|py| {
        logging::refresh(py).map_err(|raised| crate::python::error::from_user(py, raised))?;
        if let CoreEvent::Failed(error) = event
            && waiters.load(Ordering::SeqCst) == 0
        {
            log_failure(py, error)
                .unwrap_or_else(|refused| log::error!("{error:?}, and logging failed: {refused}"));
        }
        let callable = dispatch.get(py)?;
        let told = callable.bind(py).call1((Event(event.clone()),));
        told.map(drop).map_err(|exception| crate::python::error::from_user(py, exception))
    });
    if let Err(error) = told {
        log::debug!("an event was not heard: {error}");
    }
}

/// Nobody waits who could be told by an exception: the error goes to the log once, with its traceback.
fn log_failure(py: Python<'_>, error: &Error) -> PyResult<()> {
    let logger = py.import("logging")?.call_method1("getLogger", ("tidemill",))?;
    let keywords = PyDict::new(py);
    keywords.set_item("exc_info", PyErr::from(error.clone()).into_value(py))?;
    logger.call_method("error", ("the stream has failed: %s", error.to_string()), Some(&keywords))?;
    Ok(())
}

/// Counts a waiter for as long as it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiters: &'a AtomicUsize) -> Self {
        waiters.fetch_add(1, Ordering::SeqCst);
        Self(waiters)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The line of the user's script that is being run: the first frame outside this package, and outside of what calls a
/// cached property of it.
pub(crate) fn call_site(py: Python<'_>) -> PyResult<Option<CallSite>> {
    let mut frame = py.import("sys")?.call_method1("_getframe", (0,))?;
    while !frame.is_none() {
        let module =
            frame.getattr("f_globals")?.get_item("__name__").and_then(|name| name.extract::<String>());
        let is_ours =
            |name: String| ["tidemill", "functools"].contains(&&*name) || name.starts_with("tidemill.");
        if !module.is_ok_and(is_ours) {
            let file = frame.getattr("f_code")?.getattr("co_filename")?.extract()?;
            return Ok(Some(CallSite { file, line: frame.getattr("f_lineno")?.extract()? }));
        }
        frame = frame.getattr("f_back")?;
    }
    Ok(None)
}

/// Where progress and state are kept; nowhere where no replica is named.
fn kept_at(replicas: Vec<String>, on_state_change: &str) -> PyResult<Option<CheckpointSettings>> {
    let on_change = match on_state_change {
        "fail" => OnStateChange::Fail,
        "reset" => OnStateChange::Reset,
        other => {
            let text = format!("on_state_change is \"fail\" or \"reset\", found {other:?}");
            return Err(Error::config(text).into());
        }
    };
    let settings = CheckpointSettings { replicas, on_change, ..CheckpointSettings::default() };
    Ok((!settings.replicas.is_empty()).then_some(settings))
}

fn clock_of(clock: Option<&ManualClock>) -> Arc<dyn Clock> {
    match clock {
        Some(manual) => Arc::clone(&manual.0) as Arc<dyn Clock>,
        None => Arc::new(SystemClock::new()),
    }
}

fn how(graceful: bool) -> Stop {
    if graceful { Stop::Graceful } else { Stop::Now }
}

/// Each has threads and memory of its own: more of them than any machine has cores are a slip of the pen.
const MOST: usize = 1_024;

fn count(name: &str, given: &Bound<'_, PyAny>) -> PyResult<usize> {
    let whole = given.extract::<usize>().ok().filter(|_| !given.is_instance_of::<PyBool>());
    let found = given.repr()?;
    let refused = || {
        let text = format!("{name} is a whole number from 1 to {}, found {found}", in_thousands(MOST as u64));
        Error::config(text)
            .help("more than there are cores make nothing faster; leave it out for the default")
    };
    Ok(whole.filter(|count| (1..=MOST).contains(count)).ok_or_else(refused)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

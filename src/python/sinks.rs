//! Outputs, from Python's words to the core's sinks.
//!
//! A sink is made anew at each start, so that a stopped context may be started again. It deliberately delivers
//! nothing itself: functions are called by the core's callback sink, loops read from the core's channel sink.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::Schema;
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;

use crate::context::{OpenSink, Output};
use crate::error::{Error, Result};
use crate::kafka::Cluster;
use crate::plan::Demand;
use crate::python::batch::Batch;
use crate::python::error::from_user;
use crate::python::functions::Callable;
use crate::python::gil;
use crate::sink::callback::{CallbackSink, EmptyBatches};
use crate::sink::channel::{Batches, Next, channel};
use crate::sink::encode::{HeaderSpec, KeySpec, OutputFormat};
use crate::sink::files::{FileSink, FileSinkSettings};
use crate::sink::kafka::{KafkaSink, KafkaSinkSettings, RecordTime};
use crate::sink::pprint::PrintSink;
use crate::sink::table::{Table, TableSink};
use crate::sink::{Delivery, Sink};

/// An output that takes any rows, under the name that `explain()` shows.
fn labelled(label: String, open: OpenSink) -> Output {
    Output { open, demand: Some(Arc::new(AnyRows(label))) }
}

/// Asks nothing of its rows.
#[derive(Debug)]
struct AnyRows(String);

impl Demand for AnyRows {
    fn check(&self, _schema: &Schema, _keys: Option<&[String]>) -> Vec<Error> {
        Vec::new()
    }

    fn label(&self, _keys: Option<&[String]>) -> String {
        self.0.clone()
    }
}

/// A sink that calls a Python function with each batch.
pub(crate) fn open_foreach(callable: Callable, empty: bool, label: String) -> Output {
    let (empty, shown) = (empty_batches(empty), label.clone());
    let open: OpenSink = Arc::new(move |_| {
        let callable = callable.clone();
        let call = move |delivery: &Delivery| call(&callable, delivery);
        Ok(Box::new(CallbackSink::from_fn(label.clone(), empty, call)))
    });
    labelled(shown, open)
}

/// What `empty=` says.
pub(crate) fn empty_batches(empty: bool) -> EmptyBatches {
    if empty { EmptyBatches::Deliver } else { EmptyBatches::Skip }
}

fn call(callable: &Callable, delivery: &Delivery) -> Result<()> {
    gil::attach(|py| {
        let batch = Batch::of_delivery(delivery);
        let result = callable.get(py)?.bind(py).call1((batch,));
        result.map(drop).map_err(|exception| from_user(py, exception))
    })
}

/// The batches of a stream, for a loop.
#[pyclass(frozen, module = "tidemill._native")]
pub(crate) struct BatchIterator {
    /// Held by the loop while it waits for its next batch; taken out when the loop is left.
    batches: Mutex<Option<Batches>>,
}

impl BatchIterator {
    /// The iterator, and the sink that feeds it, for one start.
    pub(crate) fn new() -> (Self, OpenSink) {
        let (sink, batches) = channel("for batch in stream", EmptyBatches::Skip);
        let sink = Mutex::new(Some(sink)); // emptied by the one start that the loop makes
        let open = move |_: Option<&[String]>| {
            let taken = sink.lock().unwrap_or_else(PoisonError::into_inner).take();
            let twice = || Error::internal("a loop over a stream was started twice");
            Ok(Box::new(taken.ok_or_else(twice)?) as Box<dyn Sink>)
        };
        (Self { batches: Mutex::new(Some(batches)) }, Arc::new(open))
    }

    /// What came within `turn`, if anything.
    fn ask(&self, turn: Duration) -> Option<Next> {
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(batches) = batches.as_mut() else { return Some(Next::Ended) };
        Some(batches.next(turn)).filter(|next| !matches!(next, Next::Pending))
    }
}

#[pymethods]
impl BatchIterator {
    /// The next batch; None when there will be none.
    fn next(&self, py: Python<'_>) -> PyResult<Option<Batch>> {
        let found = gil::wait_for(py, None, |turn| self.ask(turn))?;
        match found {
            Some(Next::Batch(delivery)) => Ok(Some(Batch::of_delivery(&delivery))),
            _ => Ok(None),
        }
    }

    /// Leaves the loop.
    fn close(&self) {
        drop(self.batches.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// What `pprint` was told.
#[derive(Debug)]
pub(crate) struct PrintOutput {
    pub(crate) rows: usize,
    pub(crate) empty: EmptyBatches,
    pub(crate) title: Title,
}

/// What a header says beside the time.
#[derive(Debug)]
pub(crate) enum Title {
    /// The user's name for the output.
    Named(String),
    /// The operator and the line, where the context has other outputs to tell this one from.
    OneOf(Arc<AtomicUsize>, String),
}

impl Title {
    fn text(&self) -> Option<String> {
        match self {
            Self::Named(name) => Some(name.clone()),
            Self::OneOf(outputs, name) => (outputs.load(Ordering::Relaxed) > 1).then(|| name.clone()),
        }
    }
}

/// A sink that prints the first rows of each batch to Python's `sys.stdout`, where a notebook shows them.
pub(crate) fn open_pprint(output: PrintOutput) -> Output {
    let label = match &output.title {
        Title::Named(name) => format!("pprint({name})"),
        Title::OneOf(..) => "pprint".to_owned(),
    };
    let open: OpenSink = Arc::new(move |_| {
        let sink = PrintSink::new(Box::new(PythonStdout), output.rows);
        Ok(Box::new(sink.titled(output.title.text()).with_empty(output.empty)))
    });
    labelled(label, open)
}

/// A sink that keeps the last rows of the run in `table`.
pub(crate) fn open_table(name: &str, table: Table) -> Output {
    let label = format!("to_table({name})");
    let shown = label.clone();
    let open: OpenSink = Arc::new(move |_| {
        table.clear();
        Ok(Box::new(TableSink::new(label.clone(), table.clone())))
    });
    labelled(shown, open)
}

/// What `to_files` was told.
#[derive(Debug)]
struct FilesOutput(FileSinkSettings);

/// A sink that writes files, and what it asks of its rows.
pub(crate) fn open_files(settings: FileSinkSettings) -> Output {
    let demand: Arc<dyn Demand> = Arc::new(FilesOutput(settings.clone()));
    let open: OpenSink = Arc::new(move |_| Ok(Box::new(FileSink::new(settings.clone()))));
    Output { open, demand: Some(demand) }
}

impl Demand for FilesOutput {
    fn check(&self, schema: &Schema, _keys: Option<&[String]>) -> Vec<Error> {
        self.0.check(schema)
    }

    fn label(&self, _keys: Option<&[String]>) -> String {
        let FileSinkSettings { path, format, partition_by, .. } = &self.0;
        let by =
            if partition_by.is_empty() { String::new() } else { format!(" by {}", partition_by.join(", ")) };
        format!("to_files({}), {format}{by}", path.display())
    }
}

/// Python's own standard output, as it is at each write: notebooks and tests put another in its place.
struct PythonStdout;

impl Write for PythonStdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        stdout("write", (&text,)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        stdout("flush", ())
    }
}

fn stdout<A>(method: &str, arguments: A) -> io::Result<()>
where
    A: for<'py> PyCallArgs<'py>,
{
    let called = gil::attach(|py| {
        let stdout = py.import("sys").and_then(|sys| sys.getattr("stdout"));
        let called = stdout.and_then(|stdout| {
            if stdout.is_none() { Ok(()) } else { stdout.call_method1(method, arguments).map(drop) }
        });
        called.map_err(|exception| from_user(py, exception))
    });
    called.map_err(io::Error::other)
}

/// What `to_kafka` was told.
#[derive(Debug)]
pub(crate) struct KafkaOutput {
    pub(crate) topic: String,
    pub(crate) cluster: Cluster,
    pub(crate) key: OutputKey,
    pub(crate) format: OutputFormat,
    pub(crate) headers: HeaderSpec,
    pub(crate) time: RecordTime,
    pub(crate) course: Course,
}

/// Where the records that are written go from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// To others.
    Onward,
    /// Back to the stream itself, for ever: their topic is the one that it reads.
    Round,
}

/// Which column is a record's key.
#[derive(Debug)]
pub(crate) enum OutputKey {
    /// Those that the stream is keyed by, where it is.
    Auto,
    /// This one.
    Column(String),
    /// None.
    Nothing,
}

impl<'py> FromPyObject<'_, 'py> for OutputKey {
    type Error = PyErr;

    /// A name, None, or the word AUTO, which is anything else.
    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if value.is_none() {
            return Ok(Self::Nothing);
        }
        Ok(value.extract().map_or(Self::Auto, Self::Column))
    }
}

/// Headers: none, a column's name, or a dict of constants.
pub(crate) fn headers_of(value: &Bound<'_, PyAny>) -> PyResult<HeaderSpec> {
    if value.is_none() {
        return Ok(HeaderSpec::default());
    }
    if let Ok(column) = value.extract::<String>() {
        return Ok(HeaderSpec { constant: Vec::new(), column: Some(column) });
    }
    let constant = value.call_method0("items")?.try_iter()?.map(|item| header_of(&item?));
    Ok(HeaderSpec { constant: constant.collect::<PyResult<_>>()?, column: None })
}

fn header_of(item: &Bound<'_, PyAny>) -> PyResult<(String, Vec<u8>)> {
    let (name, value): (String, Bound<'_, PyAny>) = item.extract()?;
    match value.extract::<String>() {
        Ok(text) => Ok((name, text.into_bytes())),
        Err(_) => Ok((name, value.extract()?)),
    }
}

/// Which time the records carry.
pub(crate) fn record_time_of(name: &str) -> Result<RecordTime> {
    match name {
        "batch" => Ok(RecordTime::Batch),
        "sending" => Ok(RecordTime::Sending),
        _ => Err(Error::config(format!("timestamps is \"batch\" or \"sending\", found {name:?}"))),
    }
}

/// A sink that writes to a Kafka topic, and what it asks of its rows.
pub(crate) fn open_kafka(output: KafkaOutput, partitioner: &str) -> Result<Output> {
    if partitioner != "murmur2" {
        return Err(Error::config(format!("partitioner is \"murmur2\", found {partitioner:?}")));
    }
    let output = Arc::new(output);
    let demand: Arc<dyn Demand> = Arc::<KafkaOutput>::clone(&output);
    let open: OpenSink = Arc::new(move |keys| Ok(Box::new(KafkaSink::new(output.settings(keys)))));
    Ok(Output { open, demand: Some(demand) })
}

impl Demand for KafkaOutput {
    fn check(&self, schema: &Schema, keys: Option<&[String]>) -> Vec<Error> {
        let round = (self.course == Course::Round).then(|| self.goes_round());
        round.into_iter().chain(self.settings(keys).check(schema)).collect()
    }

    fn label(&self, keys: Option<&[String]>) -> String {
        let key = match self.key.spec(keys) {
            KeySpec::Columns(names) => format!("key {}", names.join(", ")),
            KeySpec::Null => "no key".to_owned(),
        };
        format!("to_kafka({}), {key}", self.topic)
    }
}

impl KafkaOutput {
    fn goes_round(&self) -> Error {
        let topic = &self.topic;
        let text = format!(
            "to_kafka({topic:?}) writes into the topic that its rows are read from: each row would come again, for ever"
        );
        Error::config(text).help("write to another topic")
    }

    fn settings(&self, keys: Option<&[String]>) -> KafkaSinkSettings {
        let mut settings = KafkaSinkSettings::new(self.cluster.clone(), self.topic.clone());
        settings.key = self.key.spec(keys);
        settings.headers = self.headers.clone();
        settings.time = self.time;
        settings.value = self.format.clone();
        settings
    }
}

impl OutputKey {
    fn spec(&self, keys: Option<&[String]>) -> KeySpec {
        match (self, keys) {
            (Self::Column(name), _) => KeySpec::Columns(vec![name.clone()]),
            (Self::Auto, Some(keys)) => KeySpec::Columns(keys.to_vec()),
            (Self::Auto, None) | (Self::Nothing, _) => KeySpec::Null,
        }
    }
}

//! Operators of a stream: each adds one to the plan, with the line of the user's script.
//!
//! It deliberately checks nothing that the plan checks: all mistakes of a script come together, at start.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pyo3::{PyTraverseError, PyVisit};

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::context::Output;
use crate::detect::DetectSpec;
use crate::error::{Error, Result};
use crate::expr::Expression;
use crate::kafka::Cluster;
use crate::kafka::security::Security as Protection;
use crate::kafka::settings::is_security;
use crate::plan::{
    AggregateSpec, ComputedTime, DeadLetterHeaders, Emit, FunctionSchema, Named, NodeId, Operator, WindowSpec,
};
use crate::python::context::{Context, call_site};
use crate::python::expressions::Expr;
use crate::python::formats::FormatArguments;
use crate::python::functions::PythonFunction;
use crate::python::ml::Detector;
use crate::python::schema::Schema;
use crate::python::security::Security;
use crate::python::sinks::{
    Course, KafkaOutput, OutputKey, PrintOutput, Title, empty_batches, headers_of, open_files, open_foreach,
    open_kafka, open_pprint, open_table, record_time_of,
};
use crate::python::units::{Size, Span};
use crate::sink::files::{FileFormat, FileSinkSettings};
use crate::sink::table::{Keep, Table};
use crate::state::window::WindowShape;

/// What an event time is called that has no name of its own.
const EVENT_TIME: &str = "event_time";

/// Windows of event time, as the user said them.
#[pyclass(frozen, module = "tidemill._native")]
pub(crate) struct Window(WindowSpec);

#[pymethods]
impl Window {
    #[new]
    #[pyo3(signature = (length, slide, on, offset, emit))]
    fn new(
        length: Span,
        slide: Option<Span>,
        on: String,
        offset: Option<Span>,
        emit: &str,
    ) -> PyResult<Self> {
        let emit = match emit {
            "final" => Emit::Final,
            "updates" => Emit::Updates,
            other => {
                let text = format!("emit is \"final\" or \"updates\", found {other:?}");
                return Err(Error::config(text).into());
            }
        };
        let (slide, offset) = (slide.unwrap_or(length).0, offset.map_or(Duration::ZERO, |offset| offset.0));
        Ok(Self(WindowSpec { shape: WindowShape { length: length.0, slide, offset }, on, emit }))
    }

    fn __repr__(&self) -> String {
        format!("windows of {} on {}", self.0.shape, self.0.on)
    }
}

/// The rows of one operator of a context's plan.
#[pyclass(frozen, module = "tidemill._native")]
pub(crate) struct Stream {
    context: Py<Context>,
    pub(crate) node: NodeId,
}

impl Stream {
    pub(crate) fn new(context: &Bound<'_, Context>, node: NodeId) -> Self {
        Self { context: context.clone().unbind(), node }
    }

    fn next(&self, py: Python<'_>, operator: Operator) -> PyResult<Self> {
        self.join(py, operator, vec![self.node])
    }

    fn join(&self, py: Python<'_>, operator: Operator, inputs: Vec<NodeId>) -> PyResult<Self> {
        let node = self.context.get().core()?.add(operator, inputs, call_site(py)?)?;
        Ok(Self { context: self.context.clone_ref(py), node })
    }

    /// The operator over the rows with those of `keys` that are computed.
    fn with_keys(&self, py: Python<'_>, keys: Vec<Named>, operator: Operator) -> PyResult<Self> {
        let computed: Vec<Named> =
            keys.into_iter().filter(|key| key.expression.as_column() != Some(&key.name)).collect();
        if computed.is_empty() {
            return self.next(py, operator);
        }
        self.next(py, Operator::WithColumns(computed))?.next(py, operator)
    }

    fn same_context(&self, other: &Self) -> Result<NodeId> {
        if self.context.is(&other.context) {
            return Ok(other.node);
        }
        Err(Error::config("streams of two contexts cannot be joined")
            .help("make all sources from one context"))
    }
}

#[pymethods]
impl Stream {
    /// The bad records of this source, as rows.
    fn dead_letters(&self, py: Python<'_>) -> PyResult<Self> {
        let node = self.context.get().core()?.dead_letters(self.node, call_site(py)?)?;
        Ok(Self { context: self.context.clone_ref(py), node })
    }

    /// Dead letters as the records that they were, with headers that say where each came from and why.
    fn dead_letter_records(&self, py: Python<'_>) -> PyResult<Self> {
        let labelled = self.next(py, DeadLetterHeaders::operator())?;
        let named = |name: &str| Named { name: name.to_owned(), expression: Expression::col(name) };
        let record = ["value", "kafka_key", DeadLetterHeaders::COLUMN].map(named);
        labelled.next(py, Operator::Select(record.to_vec()))
    }

    /// The rows of this source with the time when each happened.
    fn with_event_time(
        &self,
        py: Python<'_>,
        expression: &Expr,
        watermark: Span,
        max_future: Span,
    ) -> PyResult<Self> {
        let expression = expression.0.clone();
        let name = expression.output_name().unwrap_or_else(|| EVENT_TIME.to_owned());
        let column = Named { name, expression };
        let (delay, max_future) = (watermark.0, max_future.0);
        self.next(py, Operator::EventTime(ComputedTime { column, delay, max_future }))
    }

    fn filter(&self, py: Python<'_>, predicate: &Bound<'_, PyAny>) -> PyResult<Self> {
        let predicate = expression_of(predicate)?;
        self.next(py, Operator::Filter(predicate))
    }

    fn select(
        &self,
        py: Python<'_>,
        columns: &Bound<'_, PyList>,
        named: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        self.next(py, Operator::Select(columns_of(columns, named)?))
    }

    fn with_columns(
        &self,
        py: Python<'_>,
        columns: &Bound<'_, PyList>,
        named: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        self.next(py, Operator::WithColumns(columns_of(columns, named)?))
    }

    fn explode(&self, py: Python<'_>, names: Vec<String>) -> PyResult<Self> {
        self.next(py, Operator::Explode(names))
    }

    fn sample(&self, py: Python<'_>, fraction: f64, seed: Option<i64>) -> PyResult<Self> {
        let node = self.context.get().core()?.sample(self.node, fraction, seed, call_site(py)?)?;
        Ok(Self { context: self.context.clone_ref(py), node })
    }

    fn drop(&self, py: Python<'_>, names: Vec<String>) -> PyResult<Self> {
        self.next(py, Operator::Drop(names))
    }

    fn rename(&self, py: Python<'_>, names: Vec<(String, String)>) -> PyResult<Self> {
        self.next(py, Operator::Rename(names))
    }

    #[expect(clippy::needless_pass_by_value, reason = "pyo3 makes an owned list of Python's")]
    fn union(&self, py: Python<'_>, others: Vec<PyRef<'_, Self>>) -> PyResult<Self> {
        let others = others.iter().map(|other| self.same_context(other));
        let inputs = std::iter::once(Ok(self.node)).chain(others).collect::<Result<Vec<_>>>()?;
        self.join(py, Operator::Union, inputs)
    }

    #[pyo3(signature = (function, schema, adds, reads, label))]
    fn map_batches(
        &self,
        py: Python<'_>,
        function: Py<PyAny>,
        schema: Option<&Schema>,
        adds: Option<&Schema>,
        reads: Option<Vec<String>>,
        label: String,
    ) -> PyResult<Self> {
        let schema = match (schema, adds) {
            (Some(schema), _) => FunctionSchema::Exactly(Arc::clone(&schema.0)),
            (None, Some(adds)) => FunctionSchema::Adds(Arc::clone(&adds.0)),
            (None, None) => FunctionSchema::Same,
        };
        let callable = self.context.get().keep(function);
        let function = Arc::new(PythonFunction::new(callable, schema.clone()));
        self.next(py, Operator::MapBatches { function, schema, reads, label })
    }

    /// The rows dealt evenly to so many shards.
    fn repartition(&self, py: Python<'_>, parts: Option<NonZeroUsize>) -> PyResult<Self> {
        self.next(py, Operator::Repartition(parts))
    }

    fn key_by(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyList>,
        named_keys: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let keys = columns_of(keys, named_keys)?;
        let names = keys.iter().map(|key| key.name.clone()).collect();
        self.with_keys(py, keys, Operator::KeyBy(names))
    }

    /// The rows of a batch, or of each window, aggregated by key.
    #[pyo3(signature = (keys, named_keys, columns, named, window))]
    fn aggregate(
        &self,
        py: Python<'_>,
        keys: &Bound<'_, PyList>,
        named_keys: &Bound<'_, PyDict>,
        columns: &Bound<'_, PyList>,
        named: &Bound<'_, PyDict>,
        window: Option<&Window>,
    ) -> PyResult<Self> {
        let (keys, columns) = (columns_of(keys, named_keys)?, columns_of(columns, named)?);
        let spec_keys = keys.iter().map(|key| key.name.clone()).collect();
        let window = window.map(|window| window.0.clone());
        self.with_keys(py, keys, Operator::Aggregate(AggregateSpec { keys: spec_keys, columns, window }))
    }

    /// The rows that have no place in such windows.
    fn late(&self, py: Python<'_>, window: &Window) -> PyResult<Self> {
        self.next(py, Operator::Late(window.0.clone()))
    }

    fn detect(
        &self,
        py: Python<'_>,
        columns: Vec<String>,
        detector: &Detector,
        threshold: Option<f64>,
        prefix: String,
    ) -> PyResult<Self> {
        let spec = DetectSpec { columns, detector: detector.settings(), threshold, prefix };
        self.next(py, Operator::Detect(spec))
    }

    #[pyo3(signature = (rows, name, empty))]
    fn pprint(&self, py: Python<'_>, rows: i64, name: Option<String>, empty: bool) -> PyResult<()> {
        let refused = |_| Error::config(format!("pprint() takes the number of rows to print, found {rows}"));
        let rows = usize::try_from(rows).map_err(refused)?;
        let printed = self.context.get().printed();
        let title = match name {
            Some(name) => Title::Named(name),
            None => Title::OneOf(Arc::clone(&printed), self.place(py)?),
        };
        self.output(py, open_pprint(PrintOutput { rows, empty: empty_batches(empty), title }))?;
        printed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    #[pyo3(signature = (name, max_rows))]
    fn to_table(&self, py: Python<'_>, name: String, max_rows: Option<i64>) -> PyResult<()> {
        let (context, table) = (self.context.get(), Table::new(keep_of(max_rows)?));
        context.no_table_yet(&name)?;
        self.output(py, open_table(&name, table.clone()))?;
        context.keep_table(name, self.node, table);
        Ok(())
    }

    fn foreach_batch(&self, py: Python<'_>, function: Py<PyAny>, empty: bool, label: String) -> PyResult<()> {
        let callable = self.context.get().keep(function);
        self.output(py, open_foreach(callable, empty, label))
    }

    #[pyo3(signature = (path, format, partition_by, max_bytes))]
    fn to_files(
        &self,
        py: Python<'_>,
        path: PathBuf,
        format: &str,
        partition_by: Vec<String>,
        max_bytes: Size,
    ) -> PyResult<()> {
        let (format, max_bytes) = (FileFormat::named(format)?, file_size(max_bytes)?);
        self.output(py, open_files(FileSinkSettings { path, format, partition_by, max_bytes }))
    }

    #[expect(clippy::too_many_arguments, reason = "the arguments, as Python names them")]
    #[pyo3(signature = (topic, *, key, value, format, headers, partitioner, timestamps, bootstrap_servers, security, config))]
    fn to_kafka(
        &self,
        py: Python<'_>,
        topic: String,
        key: OutputKey,
        value: Option<String>,
        format: FormatArguments<'_>,
        headers: &Bound<'_, PyAny>,
        partitioner: &str,
        timestamps: &str,
        bootstrap_servers: Option<String>,
        security: Option<&Security>,
        config: BTreeMap<String, String>,
    ) -> PyResult<()> {
        let security = security.map(|security| security.core(py, self.context.get()));
        let cluster = self.cluster(&topic, bootstrap_servers, security, config)?;
        let (headers, time) = (headers_of(headers)?, record_time_of(timestamps)?);
        let format = format.writing(value)?;
        let comes_from = self.context.get().comes_from(self.node, &topic, &cluster);
        let course = if comes_from { Course::Round } else { Course::Onward };
        let output = KafkaOutput { topic, cluster, key, format, headers, time, course };
        self.output(py, open_kafka(output, partitioner)?)
    }

    #[getter]
    fn schema(&self) -> PyResult<Schema> {
        Ok(Schema(self.context.get().core()?.schema(self.node)?))
    }

    fn explain(&self) -> PyResult<String> {
        Ok(self.context.get().core()?.explain_node(self.node)?)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        visit.call(&self.context)
    }
}

impl Stream {
    /// The operator and the line that is being run, for a reader of the script.
    fn place(&self, py: Python<'_>) -> PyResult<String> {
        let operator = self.context.get().core()?.operator(self.node)?;
        let line = call_site(py)?.map(|site| {
            let file = Path::new(&site.file).file_name().map(|name| name.to_string_lossy().into_owned());
            format!(", {}:{}", file.unwrap_or(site.file), site.line)
        });
        Ok(operator + &line.unwrap_or_default())
    }

    fn output(&self, py: Python<'_>, output: impl Into<Output>) -> PyResult<()> {
        Ok(self.context.get().core()?.output(self.node, output, call_site(py)?)?)
    }

    /// Where an output writes: the servers it names, else those of the stream's only source cluster; with the source's
    /// login where it goes to the very servers that the source named, and to no others.
    fn cluster(
        &self,
        topic: &str,
        servers: Option<String>,
        security: Option<Protection>,
        config: BTreeMap<String, String>,
    ) -> Result<Cluster> {
        let found = self.context.get().clusters_of(self.node);
        if let Some(bootstrap_servers) = servers {
            let says_itself = security.is_some() || config.keys().any(|name| is_security(name));
            let same = found.into_iter().find(|cluster| cluster.bootstrap_servers == bootstrap_servers);
            let of_source = same.filter(|_| !says_itself).and_then(|cluster| cluster.security);
            return Ok(Cluster { bootstrap_servers, config, security: security.or(of_source) });
        }
        let [cluster] = found.as_slice() else {
            let text = format!(
                "to_kafka({topic:?}) needs bootstrap_servers: the stream comes from {} clusters",
                found.len()
            );
            return Err(Error::config(text).help("pass, say, bootstrap_servers=\"localhost:9092\""));
        };
        let mut cluster = match security {
            Some(security) => cluster.clone().secured_by(security),
            None => cluster.clone(),
        };
        cluster.config.extend(config);
        Ok(cluster)
    }
}

fn keep_of(max_rows: Option<i64>) -> Result<Keep> {
    let Some(rows) = max_rows else { return Ok(Keep::All) };
    let kept = usize::try_from(rows).ok().and_then(NonZeroUsize::new);
    kept.map(Keep::Last).ok_or_else(|| {
        Error::config(format!("to_table() takes max_rows=1 or more, found {rows}"))
            .help("None keeps all rows")
    })
}

fn file_size(size: Size) -> Result<u64> {
    match size {
        Size::Bytes(bytes) => Ok(bytes),
        Size::Part(_) => Err(Error::config("to_files() takes max_bytes as a size, found a percentage")
            .help("pass text such as \"128MiB\", or a number of bytes")),
    }
}

/// Positional columns (names and expressions), then the named ones.
fn columns_of(columns: &Bound<'_, PyList>, named: &Bound<'_, PyDict>) -> PyResult<Vec<Named>> {
    let mut all: Vec<Result<Named>> = columns.iter().map(|column| column_of(&column)).collect();
    for (name, value) in named.iter() {
        let name: String = name.extract()?;
        all.push(column_value(&value).map(|expression| Named { name, expression }));
    }
    let (mut good, mut mistakes) = (Vec::new(), Vec::new());
    for column in all {
        match column {
            Ok(column) => good.push(column),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    Ok(Error::of_all(mistakes).map_or(Ok(good), Err)?)
}

/// What a named column is: an expression; a number or the like is a constant by `tm.lit`, never by chance.
fn column_value(value: &Bound<'_, PyAny>) -> Result<Expression> {
    match value.extract::<String>() {
        Ok(name) => Ok(Expression::col(&name)),
        Err(_) => expression_of(value),
    }
}

fn column_of(column: &Bound<'_, PyAny>) -> Result<Named> {
    if let Ok(name) = column.extract::<String>() {
        return Ok(Named { expression: Expression::col(&name), name });
    }
    let expression = expression_of(column)?;
    match expression.output_name() {
        Some(name) => Ok(Named { name, expression }),
        None => Err(Error::config(format!("the column {expression} has no name"))
            .help("add .alias(\"name\"), or pass it as name=...")),
    }
}

/// An expression, or SQL text.
fn expression_of(value: &Bound<'_, PyAny>) -> Result<Expression> {
    if let Ok(text) = value.extract::<String>() {
        return Ok(Expression::sql(&text));
    }
    match value.cast::<Expr>() {
        Ok(expression) => Ok(expression.get().0.clone()),
        Err(_) => Err(not_an_expression(value)),
    }
}

fn not_an_expression(value: &Bound<'_, PyAny>) -> Error {
    let shown = value.repr().map_or_else(|_| "what cannot be shown".to_owned(), |shown| shown.to_string());
    Error::config(format!("an expression is expected, found {shown}"))
        .help("write it as, say, tm.col(\"t\") > 80, or as SQL text; tm.lit(...) makes a constant")
}

//! The scripted source and the manual clock, for users' own tests.
//!
//! They are the core's own; nothing here is simulated twice.

#![expect(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    reason = "the documentation of classes and methods is Python's"
)]

use std::sync::Arc;

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::error::{Error, Result};
use crate::ingest::scripted::{Call, ScriptedRecord, ScriptedSource as CoreSource};
use crate::offset::Offset;
use crate::python::gil;
use crate::python::units::Span;
use crate::time::{BatchTime, Clock, ManualClock as CoreClock};

/// A source in memory that yields what a test pushes.
///
/// Args:
///     topic: the name of its one topic.
///     partitions: how many partitions it has; 1 by default.
///
/// Example:
///     >>> import tidemill as tm
///     >>> source = tm.testing.ScriptedSource("readings", partitions=2)
///     >>> source.push(1, [b'{"t": 20.5}'])
///     >>> ctx = tm.StreamingContext(trigger=tm.available_now())
///     >>> [batch["t"].tolist() for batch in ctx.scripted(source, format=tm.Json({"t": "float64"}))]
///     [[20.5]]
///     >>> source.topic, source.acknowledged
///     ('readings', [('readings', 0, 0), ('readings', 1, 1)])
#[pyclass(frozen, module = "tidemill.testing")]
#[derive(Clone, Debug)]
pub(crate) struct ScriptedSource {
    pub(crate) source: CoreSource,
    topic: String,
}

#[pymethods]
impl ScriptedSource {
    #[new]
    #[pyo3(signature = (topic = "scripted", partitions = 1))]
    fn new(topic: &str, partitions: i32) -> Self {
        Self { source: CoreSource::with_partitions(topic, partitions), topic: topic.to_owned() }
    }

    /// The name of its topic.
    #[getter]
    fn topic(&self) -> &str {
        &self.topic
    }

    /// Appends records to a partition.
    ///
    /// Args:
    ///     partition: the partition; it is made where it does not exist.
    ///     payloads: one payload a record; None is a tombstone.
    ///     key: the key of all of them.
    ///     timestamp: their own time in milliseconds since the epoch; by default they have none.
    ///
    /// Raises:
    ///     `ConfigError`: the payloads are no list, or one of them is no bytes; nothing is appended then.
    ///
    /// Example:
    ///     >>> import tidemill as tm
    ///     >>> source = tm.testing.ScriptedSource()
    ///     >>> source.push(0, [b"1", None], key=b"pump", timestamp=1_700_000_000_000)
    #[pyo3(signature = (partition, payloads, key = None, timestamp = -1))]
    fn push(
        &self,
        partition: i32,
        payloads: &Bound<'_, PyAny>,
        key: Option<&[u8]>,
        timestamp: i64,
    ) -> PyResult<()> {
        for payload in payloads_of(payloads)? {
            let record =
                ScriptedRecord { key: key.map(<[u8]>::to_vec), payload, timestamp, headers: Vec::new() };
            self.source.push_record(partition, record);
        }
        Ok(())
    }

    /// Appends offsets without records to a partition, as compaction and transaction markers leave them.
    ///
    /// Example:
    ///     >>> import tidemill as tm
    ///     >>> source = tm.testing.ScriptedSource()
    ///     >>> source.hole(0, 3)
    ///     >>> source.push(0, [b"a"])
    ///     >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    ///     >>> records = ctx.scripted(source, format=tm.Raw(), metadata=["offset"])
    ///     >>> [batch["kafka_offset"].tolist() for batch in records]
    ///     [[3]]
    fn hole(&self, partition: i32, count: usize) {
        self.source.hole(partition, count);
    }

    /// Removes what lies before an offset of a partition, as retention does.
    ///
    /// Example:
    ///     >>> import tidemill as tm
    ///     >>> source = tm.testing.ScriptedSource()
    ///     >>> source.push(0, [b"a", b"b", b"c"])
    ///     >>> source.trim(0, 2)
    ///     >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    ///     >>> [batch["value"].tolist() for batch in ctx.scripted(source, format=tm.Raw())]
    ///     [[b'c']]
    fn trim(&self, partition: i32, earliest: i64) {
        self.source.trim(partition, Offset(earliest));
    }

    /// Makes every fetch wait, before it gives its first record, until `release`.
    ///
    /// Example:
    ///     >>> import tidemill as tm
    ///     >>> source = tm.testing.ScriptedSource()
    ///     >>> source.push(0, [b"a"])
    ///     >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    ///     >>> ctx.scripted(source, format=tm.Raw()).to_table("records")
    ///     >>> source.stall()
    ///     >>> ctx.start()
    ///     >>> source.await_fetch()
    ///     True
    ///     >>> ctx.table("records").num_rows
    ///     0
    ///     >>> source.release()
    ///     >>> ctx.await_termination(), ctx.table("records").num_rows
    ///     (True, 1)
    fn stall(&self) {
        self.source.stall();
    }

    /// Lets stalled fetches go on.
    ///
    /// Example:
    ///     >>> import tidemill as tm
    ///     >>> source = tm.testing.ScriptedSource()
    ///     >>> source.stall()
    ///     >>> source.release()
    ///     >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    ///     >>> list(ctx.scripted(source, format=tm.Raw()))
    ///     []
    fn release(&self) {
        self.source.release();
    }

    /// Waits until a fetch waits: stalled, or for records that are not there yet; `timeout` at most.
    ///
    /// Returns:
    ///     Whether one does.
    ///
    /// Example:
    ///     >>> import tidemill as tm
    ///     >>> tm.testing.ScriptedSource().await_fetch(timeout=0.0)
    ///     False
    #[pyo3(signature = (timeout = None))]
    fn await_fetch(&self, py: Python<'_>, timeout: Option<Span>) -> PyResult<bool> {
        gil::wait(py, timeout.map(|span| span.0), |turn| self.source.await_waiting_fetch_for(turn))
    }

    /// Makes the next such call fail, once.
    ///
    /// Args:
    ///     call: `"fetch"`, `"heads"` (where the partitions end: asked at the start and before each plan), or
    ///         `"acknowledge"` (a batch is done).
    ///     error: the exception; where it ends the job, the job raises this very object.
    ///     after: of a fetch, how many records come before it.
    ///     passing: the same call may succeed later: a running job then warns and asks for `"heads"` again.
    ///
    /// Raises:
    ///     `ConfigError`: there is no such call.
    ///
    /// Example:
    ///     >>> import tidemill as tm
    ///     >>> source = tm.testing.ScriptedSource()
    ///     >>> source.push(0, [b"a"])
    ///     >>> source.fail_next("fetch", OSError("the disk is gone"))
    ///     >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    ///     >>> for batch in ctx.scripted(source, format=tm.Raw()):
    ///     ...     print(batch)
    ///     Traceback (most recent call last):
    ///         ...
    ///     OSError: the disk is gone
    ///     ...
    #[pyo3(signature = (call, error, *, after = 0, passing = false))]
    fn fail_next(
        &self,
        call: &str,
        error: &Bound<'_, PyBaseException>,
        after: u64,
        passing: bool,
    ) -> PyResult<()> {
        let exception = PyErr::from_value(error.as_any().clone());
        let failure = Error::source(exception.to_string()).caused_by(exception);
        self.source.fail_next(call_of(call, after)?, if passing { failure.retriable() } else { failure });
        Ok(())
    }

    /// What has been processed: the next offset of each (topic, partition).
    #[getter]
    fn acknowledged(&self) -> Vec<(String, i32, i64)> {
        let positions = self.source.acknowledged().into_iter();
        positions.map(|(at, offset)| (at.topic.as_str().to_owned(), at.partition.0, offset.0)).collect()
    }

    fn __repr__(&self) -> String {
        format!("ScriptedSource({:?})", self.topic)
    }
}

/// One payload a record. Text, bytes and dicts could be walked over too, but never are what was meant.
fn payloads_of(payloads: &Bound<'_, PyAny>) -> PyResult<Vec<Option<Vec<u8>>>> {
    let refused = || -> PyResult<PyErr> {
        let text = format!("push() takes a list of payloads, found {}", payloads.repr()?);
        Ok(Error::config(text).help("pass, say, [b'{\"t\": 20.5}']").into())
    };
    let one = payloads.is_instance_of::<PyString>()
        || payloads.is_instance_of::<PyBytes>()
        || payloads.is_instance_of::<PyDict>();
    match payloads.try_iter() {
        Ok(payloads) if !one => payloads.map(|payload| payload_of(&payload?)).collect(),
        _ => Err(refused()?),
    }
}

fn payload_of(payload: &Bound<'_, PyAny>) -> PyResult<Option<Vec<u8>>> {
    if payload.is_none() {
        return Ok(None);
    }
    match payload.cast::<PyBytes>() {
        Ok(bytes) => Ok(Some(bytes.as_bytes().to_vec())),
        Err(_) => Err(Error::config(format!("a payload is bytes or None, found {}", payload.repr()?))
            .help("encode it: json.dumps(row).encode(), or text.encode()")
            .into()),
    }
}

fn call_of(name: &str, after: u64) -> Result<Call> {
    match name {
        "fetch" => Ok(Call::Fetch { after }),
        "heads" => Ok(Call::Heads),
        "acknowledge" => Ok(Call::Acknowledge),
        other => {
            Err(Error::config(format!("call is \"fetch\", \"heads\" or \"acknowledge\", found {other:?}")))
        }
    }
}

/// A clock that stands still until a test moves it.
///
/// Args:
///     start: where it stands, in seconds since the epoch; 0 by default.
///
/// Example:
///     >>> import tidemill as tm
///     >>> clock = tm.testing.ManualClock(start=1_700_000_000.0)
///     >>> ctx = tm.StreamingContext("1s", clock=clock)
///     >>> clock.now
///     1700000000.0
#[pyclass(frozen, module = "tidemill.testing")]
#[derive(Clone, Debug)]
pub(crate) struct ManualClock(pub(crate) Arc<CoreClock>);

#[pymethods]
impl ManualClock {
    #[new]
    #[pyo3(signature = (start = None))]
    fn new(start: Option<Span>) -> Self {
        let start = BatchTime::default().plus(start.map(|span| span.0).unwrap_or_default());
        Self(Arc::new(CoreClock::new(start)))
    }

    /// Moves the time forward, by `"500ms"`, a timedelta or seconds.
    ///
    /// Example:
    ///     >>> import tidemill as tm
    ///     >>> clock = tm.testing.ManualClock()
    ///     >>> clock.advance("500ms")
    ///     >>> clock.now
    ///     0.5
    fn advance(&self, by: Span) {
        self.0.advance(by.0);
    }

    /// Where it stands, in seconds since the epoch.
    #[getter]
    fn now(&self) -> f64 {
        self.0.now().0 as f64 / 1e3
    }

    fn __repr__(&self) -> String {
        format!("ManualClock({})", self.now())
    }
}

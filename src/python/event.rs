//! What a running stream reports, as Python sees it.
//!
//! Plain values only; it deliberately keeps no reference into the engine, so that an event may be kept for good.

#![expect(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    reason = "the documentation of classes and methods is Python's"
)]

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::{PyDateTime, PyDict, PyTuple, PyTzInfo};

use crate::error::Error;
use crate::event::{Counts, Event as CoreEvent, Progress as CoreProgress, Totals as CoreTotals};
use crate::offset::OffsetRange;
use crate::time::BatchTime;

/// One thing that happened to a stream.
///
/// `kind` is `started`, `planned`, `completed`, `warning`, `failed`, `missed` or `stopped`. Beside `kind`, each attribute is None where it does not apply.
///
/// Example:
///     >>> import tidemill as tm
///     >>> source = tm.testing.ScriptedSource()
///     >>> source.push(0, [b"a", b"b"])
///     >>> ctx = tm.StreamingContext(trigger=tm.available_now())
///     >>> ctx.scripted(source, format=tm.Raw()).to_table("records")
///     >>> events = []
///     >>> ctx.listeners.append(events.append)
///     >>> ctx.run()
///     >>> [event.kind for event in events]
///     ['started', 'planned', 'completed', 'stopped']
///     >>> events[2].batch_id, events[2].offset_ranges, events[2].progress.records
///     (0, (OffsetRange(topic='scripted', partition=0, from_offset=0, until_offset=2),), 2)
#[pyclass(frozen, module = "tidemill")]
#[derive(Clone, Debug)]
pub(crate) struct Event(pub(crate) CoreEvent);

#[pymethods]
impl Event {
    /// What happened: `started`, `planned`, `completed`, `warning`, `failed`, `missed` or `stopped`; a `StreamingListener` is
    /// also made of `batch_started`, `output_started`, `output_completed`, `source_started`, `source_failed` and
    /// `source_stopped`.
    #[getter]
    fn kind(&self) -> &'static str {
        match &self.0 {
            CoreEvent::Started(_) => "started",
            CoreEvent::Planned { .. } => "planned",
            CoreEvent::BatchStarted { .. } => "batch_started",
            CoreEvent::OutputStarted(_) => "output_started",
            CoreEvent::OutputCompleted(..) => "output_completed",
            CoreEvent::Completed(_) => "completed",
            CoreEvent::SourceStarted(_) => "source_started",
            CoreEvent::SourceFailed(..) => "source_failed",
            CoreEvent::SourceStopped(_) => "source_stopped",
            CoreEvent::Warning(_) => "warning",
            CoreEvent::Failed(_) => "failed",
            CoreEvent::Missed(_) => "missed",
            CoreEvent::Stopped => "stopped",
        }
    }

    /// The batch: the first one of a stream that started, else the one that it happened to.
    #[getter]
    fn batch_id(&self) -> Option<u64> {
        match &self.0 {
            CoreEvent::Started(batch)
            | CoreEvent::Planned { batch, .. }
            | CoreEvent::BatchStarted { batch, .. } => Some(batch.0),
            CoreEvent::OutputStarted(output) | CoreEvent::OutputCompleted(output, _) => Some(output.batch.0),
            CoreEvent::Completed(progress) => Some(progress.batch.0),
            _ => None,
        }
    }

    /// The time of the batch that was planned or completed (UTC).
    #[getter]
    fn batch_time<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDateTime>>> {
        let time = match &self.0 {
            CoreEvent::Planned { time, .. } => Some(*time),
            CoreEvent::Completed(progress) => Some(progress.time),
            _ => None,
        };
        time.map(|time| moment_of(py, time)).transpose()
    }

    /// When a batch was planned or started, or an output was given one, by the time of day (UTC).
    #[getter]
    fn time<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDateTime>>> {
        let time = match &self.0 {
            CoreEvent::Planned { at, .. } | CoreEvent::BatchStarted { at, .. } => Some(*at),
            CoreEvent::OutputStarted(output) | CoreEvent::OutputCompleted(output, _) => Some(output.at),
            _ => None,
        };
        time.map(|time| moment_of(py, time)).transpose()
    }

    /// Of an output that was given a batch: its number, its name, and how many rows it was given.
    #[getter]
    fn output(&self) -> Option<(usize, &str, u64)> {
        match &self.0 {
            CoreEvent::OutputStarted(output) | CoreEvent::OutputCompleted(output, _) => {
                Some((output.id, &output.name, output.rows))
            }
            _ => None,
        }
    }

    /// How long an output took for a batch, in seconds.
    #[getter]
    fn duration(&self) -> Option<f64> {
        match &self.0 {
            CoreEvent::OutputCompleted(_, end) => Some(end.took.as_secs_f64()),
            _ => None,
        }
    }

    /// The name of a source that has started, failed or stopped.
    #[getter]
    fn source(&self) -> Option<&str> {
        match &self.0 {
            CoreEvent::SourceStarted(name)
            | CoreEvent::SourceFailed(name, _)
            | CoreEvent::SourceStopped(name) => Some(name),
            _ => None,
        }
    }

    /// How many events were left out, because the listeners were too slow to hear them.
    #[getter]
    fn missed(&self) -> Option<u64> {
        match self.0 {
            CoreEvent::Missed(events) => Some(events),
            _ => None,
        }
    }

    /// What a batch did.
    #[getter]
    fn progress(&self) -> Option<Progress> {
        match &self.0 {
            CoreEvent::Completed(progress) => Some(Progress(CoreProgress::clone(progress))),
            _ => None,
        }
    }

    /// What a planned or completed batch reads, a `tidemill.OffsetRange` for each partition.
    #[getter]
    fn offset_ranges<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        match &self.0 {
            CoreEvent::Planned { ranges, .. } => offset_ranges(py, ranges).map(Some),
            CoreEvent::Completed(progress) => offset_ranges(py, &progress.ranges).map(Some),
            _ => Ok(None),
        }
    }

    /// What went wrong, as an exception that is not raised.
    #[getter]
    fn error(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.cause().map(|error| PyErr::from(error.clone()).into_value(py).into_any())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let kind = self.kind();
        Ok(match &self.0 {
            CoreEvent::Started(batch) | CoreEvent::BatchStarted { batch, .. } => {
                format!("Event({kind:?}, batch_id={batch})")
            }
            CoreEvent::Planned { batch, ranges, .. } => {
                let records: i64 = ranges.iter().map(|range| range.until.0 - range.from.0).sum();
                format!("Event({kind:?}, batch_id={batch}, {records} offsets)")
            }
            CoreEvent::Completed(progress) => {
                format!("Event({kind:?}, {})", Progress(CoreProgress::clone(progress)).__repr__(py)?)
            }
            CoreEvent::Warning(error) | CoreEvent::Failed(error) => format!("Event({kind:?}, {error})"),
            CoreEvent::OutputStarted(output) | CoreEvent::OutputCompleted(output, _) => {
                format!("Event({kind:?}, batch_id={}, {:?}, {} rows)", output.batch, output.name, output.rows)
            }
            CoreEvent::SourceStarted(source)
            | CoreEvent::SourceFailed(source, _)
            | CoreEvent::SourceStopped(source) => format!("Event({kind:?}, {source:?})"),
            CoreEvent::Missed(events) => format!("Event({kind:?}, missed={events})"),
            CoreEvent::Stopped => format!("Event({kind:?})"),
        })
    }
}

impl Event {
    fn cause(&self) -> Option<&Error> {
        match &self.0 {
            CoreEvent::Warning(error) | CoreEvent::Failed(error) | CoreEvent::SourceFailed(_, error) => {
                Some(error)
            }
            CoreEvent::OutputCompleted(_, end) => end.error.as_ref(),
            _ => None,
        }
    }
}

fn moment_of(py: Python<'_>, time: BatchTime) -> PyResult<Bound<'_, PyDateTime>> {
    moment(py, time.0.saturating_mul(1_000))
}

/// Offset ranges in the one form that Python has of them.
pub(crate) fn offset_ranges<'py>(py: Python<'py>, ranges: &[OffsetRange]) -> PyResult<Bound<'py, PyTuple>> {
    let class = py.import("tidemill.offset")?.getattr("OffsetRange")?;
    let made = ranges.iter().map(|range| {
        class.call1((range.at.topic.as_str(), range.at.partition.0, range.from.0, range.until.0))
    });
    PyTuple::new(py, made.collect::<PyResult<Vec<_>>>()?)
}

/// What one batch did, in figures, and what all have done since the start.
///
/// `ctx.progress` is that of the last batch that was delivered, `Event.progress` that of a `completed` event.
///
/// Attributes of the batch:
///
/// * `batch_id`: its number within the run, from 0.
/// * `batch_time`: its own time, a `datetime` in UTC.
/// * `offset_ranges`: what it read, as `Batch.offset_ranges`: a tuple of `tidemill.OffsetRange`.
///
/// Counts:
///
/// * `records`: records read.
/// * `bytes`: bytes of their payloads and keys.
/// * `bad`: records that did not fit the format and were left out; dead letters are among them.
/// * `tombstones`: records without payload, skipped.
/// * `without_time`: records whose event time is null (`late_reason` "null").
/// * `future`: records whose event time is too far ahead to be believed (`late_reason` "future").
/// * `late`: rows that came to a window after its end (`late_reason` "late"), once for each operator with windows.
/// * `output_rows`: rows delivered, once for each output.
/// * `lost`: offsets known to be gone before they were read, and skipped (`on_data_loss="skip"`).
/// * `totals`: the same counts over all batches since the start, this one included, and `totals.batches`.
///
/// Rates, as in Spark's `StreamingQueryProgress`:
///
/// * `input_rows_per_second`: records a second that arrived: those of the batch over the batch time since the one before.
/// * `processed_rows_per_second`: records a second that were worked off: those of the batch over the time from the
///   beginning of its work to its end. Where it stays below the other, the job falls behind.
/// * `rate_limit`: records a second that back-pressure holds the next batches to; None where it does not.
///
/// Durations, in seconds:
///
/// * `scheduling_delay`: how long the batch waited between being planned and its work beginning.
/// * `map_time`: fetch, decode and the stateless operators.
/// * `reduce_time`: the stateful operators.
/// * `deliver_time`: delivery to the outputs.
/// * `processing_time`: the last three together.
/// * `total_delay`: from planned to delivered.
///
/// The stream after the batch:
///
/// * `lag`: offsets that remained to be read, as `{(topic, partition): offsets}`.
/// * `total_lag`: offsets that remained to be read in all partitions.
/// * `watermark`: no row older than this is expected any more, a `datetime` in UTC; None without event time.
/// * `watermark_holder`: the (topic, partition) that holds the watermark back; None without event time.
/// * `open_windows`: windows that are still open.
/// * `state_entries`: entries of all keyed state: one a key, and in windows one a key and pane.
/// * `state_bytes`: bytes of all keyed state.
///
/// Example:
///     >>> import tidemill as tm
///     >>> source = tm.testing.ScriptedSource()
///     >>> source.push(0, [b'{"t": 1.5}', b'{"t": 2.5}', None])
///     >>> ctx = tm.StreamingContext(trigger=tm.available_now(max_records=2))
///     >>> ctx.scripted(source, format=tm.Json({"t": "float64"})).to_table("readings")
///     >>> ctx.run()
///     >>> ctx.progress.records, ctx.progress.tombstones, ctx.progress.totals
///     (1, 1, Totals(2 batches, 3 records, 2 output rows))
#[pyclass(frozen, module = "tidemill")]
#[derive(Clone, Debug)]
pub(crate) struct Progress(pub(crate) CoreProgress);

#[pymethods]
impl Progress {
    /// The batch's number.
    #[getter]
    fn batch_id(&self) -> u64 {
        self.0.batch.0
    }

    /// The batch's own time (UTC).
    #[getter]
    fn batch_time<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDateTime>> {
        moment_of(py, self.0.time)
    }

    /// Records read.
    #[getter]
    fn records(&self) -> u64 {
        self.0.counts.records
    }

    /// Bytes of their payloads and keys.
    #[getter]
    fn bytes(&self) -> u64 {
        self.0.counts.bytes
    }

    /// Records that did not fit the format and were dropped.
    #[getter]
    fn bad(&self) -> u64 {
        self.0.counts.bad
    }

    /// Records without payload, skipped.
    #[getter]
    fn tombstones(&self) -> u64 {
        self.0.counts.tombstones
    }

    /// Rows that came to a window after its end.
    #[getter]
    fn late(&self) -> u64 {
        self.0.counts.late
    }

    /// Windows that rows have come to and that are still open, of each aggregation; how many keys a window has does not
    /// count.
    #[getter]
    fn open_windows(&self) -> u64 {
        self.0.open_windows
    }

    /// Records without event time.
    #[getter]
    fn without_time(&self) -> u64 {
        self.0.counts.without_time
    }

    /// Records whose event time is too far in the future to be believed.
    #[getter]
    fn future(&self) -> u64 {
        self.0.counts.future
    }

    /// Rows delivered to outputs.
    #[getter]
    fn output_rows(&self) -> u64 {
        self.0.counts.output_rows
    }

    /// Offsets that were gone before they were read, and were skipped.
    #[getter]
    fn lost(&self) -> u64 {
        self.0.counts.lost
    }

    /// What all batches since the start have counted, this one included.
    #[getter]
    fn totals(&self) -> Totals {
        self.0.totals.into()
    }

    /// Records a second that arrived.
    #[getter]
    fn input_rows_per_second(&self) -> f64 {
        self.0.input_rate
    }

    /// Records a second that were worked off.
    #[getter]
    fn processed_rows_per_second(&self) -> f64 {
        self.0.processing_rate
    }

    /// Records a second that back-pressure holds the next batches to; None where it does not.
    #[getter]
    fn rate_limit(&self) -> Option<f64> {
        self.0.rate_limit
    }

    /// How long the batch waited between being planned and its work beginning.
    #[getter]
    fn scheduling_delay(&self) -> f64 {
        self.0.scheduling_delay.as_secs_f64()
    }

    /// How long fetch, decode and the stateless stage took.
    #[getter]
    fn map_time(&self) -> f64 {
        self.0.map_time.as_secs_f64()
    }

    /// How long the stateful stages took.
    #[getter]
    fn reduce_time(&self) -> f64 {
        self.0.reduce_time.as_secs_f64()
    }

    /// How long delivery to the outputs took.
    #[getter]
    fn deliver_time(&self) -> f64 {
        self.0.deliver_time.as_secs_f64()
    }

    /// Map, reduce and delivery together.
    #[getter]
    fn processing_time(&self) -> f64 {
        self.0.processing_time().as_secs_f64()
    }

    /// From planned to delivered.
    #[getter]
    fn total_delay(&self) -> f64 {
        self.0.total_delay.as_secs_f64()
    }

    /// Offsets that remained behind the last stable one, of each (topic, partition).
    #[getter]
    fn lag(&self) -> BTreeMap<(String, i32), u64> {
        let each = self.0.lag.iter();
        each.map(|(at, lag)| ((at.topic.as_str().to_owned(), at.partition.0), *lag)).collect()
    }

    /// The lag of all partitions together.
    #[getter]
    fn total_lag(&self) -> u64 {
        self.0.total_lag()
    }

    /// The watermark after the batch (UTC); None without event time.
    #[getter]
    fn watermark<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDateTime>>> {
        self.0.watermark.map(|time| moment(py, time.0)).transpose()
    }

    /// The (topic, partition) that holds the watermark back.
    #[getter]
    fn watermark_holder(&self) -> Option<(String, i32)> {
        self.0.watermark_holder.as_ref().map(|at| (at.topic.as_str().to_owned(), at.partition.0))
    }

    /// States after the batch: of each detector one a key, of each aggregation one a key in each pane of its windows. A
    /// pane is the window itself where windows do not overlap, else the greatest common divisor of length and slide.
    #[getter]
    fn state_entries(&self) -> u64 {
        self.0.state_entries
    }

    /// Bytes of all keyed state after the batch.
    #[getter]
    fn state_bytes(&self) -> u64 {
        self.0.state_bytes
    }

    /// What the batch read, a `tidemill.OffsetRange` for each partition.
    #[getter]
    fn offset_ranges<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        offset_ranges(py, &self.0.ranges)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let counts = &self.0.counts;
        let told = [
            (counts.bad, "bad"),
            (counts.lost, "lost"),
            (counts.late, "late"),
            (counts.without_time, "without time"),
            (counts.future, "in the future"),
            (self.0.open_windows, "open windows"),
        ];
        let told = told.iter().filter(|(count, _)| *count > 0);
        let mut parts = vec![self.0.to_string()];
        parts.extend(told.map(|(count, what)| format!("{count} {what}")));
        if let Some(watermark) = self.watermark(py)? {
            parts.push(format!("watermark {}", watermark.str()?));
        }
        Ok(format!("Progress({})", parts.join(", ")))
    }
}

/// What all batches of a run have counted; `Progress` says what each count means.
///
/// * `batches`: batches that were delivered to every output.
/// * `records`, `bytes`, `bad`, `tombstones`, `without_time`, `future`, `late`, `output_rows`, `lost`: as in `Progress`.
///
/// Example:
///     >>> import tidemill as tm
///     >>> source = tm.testing.ScriptedSource()
///     >>> source.push(0, [b'{"t": 1.5}', b'no JSON', b'{"t": 2.5}'])
///     >>> ctx = tm.StreamingContext(trigger=tm.available_now(max_records=1))
///     >>> ctx.scripted(source, format=tm.Json({"t": "float64"}), on_bad="drop").to_table("readings")
///     >>> ctx.run()
///     >>> ctx.progress.totals.batches, ctx.progress.totals.bad
///     (3, 1)
#[pyclass(frozen, eq, get_all, module = "tidemill")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Batches that were delivered to every output.
    batches: u64,
    /// Records read.
    records: u64,
    /// Bytes of their payloads and keys.
    bytes: u64,
    /// Records that did not fit the format and were dropped.
    bad: u64,
    /// Records without payload, skipped.
    tombstones: u64,
    /// Records without event time.
    without_time: u64,
    /// Records whose event time is too far in the future to be believed.
    future: u64,
    /// Rows that came to a window after its end.
    late: u64,
    /// Rows delivered to outputs.
    output_rows: u64,
    /// Offsets that were gone before they were read, and were skipped.
    lost: u64,
}

impl From<CoreTotals> for Totals {
    /// Names every count: one that comes to be counted is not forgotten here.
    fn from(CoreTotals { batches, counts }: CoreTotals) -> Self {
        let Counts { records, bytes, bad, tombstones, without_time, future, late, output_rows, lost } =
            counts;
        Self { batches, records, bytes, bad, tombstones, without_time, future, late, output_rows, lost }
    }
}

#[pymethods]
impl Totals {
    fn __repr__(&self) -> String {
        let Self { batches, records, output_rows, .. } = self;
        format!("Totals({batches} batches, {records} records, {output_rows} output rows)")
    }
}

/// A moment in microseconds since the epoch as an aware `datetime`; what Python cannot hold is cut to its range.
fn moment(py: Python<'_>, micros: i64) -> PyResult<Bound<'_, PyDateTime>> {
    const YEAR_1: i64 = -62_135_596_800_000_000;
    const YEAR_10000: i64 = 253_402_300_799_999_999;
    let epoch = PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, Some(&*PyTzInfo::utc(py)?))?;
    let since = PyDict::new(py);
    since.set_item("microseconds", micros.clamp(YEAR_1, YEAR_10000))?;
    let delta = py.import("datetime")?.getattr("timedelta")?.call((), Some(&since))?;
    Ok(epoch.add(delta)?.cast_into()?)
}

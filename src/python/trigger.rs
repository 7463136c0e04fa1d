//! When batches are due, in Python's words.
//!
//! It deliberately schedules nothing: the driver does.

use pyo3::prelude::*;

use crate::driver::{OpenWindows, Trigger as CoreTrigger};
use crate::error::{Error, Result};
use crate::python::units::Span;
use crate::time::Interval;

/// Records that a batch takes at most, where the trigger says nothing else.
const DEFAULT_MAX_RECORDS: u64 = 1_000_000;

/// When batches are due.
#[pyclass(frozen, eq, module = "tidemill")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trigger {
    pub(crate) when: CoreTrigger,
    pub(crate) max_records: u64,
    pub(crate) at_end: OpenWindows,
}

impl Trigger {
    /// What `trigger` is where nothing more is said: where every source ends, nothing can come to open windows any more.
    fn plain(trigger: CoreTrigger) -> Self {
        Self { when: trigger, max_records: DEFAULT_MAX_RECORDS, at_end: OpenWindows::Close }
    }
}

#[pymethods]
impl Trigger {
    #[staticmethod]
    fn interval(every: Span) -> PyResult<Self> {
        let interval = Interval::new(every.0).map_err(|error| error.at("batch interval"))?;
        Ok(Self::plain(CoreTrigger::Interval(interval)))
    }

    #[staticmethod]
    fn as_soon_as_possible() -> Self {
        Self::plain(CoreTrigger::AsSoonAsPossible)
    }

    #[staticmethod]
    #[pyo3(signature = (max_records = None, close_windows = None))]
    fn available_now(max_records: Option<i64>, close_windows: Option<bool>) -> PyResult<Self> {
        let max_records = max_records.map_or(Ok(DEFAULT_MAX_RECORDS), positive)?;
        let at_end = match close_windows {
            Some(false) => OpenWindows::Stay,
            Some(true) | None => OpenWindows::Close,
        };
        Ok(Self { when: CoreTrigger::AvailableNow, max_records, at_end })
    }

    /// Whether batches come at ticks, which they may miss.
    #[getter]
    fn has_ticks(&self) -> bool {
        matches!(self.when, CoreTrigger::Interval(_))
    }

    fn __repr__(&self) -> String {
        match self.when {
            CoreTrigger::Interval(interval) => format!("interval(\"{}ms\")", interval.duration().as_millis()),
            CoreTrigger::AsSoonAsPossible => "as_soon_as_possible()".to_owned(),
            CoreTrigger::AvailableNow => format!("available_now(max_records={})", self.max_records),
        }
    }
}

fn positive(max_records: i64) -> Result<u64> {
    let refused = || Error::config(format!("max_records must be positive, found {max_records}"));
    u64::try_from(max_records).ok().filter(|records| *records > 0).ok_or_else(refused)
}

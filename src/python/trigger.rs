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
    /// Whether windows that are still open when every source has ended leave then, where that is said.
    close_windows: Option<bool>,
}

impl Trigger {
    /// What `trigger` is where nothing more is said.
    fn plain(trigger: CoreTrigger) -> Self {
        Self { when: trigger, max_records: DEFAULT_MAX_RECORDS, close_windows: None }
    }

    /// What becomes of open windows when every source has ended: where nothing is kept, nothing can come to them any more.
    pub(crate) fn at_end(&self, is_kept: bool) -> Result<OpenWindows> {
        match (self.close_windows, is_kept) {
            (Some(true), true) => Err(Error::config(
                "close_windows=True is not offered yet with checkpoint=: rows of later starts would find their windows gone",
            )
            .help("leave it out: open windows wait for the next start")),
            (Some(false), _) | (None, true) => Ok(OpenWindows::Stay),
            (Some(true) | None, false) => Ok(OpenWindows::Close),
        }
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
        Ok(Self { when: CoreTrigger::AvailableNow, max_records, close_windows })
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

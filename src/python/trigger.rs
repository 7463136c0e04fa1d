//! When batches are due, in Python's words.
//!
//! It deliberately schedules nothing: the driver does.

use pyo3::prelude::*;

use crate::driver::Trigger as CoreTrigger;
use crate::error::Error;
use crate::python::units::Span;
use crate::time::Interval;

/// Records that a batch takes at most, where the trigger says nothing else.
const DEFAULT_MAX_RECORDS: u64 = 1_000_000;

/// When batches are due.
#[pyclass(frozen, eq, module = "tidemill")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trigger {
    pub(crate) trigger: CoreTrigger,
    pub(crate) max_records: u64,
}

#[pymethods]
impl Trigger {
    #[staticmethod]
    fn interval(every: Span) -> PyResult<Self> {
        let interval = Interval::new(every.0).map_err(|error| error.at("batch interval"))?;
        Ok(Self { trigger: CoreTrigger::Interval(interval), max_records: DEFAULT_MAX_RECORDS })
    }

    #[staticmethod]
    fn as_soon_as_possible() -> Self {
        Self { trigger: CoreTrigger::AsSoonAsPossible, max_records: DEFAULT_MAX_RECORDS }
    }

    #[staticmethod]
    #[pyo3(signature = (max_records = None))]
    fn available_now(max_records: Option<u64>) -> PyResult<Self> {
        match max_records {
            Some(0) => Err(Error::config("max_records must be positive, found 0").into()),
            max => Ok(Self {
                trigger: CoreTrigger::AvailableNow,
                max_records: max.unwrap_or(DEFAULT_MAX_RECORDS),
            }),
        }
    }

    fn __repr__(&self) -> String {
        match self.trigger {
            CoreTrigger::Interval(interval) => format!("interval(\"{}ms\")", interval.duration().as_millis()),
            CoreTrigger::AsSoonAsPossible => "as_soon_as_possible()".to_owned(),
            CoreTrigger::AvailableNow => format!("available_now(max_records={})", self.max_records),
        }
    }
}

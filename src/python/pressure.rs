//! The settings of back-pressure, in Python's words.
//!
//! It deliberately estimates nothing: the driver does.

#![expect(clippy::doc_markdown, reason = "the documentation of classes and methods is Python's")]

use pyo3::prelude::*;

use crate::driver::BackPressure as CoreBackPressure;

/// How a stream takes less while its batches take longer than their interval.
///
/// The estimate of the rate is Spark's (`PIDRateEstimator`, with its parameters and defaults), made of the records and
/// the time of each batch. It holds batches from the first that took longer than its interval until one has taken all
/// there was, never below one record, and is split over partitions by how far each lags behind; a stream that keeps up
/// is not held at all. It counts with an interval only: the other triggers have none that a batch could outlast.
///
/// Args:
///     proportional: how much of the difference between the last rate and that of the batch is corrected at once.
///     integral: how much of what the batch was late is made up for.
///     derivative: how much of the difference's change is corrected.
///     min_rate: no estimate is below so many records a second.
///     initial_rate: so many records a second until there is an estimate; without it as many as memory allows.
///
/// Raises:
///     ConfigError: a gain is negative, or a rate is not above 0.
///
/// Example:
///     >>> import tidemill as tm
///     >>> tm.BackPressure(min_rate=10)
///     BackPressure(proportional=1.0, integral=0.2, derivative=0.0, min_rate=10.0, initial_rate=None)
///     >>> ctx = tm.StreamingContext("1s", backpressure=tm.BackPressure(initial_rate=5_000))
#[pyclass(frozen, eq, module = "tidemill")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BackPressure(pub(crate) CoreBackPressure);

#[pymethods]
impl BackPressure {
    #[new]
    #[pyo3(signature = (*, proportional = 1.0, integral = 0.2, derivative = 0.0, min_rate = 100.0, initial_rate = None))]
    fn new(
        proportional: f64,
        integral: f64,
        derivative: f64,
        min_rate: f64,
        initial_rate: Option<f64>,
    ) -> PyResult<Self> {
        let settings = CoreBackPressure { proportional, integral, derivative, min_rate, initial_rate };
        settings.check()?;
        Ok(Self(settings))
    }

    fn __repr__(&self) -> String {
        let CoreBackPressure { proportional, integral, derivative, min_rate, initial_rate } = self.0;
        let initial_rate = initial_rate.map_or_else(|| "None".to_owned(), |rate| format!("{rate:?}"));
        format!(
            "BackPressure(proportional={proportional:?}, integral={integral:?}, derivative={derivative:?}, \
             min_rate={min_rate:?}, initial_rate={initial_rate})"
        )
    }
}

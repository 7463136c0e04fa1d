//! The Python face: the only files that name pyo3.
//!
//! Each file is one family of classes round a value of the core; the Python package wraps them with types,
//! documentation and defaults. It deliberately decides nothing: what a setting means is the core's business.

mod arrow;
mod batch;
mod context;
mod dstream;
mod ending;
mod error;
mod event;
mod expressions;
mod formats;
mod functions;
mod gil;
mod logging;
mod ml;
mod mock;
mod pressure;
mod publisher;
mod schema;
mod security;
mod sinks;
mod sources;
mod testing;
mod trigger;
mod units;

use pyo3::prelude::*;

/// The extension module `tidemill._native`.
#[pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::python::batch::Batch;
    #[pymodule_export]
    use crate::python::context::Context;
    #[pymodule_export]
    use crate::python::dstream::{Stream, Window};
    #[pymodule_export]
    use crate::python::error::{
        CheckpointError, ConfigError, DataError, DataLossError, FencedError, MemoryLimitError, SchemaError,
        SinkError, SourceError, TidemillError,
    };
    #[pymodule_export]
    use crate::python::event::{Event, Progress, Totals};
    #[pymodule_export]
    use crate::python::formats::CsvDialect;
    #[pymodule_export]
    use crate::python::ml::{Detector, Ewma, Scores};
    #[pymodule_export]
    use crate::python::mock::{DemoProducer, MockBroker};
    #[pymodule_export]
    use crate::python::pressure::BackPressure;
    #[pymodule_export]
    use crate::python::publisher::{Publisher, publish_files, published_files};
    #[pymodule_export]
    use crate::python::schema::{Schema, csv_schema, json_dates, json_schema};
    #[pymodule_export]
    use crate::python::security::Security;
    #[pymodule_export]
    use crate::python::sinks::BatchIterator;
    #[pymodule_export]
    use crate::python::sources::Edge;
    #[pymodule_export]
    use crate::python::testing::{ManualClock, ScriptedSource};
    #[pymodule_export]
    use crate::python::trigger::Trigger;
    /// Python's loggers hear from here on. The functions that make expressions are of one kind, and are listed in
    /// their own file.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::logging::install(module)?;
        super::ending::install(module)?;
        super::expressions::register(module)
    }

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

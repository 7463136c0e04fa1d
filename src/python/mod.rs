//! The Python face: the only files that name pyo3.
//!
//! Each file is one family of classes round a value of the core; the Python package wraps them with types,
//! documentation and defaults. It deliberately decides nothing: what a setting means is the core's business.

mod arrow;
mod batch;
mod context;
mod dstream;
mod error;
mod event;
mod expressions;
mod functions;
mod gil;
mod ml;
mod mock;
mod schema;
mod sinks;
mod sources;
mod testing;
mod trigger;
mod units;

use pyo3::prelude::*;

/// The extension module `tidemill._native`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::python::batch::Batch;
    #[pymodule_export]
    use crate::python::context::Context;
    #[pymodule_export]
    use crate::python::dstream::Stream;
    #[pymodule_export]
    use crate::python::error::{
        CheckpointError, ConfigError, DataError, DataLossError, FencedError, MemoryLimitError, SchemaError,
        SinkError, SourceError, TidemillError,
    };
    #[pymodule_export]
    use crate::python::event::{Event, Progress};
    #[pymodule_export]
    use crate::python::expressions::{
        Expr, expr_alias, expr_cast, expr_col, expr_function, expr_function_info, expr_function_names,
        expr_lit, expr_operator, expr_sql, expr_when,
    };
    #[pymodule_export]
    use crate::python::ml::{Detector, Ewma, Scores};
    #[pymodule_export]
    use crate::python::mock::{DemoProducer, MockBroker};
    #[pymodule_export]
    use crate::python::schema::Schema;
    #[pymodule_export]
    use crate::python::sinks::BatchIterator;
    #[pymodule_export]
    use crate::python::sources::Bound;
    #[pymodule_export]
    use crate::python::testing::{ManualClock, ScriptedSource};
    #[pymodule_export]
    use crate::python::trigger::Trigger;
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

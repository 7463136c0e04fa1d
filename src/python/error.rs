//! The one map between the crate's error and Python's exceptions, both ways.
//!
//! A user's own exception travels inside [`Error`] as its cause and is raised again as the same object, with its
//! own traceback and a note that says where it happened. It deliberately decides nothing about what is an error.

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::error::{Error, ErrorKind};

macro_rules! exceptions {
    ($($name:ident($base:ty): $doc:literal;)*) => {$(
        create_exception!(tidemill, $name, $base, $doc);
    )*};
}

exceptions! {
    TidemillError(PyException): "Every error that tidemill itself raises.";
    ConfigError(TidemillError): "A setting or a plan is wrong; nothing has run.";
    SchemaError(TidemillError): "A column is missing, or has or gets the wrong type.";
    DataError(TidemillError): "A record's content cannot be what the schema says.";
    SourceError(TidemillError): "A source cannot be read.";
    SinkError(TidemillError): "A sink cannot be written.";
    CheckpointError(TidemillError): "A checkpoint cannot be read or written.";
    FencedError(TidemillError): "A later driver has taken over.";
    DataLossError(TidemillError): "Records that were to be read are gone from the source.";
    MemoryLimitError(TidemillError): "One batch alone needs more memory than `max_memory` grants.";
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        match error.cause::<PyErr>() {
            Some(own) => Python::attach(|py| annotated(py, own.clone_ref(py), error.places())),
            None => exception(&error),
        }
    }
}

/// The user's own exception, with a note of where it happened; one note, however often it is raised.
fn annotated(py: Python<'_>, own: PyErr, places: &[String]) -> PyErr {
    if places.is_empty() {
        return own;
    }
    let note = format!("tidemill: {}", places.join(", "));
    let value = own.value(py);
    let noted = value.getattr("__notes__").and_then(|notes| notes.contains(&note)).unwrap_or(false);
    if !noted && let Err(refused) = value.call_method1("add_note", (note,)) {
        // An exception class may forbid it; the exception itself matters more than the note.
        log::debug!("an exception takes no note: {refused}");
    }
    own
}

fn exception(error: &Error) -> PyErr {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Config => ConfigError::new_err(text),
        ErrorKind::Schema => SchemaError::new_err(text),
        ErrorKind::Data => DataError::new_err(text),
        ErrorKind::Source => SourceError::new_err(text),
        ErrorKind::Sink => SinkError::new_err(text),
        ErrorKind::DataLoss => DataLossError::new_err(text),
        ErrorKind::MemoryLimit => MemoryLimitError::new_err(text),
        ErrorKind::Checkpoint => CheckpointError::new_err(text),
        ErrorKind::Fenced => FencedError::new_err(text),
        ErrorKind::User | ErrorKind::Cancelled => TidemillError::new_err(text),
        ErrorKind::Internal => {
            TidemillError::new_err(format!("{text}; this is a defect of tidemill, please report it"))
        }
    }
}

/// A user's exception on its way through the engine.
pub(crate) fn from_user(py: Python<'_>, exception: PyErr) -> Error {
    let is_schema = exception.is_instance_of::<SchemaError>(py);
    let kind = if is_schema { ErrorKind::Schema } else { ErrorKind::User };
    Error::new(kind, exception.to_string()).caused_by(exception)
}

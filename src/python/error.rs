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
    TidemillError(PyException): "Every error that tidemill itself raises.

    >>> import tidemill as tm
    >>> try:
    ...     tm.StreamingContext('a fortnight')
    ... except tm.TidemillError as error:
    ...     print(type(error).__name__)
    ConfigError
    ";
    ConfigError(TidemillError): "A setting or a plan is wrong; nothing has run.

    >>> import tidemill as tm
    >>> tm.StreamingContext(executors=0)
    Traceback (most recent call last):
        ...
    tidemill.ConfigError: executors is a whole number from 1 to 1,024, found 0...
    ";
    SchemaError(TidemillError): "A column is missing, or has or gets the wrong type.

    >>> import tidemill as tm
    >>> s = tm.StreamingContext().scripted(tm.testing.ScriptedSource(), format=tm.Json({'t': 'float64'}))
    >>> s.drop('temperature').columns
    Traceback (most recent call last):
        ...
    tidemill.SchemaError: there is no column \"temperature\"; the columns are t...
    ";
    DataError(TidemillError): "A record's content cannot be what the schema says.

    >>> import tidemill as tm
    >>> source = tm.testing.ScriptedSource('readings')
    >>> source.push(0, [b'{\"t\": \"hot\"}'])
    >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    >>> ctx.scripted(source, format=tm.Json({'t': 'float64'})).to_table('readings')
    >>> ctx.run()
    Traceback (most recent call last):
        ...
    tidemill.DataError: ...
    ";
    SourceError(TidemillError): "A source cannot be read.

    >>> import tidemill as tm
    >>> source = tm.testing.ScriptedSource()
    >>> source.fail_next('heads', tm.SourceError('no broker answers'))
    >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    >>> ctx.scripted(source, format=tm.Raw()).to_table('records')
    >>> ctx.run()
    Traceback (most recent call last):
        ...
    tidemill.SourceError: no broker answers
    ...
    ";
    SinkError(TidemillError): "A sink cannot be written. A function that writes for itself may raise it too.

    >>> import tidemill as tm
    >>> def store(batch):
    ...     raise tm.SinkError('the database is away')
    >>> source = tm.testing.ScriptedSource()
    >>> source.push(0, [b'1'])
    >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    >>> ctx.scripted(source, format=tm.Raw()).foreach_batch(store)
    >>> ctx.run()
    Traceback (most recent call last):
        ...
    tidemill.SinkError: the database is away
    ...
    ";
    CheckpointError(TidemillError): "What was saved cannot be read, or cannot be written.

    >>> import tidemill as tm
    >>> tm.ml.Ewma().load(b'no state')
    Traceback (most recent call last):
        ...
    tidemill.CheckpointError: ...
    ";
    FencedError(TidemillError): "A later driver has taken over.

    >>> import tidemill as tm
    >>> issubclass(tm.FencedError, tm.TidemillError)
    True
    ";
    DataLossError(TidemillError): "Records that were to be read are gone from the source.

    >>> import tidemill as tm
    >>> source = tm.testing.ScriptedSource()
    >>> source.push(0, [b'1', b'2', b'3'])
    >>> source.trim(0, 2)
    >>> ctx = tm.StreamingContext(trigger=tm.available_now())
    >>> ctx.scripted(source, format=tm.Raw(), starting={0: 0}).to_table('records')
    >>> ctx.run()
    Traceback (most recent call last):
        ...
    tidemill.DataLossError: ...
    ";
    MemoryLimitError(TidemillError): "One batch alone needs more memory than `max_memory` grants, or state more than \
`max_state_bytes`.

    >>> import tidemill as tm
    >>> source = tm.testing.ScriptedSource()
    >>> source.push(0, [b'{\"device\": \"%d\"}' % device for device in range(1000)])
    >>> ctx = tm.StreamingContext(trigger=tm.available_now(), max_state_bytes=1000)
    >>> devices = ctx.scripted(source, format=tm.Json({'device': 'string'}))
    >>> devices.key_by('device').with_columns(t=tm.lit(1.0)).detect('t', tm.ml.Ewma()).to_table('scored')
    >>> ctx.run()
    Traceback (most recent call last):
        ...
    tidemill.MemoryLimitError: ...
    ";
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

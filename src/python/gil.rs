//! The one place where the GIL is let go for waiting and taken for calling the user.
//!
//! It deliberately does nothing else, so that one short file shows that no thread ever waits with the GIL held:
//! every wait of the Python face goes through [`release`] or [`wait`], every call into Python from an engine's
//! thread through [`attach`].

use std::cell::Cell;
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use pyo3::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::python::ending;

/// How long a wait may go on before Python's signal handlers get a turn. Python runs them only on the main thread
/// and only while that thread is attached, so a wait for events alone would be deaf to Ctrl-C.
const SIGNAL_TURN: Duration = Duration::from_millis(100);

/// Does `work` without the GIL.
#[expect(clippy::disallowed_methods, reason = "the one place that lets the GIL go")]
pub(crate) fn release<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    py.detach(work)
}

thread_local! {
    /// Whether this thread is the engine's and runs a user's function now: waiting for the engine would be for ever.
    static IN_CALL: Cell<bool> = const { Cell::new(false) };
}

/// Does `work` with the GIL, from a thread of the engine. An error where the interpreter is ending, since
/// attaching then would hang the thread for good.
pub(crate) fn attach<T>(work: impl for<'py> FnOnce(Python<'py>) -> Result<T>) -> Result<T> {
    let before = IN_CALL.replace(true);
    let result = Python::try_attach(|py| if before { work(py) } else { counted(py, work) });
    IN_CALL.set(before);
    result.unwrap_or_else(|| Err(ended()))
}

/// A call that the end of the interpreter waits for.
fn counted<'py, T>(py: Python<'py>, work: impl FnOnce(Python<'py>) -> Result<T>) -> Result<T> {
    let _running = ending::Running::begin(py).ok_or_else(ended)?;
    let result = work(py);
    if result.is_err() && ending::has_begun() { Err(ended()) } else { result }
}

/// As [`attach`], for the last lines of the log: they are still taken when no other call is.
pub(crate) fn attach_to_log(work: impl for<'py> FnOnce(Python<'py>)) -> Result<()> {
    Python::try_attach(work).ok_or_else(ended)
}

/// Whether the caller is a user's function that the engine called.
pub(crate) fn in_call() -> bool {
    IN_CALL.get()
}

/// Waits without the GIL until `step` has something or `timeout` has passed. `step` waits for at most the time that
/// it is given, and returns at once when there is something to return.
pub(crate) fn wait_for<T: Send>(
    py: Python<'_>,
    timeout: Option<Duration>,
    step: impl Fn(Duration) -> Option<T> + Sync,
) -> PyResult<Option<T>> {
    let mut left = timeout;
    loop {
        let turn = left.map_or(SIGNAL_TURN, |left| left.min(SIGNAL_TURN));
        if let Some(found) = release(py, || step(turn)) {
            return Ok(Some(found));
        }
        py.check_signals()?;
        left = left.map(|left| left.saturating_sub(turn));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
    }
}

/// Does `work` on a thread of its own and waits for it without the GIL, while signals are heard. A signal that raises
/// leaves the work to itself, after `interrupted` was called.
pub(crate) fn on_thread<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
    interrupted: impl FnOnce(),
) -> PyResult<T> {
    let (sender, answer) = bounded(1); // room for the one answer, so that nobody need be there to take it
    let named = Builder::new().name("tidemill-start".to_owned());
    named.spawn(move || drop(sender.send(work()))).map_err(|cause| {
        Error::internal("expected to start a thread, found that the system gives no more").caused_by(cause)
    })?;
    let found = wait_for(py, None, |turn| match answer.recv_timeout(turn) {
        Ok(done) => Some(done),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Err(Error::internal("starting has panicked"))),
    });
    if found.is_err() {
        interrupted();
    }
    Ok(found?.unwrap_or_else(|| Err(Error::internal("expected to wait without a limit")))?)
}

/// Waits without the GIL until `step` says that it is done or `timeout` has passed, and says whether it is done.
pub(crate) fn wait(
    py: Python<'_>,
    timeout: Option<Duration>,
    step: impl Fn(Duration) -> bool + Sync,
) -> PyResult<bool> {
    Ok(wait_for(py, timeout, |turn| step(turn).then_some(()))?.is_some())
}

fn ended() -> Error {
    Error::new(ErrorKind::User, "the Python interpreter is ending and takes no more calls")
        .help("stop the context before the script ends: use ctx.run(), or `with` the context")
}

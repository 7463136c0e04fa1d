//! What becomes of users' functions that run while the interpreter ends.
//!
//! A thread that comes back to Python when Python is being taken down can neither go on nor let go: the process would
//! abort. So before that, no call begins any more, those under way are waited for, and those that take too long are ended
//! by an exception, as Ctrl-C would end them. It deliberately knows no streams: their batches fail by it, unheard.

use std::cell::Cell;
use std::ffi::c_long;
use std::process;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PySystemExit;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;

use crate::python::gil;

/// A call that is nearly done is let finish.
const PATIENCE: Duration = Duration::from_millis(500);

/// One that computes in Python ends at its next line; one that waits for something else is left to the end of the process.
const INTERRUPTED_PATIENCE: Duration = Duration::from_secs(2);

/// The end of the interpreter is the process's, and so are the calls that it waits for.
static CALLS: Mutex<Calls> = Mutex::new(Calls { closed: false, running: Vec::new() });

/// Told whenever a call has ended.
static ENDED: Condvar = Condvar::new();

struct Calls {
    closed: bool,
    running: Vec<Call>,
}

/// A call of the thread that Python knows by this number, in the process of this one: a fork has none of them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Call {
    process: u32,
    thread: c_long,
}

/// Stands for a call from its beginning, with the GIL held, to its end.
pub(crate) struct Running(Call);

impl Running {
    /// A call begins; none where the interpreter is ending.
    pub(crate) fn begin(py: Python<'_>) -> Option<Self> {
        let call = Call { process: process::id(), thread: number(py).ok()? };
        let mut calls = lock();
        if calls.closed {
            return None;
        }
        calls.running.push(call);
        Some(Self(call))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut calls = lock();
        if let Some(place) = calls.running.iter().position(|call| *call == self.0) {
            calls.running.swap_remove(place);
        }
        drop(calls);
        ENDED.notify_all();
    }
}

/// Whether the interpreter is ending: what a call under way comes to is of no use to anybody.
pub(crate) fn has_begun() -> bool {
    lock().closed
}

/// Has the end of the interpreter wait for calls.
pub(crate) fn install(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    py.import("atexit")?.call_method1("register", (wrap_pyfunction!(end_calls, module)?,))?;
    Ok(())
}

/// Ends the calls that are under way, and lets none begin.
#[pyfunction]
fn end_calls(py: Python<'_>) {
    lock().closed = true;
    if gil::release(py, || all_end_within(PATIENCE)) {
        return;
    }
    let late: Vec<c_long> = own(&lock()).collect();
    for thread in late {
        interrupt(py, thread);
    }
    gil::release(py, || all_end_within(INTERRUPTED_PATIENCE));
}

fn all_end_within(patience: Duration) -> bool {
    let busy = |calls: &mut Calls| own(calls).next().is_some();
    let waited = ENDED.wait_timeout_while(lock(), patience, busy);
    !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
}

fn own(calls: &Calls) -> impl Iterator<Item = c_long> + use<'_> {
    let process = process::id();
    calls.running.iter().filter(move |call| call.process == process).map(|call| call.thread)
}

/// Has the thread raise `SystemExit` at its next line of Python.
#[expect(unsafe_code, reason = "Python offers it to C alone")]
fn interrupt(py: Python<'_>, thread: c_long) {
    let ended = PySystemExit::type_object(py);
    // SAFETY: the GIL is held, the class lives as long as the interpreter, and a thread that is gone is not found.
    unsafe { ffi::PyThreadState_SetAsyncExc(thread, ended.as_ptr()) };
}

/// The number by which Python knows this thread.
fn number(py: Python<'_>) -> PyResult<c_long> {
    thread_local! {
        static NUMBER: Cell<Option<c_long>> = const { Cell::new(None) };
    }
    if let Some(known) = NUMBER.get() {
        return Ok(known);
    }
    let number = py.import("threading")?.call_method0("get_ident")?.extract()?;
    NUMBER.set(Some(number));
    Ok(number)
}

fn lock() -> MutexGuard<'static, Calls> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

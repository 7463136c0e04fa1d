//! What the crate and librdkafka log, on its way to Python's loggers `tidemill` and `tidemill.kafka`.
//!
//! A line is put into a queue where it arises, and one thread hands it on. It deliberately never takes the GIL on the
//! thread that logs, and never waits there for room: that thread may hold a lock that a thread with the GIL waits
//! for. Lines that find no room are counted, and the count is logged.

use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Builder};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::python::gil;

/// So many lines wait for Python: some hundred kilobytes, and more than a job writes while a handler is slow for a
/// moment; only librdkafka's own debugging may overflow it.
const WAITING: usize = 1_024;

/// How long the end of the interpreter waits for lines on their way, twice at most: a handler may hang.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The levels that a line can have, the most talkative first.
const LEVELS: [Level; 5] = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error];

/// A process has one logger, by the word of the `log` crate.
static BRIDGE: Bridge = Bridge {
    enabled: [AtomicUsize::new(0), AtomicUsize::new(0)],
    queue: OnceLock::new(),
    missed: AtomicU64::new(0),
    closed: AtomicBool::new(false),
};

/// Makes Python's loggers hear of what is logged. The end of the interpreter waits for the last lines.
pub(crate) fn install(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    if log::set_logger(&BRIDGE).is_err() {
        return Ok(()); // whoever has linked this crate has a logger of their own
    }
    refresh(py)?;
    // After `logging` was imported, and so before its own end.
    py.import("atexit")?.call_method1("register", (wrap_pyfunction!(close, module)?,))?;
    Ok(())
}

/// Asks Python's loggers for their levels. A line that nobody wants then costs the look at a number and is not
/// formatted. Nothing tells of a change, so they are asked when a job starts, and again at each of its events.
///
/// A logger of the user's own that fails is no reason for a job to fail; Ctrl-C meanwhile is handed on.
pub(crate) fn refresh(py: Python<'_>) -> PyResult<()> {
    match ask_levels(py) {
        Err(error) if error.is_instance_of::<PyException>(py) => {
            error.write_unraisable(py, None);
            Ok(())
        }
        asked => asked,
    }
}

fn ask_levels(py: Python<'_>) -> PyResult<()> {
    let mut most = LevelFilter::Off;
    for name in Name::ALL {
        let level = level_of(&name.logger(py)?)?;
        BRIDGE.enabled_of(name).store(level as usize, Ordering::Relaxed);
        most = most.max(level);
    }
    log::set_max_level(most);
    Ok(())
}

/// The most talkative level that a logger lets pass.
fn level_of(logger: &Bound<'_, PyAny>) -> PyResult<LevelFilter> {
    for level in LEVELS {
        if is_enabled(logger, level)? {
            return Ok(level.to_level_filter());
        }
    }
    Ok(LevelFilter::Off)
}

fn is_enabled(logger: &Bound<'_, PyAny>, level: Level) -> PyResult<bool> {
    logger.call_method1("isEnabledFor", (number(level),))?.is_truthy()
}

/// Python's number of a level; it has none for `trace`.
fn number(level: Level) -> u8 {
    match level {
        Level::Error => 40,
        Level::Warn => 30,
        Level::Info => 20,
        Level::Debug => 10,
        Level::Trace => 5,
    }
}

/// Lets what is on its way arrive, and takes no more: calling Python after its end would hang the thread.
#[pyfunction]
fn close(py: Python<'_>) {
    BRIDGE.closed.store(true, Ordering::SeqCst);
    let Some(Some(queue)) = BRIDGE.queue.get().filter(|_| BRIDGE.is_own_process()) else { return };
    gil::release(py, || {
        let (done, ended) = bounded(1); // room for the one answer, so that nobody need be there to take it
        if queue.items.send_timeout(Item::End(done), LAST_LINES).is_ok() {
            let _ = ended.recv_timeout(LAST_LINES); // whoever is slower than that is not waited for
        }
    });
}

/// Python's logger that a line goes to.
#[derive(Clone, Copy)]
enum Name {
    Tidemill,
    Kafka,
}

impl Name {
    const ALL: [Self; 2] = [Self::Tidemill, Self::Kafka];

    fn of(target: &str) -> Self {
        if target.contains("kafka") { Self::Kafka } else { Self::Tidemill }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Tidemill => "tidemill",
            Self::Kafka => "tidemill.kafka",
        }
    }

    fn logger(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        py.import("logging")?.call_method1("getLogger", (self.text(),))
    }
}

/// Takes lines from any thread.
struct Bridge {
    /// The most talkative level of each logger, as the number of a [`LevelFilter`].
    enabled: [AtomicUsize; 2],
    /// Made at the first line: a process that logs nothing has no thread for it, and may fork without a warning.
    queue: OnceLock<Option<Queue>>,
    missed: AtomicU64,
    closed: AtomicBool,
}

struct Queue {
    /// The process that has the thread: it does not come along through a fork.
    process: u32,
    items: Sender<Item>,
}

enum Item {
    Line(Line),
    /// No more will come; answers when all before it has been handed on.
    End(Sender<()>),
}

struct Line {
    name: Name,
    level: Level,
    text: String,
    file: &'static str,
    number: u32,
    thread: Option<String>,
}

impl Log for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let wanted = self.enabled_of(Name::of(target)).load(Ordering::Relaxed);
        metadata.level() as usize <= wanted && (metadata.level() <= Level::Warn || is_ours(target))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || self.closed.load(Ordering::SeqCst) {
            return;
        }
        let queue = self.queue.get_or_init(start).as_ref().filter(|_| self.is_own_process());
        let full = queue.is_some_and(|queue| queue.items.try_send(Item::Line(Line::of(record))).is_err());
        if full {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// What other crates tell for their own debugging is no news of a job; their warnings are.
fn is_ours(target: &str) -> bool {
    ["tidemill", "librdkafka"].iter().any(|ours| target.starts_with(ours))
}

impl Bridge {
    fn enabled_of(&self, name: Name) -> &AtomicUsize {
        let [tidemill, kafka] = &self.enabled;
        match name {
            Name::Tidemill => tidemill,
            Name::Kafka => kafka,
        }
    }

    fn is_own_process(&self) -> bool {
        matches!(self.queue.get(), Some(Some(queue)) if queue.process == process::id())
    }
}

impl Line {
    fn of(record: &Record<'_>) -> Self {
        Self {
            name: Name::of(record.target()),
            level: record.level(),
            text: record.args().to_string(),
            file: record.file_static().unwrap_or("(unknown file)"),
            number: record.line().unwrap_or_default(),
            thread: thread::current().name().map(ToOwned::to_owned),
        }
    }

    /// Gives it to its logger, as if it had been logged in Python on the thread that it comes from.
    fn hand_on(&self, py: Python<'_>) -> PyResult<()> {
        let logger = self.name.logger(py)?;
        if !is_enabled(&logger, self.level)? {
            return Ok(()); // less is wanted than when it was logged
        }
        let (name, level) = (self.name.text(), number(self.level));
        let arguments = (name, level, self.file, self.number, &self.text, (), py.None());
        let record = logger.call_method1("makeRecord", arguments)?;
        if let Some(thread) = &self.thread {
            record.setattr("threadName", thread)?;
        }
        logger.call_method1("handle", (record,))?;
        Ok(())
    }
}

/// The queue and its thread; none where the system gives no more threads.
fn start() -> Option<Queue> {
    let (items, waiting) = bounded(WAITING);
    Builder::new().name("tidemill-log".to_owned()).spawn(move || hand_on(&waiting)).ok()?;
    Some(Queue { process: process::id(), items })
}

fn hand_on(waiting: &Receiver<Item>) {
    for item in waiting {
        match item {
            Item::End(done) => {
                let _ = done.send(()); // nobody waits any more where it came too late
                return;
            }
            Item::Line(line) => {
                if gil::attach_to_log(|py| tell(py, &line)).is_err() {
                    return; // the interpreter is ending
                }
            }
        }
    }
}

/// What a logger's own filters and handlers raise is shown as Python shows what it cannot raise.
fn tell(py: Python<'_>, line: &Line) {
    let missed = BRIDGE.missed.swap(0, Ordering::Relaxed);
    let said = if missed > 0 { left_out(missed).hand_on(py) } else { Ok(()) };
    if let Err(error) = said.and_then(|()| line.hand_on(py)) {
        error.write_unraisable(py, None);
    }
}

fn left_out(missed: u64) -> Line {
    let text = format!(
        "{missed} log lines were left out: they came faster than the handlers of logging took them; raise the level \
         of the logger \"tidemill.kafka\" or \"tidemill\", or log through a logging.handlers.QueueHandler"
    );
    Line { name: Name::Tidemill, level: Level::Warn, text, file: file!(), number: line!(), thread: None }
}

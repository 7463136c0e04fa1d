//! Batch numbers, batch times, event times and clocks; the only file that reads a clock.
//!
//! It deliberately schedules nothing: it says what time it is and wakes whoever asked to hear of a change. The
//! driver decides what is due.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arrow::datatypes::TimeUnit;
use arrow::temporal_conversions::timestamp_us_to_datetime;

use crate::error::{Error, Result};

/// The number of a batch within a job, from 0, without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

impl BatchId {
    /// The batch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A batch's own time, in milliseconds since the epoch; strictly increasing from batch to batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchTime(pub i64);

impl BatchTime {
    /// The time after `duration` has passed.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// A moment told by a record itself, in microseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(pub i64);

impl EventTime {
    /// Later than every moment that a record can tell.
    pub const END: Self = Self(i64::MAX);

    /// The moment `duration` before this one.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The moment `duration` after this one.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for EventTime {
    /// As ISO 8601 text in UTC, as people read it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match timestamp_us_to_datetime(self.0) {
            Some(date) => write!(f, "{date} UTC"),
            None => f.write_str("a time beyond every calendar"),
        }
    }
}

impl From<BatchTime> for EventTime {
    fn from(time: BatchTime) -> Self {
        Self(time.0.saturating_mul(1_000))
    }
}

impl EventTime {
    /// The moment that a column's number in `unit` tells. One beyond the range of microseconds saturates: it is still
    /// the future, or still the distant past.
    pub fn of_ticks(ticks: i64, unit: TimeUnit) -> Self {
        Self(match unit {
            TimeUnit::Second => ticks.saturating_mul(1_000_000),
            TimeUnit::Millisecond => ticks.saturating_mul(1_000),
            TimeUnit::Microsecond => ticks,
            TimeUnit::Nanosecond => ticks.div_euclid(1_000),
        })
    }

    /// The moment as a number in `unit`, rounded down.
    pub fn ticks(self, unit: TimeUnit) -> i64 {
        match unit {
            TimeUnit::Second => self.0.div_euclid(1_000_000),
            TimeUnit::Millisecond => self.0.div_euclid(1_000),
            TimeUnit::Microsecond => self.0,
            TimeUnit::Nanosecond => self.0.saturating_mul(1_000),
        }
    }
}

/// How many ticks of a column of times make a second.
pub fn ticks_a_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// The time between two ticks: a whole, positive number of milliseconds.
///
/// ```
/// use std::time::Duration;
/// use tidemill::time::{BatchTime, Interval};
/// let interval = Interval::new(Duration::from_millis(500)).unwrap();
/// assert_eq!(interval.tick_after(BatchTime(1_700_000_000_100)), BatchTime(1_700_000_000_500));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(i64);

impl Interval {
    /// An interval of `duration`; refused unless it is a whole, positive number of milliseconds.
    pub fn new(duration: Duration) -> Result<Self> {
        let millis = millis(duration);
        if millis < 1 || Duration::from_millis(millis.unsigned_abs()) != duration {
            let found = duration.as_secs_f64() * 1_000.0;
            let message =
                format!("an interval is a positive, whole number of milliseconds, found {found} ms");
            return Err(Error::config(message).help("pass, say, \"500ms\" or 0.5"));
        }
        Ok(Self(millis))
    }

    /// The first multiple of the interval since the epoch that is later than `time`.
    #[must_use]
    pub fn tick_after(self, time: BatchTime) -> BatchTime {
        BatchTime((time.0.div_euclid(self.0) + 1).saturating_mul(self.0))
    }

    /// The length of the interval.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0.unsigned_abs())
    }
}

/// Called when something may have changed; must be quick and never block.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// Where the time comes from: the machine in production, the test's hand in tests.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time of day.
    fn now(&self) -> BatchTime;

    /// Time that never goes back, for measuring how long things take.
    fn elapsed(&self) -> Duration;

    /// How long a thread may sleep until `time` comes; `None` when only a waker will tell (a manual clock).
    fn sleep_until(&self, time: BatchTime) -> Option<Duration>;

    /// Asks for `waker` to be called whenever the time is moved by hand.
    fn subscribe(&self, waker: Waker);
}

/// The machine's own clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose [`Clock::elapsed`] counts from now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now(&self) -> BatchTime {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        BatchTime(millis(since))
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep_until(&self, time: BatchTime) -> Option<Duration> {
        Some(time.since(self.now()))
    }

    fn subscribe(&self, _: Waker) {}
}

/// A clock that stands still until it is moved: tests run whole streams on it without waiting.
///
/// ```
/// use std::time::Duration;
/// use tidemill::time::{BatchTime, Clock, ManualClock};
/// let clock = ManualClock::new(BatchTime(1_000));
/// clock.advance(Duration::from_millis(500));
/// assert_eq!(clock.now(), BatchTime(1_500));
/// ```
#[derive(Default)]
pub struct ManualClock {
    state: Mutex<ManualState>, // read by the driver's thread, moved by the test's
}

#[derive(Default)]
struct ManualState {
    start: BatchTime,
    now: BatchTime,
    wakers: Vec<Waker>,
}

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: BatchTime) -> Self {
        Self { state: Mutex::new(ManualState { start, now: start, wakers: Vec::new() }) }
    }

    /// Moves the time forward and wakes whoever waits for it.
    pub fn advance(&self, by: Duration) {
        let wakers = {
            let mut state = self.lock();
            state.now = state.now.plus(by);
            state.wakers.clone()
        };
        for wake in wakers {
            wake();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ManualState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManualClock({})", self.now().0)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> BatchTime {
        self.lock().now
    }

    fn elapsed(&self) -> Duration {
        let state = self.lock();
        state.now.since(state.start)
    }

    fn sleep_until(&self, time: BatchTime) -> Option<Duration> {
        (time <= self.now()).then_some(Duration::ZERO)
    }

    fn subscribe(&self, waker: Waker) {
        self.lock().wakers.push(waker);
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

//! A stream that runs, as seen by whoever started it: ask it to end, wait for it, look at it.
//!
//! It deliberately decides nothing; it rings the driver's bell and reads what the loop has published.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use crate::driver::Stop;
use crate::error::{Error, Result};
use crate::event::Progress;

/// What waiting came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The stream has ended.
    Ended,
    /// It still runs.
    TimedOut,
}

/// A stream that runs on threads of its own. Dropping it stops it at once and waits for its threads.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// A handle on the loop in `thread`.
    pub(crate) fn new(shared: Arc<Shared>, thread: JoinHandle<()>) -> Self {
        Self { shared, thread: Some(thread) }
    }

    /// Asks the stream to end, and returns at once; may be called from anywhere, also while a batch is being
    /// delivered on the calling thread. [`Stop::Now`] after [`Stop::Graceful`] is heard too.
    pub fn stop(&self, stop: Stop) {
        self.shared.bell.ring(match stop {
            Stop::Graceful => Bell::GRACEFUL,
            Stop::Now => Bell::NOW,
        });
    }

    /// Waits until the stream has begun: its sinks are open and its positions known. The error, if it failed before
    /// that; a stream that was stopped before is none.
    pub fn begun(&self) -> Result<()> {
        self.shared.begun()
    }

    /// Waits until the stream has ended, at most `timeout`. The stream's error, if it failed; it may be asked for
    /// again. A thread of the stream's own cannot wait for itself: that is an error too.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Waited> {
        if self.is_own_thread() {
            let message = "expected to wait for a stream from outside, found one of its own threads waiting";
            return Err(Error::config(message).help("ask it to stop instead; it ends once the batch is done"));
        }
        match self.shared.wait(timeout) {
            Some(outcome) => outcome.map(|()| Waited::Ended),
            None => Ok(Waited::TimedOut),
        }
    }

    /// The error that failed the stream, as soon as it is known.
    pub fn error(&self) -> Option<Error> {
        self.shared.lock().error.clone()
    }

    /// What the last completed batch did.
    pub fn progress(&self) -> Option<Progress> {
        self.shared.lock().progress.as_deref().cloned()
    }

    /// Whether the stream has not ended.
    pub fn is_running(&self) -> bool {
        self.shared.lock().outcome.is_none()
    }

    /// Whether the calling thread is one of the stream's own: its sinks and listeners are called on such.
    pub fn is_own_thread(&self) -> bool {
        self.shared.lock().threads.contains(&std::thread::current().id())
    }
}

impl Drop for Running {
    /// A sink or listener may hold the last handle: its thread cannot wait for itself, and the loop then ends
    /// without anyone waiting.
    fn drop(&mut self) {
        self.stop(Stop::Now);
        if let Some(thread) = self.thread.take().filter(|_| !self.is_own_thread()) {
            // The loop catches every panic and publishes it as the outcome: there is nothing more to learn here.
            drop(thread.join());
        }
    }
}

/// What the loop publishes.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) bell: Arc<Bell>,
    published: Mutex<Published>, // written by the loop, read by handles on any thread; held for a copy
    changed: Condvar,            // it has begun, or ended
}

#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) begun: bool,
    pub(crate) outcome: Option<Result<()>>,
    pub(crate) error: Option<Error>,
    pub(crate) progress: Option<Arc<Progress>>,
    pub(crate) threads: Vec<ThreadId>,
}

impl Shared {
    pub(crate) fn new(bell: Arc<Bell>) -> Self {
        Self { bell, published: Mutex::default(), changed: Condvar::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last act of the loop.
    pub(crate) fn end(&self, outcome: Result<()>) {
        let mut published = self.lock();
        if let Err(error) = &outcome {
            published.error.get_or_insert_with(|| error.clone());
        }
        published.threads.clear(); // they have ended: their numbers mean nothing any more
        published.outcome = Some(outcome);
        self.changed.notify_all();
    }

    /// The loop has begun to plan.
    pub(crate) fn begin(&self) {
        self.lock().begun = true;
        self.changed.notify_all();
    }

    fn begun(&self) -> Result<()> {
        let waits = |published: &mut Published| !published.begun && published.outcome.is_none();
        let published = self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        if published.begun { Ok(()) } else { published.outcome.clone().unwrap_or(Ok(())) }
    }

    fn wait(&self, timeout: Option<Duration>) -> Option<Result<()>> {
        let runs = |published: &mut Published| published.outcome.is_none();
        let guard = match timeout {
            None => self.changed.wait_while(self.lock(), runs).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.changed.wait_timeout_while(self.lock(), timeout, runs);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        guard.outcome.clone()
    }
}

/// Wakes the loop from any thread, and says why.
///
/// A flag and a condition, and not a channel: a channel's receiver spins and yields before it sleeps, which at a thousand
/// small batches a second was a third of what they cost.
#[derive(Debug)]
pub(crate) struct Bell {
    reasons: AtomicU8,
    records_told: AtomicBool, // and the sources have not been asked since
    rung: Mutex<bool>,        // set from any thread, taken by the loop; held for that alone
    heard: Condvar,
}

/// Why the loop no longer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The bell was rung.
    Rung,
    /// The time has come.
    TimedOut,
}

impl Bell {
    /// The time was moved by hand.
    pub(crate) const CLOCK: u8 = 1;
    /// Records may have arrived.
    pub(crate) const SOURCE: u8 = 2;
    /// A graceful stop.
    pub(crate) const GRACEFUL: u8 = 4;
    /// A stop at once.
    pub(crate) const NOW: u8 = 8;

    /// A bell that nobody has rung.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            reasons: AtomicU8::new(0),
            records_told: AtomicBool::new(false),
            rung: Mutex::default(),
            heard: Condvar::new(),
        })
    }

    /// Wakes the loop, which finds the reason beside the bell.
    pub(crate) fn ring(&self, reason: u8) {
        self.reasons.fetch_or(reason, Ordering::Release);
        self.wake();
    }

    /// Wakes the loop, which finds an answer.
    pub(crate) fn wake(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_one();
    }

    /// Waits until it is rung, or has been since the last wait; for `timeout` at most.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Woken {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = |rung: &mut bool| !*rung;
        let mut rung = match timeout {
            None => self.heard.wait_while(rung, silent).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.heard.wait_timeout_while(rung, timeout, silent);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if std::mem::take(&mut *rung) { Woken::Rung } else { Woken::TimedOut }
    }

    /// Records may have arrived. It rings for the first only until the sources are asked: a busy topic has thousands of
    /// arrivals a second, and waking the loop for each took a third of what a small batch costs.
    pub(crate) fn ring_for_records(&self) {
        if !self.records_told.swap(true, Ordering::AcqRel) {
            self.ring(Self::SOURCE);
        }
    }

    /// The sources are being asked: whatever arrives from here on is news. It reads what it overwrites, so that who asks
    /// sees what had arrived before a ring that was left out.
    pub(crate) fn asks(&self) {
        self.records_told.swap(false, Ordering::AcqRel);
    }

    /// Why it was rung since it was last asked.
    pub(crate) fn reasons(&self) -> u8 {
        self.reasons.swap(0, Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Bell, Woken};

    #[test]
    fn arrivals_ring_once_until_the_sources_are_asked() {
        let bell = Bell::new();
        let heard = || (bell.wait(Some(Duration::ZERO)), bell.reasons());
        bell.ring_for_records();
        bell.ring_for_records();
        assert_eq!(heard(), (Woken::Rung, Bell::SOURCE));
        bell.ring_for_records();
        assert_eq!(heard(), (Woken::TimedOut, 0));
        bell.asks();
        bell.ring_for_records();
        assert_eq!(heard(), (Woken::Rung, Bell::SOURCE));
    }

    #[test]
    fn a_ring_before_the_wait_is_heard_by_it_once() {
        let bell = Bell::new();
        bell.wake();
        bell.ring(Bell::NOW);
        assert_eq!((bell.wait(None), bell.reasons()), (Woken::Rung, Bell::NOW));
        assert_eq!(bell.wait(Some(Duration::ZERO)), Woken::TimedOut);
    }
}

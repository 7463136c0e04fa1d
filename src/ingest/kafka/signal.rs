//! How librdkafka's threads tell an ingest thread, and whoever subscribed, that something has arrived.
//!
//! It deliberately carries no data: whoever is woken looks for himself.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::time::Waker;

/// Everyone who asked to hear of arrivals at a source.
#[derive(Default)]
pub(super) struct Wakers(RwLock<Vec<Waker>>); // written on subscription, read by librdkafka's threads

impl Wakers {
    pub(super) fn add(&self, waker: Waker) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(waker);
    }

    fn wake(&self) {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().for_each(|wake| wake());
    }
}

impl fmt::Debug for Wakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wakers")
    }
}

/// Raised when a queue that was empty is so no more; one for each fetcher.
#[derive(Debug)]
pub(super) struct Signal {
    raised: Mutex<bool>, // set by librdkafka's threads, taken back by the one ingest thread
    changed: Condvar,
    wakers: Arc<Wakers>,
}

impl Signal {
    pub(super) fn new(wakers: Arc<Wakers>) -> Self {
        Self { raised: Mutex::new(false), changed: Condvar::new(), wakers }
    }

    /// Tells the fetcher and everyone who asked to hear of arrivals.
    pub(super) fn raise(&self) {
        self.wake();
        self.wakers.wake();
    }

    /// Has the fetcher look around, though nothing has arrived.
    pub(super) fn wake(&self) {
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Calls [`Signal::wake`] as long as the signal is there.
    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        let signal = Arc::downgrade(self);
        Arc::new(move || signal.upgrade().iter().for_each(|signal| signal.wake()))
    }

    /// Waits until raised or woken since it last returned, or until `timeout` has passed where there is one.
    pub(super) fn wait(&self, timeout: Option<Duration>) {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let mut raised = match timeout {
            Some(timeout) => {
                let waited = self.changed.wait_timeout_while(raised, timeout, |raised| !*raised);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                self.changed.wait_while(raised, |raised| !*raised).unwrap_or_else(PoisonError::into_inner)
            }
        };
        *raised = false;
    }
}

//! Asking whoever is at work to give up: one flag, shared by all that look at it, and a wake for all that wait.
//!
//! It deliberately stops nobody by itself and says neither why nor what becomes of the work: whoever holds one looks
//! at it where it could go on for long, and returns.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::Waker;

/// Asks for work to be given up: set once, for good, and seen by all that share it.
///
/// Whoever computes looks at [`Cancel::is_cancelled`] now and then; whoever has nothing else to wait for sleeps in
/// [`Cancel::wait_timeout`]; whoever sleeps elsewhere has itself woken there by [`Cancel::on_cancel`].
///
/// ```
/// use std::time::Duration;
/// use tidemill::cancel::Cancel;
/// let cancel = Cancel::default();
/// let seen_by_the_worker = cancel.clone();
/// cancel.cancel();
/// assert!(seen_by_the_worker.wait_timeout(Duration::from_secs(60))); // at once
/// ```
#[derive(Clone, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Beside the lock, so that a loop over rows can look at it for the price of a load.
    cancelled: AtomicBool,
    /// Held to add or remove a waker and to set the flag, so that no one who asks to be woken is missed; never while
    /// a waker runs, since that may take a lock under which someone else comes here.
    wakers: Mutex<Wakers>,
    set: Condvar,
}

#[derive(Default)]
struct Wakers {
    next: u64,
    waiting: Vec<(u64, Waker)>,
}

impl Cancel {
    /// Asks all holders to give up, and wakes those that wait.
    pub fn cancel(&self) {
        let waiting = {
            let mut wakers = self.0.lock();
            self.0.cancelled.store(true, Ordering::Release);
            std::mem::take(&mut wakers.waiting)
        };
        self.0.set.notify_all();
        for (_, wake) in waiting {
            wake();
        }
    }

    /// Whether giving up has been asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Waits until giving up is asked for, or `timeout` has passed; says whether it has been asked for.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let waiting = |_: &mut Wakers| !self.is_cancelled();
        drop(self.0.set.wait_timeout_while(self.0.lock(), timeout, waiting));
        self.is_cancelled()
    }

    /// Has `waker` called once when giving up is asked for; at once, by this call, where it has been already.
    ///
    /// To wake who waits on a condition variable, the waker takes and leaves the lock of that variable before it
    /// notifies: else it may come between the look at [`Cancel::is_cancelled`] and the wait. So that lock must not be
    /// held here. Where the guard is dropped while the waker is being called, that call still ends by itself.
    #[must_use = "the waker is forgotten when this is dropped"]
    pub fn on_cancel(&self, waker: Waker) -> OnCancel {
        let mut wakers = self.0.lock();
        let id = wakers.next;
        wakers.next += 1;
        if self.is_cancelled() {
            drop(wakers);
            waker();
        } else {
            wakers.waiting.push((id, waker));
        }
        OnCancel { cancel: self.clone(), id }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Wakers> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cancel({})", self.is_cancelled())
    }
}

/// Forgets a waker of [`Cancel::on_cancel`] when dropped.
#[derive(Debug)]
pub struct OnCancel {
    cancel: Cancel,
    id: u64,
}

impl Drop for OnCancel {
    fn drop(&mut self) {
        self.cancel.0.lock().waiting.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// So long that a test which waits for it has failed.
    const FOR_EVER: Duration = Duration::from_hours(1);

    /// A waker, and how often it has been called.
    fn counted() -> (Waker, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let count = move || {
            counter.fetch_add(1, Ordering::SeqCst);
        };
        (Arc::new(count), calls)
    }

    #[test]
    fn all_that_share_it_see_it() {
        let cancel = Cancel::default();
        let (other, stranger) = (cancel.clone(), Cancel::default());
        assert!(!other.wait_timeout(Duration::ZERO));
        cancel.cancel();
        assert!(other.is_cancelled() && other.wait_timeout(FOR_EVER));
        assert!(!stranger.is_cancelled());
    }

    #[test]
    fn who_waits_is_woken() {
        let cancel = Cancel::default();
        std::thread::scope(|scope| {
            let waiting = [0; 4].map(|_| scope.spawn(|| cancel.wait_timeout(FOR_EVER)));
            cancel.cancel();
            assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
        });
    }

    #[test]
    fn a_waker_is_called_once_however_often_it_is_asked_for() {
        let (cancel, (waker, calls)) = (Cancel::default(), counted());
        let _guard = cancel.on_cancel(waker);
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        cancel.cancel();
        cancel.cancel();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_waker_that_comes_too_late_is_called_at_once() {
        let (cancel, (waker, calls)) = (Cancel::default(), counted());
        cancel.cancel();
        drop(cancel.on_cancel(waker));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_waker_whose_guard_is_gone_is_not_called_and_the_others_are() {
        let cancel = Cancel::default();
        let ((gone, uncalled), (kept, calls)) = (counted(), counted());
        let (guard, _kept) = (cancel.on_cancel(Arc::clone(&gone)), cancel.on_cancel(kept));
        drop(guard);
        assert_eq!(Arc::strong_count(&gone), 1, "a forgotten waker is kept");
        cancel.cancel();
        assert_eq!((uncalled.load(Ordering::SeqCst), calls.load(Ordering::SeqCst)), (0, 1));
    }

    #[test]
    fn a_waker_may_take_a_lock_under_which_another_is_added_or_removed() {
        let cancel = Cancel::default();
        let place = Arc::new((Mutex::new(()), Condvar::new()));
        let notified = Arc::clone(&place);
        let _guard = cancel.on_cancel(Arc::new(move || {
            drop(notified.0.lock().unwrap());
            notified.1.notify_all();
        }));
        std::thread::scope(|scope| {
            let held = place.0.lock().unwrap();
            scope.spawn(|| cancel.cancel());
            assert!(cancel.wait_timeout(FOR_EVER)); // the waker is now waiting for the lock, or will
            drop(cancel.on_cancel(Arc::new(|| ())));
            drop(held);
        });
    }
}

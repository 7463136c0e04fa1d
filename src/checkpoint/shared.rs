//! A value that several tasks share, and futures that wait until it is as they need it.
//!
//! It deliberately knows no runtime: whoever polls the futures is woken as any future is. Every change wakes all who
//! wait, since they are few (the tasks of one driver) and what they wait for differs.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A handle of a shared value; clones are handles of the same.
#[derive(Debug)]
pub(super) struct Shared<T>(Arc<Mutex<Guarded<T>>>); // held for one look or change, never across an await

#[derive(Debug)]
struct Guarded<T> {
    value: T,
    waiting: Vec<Waker>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Shared<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(Guarded { value, waiting: Vec::new() })))
    }

    /// Looks at the value; wakes nobody.
    pub(super) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.lock().value)
    }

    /// Changes the value and wakes all who wait.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let (result, waiting) = {
            let mut guarded = self.lock();
            (change(&mut guarded.value), std::mem::take(&mut guarded.waiting))
        };
        waiting.into_iter().for_each(Waker::wake);
        result
    }

    /// Changes the value in a way that nobody waits for.
    pub(super) fn quietly<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.lock().value)
    }

    /// Waits until `ready` finds what it looks for. It may take it out of the value, which wakes nobody.
    pub(super) async fn until<R>(&self, mut ready: impl FnMut(&mut T) -> Option<R>) -> R {
        poll_fn(|context| self.poll(context, &mut ready)).await
    }

    fn poll<R>(&self, context: &Context<'_>, ready: &mut impl FnMut(&mut T) -> Option<R>) -> Poll<R> {
        let mut guarded = self.lock();
        if let Some(found) = ready(&mut guarded.value) {
            return Poll::Ready(found);
        }
        if !guarded.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            guarded.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Guarded<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

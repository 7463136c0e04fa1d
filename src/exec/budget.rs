//! The bytes that the batches in flight hold, under one limit.
//!
//! A batch that would overshoot waits until the batches before it have given theirs back. The oldest never waits,
//! since nobody before it could give anything back, and where it overshoots alone that is a named error. It
//! deliberately measures nothing: callers say how much.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::time::BatchId;

/// How often a waiting batch looks whether it has been cancelled; what it waits for wakes it at once.
const LOOK: Duration = Duration::from_millis(50);

/// The limit and who holds how much of it.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    held: Mutex<BTreeMap<BatchId, u64>>, // ingest threads add, the thread that finishes a batch removes
    freed: Condvar,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, held: Mutex::default(), freed: Condvar::new() }
    }

    /// Grants `bytes` more to `batch`, once there is room; `what` names who asks.
    pub(crate) fn reserve(&self, batch: BatchId, bytes: u64, cancel: &Cancel, what: &str) -> Result<()> {
        let mut held = self.lock();
        loop {
            let own = held.get(&batch).copied().unwrap_or_default() + bytes;
            let older: u64 = held.range(..batch).map(|(_, bytes)| bytes).sum();
            if own.saturating_add(older) <= self.limit || cancel.is_cancelled() {
                held.insert(batch, own);
                return Ok(());
            }
            if older == 0 {
                return Err(self.too_large(batch, own, what));
            }
            held = self.freed.wait_timeout(held, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives back `bytes` of what `batch` holds.
    pub(crate) fn give_back(&self, batch: BatchId, bytes: u64) {
        if let Some(own) = self.lock().get_mut(&batch) {
            *own = own.saturating_sub(bytes);
        }
        self.freed.notify_all();
    }

    /// Gives back all that `batch` holds.
    pub(crate) fn release(&self, batch: BatchId) {
        self.lock().remove(&batch);
        self.freed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BatchId, u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn too_large(&self, batch: BatchId, bytes: u64, what: &str) -> Error {
        let message = format!(
            "batch {batch} alone needs more than max_memory grants: {bytes} bytes at {what}, the limit is {}",
            self.limit
        );
        Error::memory_limit(message)
            .help("raise max_memory, or plan smaller batches (batch_interval, max_records)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_batch_never_waits_for_a_later_one() {
        let (budget, cancel) = (Budget::new(100), Cancel::default());
        budget.reserve(BatchId(2), 90, &cancel, "later").unwrap();
        budget.reserve(BatchId(1), 90, &cancel, "oldest").unwrap();
        let error = budget.reserve(BatchId(1), 20, &cancel, "partition 0").unwrap_err();
        assert!(error.to_string().contains("110 bytes at partition 0, the limit is 100"), "{error}");
    }

    #[test]
    fn a_later_batch_goes_on_when_the_older_gives_its_memory_back() {
        let (budget, cancel) = (Budget::new(100), Cancel::default());
        budget.reserve(BatchId(1), 90, &cancel, "oldest").unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.reserve(BatchId(2), 50, &cancel, "later"));
            budget.release(BatchId(1));
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_cancelled_batch_waits_no_more() {
        let (budget, cancel) = (Budget::new(100), Cancel::default());
        budget.reserve(BatchId(1), 90, &cancel, "oldest").unwrap();
        cancel.cancel();
        budget.reserve(BatchId(2), 50, &cancel, "later").unwrap();
    }
}

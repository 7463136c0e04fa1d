//! The bytes that the batches in flight hold, under one limit.
//!
//! A batch that would overshoot waits until the batches before it have given theirs back. The oldest never waits,
//! since nobody before it could give anything back, and where it overshoots alone that is a named error. Bytes are asked
//! for when they are there: a batch that waits has one chunk of each partition beyond the limit. It deliberately measures
//! nothing: callers say how much.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::cancel::Cancel;
use crate::error::{Error, Result, in_bytes};
use crate::time::{BatchId, Waker};

/// The limit and who holds how much of it.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    held: Arc<Held>,
}

/// What is held, and the news that it has become less; a cancel reaches it after the budget itself may be gone.
#[derive(Debug, Default)]
struct Held {
    by_batch: Mutex<BTreeMap<BatchId, u64>>, // ingest threads add, the thread that finishes a batch removes
    freed: Condvar,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<BatchId, u64>> {
        self.by_batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes and leaves the lock, so that it comes before a look or after the wait has begun.
    fn waker(self: &Arc<Self>) -> Waker {
        let held = Arc::clone(self);
        Arc::new(move || {
            drop(held.lock());
            held.freed.notify_all();
        })
    }
}

/// Bytes that a batch asks for.
struct Claim<'a> {
    batch: BatchId,
    bytes: u64,
    cancel: &'a Cancel,
    what: &'a str,
    help: &'static str,
}

/// What helps against too many rows.
const OF_ROWS: &str =
    "raise max_memory, or let a batch read fewer records: by max_records, or max_rate_per_partition";

/// What helps against too many results: smaller batches would not.
const OF_RESULTS: &str = "raise max_memory: a batch gives all windows that end, or change, in it at once. Fewer keys or a \
                          longer slide make fewer results; a filter or a projection right behind the aggregation \
                          lets go what nobody needs before it is counted";

/// What has become of a claim.
#[derive(PartialEq, Eq)]
enum Answer {
    Granted,
    /// The batches before it must give something back first.
    Wait,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, held: Arc::default() }
    }

    /// Grants `bytes` more to `batch`, once there is room; `what` names who asks.
    pub(crate) fn reserve(&self, batch: BatchId, bytes: u64, cancel: &Cancel, what: &str) -> Result<()> {
        self.grant(&Claim { batch, bytes, cancel, what, help: OF_ROWS })
    }

    /// The same for the results of windows, which are as many as windows end, however few rows came.
    pub(crate) fn reserve_results(&self, batch: BatchId, bytes: u64, cancel: &Cancel) -> Result<()> {
        self.grant(&Claim { batch, bytes, cancel, what: "the results of windows", help: OF_RESULTS })
    }

    fn grant(&self, claim: &Claim<'_>) -> Result<()> {
        // Not within the match, which would keep the lock while waiting for it.
        let answer = self.try_grant(&mut self.held.lock(), claim)?;
        match answer {
            Answer::Granted => Ok(()),
            Answer::Wait => self.wait_for(claim),
        }
    }

    fn wait_for(&self, claim: &Claim<'_>) -> Result<()> {
        let _woken = claim.cancel.on_cancel(self.held.waker());
        let mut held = self.held.lock();
        while self.try_grant(&mut held, claim)? == Answer::Wait {
            held = self.held.freed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Whoever is cancelled is granted what he asks for: he gives up, and then gives it back.
    fn try_grant(&self, held: &mut BTreeMap<BatchId, u64>, claim: &Claim<'_>) -> Result<Answer> {
        let own = held.get(&claim.batch).copied().unwrap_or_default() + claim.bytes;
        let older: u64 = held.range(..claim.batch).map(|(_, bytes)| bytes).sum();
        if own.saturating_add(older) <= self.limit || claim.cancel.is_cancelled() {
            held.insert(claim.batch, own);
            return Ok(Answer::Granted);
        }
        if older == 0 { Err(self.too_large(claim, own)) } else { Ok(Answer::Wait) }
    }

    /// Gives back `bytes` of what `batch` holds.
    pub(crate) fn give_back(&self, batch: BatchId, bytes: u64) {
        if let Some(own) = self.held.lock().get_mut(&batch) {
            *own = own.saturating_sub(bytes);
        }
        self.held.freed.notify_all();
    }

    /// Gives back all that `batch` holds.
    pub(crate) fn release(&self, batch: BatchId) {
        self.held.lock().remove(&batch);
        self.held.freed.notify_all();
    }

    fn too_large(&self, claim: &Claim<'_>, bytes: u64) -> Error {
        let Claim { batch, what, help, .. } = claim;
        let message = format!(
            "batch {batch} alone needs {} at {what}, more than max_memory allows for rows: {}",
            in_bytes(bytes),
            in_bytes(self.limit)
        );
        Error::memory_limit(message).help(*help)
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
        assert!(
            error
                .to_string()
                .contains("needs 110 bytes at partition 0, more than max_memory allows for rows: 100 bytes"),
            "{error}"
        );
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
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.reserve(BatchId(2), 50, &cancel, "later"));
            while Arc::strong_count(&budget.held) == 1 {} // until the waiting batch has its waker there
            cancel.cancel();
            waiting.join().unwrap().unwrap();
        });
        budget.reserve(BatchId(3), 50, &cancel, "later still").unwrap();
    }
}

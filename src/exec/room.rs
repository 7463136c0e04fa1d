//! The bytes that all state may hold, asked for while a batch is at work.
//!
//! What rows bring is weighed once the batch is done, since most of it leaves with the batch. What operators make of it
//! beside the rows can be many times as much, and is asked for here, before it is there. It deliberately measures nothing:
//! operators say how much they hold, and the engine what there is in all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// The limit, and how much of it is taken.
#[derive(Debug)]
pub(crate) struct Room {
    limit: u64,
    taken: AtomicU64, // by all shards at once; a sum, which nobody's other memory depends on
}

impl Room {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, taken: AtomicU64::new(0) }
    }

    /// Counts state that changed from `before` to `now` bytes, and that nobody asked for.
    pub(crate) fn count(&self, before: u64, now: u64) {
        match now.checked_sub(before) {
            Some(more) => drop(self.taken.fetch_add(more, Ordering::Relaxed)),
            None => self.give(before - now),
        }
    }

    /// What all state has come to.
    pub(crate) fn settle(&self, bytes: u64) {
        self.taken.store(bytes, Ordering::Relaxed);
    }

    fn take(&self, bytes: u64) -> Result<()> {
        let all = self.taken.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if all <= self.limit {
            return Ok(());
        }
        self.give(bytes);
        Err(Error::memory_limit(format!(
            "to put windows together from their panes needs {bytes} bytes more, and state then holds {all}, more than \
             max_state_bytes allows ({})",
            self.limit
        ))
        .help("use fewer keys or shorter windows, a longer slide, or raise max_state_bytes"))
    }

    fn give(&self, bytes: u64) {
        let less = |taken: u64| Some(taken.saturating_sub(bytes));
        let _ = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// What somebody has asked for and holds; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    room: Arc<Room>,
    bytes: u64,
}

impl Claim {
    /// Nothing yet.
    pub(crate) fn new(room: &Arc<Room>) -> Self {
        Self { room: Arc::clone(room), bytes: 0 }
    }

    /// Holds `bytes` in all from now on; an error where these are more than before, and more than there is room for.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<()> {
        let bytes = bytes as u64;
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.room.take(more)?,
            None => self.room.give(self.bytes - bytes),
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.room.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_refused_before_it_is_taken_and_given_back_at_the_end() {
        let room = Arc::new(Room::new(100));
        room.count(0, 50);
        let mut claim = Claim::new(&room);
        claim.set(50).unwrap();
        let error = claim.set(60).unwrap_err();
        assert!(error.to_string().contains("needs 10 bytes more, and state then holds 110"), "{error}");
        room.count(50, 40);
        claim.set(60).unwrap();
        drop(claim);
        assert_eq!(room.taken.load(Ordering::Relaxed), 40);
    }
}

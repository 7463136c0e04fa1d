//! What the driver writes down before it acts: the places of a replicated log.
//!
//! The machine waits for an entry to be safe before it goes on, whatever keeps it. This file keeps nothing:
//! [`NoLog`] says at once that an entry is safe, and the stream is then at least once from the positions that the
//! sources were told.

use std::fmt;

use crate::driver::watermark::Place;
use crate::error::Result;
use crate::offset::OffsetRange;
use crate::plan::SourceId;
use crate::time::{BatchId, BatchTime, EventTime};

/// One decision about a batch.
#[derive(Clone, Debug)]
pub enum Entry {
    /// What the batch reads; safe before anything of it is fetched.
    Plan {
        /// The batch.
        batch: BatchId,
        /// Its time.
        time: BatchTime,
        /// What it reads of each source, empty ranges included.
        ranges: Vec<(SourceId, Vec<OffsetRange>)>,
        /// The partitions of which the batch reads all that there is.
        at_end: Vec<Place>,
    },
    /// The batch has been computed; safe before a sink sees it.
    Prepare {
        /// The batch.
        batch: BatchId,
        /// W(n).
        watermark: Option<EventTime>,
    },
    /// Every sink has the batch; safe before the next one is prepared.
    Commit {
        /// The batch.
        batch: BatchId,
    },
}

impl Entry {
    /// The batch that it is about.
    pub fn batch(&self) -> BatchId {
        match self {
            Self::Plan { batch, .. } | Self::Prepare { batch, .. } | Self::Commit { batch } => *batch,
        }
    }

    /// Which of the batch's decisions it is.
    pub fn kind(&self) -> EntryKind {
        match self {
            Self::Plan { .. } => EntryKind::Plan,
            Self::Prepare { .. } => EntryKind::Prepare,
            Self::Commit { .. } => EntryKind::Commit,
        }
    }
}

/// Which of a batch's decisions an entry is, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// What it reads.
    Plan,
    /// What it comes to.
    Prepare,
    /// That every sink has it.
    Commit,
}

/// Keeps entries, in order, so that they outlive the driver.
pub trait Log: Send + fmt::Debug {
    /// Appends an entry; returns once it is safe. An error fails the entry's batch.
    fn append(&mut self, entry: &Entry) -> Result<()>;

    /// Whether [`Log::append`] waits for nothing, so that the driver's loop may call it itself: a thread of its own would
    /// cost two hand-overs an entry, six a batch.
    fn is_immediate(&self) -> bool {
        false
    }
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLog;

impl Log for NoLog {
    fn append(&mut self, _: &Entry) -> Result<()> {
        Ok(())
    }

    fn is_immediate(&self) -> bool {
        true
    }
}

//! How far one replica has come with a running log: its slots, its chunks, and how it does.
//!
//! It deliberately knows nothing of the other replicas, nor of what is decided; `State` puts them side by side.

use std::collections::{BTreeSet, HashSet, VecDeque};

use crate::checkpoint::backlog::Held;
use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::id::Incarnation;
use crate::checkpoint::quorum::Voters;
use crate::checkpoint::rules::Gaps;

/// How a replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// As it should.
    Works,
    /// It fails, and is asked again.
    Fails,
    /// It gets no more of this epoch: it is not what it was, or something unknown stands in its next slot.
    Parked,
}

/// One replica, and how far it has come.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) url: String,
    /// What is on it, as far as it was found out since it last failed.
    pub(super) incarnation: Option<Incarnation>,
    /// What was on it when that was found out first: it counts as nothing else in this epoch.
    known: Option<Incarnation>,
    pub(super) claimed: bool,
    pub(super) surveyed: bool,
    /// All slots before this one are on it.
    next: u64,
    /// But for these; always empty where the rules are kept.
    skipped: BTreeSet<u64>,
    /// The slot for which `awaiting` has been drawn up.
    prepared: Option<u64>,
    /// Chunks that are still to come before the next slot.
    awaiting: HashSet<ChunkRef>,
    todo: VecDeque<ChunkRef>,
    busy: HashSet<ChunkRef>,
    recalled: Option<(u64, Held)>,
    pub(super) health: Health,
    /// Whether it is parked, and the next epoch may take it in again.
    returns: bool,
    /// How often in a row it has failed.
    pub(super) failures: u32,
}

impl Progress {
    /// A replica, and what is on it where that is known.
    pub(super) fn new(url: String, incarnation: Option<Incarnation>, health: Health) -> Self {
        Self {
            url,
            incarnation,
            known: incarnation,
            claimed: false,
            surveyed: false,
            next: 0,
            skipped: BTreeSet::new(),
            prepared: None,
            awaiting: HashSet::new(),
            todo: VecDeque::new(),
            busy: HashSet::new(),
            recalled: None,
            health,
            returns: false,
            failures: 0,
        }
    }

    // ---- who it is

    pub(super) fn votes(&self, voters: &Voters) -> bool {
        self.known.is_some_and(|incarnation| voters.contains(incarnation))
    }

    /// Whether it may yet turn out to be one of these.
    pub(super) fn may_vote(&self, voters: &Voters) -> bool {
        self.health != Health::Parked && (self.known.is_none() || self.votes(voters))
    }

    pub(super) fn was(&self, incarnation: Incarnation) -> bool {
        self.known == Some(incarnation)
    }

    /// Whether it may be this: it counts as one thing in an epoch, and no other.
    pub(super) fn may_be(&self, incarnation: Incarnation) -> bool {
        self.known.is_none_or(|known| known == incarnation)
    }

    pub(super) fn identify(&mut self, found: Option<Incarnation>) {
        (self.incarnation, self.known) = (found, self.known.or(found));
    }

    /// Whether it can be given something.
    pub(super) fn is_ready(&self) -> bool {
        self.incarnation.is_some() && self.health != Health::Parked
    }

    /// Whether it does not answer, and may again.
    pub(super) fn is_missing(&self) -> bool {
        self.health == Health::Fails || (self.incarnation.is_none() && self.health != Health::Parked)
    }

    // ---- slots

    /// All slots before this one are on it.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn has(&self, index: u64) -> bool {
        index < self.next && !self.skipped.contains(&index)
    }

    /// The slot, where it was read again for this replica.
    pub(super) fn recalled(&self, index: u64) -> Option<Held> {
        self.recalled.clone().filter(|(recalled, _)| *recalled == index).map(|(_, slot)| slot)
    }

    pub(super) fn recall(&mut self, index: u64, slot: Held) {
        self.recalled = Some((index, slot));
    }

    pub(super) fn is_prepared(&self, index: u64) -> bool {
        self.prepared == Some(index)
    }

    /// These chunks must come before the slot, in an order that never differs.
    pub(super) fn prepare(&mut self, index: u64, missing: BTreeSet<ChunkRef>) {
        self.prepared = Some(index);
        self.awaiting = missing.iter().copied().collect();
        self.todo.extend(missing);
    }

    /// Whether no chunk is still to come before the next slot.
    pub(super) fn has_chunks(&self) -> bool {
        self.awaiting.is_empty()
    }

    pub(super) fn put(&mut self, index: u64) {
        if self.next == index {
            (self.next, self.prepared, self.recalled) = (index + 1, None, None);
        }
    }

    // ---- chunks

    pub(super) fn add_chunks(&mut self, chunks: impl IntoIterator<Item = ChunkRef>) {
        self.todo.extend(chunks);
    }

    /// The next chunk that is to be put, of those that are `wanted`.
    pub(super) fn next_chunk(&mut self, wanted: impl Fn(&ChunkRef) -> bool) -> Option<ChunkRef> {
        while let Some(chunk) = self.todo.pop_front() {
            if wanted(&chunk) && self.busy.insert(chunk) {
                return Some(chunk);
            }
        }
        None
    }

    pub(super) fn chunk_put(&mut self, chunk: &ChunkRef) {
        self.awaiting.remove(chunk);
        self.busy.remove(chunk);
    }

    /// The chunk was not put, and is to be.
    pub(super) fn chunk_back(&mut self, chunk: ChunkRef) {
        self.busy.remove(&chunk);
        self.todo.push_front(chunk);
    }

    /// Nobody needs the chunk any more.
    pub(super) fn forget(&mut self, chunk: &ChunkRef) {
        self.awaiting.remove(chunk);
    }

    // ---- how it does

    pub(super) fn failed(&mut self, slot: Option<u64>, gaps: Gaps) {
        (self.incarnation, self.failures) = (None, self.failures + 1);
        if self.health == Health::Works {
            self.health = Health::Fails;
        }
        if let Some(index) = slot.filter(|index| gaps == Gaps::Skipped && *index == self.next) {
            self.skipped.insert(index);
            self.next += 1;
        }
    }

    pub(super) fn park(&mut self, returns: bool) {
        (self.health, self.returns) = (Health::Parked, returns);
    }

    pub(super) fn returns(&self) -> bool {
        self.returns
    }

    /// True where it had failed before.
    pub(super) fn worked(&mut self) -> bool {
        self.failures = 0;
        let failed = self.health == Health::Fails;
        if failed {
            self.health = Health::Works;
        }
        failed
    }
}

//! What of a running log is kept at hand: the objects of its slots and chunks, for replicas that do not have them yet.
//!
//! It deliberately keeps no more than it was told to, as far as it may: what is decided can be read again from a replica
//! that has it, and what is not must be kept, since it may be nowhere else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::chunk::ChunkRef;
use crate::checkpoint::id::Epoch;

/// A slot's object, and the chunks that must be on a replica before it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) names: Arc<[ChunkRef]>,
}

impl Held {
    fn size(&self) -> u64 {
        (self.bytes.len() + size_of_val(&*self.names)) as u64
    }
}

/// The places of replicas on which something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(u64);

impl Places {
    pub(super) fn contains(self, place: usize) -> bool {
        self.0 & Self::bit(place) != 0
    }

    fn insert(&mut self, place: usize) {
        self.0 |= Self::bit(place);
    }

    fn remove(&mut self, place: usize) {
        self.0 &= !Self::bit(place);
    }

    /// There are never so many replicas that one has no bit; one that had none would never count.
    fn bit(place: usize) -> u64 {
        u32::try_from(place).ok().and_then(|place| 1_u64.checked_shl(place)).unwrap_or(0)
    }
}

/// A chunk that an entry names, or will name.
#[derive(Clone, Debug, Default)]
struct Chunk {
    /// Its object; none where it is to be read again.
    bytes: Option<Bytes>,
    on: Places,
}

/// What is at hand, and what is known of what is not.
#[derive(Debug)]
pub(super) struct Backlog {
    slots: Vec<Option<Held>>,
    chunks: HashMap<ChunkRef, Chunk>,
    /// Chunks that were collected: old slots name them, and nobody needs them.
    gone: HashSet<ChunkRef>,
    /// The slots and chunks that are at hand, the oldest first; some of the chunks may be gone again.
    held_slots: VecDeque<u64>,
    held_chunks: VecDeque<ChunkRef>,
    /// How many bytes these are, and at most should be.
    size: u64,
    most: u64,
}

impl Backlog {
    pub(super) fn new(most: u64, start: Held) -> Self {
        let mut backlog = Self {
            slots: Vec::new(),
            chunks: start.names.iter().map(|chunk| (*chunk, Chunk::default())).collect(),
            gone: HashSet::new(),
            held_slots: VecDeque::new(),
            held_chunks: VecDeque::new(),
            size: 0,
            most,
        };
        backlog.push(start);
        backlog
    }

    // ---- slots

    /// How many slots there are, at hand or not.
    pub(super) fn slots(&self) -> u64 {
        self.slots.len() as u64
    }

    pub(super) fn push(&mut self, slot: Held) {
        self.size += slot.size();
        self.held_slots.push_back(self.slots());
        self.slots.push(Some(slot));
    }

    /// The slot, where it is at hand.
    pub(super) fn slot(&self, index: u64) -> Option<&Held> {
        self.slots.get(usize::try_from(index).ok()?)?.as_ref()
    }

    // ---- chunks

    /// Takes up a chunk that is on no replica yet.
    pub(super) fn add_chunk(&mut self, chunk: ChunkRef, bytes: Bytes) {
        self.size += bytes.len() as u64;
        self.held_chunks.push_back(chunk);
        self.chunks.insert(chunk, Chunk { bytes: Some(bytes), on: Places::default() });
    }

    pub(super) fn knows(&self, chunk: &ChunkRef) -> bool {
        self.chunks.contains_key(chunk)
    }

    /// Where the chunk is; none where it is not known.
    pub(super) fn places(&self, chunk: &ChunkRef) -> Option<Places> {
        self.chunks.get(chunk).map(|known| known.on)
    }

    /// Whether the chunk is to be put at `place`.
    pub(super) fn is_wanted_at(&self, place: usize, chunk: &ChunkRef) -> bool {
        self.places(chunk).is_some_and(|on| !on.contains(place)) && !self.is_gone(chunk)
    }

    /// Its object, where it is at hand.
    pub(super) fn chunk(&self, chunk: &ChunkRef) -> Option<Bytes> {
        self.chunks.get(chunk)?.bytes.clone()
    }

    pub(super) fn chunk_is_at(&mut self, place: usize, chunk: &ChunkRef) {
        if let Some(known) = self.chunks.get_mut(chunk) {
            known.on.insert(place);
        }
    }

    pub(super) fn chunk_is_not_at(&mut self, place: usize, chunk: &ChunkRef) {
        if let Some(known) = self.chunks.get_mut(chunk) {
            known.on.remove(place);
        }
    }

    /// These chunks are at `place`.
    pub(super) fn surveyed(&mut self, place: usize, found: &HashSet<ChunkRef>) {
        self.chunks
            .iter_mut()
            .filter(|(chunk, _)| found.contains(chunk))
            .for_each(|(_, known)| known.on.insert(place));
    }

    /// The chunks that were written in this epoch.
    pub(super) fn chunks_of(&self, epoch: Epoch) -> impl Iterator<Item = &ChunkRef> {
        self.chunks.keys().filter(move |chunk| chunk.epoch == epoch)
    }

    /// Nobody needs the chunk any more.
    pub(super) fn forget(&mut self, chunk: &ChunkRef) {
        self.gone.insert(*chunk);
        let dropped = self.chunks.remove(chunk).and_then(|known| known.bytes);
        self.size -= dropped.map_or(0, |bytes| bytes.len() as u64);
    }

    pub(super) fn is_gone(&self, chunk: &ChunkRef) -> bool {
        self.gone.contains(chunk)
    }

    // ---- letting go

    /// Lets go of the slots before `everywhere`, and of those before `decided` where there is too much.
    pub(super) fn trim_slots(&mut self, everywhere: u64, decided: u64) {
        while let Some(index) = self.held_slots.front().copied() {
            if index >= everywhere && (index >= decided || !self.is_too_much()) {
                break;
            }
            let slot = usize::try_from(index).ok().and_then(|index| self.slots.get_mut(index)?.take());
            self.size -= slot.map_or(0, |slot| slot.size());
            self.held_slots.pop_front();
        }
    }

    /// Lets go of the chunks that are safe where they are, where there is too much.
    pub(super) fn trim_chunks(&mut self, is_safe: impl Fn(Places) -> bool) {
        while let Some(chunk) = self.held_chunks.front().copied() {
            let known = self.chunks.get(&chunk).filter(|known| known.bytes.is_some());
            if known.is_some_and(|known| !self.is_too_much() || !is_safe(known.on)) {
                break;
            }
            self.let_go(&chunk);
            self.held_chunks.pop_front();
        }
    }

    /// Drops a chunk's object: it can be read again.
    pub(super) fn let_go(&mut self, chunk: &ChunkRef) {
        let dropped = self.chunks.get_mut(chunk).and_then(|known| known.bytes.take());
        self.size -= dropped.map_or(0, |bytes| bytes.len() as u64);
    }

    fn is_too_much(&self) -> bool {
        self.size > self.most
    }
}

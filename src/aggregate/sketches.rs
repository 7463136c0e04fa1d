//! One sketch a slot, and the bytes of all of them: what aggregates share whose state grows with what a slot has seen.
//!
//! It deliberately knows no sketch: its user adds, merges and reads.

use crate::aggregate::column::bytes_of;

/// What a slot has seen, in a form of its own; at first nothing.
pub(super) trait Sketch: Clone + Default {
    /// The bytes that it holds beside itself.
    fn heap(&self) -> usize;
}

/// The sketches of all slots.
#[derive(Debug)]
pub(super) struct Sketches<S> {
    slots: Vec<S>,
    heap: usize, // of all of them; counted as they change, since there may be very many
}

impl<S: Sketch> Sketches<S> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), heap: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn grow(&mut self, slots: usize) {
        self.slots.resize(slots.max(self.slots.len()), S::default());
    }

    /// Lets a slot's sketch be changed, and counts its bytes.
    #[inline]
    pub(super) fn change(&mut self, slot: usize, change: impl FnOnce(&mut S)) {
        if let Some(sketch) = self.slots.get_mut(slot) {
            let before = sketch.heap();
            change(sketch);
            self.heap = self.heap + sketch.heap() - before;
        }
    }

    pub(super) fn of<'a>(&'a self, slots: &'a [u32]) -> impl Iterator<Item = &'a S> + Clone {
        slots.iter().filter_map(|slot| self.slots.get(*slot as usize))
    }

    pub(super) fn bytes(&self) -> usize {
        bytes_of(&self.slots) + self.heap
    }
}

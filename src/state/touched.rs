//! Which slots were touched since the last look: what a delta holds.
//!
//! A bit a slot, set where a row came: a batch of rows costs a write each to memory that fits the cache, and nobody who
//! does not ask for deltas has it at all. It deliberately does not know what stands in a slot.

use std::collections::BTreeMap;

use crate::state::window::PaneNumber;

/// The slots of one table that were touched.
///
/// ```
/// use tidemill::state::touched::Touched;
///
/// let mut touched = Touched::default();
/// touched.mark(&[70, 2, 70]);
/// assert_eq!(touched.take(), [2, 70]);
/// assert!(touched.take().is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Touched {
    words: Vec<u64>,
}

const BITS: u32 = u64::BITS;

impl Touched {
    /// Marks the slots of some rows; a slot may come several times.
    pub fn mark(&mut self, slots: &[u32]) {
        let words = slots.iter().max().map_or(0, |slot| (slot / BITS) as usize + 1);
        if words > self.words.len() {
            self.words.resize(words, 0);
        }
        for slot in slots {
            if let Some(word) = self.words.get_mut((slot / BITS) as usize) {
                *word |= 1 << (slot % BITS);
            }
        }
    }

    /// The slots that were marked since the last call, ascending.
    pub fn take(&mut self) -> Vec<u32> {
        let mut slots = Vec::with_capacity(self.words.iter().map(|word| word.count_ones() as usize).sum());
        for (word, first) in self.words.iter_mut().zip((0..).step_by(BITS as usize)) {
            let mut left = std::mem::take(word);
            while left != 0 {
                slots.push(first + left.trailing_zeros());
                left &= left - 1;
            }
        }
        slots
    }

    /// Nothing is marked.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }
}

/// What was touched in panes, and which panes are gone.
#[derive(Clone, Debug, Default)]
pub struct TouchedPanes {
    panes: BTreeMap<PaneNumber, TouchedPane>,
    dropped: Vec<PaneNumber>,
}

#[derive(Clone, Debug, Default)]
struct TouchedPane {
    slots: Touched,
    /// Whether the last look saw nothing of it.
    is_new: bool,
}

impl TouchedPanes {
    /// Marks the slots of some rows in a pane; `is_new` says that the pane was not there before.
    pub fn mark(&mut self, pane: PaneNumber, slots: &[u32], is_new: bool) {
        let touched = self.panes.entry(pane).or_default();
        touched.slots.mark(slots);
        touched.is_new |= is_new;
    }

    /// A pane is gone. Of one that came and went between two looks nobody needs to know.
    pub fn drop_pane(&mut self, pane: PaneNumber) {
        let unseen = self.panes.remove(&pane).is_some_and(|touched| touched.is_new);
        if !unseen {
            self.dropped.push(pane);
        }
    }

    /// Which slots of which panes were marked, and which panes have gone, since the last call; both ascending.
    pub fn take(&mut self) -> (BTreeMap<PaneNumber, Vec<u32>>, Vec<PaneNumber>) {
        let panes = std::mem::take(&mut self.panes);
        let mut dropped = std::mem::take(&mut self.dropped);
        dropped.sort_unstable();
        dropped.dedup();
        (panes.into_iter().map(|(pane, mut touched)| (pane, touched.slots.take())).collect(), dropped)
    }

    /// Nothing is marked, and none is gone.
    pub fn clear(&mut self) {
        (self.panes, self.dropped) = (BTreeMap::new(), Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn marked_slots_are_a_set() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut touched = Touched::default();
        for _ in 0..200 {
            let slots: Vec<u32> = (0..random.usize(..50)).map(|_| random.u32(..1_000)).collect();
            let (first, rest) = slots.split_at(slots.len() / 2);
            touched.mark(first);
            touched.mark(rest);
            let expected: BTreeSet<u32> = slots.iter().copied().collect();
            assert_eq!(touched.take(), expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_pane_that_came_and_went_unseen_leaves_no_trace() {
        let mut touched = TouchedPanes::default();
        touched.mark(3, &[0, 1], true);
        touched.mark(3, &[1], false);
        touched.mark(4, &[5], false);
        touched.drop_pane(3);
        touched.drop_pane(4);
        touched.drop_pane(2);
        assert_eq!(touched.take(), (BTreeMap::new(), vec![2, 4]));
        touched.mark(7, &[9], true);
        assert_eq!(touched.take().0, BTreeMap::from([(7, vec![9])]));
        touched.mark(7, &[1], false);
        touched.drop_pane(7);
        assert_eq!(touched.take(), (BTreeMap::new(), vec![7]), "it was seen before");
    }
}

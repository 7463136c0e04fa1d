//! Windows of many panes: each is put together from two parts, and not from all its panes anew.
//!
//! Panes are cut into blocks as long as a window, at fixed places. A window that starts within a block is what remains
//! of that block, kept for each of its panes, and the beginning of the next, which grows as windows slide on: the two
//! stacks of a sliding aggregate (van Herk, Pattern Recognition Letters 13, 1992; Gil and Werman, IEEE PAMI 15, 1993).
//! Since blocks lie at fixed places and not where a stack happened to run empty, the order in which states are merged
//! depends on the window alone: a stream that was moved or restarted gives the same bits. What is kept here is deliberately
//! no state: it is made again from the panes.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::Result;
use crate::exec::aggregate::AggregateStep;
use crate::exec::aggregate::pane::Pane;
use crate::state::window::PaneNumber;

/// Windows of at most so many panes are merged pane by pane.
const FEW: i64 = 64;

/// The parts of windows that are kept.
#[derive(Debug)]
pub(super) struct Parts {
    /// Of a window and of a block, in panes.
    length: i64,
    /// From each pane to the end of its block.
    ends: BTreeMap<PaneNumber, Pane>,
    /// From the start of a block to some pane of it.
    beginning: Option<(Range<PaneNumber>, Pane)>,
}

impl Parts {
    /// Nothing is kept yet of windows of `length` panes.
    pub(super) fn new(length: i64) -> Self {
        Self { length, ends: BTreeMap::new(), beginning: None }
    }

    /// The panes of `window`, merged.
    pub(super) fn merged(
        &mut self,
        step: &AggregateStep,
        panes: &BTreeMap<PaneNumber, Pane>,
        window: Range<PaneNumber>,
    ) -> Result<Pane> {
        let mut whole = Pane::new(step)?;
        if self.length <= FEW {
            panes.range(window).try_for_each(|(_, pane)| whole.absorb(pane))?;
            return Ok(whole);
        }
        let start = self.block_of(window.start);
        let border = if start == window.start { start } else { start + self.length };
        if window.start < border {
            self.keep_ends(step, panes, window.start..border)?;
        }
        self.grow_beginning(step, panes, border..window.end)?;
        if let Some((_, end)) = self.ends.range(window.start..border).next() {
            whole.absorb(end)?;
        }
        if let Some((_, beginning)) = &self.beginning {
            whole.absorb(beginning)?;
        }
        Ok(whole)
    }

    /// What is left of a block from each of its panes in `range` on, made from its end backwards.
    fn keep_ends(
        &mut self,
        step: &AggregateStep,
        panes: &BTreeMap<PaneNumber, Pane>,
        range: Range<PaneNumber>,
    ) -> Result<()> {
        let kept = self.ends.range(range.clone()).next().map(|(number, _)| *number);
        let missing = range.start..kept.unwrap_or(range.end);
        for (number, pane) in panes.range(missing).rev() {
            let mut end = Pane::new(step)?;
            end.absorb(pane)?;
            if let Some((_, behind)) = self.ends.range(*number..range.end).next() {
                end.absorb(behind)?;
            }
            self.ends.insert(*number, end);
        }
        Ok(())
    }

    /// The beginning of a block, grown to `range`.
    fn grow_beginning(
        &mut self,
        step: &AggregateStep,
        panes: &BTreeMap<PaneNumber, Pane>,
        range: Range<PaneNumber>,
    ) -> Result<()> {
        let fits = |kept: &Range<PaneNumber>| kept.start == range.start && kept.end <= range.end;
        let (kept, mut beginning) = match self.beginning.take() {
            Some((kept, beginning)) if fits(&kept) => (kept, beginning),
            _ => (range.start..range.start, Pane::new(step)?),
        };
        panes.range(kept.end..range.end).try_for_each(|(_, pane)| beginning.absorb(pane))?;
        self.beginning = Some((range, beginning));
        Ok(())
    }

    /// A pane has changed: what was made from it is made again when it is needed.
    pub(super) fn forget(&mut self, pane: PaneNumber) {
        let touched: Vec<PaneNumber> =
            self.ends.range(self.block_of(pane)..=pane).map(|(number, _)| *number).collect();
        for number in touched {
            self.ends.remove(&number);
        }
        self.beginning.take_if(|(kept, _)| kept.contains(&pane));
    }

    /// The first pane of the block of `pane`.
    fn block_of(&self, pane: PaneNumber) -> PaneNumber {
        pane.div_euclid(self.length).saturating_mul(self.length)
    }

    /// Panes before `first` are gone.
    pub(super) fn drop_before(&mut self, first: PaneNumber) {
        self.ends = self.ends.split_off(&first);
    }

    /// The bytes that it occupies.
    pub(super) fn bytes(&self) -> usize {
        let beginning = self.beginning.iter().map(|(_, pane)| pane);
        self.ends.values().chain(beginning).map(Pane::bytes).sum()
    }
}

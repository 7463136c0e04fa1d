//! Windows of many panes: each is put together from two parts, and not from all its panes anew.
//!
//! Panes are cut into blocks as long as a window, at fixed places. A window that starts within a block is what remains
//! of that block, and the beginning of the next, which grows as windows slide on: the two stacks of a sliding aggregate
//! (van Herk, Pattern Recognition Letters 13, 1992; Gil and Werman, IEEE PAMI 15, 1993). Since blocks lie at fixed places
//! and not where a stack happened to run empty, the order in which states are merged depends on the window alone: a
//! stream that was moved or restarted gives the same bits. What is kept here is deliberately no state: it is made again
//! from the panes.
//!
//! What remains of a block is kept for each key from each pane where it occurs, and linked to the next of these: there
//! are as many states as in the panes, where one for each key and pane would be as many as keys times panes. A
//! row that comes to a pane of which something was made has only its own key made again.
//!
//! Of aggregates that keep all values no part is made: the values are in the result in any case, and would be in each part
//! from their pane back as well. These are merged pane by pane, beside the others.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::exec::aggregate::AggregateStep;
use crate::exec::aggregate::pane::{Accumulators, Pane, Size, Which};
use crate::exec::room::{Claim, Room};
use crate::state::key::Keys;
use crate::state::table::KeyTable;
use crate::state::window::PaneNumber;

/// Windows of at most so many panes are merged pane by pane.
const FEW: i64 = 64;

/// The calls of which parts are made.
const PARTED: Which = Which::Of(Size::Bounded);

/// The place of an entry that there is not.
const NOWHERE: u32 = u32::MAX;

/// So many entries that were made again are kept in any case.
const KEPT_DEAD: usize = 1_024;

/// What windows are put together from.
#[derive(Clone, Copy)]
pub(super) struct Material<'a> {
    pub(super) step: &'a AggregateStep,
    pub(super) panes: &'a BTreeMap<PaneNumber, Pane>,
    pub(super) wanted: Wanted<'a>,
    pub(super) room: &'a Arc<Room>,
}

/// Whose states are wanted.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    All,
    /// Of these keys, in windows that have them already.
    Only(&'a KeyTable),
}

impl Wanted<'_> {
    /// The slots of `pane` whose keys are wanted.
    fn of(self, pane: &Pane) -> Vec<u32> {
        match self {
            Self::All => pane.table.all_slots(),
            Self::Only(keys) => keys.common(&pane.table).1,
        }
    }

    fn merge(self, which: Which, part: &Pane, whole: &mut Pane) -> Result<()> {
        match self {
            Self::All => whole.absorb_some(which, part, &part.table.all_slots()),
            Self::Only(_) => whole.absorb_known(which, part),
        }
    }
}

/// The parts of windows that are kept.
#[derive(Debug)]
pub(super) struct Parts {
    /// The panes of a window, and of a block.
    length: i64,
    ends: Option<Ends>,
    beginning: Option<Beginning>,
    /// The keys of rows that came to a pane after something was made of it.
    stale: KeyTable,
}

impl Parts {
    /// Nothing is kept yet of the windows of `step`.
    pub(super) fn new(step: &AggregateStep) -> Self {
        let length = step.window.as_ref().map_or(1, |window| window.placer.windows.panes_a_window());
        Self { length, ends: None, beginning: None, stale: KeyTable::default() }
    }

    /// Merges the panes of `window` into `whole`. Windows are asked for in order.
    pub(super) fn merge(
        &mut self,
        material: Material<'_>,
        window: Range<PaneNumber>,
        whole: &mut Pane,
    ) -> Result<()> {
        let mut panes = material.panes.range(window.clone());
        if self.length <= FEW {
            return panes.try_for_each(|(_, pane)| material.wanted.merge(Which::All, pane, whole));
        }
        self.merge_parts(material, window, whole)?;
        if whole.states.have(Size::Values) {
            panes.try_for_each(|(_, pane)| whole.absorb_known(Which::Of(Size::Values), pane))?;
        }
        Ok(())
    }

    fn merge_parts(
        &mut self,
        material: Material<'_>,
        window: Range<PaneNumber>,
        whole: &mut Pane,
    ) -> Result<()> {
        self.mend(material)?;
        let border =
            window.start.saturating_add(self.length - 1).div_euclid(self.length).saturating_mul(self.length);
        self.keep_ends(material, window.start..border)?;
        self.grow_beginning(material, border..window.end)?;
        if let Some(ends) = &self.ends {
            ends.merge_into(material.wanted, whole)?;
        }
        self.beginning.iter().try_for_each(|beginning| material.wanted.merge(PARTED, &beginning.pane, whole))
    }

    /// What is left of a block from each of its panes in `range` on.
    fn keep_ends(&mut self, material: Material<'_>, range: Range<PaneNumber>) -> Result<()> {
        let fits = |ends: &Ends| ends.range.end == range.end && ends.range.start <= range.start;
        if !self.ends.as_ref().is_some_and(fits) {
            self.ends = None; // gives its memory back before more is asked for
            if !range.is_empty() {
                self.ends = Some(Ends::made(material, range.clone())?);
            }
        }
        self.ends.iter_mut().for_each(|ends| ends.advance(range.start));
        Ok(())
    }

    /// The beginning of a block, grown to `range`.
    fn grow_beginning(&mut self, material: Material<'_>, range: Range<PaneNumber>) -> Result<()> {
        let fits = |kept: &Beginning| kept.range.start == range.start && kept.range.end <= range.end;
        let mut beginning = match self.beginning.take().filter(fits) {
            Some(kept) => kept,
            None => Beginning::new(material, range.start)?,
        };
        beginning.grow(material, range.end)?;
        self.beginning = Some(beginning);
        Ok(())
    }

    /// Rows of these keys have come to a pane: what was made of it is made again for them when it is needed.
    pub(super) fn touch(&mut self, pane: PaneNumber, keys: &Keys, slots: &mut Vec<u32>) -> Result<()> {
        let in_ends = self.ends.as_ref().is_some_and(|ends| ends.range.contains(&pane));
        let in_beginning = self.beginning.as_ref().is_some_and(|kept| kept.range.contains(&pane));
        if in_ends || in_beginning { self.stale.slots(keys, slots) } else { Ok(()) }
    }

    fn mend(&mut self, material: Material<'_>) -> Result<()> {
        if self.stale.is_empty() {
            return Ok(());
        }
        let stale = std::mem::take(&mut self.stale);
        let material = Material { wanted: Wanted::Only(&stale), ..material };
        if let Some(ends) = &mut self.ends {
            ends.make_again(material, &stale)?;
        }
        self.ends.take_if(|ends| ends.is_mostly_dead());
        self.beginning.iter_mut().try_for_each(|beginning| beginning.make_again(material, &stale))
    }

    /// All panes are gone.
    pub(super) fn clear(&mut self) {
        (self.ends, self.beginning, self.stale) = (None, None, KeyTable::default());
    }

    /// The bytes that it occupies.
    pub(super) fn bytes(&self) -> usize {
        let ends = self.ends.as_ref().map_or(0, Ends::bytes);
        ends + self.beginning.as_ref().map_or(0, |beginning| beginning.pane.bytes()) + self.stale.bytes()
    }
}

/// What remains of a block: for each key a state from each pane where it occurs to the end of the block.
#[derive(Debug)]
struct Ends {
    /// From the pane up to which windows have slid, to the end of the block.
    range: Range<PaneNumber>,
    table: KeyTable,
    /// Of each key, the entry of its first pane in `range`.
    heads: Vec<u32>,
    /// The keys that have one.
    live: Vec<u32>,
    entries: Vec<Entry>,
    /// Of each entry.
    states: Accumulators,
    /// How many entries there were before any was made again.
    made: usize,
    claim: Claim,
}

/// A key in a pane.
#[derive(Clone, Copy, Debug)]
struct Entry {
    pane: PaneNumber,
    /// The entry of the same key in a later pane.
    next: u32,
}

impl Ends {
    /// Those of `range`, made from its end backwards.
    fn made(material: Material<'_>, range: Range<PaneNumber>) -> Result<Self> {
        let mut ends = Self {
            range,
            table: KeyTable::default(),
            heads: Vec::new(),
            live: Vec::new(),
            entries: Vec::new(),
            states: material.step.accumulators()?,
            made: 0,
            claim: Claim::new(material.room),
        };
        ends.add_panes(material)?;
        ends.made = ends.entries.len();
        Ok(ends)
    }

    fn add_panes(&mut self, material: Material<'_>) -> Result<()> {
        for (number, pane) in material.panes.range(self.range.clone()).rev() {
            self.add(*number, pane, &material.wanted.of(pane))?;
            self.claim.set(self.bytes())?;
        }
        let with_head = |slot: &u32| self.heads.get(*slot as usize).is_some_and(|head| *head != NOWHERE);
        self.live = self.table.all_slots().into_iter().filter(with_head).collect();
        Ok(())
    }

    /// An entry for each of the keys in the slots `there` of a pane before all that they have entries of.
    fn add(&mut self, number: PaneNumber, pane: &Pane, there: &[u32]) -> Result<()> {
        if there.is_empty() {
            return Ok(());
        }
        let mut slots = Vec::new();
        self.table.absorb_some(&pane.table, there, &mut slots)?;
        self.heads.resize(self.table.len(), NOWHERE);
        let first = next_entry(self.entries.len(), there.len())?;
        let (mut linked, mut behind) = (Vec::new(), Vec::new());
        for (slot, entry) in slots.iter().zip(first..) {
            let Some(head) = self.heads.get_mut(*slot as usize) else { continue };
            self.entries.push(Entry { pane: number, next: *head });
            if *head != NOWHERE {
                linked.push(entry);
                behind.push(*head);
            }
            *head = entry;
        }
        let own: Vec<u32> = (first..).take(there.len()).collect();
        self.states.grow(self.entries.len());
        self.states.merge_of(PARTED, &own, &pane.states.states_of(PARTED, there)?)?;
        if linked.is_empty() {
            return Ok(());
        }
        self.states.merge_of(PARTED, &linked, &self.states.states_of(PARTED, &behind)?)
    }

    /// Windows begin at `start` now.
    fn advance(&mut self, start: PaneNumber) {
        let Self { heads, entries, live, range, .. } = self;
        range.start = start;
        live.retain(|slot| {
            let Some(head) = heads.get_mut(*slot as usize) else { return false };
            while let Some(entry) = entries.get(*head as usize)
                && entry.pane < start
            {
                *head = entry.next;
            }
            *head != NOWHERE
        });
    }

    fn make_again(&mut self, material: Material<'_>, stale: &KeyTable) -> Result<()> {
        for slot in self.table.common(stale).0 {
            self.heads.get_mut(slot as usize).into_iter().for_each(|head| *head = NOWHERE);
        }
        self.add_panes(material)
    }

    /// Whether more entries were made again than there are: it is then cheaper to make all once more.
    fn is_mostly_dead(&self) -> bool {
        self.entries.len() > 2 * self.made + KEPT_DEAD
    }

    /// Merges what is left from where windows begin now.
    fn merge_into(&self, wanted: Wanted<'_>, whole: &mut Pane) -> Result<()> {
        let head = |slot: &u32| self.heads.get(*slot as usize).copied().filter(|head| *head != NOWHERE);
        match wanted {
            Wanted::All => {
                let (slots, heads): (Vec<u32>, Vec<u32>) =
                    self.live.iter().filter_map(|slot| Some((*slot, head(slot)?))).unzip();
                whole.take_in(PARTED, &self.table, &slots, &self.states, Some(&heads))
            }
            Wanted::Only(_) => {
                let (here, there) = whole.table.common(&self.table);
                let pairs = here.into_iter().zip(there);
                let (here, heads): (Vec<u32>, Vec<u32>) =
                    pairs.filter_map(|(here, there)| Some((here, head(&there)?))).unzip();
                whole.states.merge_of(PARTED, &here, &self.states.states_of(PARTED, &heads)?)
            }
        }
    }

    fn bytes(&self) -> usize {
        let numbers = (self.heads.capacity() + self.live.capacity()) * size_of::<u32>();
        let entries = self.entries.capacity() * size_of::<Entry>();
        self.table.bytes() + numbers + entries + self.states.bytes()
    }
}

/// The number of the next entry, where there is room for `more`.
fn next_entry(entries: usize, more: usize) -> Result<u32> {
    let full = |_| {
        Error::memory_limit(
            "the panes of a window were expected to hold at most 4,294,967,295 keys in a shard",
        )
        .help("use more shards or a longer slide")
    };
    u32::try_from(entries + more).and_then(|_| u32::try_from(entries)).map_err(full)
}

/// From the start of a block to some pane of it, merged.
#[derive(Debug)]
struct Beginning {
    range: Range<PaneNumber>,
    pane: Pane,
    claim: Claim,
}

impl Beginning {
    fn new(material: Material<'_>, start: PaneNumber) -> Result<Self> {
        let (pane, claim) = (Pane::new(material.step)?, Claim::new(material.room));
        Ok(Self { range: start..start, pane, claim })
    }

    fn grow(&mut self, material: Material<'_>, end: PaneNumber) -> Result<()> {
        for (_, pane) in material.panes.range(self.range.end..end) {
            self.pane.absorb_some(PARTED, pane, &material.wanted.of(pane))?;
            self.claim.set(self.pane.bytes())?;
        }
        self.range.end = end;
        Ok(())
    }

    /// All other keys are taken over as they are: a state merged into none keeps its bits.
    fn make_again(&mut self, material: Material<'_>, stale: &KeyTable) -> Result<()> {
        let mut slots = self.pane.table.all_slots();
        slots.retain(|slot| !stale.has_key_of(&self.pane.table, *slot));
        let mut anew = Pane::new(material.step)?;
        anew.absorb_some(PARTED, &self.pane, &slots)?;
        let end = self.range.end;
        (self.pane, self.range.end) = (anew, self.range.start);
        self.grow(material, end)
    }
}

//! The windows that a batch changed, one after the other, each with the keys that it changed there.
//!
//! A row changes every window over its pane, so that one batch may change as many windows as a window has panes; they are
//! put together from parts, as those that end are, but of the keys alone that came. It deliberately keeps nothing from
//! batch to batch.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::Result;
use crate::exec::aggregate::AggregateStep;
use crate::exec::aggregate::pane::Pane;
use crate::exec::aggregate::sliding::{Material, Parts, Wanted};
use crate::state::table::KeyTable;
use crate::state::window::{PaneNumber, Windows};

/// What is left of the changes of a batch.
#[derive(Debug)]
pub(super) struct Changes {
    /// All keys that came.
    keys: KeyTable,
    /// Of each pane, those that came to it.
    touched: BTreeMap<PaneNumber, Vec<u32>>,
    /// Of each key in `current`, the last pane before the end of the window at hand to which it came.
    latest: Vec<Option<PaneNumber>>,
    /// The keys that came to the window at hand.
    current: Vec<u32>,
    /// The panes from here on have not been looked at.
    ahead: PaneNumber,
    /// The window to look at next.
    next: i64,
    parts: Parts,
}

impl Changes {
    /// The changes in `touched` of the windows from `first` on.
    pub(super) fn new(
        step: &AggregateStep,
        touched: BTreeMap<PaneNumber, KeyTable>,
        first: i64,
    ) -> Result<Self> {
        let mut keys = KeyTable::default();
        let own = |(pane, table): (PaneNumber, KeyTable)| {
            let mut slots = Vec::new();
            keys.absorb(&table, &mut slots)?;
            Ok((pane, slots))
        };
        let touched = touched.into_iter().map(own).collect::<Result<_>>()?;
        let latest = vec![None; keys.len()];
        let (current, ahead, parts) = (Vec::new(), PaneNumber::MIN, Parts::new(step));
        Ok(Self { keys, touched, latest, current, ahead, next: first, parts })
    }

    /// The next window that the batch changed, and the states there of the keys that came to it.
    pub(super) fn next_window(
        &mut self,
        material: Material<'_>,
        windows: &Windows,
    ) -> Result<Option<(i64, Pane)>> {
        let Some(number) = windows.next_over(self.next, &self.touched) else { return Ok(None) };
        let panes = windows.panes_of(number);
        self.slide(&panes);
        let mut whole = Pane::of_keys(material.step, &self.keys, &self.current)?;
        let material = Material { wanted: Wanted::Only(&self.keys), ..material };
        self.parts.merge(material, panes, &mut whole)?;
        self.next = number + 1;
        Ok(Some((number, whole)))
    }

    /// Takes in the keys that came to panes up to the end of a window, and drops those that came before its start alone.
    fn slide(&mut self, window: &Range<PaneNumber>) {
        let Self { touched, latest, current, .. } = self;
        for (pane, slots) in touched.range(self.ahead.min(window.end)..window.end) {
            for slot in slots {
                let Some(latest) = latest.get_mut(*slot as usize) else { continue };
                if latest.replace(*pane).is_none() {
                    current.push(*slot);
                }
            }
        }
        self.ahead = window.end;
        current.retain(|slot| {
            let Some(latest) = latest.get_mut(*slot as usize) else { return false };
            latest.take_if(|pane| *pane < window.start);
            latest.is_some()
        });
    }
}

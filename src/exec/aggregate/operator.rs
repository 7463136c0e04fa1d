//! The panes of one shard: partials are merged into them, and windows leave when the watermark passes their end.
//!
//! Rows leave in order of window, then of key group and key, which does not depend on which key came first. It
//! deliberately holds no clock: what is due follows from W(n-1) and W(n) alone. What a batch costs here goes by the rows
//! that came and the windows that leave, not by what is open.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;

use crate::error::{Error, Result};
use crate::exec::aggregate::AggregateStep;
use crate::exec::aggregate::WindowStep;
use crate::exec::aggregate::changes::Changes;
use crate::exec::aggregate::emission::Emission;
use crate::exec::aggregate::pane::Pane;
use crate::exec::aggregate::partial::WHOLE_BATCH;
use crate::exec::aggregate::sliding::{Material, Parts, Wanted};
use crate::exec::capture::Copied;
use crate::exec::keyed::no_snapshot;
use crate::exec::room::Room;
use crate::exec::{BatchContext, OperatorState};
use crate::plan::Emit;
use crate::state::chunk::Kind;
use crate::state::key::Keys;
use crate::state::pane;
use crate::state::rows::Rows;
use crate::state::table::KeyTable;
use crate::state::touched::TouchedPanes;
use crate::state::window::{OpenWindows, PaneNumber, Windows};

/// Windows of few rows leave together, in batches of about so many rows.
const JOIN_BELOW: usize = 16_384;

/// The operator of one shard.
#[derive(Debug)]
pub(crate) struct AggregateOperator {
    step: Arc<AggregateStep>,
    panes: BTreeMap<PaneNumber, Pane>,
    parts: Parts,
    /// What the panes hold, kept up to date: to ask each of them would cost as much as there are panes.
    held: Held,
    open: OpenWindows,
    /// What this batch changed, where changes are emitted.
    touched: BTreeMap<PaneNumber, KeyTable>,
    /// What came and went since the last capture; none before the first.
    captured: Option<TouchedPanes>,
    leaving: Leaving,
    slots: Vec<u32>, // of the keys at hand; kept for its memory
}

/// How much all panes hold.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    entries: usize,
    bytes: usize,
}

impl Held {
    /// A pane has changed, or come, or gone.
    fn change(&mut self, before: Self, now: Self) {
        self.entries = self.entries + now.entries - before.entries;
        self.bytes = self.bytes + now.bytes - before.bytes;
    }
}

impl From<&Pane> for Held {
    fn from(pane: &Pane) -> Self {
        Self { entries: pane.table.len(), bytes: pane.bytes() }
    }
}

/// How far a batch has left.
#[derive(Debug, Default)]
struct Leaving {
    /// The window to look at next.
    next: Option<i64>,
    changes: Option<Changes>,
    /// The window of which results are left.
    emission: Option<Emission>,
}

impl AggregateOperator {
    /// An operator without state.
    pub(crate) fn new(step: Arc<AggregateStep>) -> Self {
        let parts = Parts::new(&step);
        Self {
            step,
            panes: BTreeMap::new(),
            parts,
            held: Held::default(),
            open: OpenWindows::default(),
            touched: BTreeMap::new(),
            captured: None,
            leaving: Leaving::default(),
            slots: Vec::new(),
        }
    }

    /// Merges the partials of one slot, sorted by pane.
    pub(crate) fn merge(&mut self, rows: &RecordBatch, keys: &Keys, room: &Room) -> Result<()> {
        let lost = || Error::internal("a partial was expected to begin with its panes");
        let (panes, states) = rows.columns().split_first().ok_or_else(lost)?;
        for (number, range) in runs(panes.as_primitive_opt::<Int64Type>().ok_or_else(lost)?) {
            let keys = keys.slice(range.start, range.len());
            let states: Vec<ArrayRef> =
                states.iter().map(|column| column.slice(range.start, range.len())).collect();
            self.merge_pane(number, &keys, &states, room)?;
        }
        Ok(())
    }

    fn merge_pane(
        &mut self,
        number: PaneNumber,
        keys: &Keys,
        states: &[ArrayRef],
        room: &Room,
    ) -> Result<()> {
        let before = self.panes.get(&number).map(Held::from);
        let is_new = before.is_none();
        if is_new {
            self.panes.insert(number, Pane::new(&self.step)?);
            self.has_come(number);
        }
        let before = before.unwrap_or_default();
        let Some(pane) = self.panes.get_mut(&number) else { return Ok(()) };
        pane.merge(keys, states, &mut self.slots)?;
        if let Some(captured) = &mut self.captured {
            captured.mark(number, &self.slots, is_new);
        }
        let now = Held::from(&*pane);
        self.held.change(before, now);
        room.count(before.bytes as u64, now.bytes as u64);
        self.parts.touch(number, keys, &mut self.slots)?;
        if self.emits_updates() {
            self.touched.entry(number).or_default().slots(keys, &mut self.slots)?;
        }
        Ok(())
    }

    /// The windows over a pane that is new are open.
    fn has_come(&mut self, pane: PaneNumber) {
        if let Some(window) = &self.step.window {
            self.open.add(window.placer.windows.of_pane(pane));
        }
    }

    fn emits_updates(&self) -> bool {
        self.step.window.as_ref().is_some_and(|window| window.emit == Emit::Updates)
    }

    /// The next of what the batch comes to: rows of the windows that have ended, or changed. Behind the last of them,
    /// panes that no window needs any more are dropped.
    pub(crate) fn next_rows(
        &mut self,
        context: &BatchContext,
        room: &Arc<Room>,
    ) -> Result<Option<RecordBatch>> {
        let (step, mut pieces, mut rows) = (Arc::clone(&self.step), Vec::new(), 0);
        while rows < JOIN_BELOW {
            let emission = match self.leaving.emission.take() {
                Some(emission) => Some(emission),
                None => self.next_emission(&step, context, room)?,
            };
            let Some(mut emission) = emission else { break };
            let piece = emission.next_piece(&step)?;
            rows += piece.num_rows();
            pieces.push(piece);
            self.leaving.emission = Some(emission).filter(|emission| !emission.is_over());
        }
        if pieces.is_empty() {
            self.leaving = Leaving::default();
            self.drop_ended(context, room);
        }
        joined_one(&pieces)
    }

    fn next_emission(
        &mut self,
        step: &AggregateStep,
        context: &BatchContext,
        room: &Arc<Room>,
    ) -> Result<Option<Emission>> {
        let Some(window) = &step.window else {
            return Ok(self.take_pane(WHOLE_BATCH, room).map(|pane| Emission::new(pane, None)));
        };
        let next = match window.emit {
            Emit::Updates => self.next_changed(step, window, context, room)?,
            Emit::Final => self.next_ended(step, window, context, room)?,
        };
        let windows = &window.placer.windows;
        let bounds = |number| Some(windows.start(number)..windows.end(number));
        Ok(next.map(|(number, pane)| Emission::new(pane, bounds(number))))
    }

    /// The next window that ends in (W(n-1), W(n)], with all its keys.
    fn next_ended(
        &mut self,
        step: &AggregateStep,
        window: &WindowStep,
        context: &BatchContext,
        room: &Arc<Room>,
    ) -> Result<Option<(i64, Pane)>> {
        let windows = &window.placer.windows;
        let Some(now) = context.closing.map(|watermark| windows.tick(watermark)) else { return Ok(None) };
        let from = self.leaving.next.unwrap_or_else(|| first_open(windows, context));
        let Some(number) = windows.next_over(from, &self.panes) else { return Ok(None) };
        if windows.end(number) > now {
            return Ok(None);
        }
        self.leaving.next = Some(number + 1);
        if windows.are_tumbling() {
            return Ok(self.take_pane(number, room).map(|pane| (number, pane)));
        }
        let mut whole = Pane::new(step)?;
        let material = Material { step, panes: &self.panes, wanted: Wanted::All, room };
        self.parts.merge(material, windows.panes_of(number), &mut whole)?;
        Ok(Some((number, whole)))
    }

    /// The next window that the batch changed, with the keys that it changed there.
    fn next_changed(
        &mut self,
        step: &AggregateStep,
        window: &WindowStep,
        context: &BatchContext,
        room: &Arc<Room>,
    ) -> Result<Option<(i64, Pane)>> {
        let windows = &window.placer.windows;
        let mut changes = match self.leaving.changes.take() {
            Some(changes) => changes,
            None => Changes::new(step, std::mem::take(&mut self.touched), first_open(windows, context))?,
        };
        let material = Material { step, panes: &self.panes, wanted: Wanted::All, room };
        let next = changes.next_window(material, windows)?;
        self.leaving.changes = Some(changes);
        Ok(next)
    }

    fn take_pane(&mut self, number: PaneNumber, room: &Room) -> Option<Pane> {
        let pane = self.panes.remove(&number)?;
        if let Some(captured) = &mut self.captured {
            captured.drop_pane(number);
        }
        let held = Held::from(&pane);
        self.held.change(held, Held::default());
        room.count(held.bytes as u64, 0);
        Some(pane)
    }

    fn drop_ended(&mut self, context: &BatchContext, room: &Room) {
        let Some(windows) = self.step.window.as_ref().map(|window| window.placer.windows) else { return };
        let Some(now) = context.closing.map(|watermark| windows.tick(watermark)) else { return };
        while let Some(first) = self.panes.keys().next().copied()
            && windows.last_end(first) <= now
        {
            self.take_pane(first, room);
        }
        self.open.end_before(windows.first_ending_after(now));
        if self.panes.is_empty() {
            self.parts.clear();
        }
    }

    /// Adds how much state there is to `sum`.
    pub(crate) fn add_size(&self, sum: &mut OperatorState) {
        sum.entries += self.held.entries as u64;
        sum.bytes += (self.held.bytes + self.parts.bytes()) as u64;
        sum.open.extend(&self.open);
    }

    /// All state, sorted by key group, pane and key.
    pub(crate) fn snapshot(&self) -> Result<RecordBatch> {
        let schema = &self.step.schemas.states;
        let part = |(number, pane): (&PaneNumber, &Pane)| Ok((*number, pane.all_states(schema)?));
        let states = self.panes.iter().map(part).collect::<Result<Vec<_>>>()?;
        let parts = self.panes.values().zip(states);
        pane::snapshot(parts.map(|(pane, (number, state))| (number, &pane.table, state)), schema)
    }

    /// Replaces all state by that of a snapshot; after an error it is as it was.
    pub(crate) fn restore(&mut self, snapshot: &RecordBatch) -> Result<()> {
        pane::expect_states(snapshot, &self.step.schemas.states)?;
        let load = |(number, (table, state)): (PaneNumber, pane::Pane)| {
            Ok((number, Pane::restored(&self.step, table, state.columns())?))
        };
        let panes = pane::restore(snapshot)?.into_iter().map(load).collect::<Result<_>>()?;
        self.become_of(panes);
        Ok(())
    }

    /// A copy of all state, or of what has changed since the last copy; changes are noted from the first on.
    pub(crate) fn capture(&mut self, kind: Kind) -> Result<Copied> {
        let (slots, dropped) = match (kind, &mut self.captured) {
            (Kind::Delta, Some(captured)) => captured.take(),
            (Kind::Delta, None) => return Err(no_snapshot()),
            (Kind::Snapshot, captured) => {
                *captured = Some(TouchedPanes::default());
                (
                    self.panes.iter().map(|(number, pane)| (*number, pane.table.all_slots())).collect(),
                    Vec::new(),
                )
            }
        };
        let lost = || Error::internal("a pane was touched that is not there");
        let copied = |(number, slots): (PaneNumber, Vec<u32>)| {
            let pane = self.panes.get(&number).ok_or_else(lost)?;
            Ok((number, pane.table.copied(&slots)?, pane.states.states(&slots)?))
        };
        Ok(Copied::Panes(slots.into_iter().map(copied).collect::<Result<_>>()?, dropped))
    }

    /// Replaces all state by `rows`; changes are noted from here on. After an error it is as it was.
    pub(crate) fn load(&mut self, rows: &Rows) -> Result<()> {
        let load = |(number, table, states): (PaneNumber, KeyTable, Vec<ArrayRef>)| {
            Ok((number, Pane::restored(&self.step, table, &states)?))
        };
        let panes = rows.to_panes()?.into_iter().map(load).collect::<Result<_>>()?;
        self.become_of(panes);
        self.captured = Some(TouchedPanes::default());
        Ok(())
    }

    fn become_of(&mut self, panes: Vec<(PaneNumber, Pane)>) {
        *self = Self::new(Arc::clone(&self.step));
        for (number, pane) in panes {
            self.held.change(Held::default(), Held::from(&pane));
            self.has_come(number);
            self.panes.insert(number, pane);
        }
    }
}

/// The first window that had not ended by W(n-1).
fn first_open(windows: &Windows, context: &BatchContext) -> i64 {
    context.watermark.map_or(i64::MIN, |watermark| windows.first_ending_after(windows.tick(watermark)))
}

/// Equal neighbours: each with its rows.
fn runs(numbers: &Int64Array) -> Vec<(i64, Range<usize>)> {
    let mut runs: Vec<(i64, Range<usize>)> = Vec::new();
    for (row, number) in numbers.values().iter().enumerate() {
        match runs.last_mut() {
            Some((last, range)) if last == number => range.end = row + 1,
            _ => runs.push((*number, row..row + 1)),
        }
    }
    runs
}

fn joined_one(batches: &[RecordBatch]) -> Result<Option<RecordBatch>> {
    match batches {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [first, ..] => Ok(Some(concat_batches(&first.schema(), batches)?)),
    }
}

//! The panes of one shard: partials are merged into them, and windows leave when the watermark passes their end.
//!
//! Rows leave in order of window, then of key group and key, which does not depend on which key came first. It
//! deliberately holds no clock: what is due follows from W(n-1) and W(n) alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Int64Type};

use crate::error::{Error, Result};
use crate::exec::aggregate::AggregateStep;
use crate::exec::aggregate::WindowStep;
use crate::exec::aggregate::pane::Pane;
use crate::exec::aggregate::partial::WHOLE_BATCH;
use crate::exec::aggregate::sliding::Parts;
use crate::exec::pipeline::batch_of;
use crate::exec::{BatchContext, StateSize};
use crate::plan::Emit;
use crate::state::key::Keys;
use crate::state::pane;
use crate::state::table::KeyTable;
use crate::state::window::{PaneNumber, Windows};

/// Windows of few rows leave together, in batches of about so many rows.
const JOIN_BELOW: usize = 16_384;

/// The operator of one shard.
#[derive(Debug)]
pub(crate) struct AggregateOperator {
    step: Arc<AggregateStep>,
    panes: BTreeMap<PaneNumber, Pane>,
    parts: Parts,
    /// What this batch changed, where changes are emitted.
    touched: BTreeMap<PaneNumber, KeyTable>,
    slots: Vec<u32>, // of the keys at hand; kept for its memory
}

impl AggregateOperator {
    /// An operator without state.
    pub(crate) fn new(step: Arc<AggregateStep>) -> Self {
        let parts = parts(&step);
        Self { step, panes: BTreeMap::new(), parts, touched: BTreeMap::new(), slots: Vec::new() }
    }

    /// Merges the partials of one slot, sorted by pane.
    pub(crate) fn merge(&mut self, rows: &RecordBatch, keys: &Keys) -> Result<()> {
        let lost = || Error::internal("a partial was expected to begin with its panes");
        let (panes, states) = rows.columns().split_first().ok_or_else(lost)?;
        for (number, range) in runs(panes.as_primitive_opt::<Int64Type>().ok_or_else(lost)?) {
            let keys = keys.slice(range.start, range.len());
            let states: Vec<ArrayRef> =
                states.iter().map(|column| column.slice(range.start, range.len())).collect();
            let pane = match self.panes.get_mut(&number) {
                Some(pane) => pane,
                None => self.panes.entry(number).or_insert(Pane::new(&self.step)?),
            };
            pane.merge(&keys, &states, &mut self.slots)?;
            self.parts.forget(number);
            if self.emits_updates() {
                self.touched.entry(number).or_default().slots(&keys, &mut self.slots)?;
            }
        }
        Ok(())
    }

    fn emits_updates(&self) -> bool {
        self.step.window.as_ref().is_some_and(|window| window.emit == Emit::Updates)
    }

    /// What the batch comes to: the rows of the windows that have ended, or changed; panes that no window needs any
    /// more are dropped.
    pub(crate) fn close(&mut self, context: &BatchContext) -> Result<Vec<RecordBatch>> {
        let step = Arc::clone(&self.step);
        let made = match &step.window {
            None => self.whole_batch()?,
            Some(window) if window.emit == Emit::Updates => self.changed(window, context)?,
            Some(window) => self.ended(window, context)?,
        };
        if let Some(window) = &step.window {
            self.drop_ended(&window.placer.windows, context);
        }
        join(made)
    }

    fn whole_batch(&mut self) -> Result<Vec<RecordBatch>> {
        let Some(pane) = self.panes.remove(&WHOLE_BATCH) else { return Ok(Vec::new()) };
        Ok(vec![self.rows(&pane, Vec::new())?])
    }

    fn ended(&mut self, window: &WindowStep, context: &BatchContext) -> Result<Vec<RecordBatch>> {
        let windows = &window.placer.windows;
        let mut made = Vec::new();
        for number in due(windows, self.panes.keys().copied(), context) {
            let only = windows.are_tumbling().then(|| self.panes.get(&number)).flatten();
            if let Some(pane) = only {
                made.push(self.window_rows(window, number, pane)?);
            } else {
                let whole = self.parts.merged(&self.step, &self.panes, windows.panes_of(number))?;
                made.push(self.window_rows(window, number, &whole)?);
            }
        }
        Ok(made)
    }

    /// The rows of the windows that the batch changed, of the keys that it changed there.
    fn changed(&mut self, window: &WindowStep, context: &BatchContext) -> Result<Vec<RecordBatch>> {
        let (windows, touched) = (&window.placer.windows, std::mem::take(&mut self.touched));
        let before = context.watermark.map(|watermark| windows.tick(watermark));
        let open = |number: &i64| before.is_none_or(|before| windows.end(*number) > before);
        let numbers: BTreeSet<i64> =
            touched.keys().flat_map(|pane| windows.of_pane(*pane)).filter(open).collect();
        let made = |number| {
            let mut pane = Pane::new(&self.step)?;
            for (_, keys) in touched.range(windows.panes_of(number)) {
                pane.table.absorb(keys, &mut Vec::new())?;
            }
            for (_, part) in self.panes.range(windows.panes_of(number)) {
                pane.absorb_known(part)?;
            }
            self.window_rows(window, number, &pane)
        };
        numbers.into_iter().map(made).collect()
    }

    fn window_rows(&self, window: &WindowStep, number: i64, pane: &Pane) -> Result<RecordBatch> {
        let windows = &window.placer.windows;
        let bound = |tick| constant(tick, pane.table.len(), &window.data_type);
        self.rows(pane, vec![bound(windows.start(number))?, bound(windows.end(number))?])
    }

    /// The results of all keys of `pane` behind the columns `before`.
    fn rows(&self, pane: &Pane, before: Vec<ArrayRef>) -> Result<RecordBatch> {
        let order = pane.table.sorted();
        let mut columns = before;
        columns.extend(self.step.decoder.decode(order.iter().filter_map(|slot| pane.table.key(*slot)))?);
        columns.extend(pane.states.results(&order)?);
        batch_of(&self.step.output, columns, order.len())
    }

    fn drop_ended(&mut self, windows: &Windows, context: &BatchContext) {
        let Some(now) = context.closing.map(|watermark| windows.tick(watermark)) else { return };
        while let Some(first) = self.panes.first_entry()
            && windows.last_end(*first.key()) <= now
        {
            first.remove();
        }
        match self.panes.keys().next() {
            Some(first) => self.parts.drop_before(*first),
            None => self.parts = parts(&self.step),
        }
    }

    /// The size of its state.
    pub(crate) fn size(&self) -> StateSize {
        let keys: usize = self.panes.values().map(|pane| pane.table.len()).sum();
        let panes: usize = self.panes.values().map(Pane::bytes).sum();
        let bytes = panes + self.parts.bytes();
        StateSize { keys: keys as u64, bytes: bytes as u64, windows: keys as u64 }
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
        let load = |(number, (table, state)): (PaneNumber, pane::Pane)| {
            let mut states = self.step.accumulators()?;
            states.grow(table.len());
            states.merge(&table.all_slots(), state.columns())?;
            Ok((number, Pane { table, states }))
        };
        self.panes = pane::restore(snapshot)?.into_iter().map(load).collect::<Result<_>>()?;
        self.parts = parts(&self.step);
        Ok(())
    }
}

/// Nothing is kept yet of the windows of `step`.
fn parts(step: &AggregateStep) -> Parts {
    Parts::new(step.window.as_ref().map_or(1, |window| window.placer.windows.panes_a_window()))
}

/// The windows over `panes` that end in (W(n-1), W(n)], in order. Panes come in order too, and so do the ends of their
/// windows: the first pane whose windows all lie ahead ends the search.
fn due(windows: &Windows, panes: impl Iterator<Item = PaneNumber>, context: &BatchContext) -> BTreeSet<i64> {
    let Some(now) = context.closing.map(|watermark| windows.tick(watermark)) else { return BTreeSet::new() };
    let before = context.watermark.map(|watermark| windows.tick(watermark));
    let ended = |window: &i64| windows.end(*window) <= now;
    let fresh = |window: &i64| before.is_none_or(|before| windows.end(*window) > before);
    panes
        .map(|pane| windows.of_pane(pane))
        .take_while(|of_pane| ended(&of_pane.start))
        .flat_map(|of_pane| of_pane.take_while(ended).filter(fresh).collect::<Vec<_>>())
        .collect()
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

fn constant(tick: i64, rows: usize, data_type: &DataType) -> Result<ArrayRef> {
    Ok(cast(&Int64Array::from_value(tick, rows), data_type)?)
}

/// Joins neighbours of few rows.
fn join(batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let (mut joined, mut waiting, mut rows) = (Vec::new(), Vec::new(), 0);
    for batch in batches {
        rows += batch.num_rows();
        waiting.push(batch);
        if rows >= JOIN_BELOW {
            joined.extend(joined_one(&std::mem::take(&mut waiting))?);
            rows = 0;
        }
    }
    joined.extend(joined_one(&waiting)?);
    Ok(joined)
}

fn joined_one(batches: &[RecordBatch]) -> Result<Option<RecordBatch>> {
    match batches {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [first, ..] => Ok(Some(concat_batches(&first.schema(), batches)?)),
    }
}

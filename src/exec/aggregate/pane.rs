//! One pane: its keys, and the states of all calls for each of them.
//!
//! It deliberately does not know which stretch of time it stands for.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use crate::aggregate::{Accumulator, Aggregate};
use crate::error::{Error, Result};
use crate::exec::aggregate::AggregateStep;
use crate::exec::aggregate::calls::Calls;
use crate::exec::pipeline::batch_of;
use crate::state::key::Keys;
use crate::state::table::KeyTable;
use crate::time::BatchTime;

/// The states of all calls, one row a slot.
#[derive(Debug)]
pub(crate) struct Accumulators {
    calls: Vec<Box<dyn Accumulator>>,
    widths: Vec<usize>, // the number of state columns of each
    sizes: Vec<Size>,   // of a state of each
}

/// How large a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// As large as the values that came in.
    Values,
    /// The same however many values came in.
    Bounded,
}

/// The calls whose states are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    All,
    Of(Size),
}

impl Which {
    fn has(self, size: Size) -> bool {
        self == Self::All || self == Self::Of(size)
    }
}

impl Accumulators {
    pub(super) fn new(calls: &Calls) -> Result<Self> {
        let widths = calls.aggregates().map(|aggregate| aggregate.state_fields().len()).collect();
        let sizes = calls.aggregates().map(size_of_state).collect();
        let calls = calls.aggregates().map(Aggregate::accumulator).collect::<Result<_>>()?;
        Ok(Self { calls, widths, sizes })
    }

    pub(super) fn grow(&mut self, slots: usize) {
        self.calls.iter_mut().for_each(|call| call.grow(slots));
    }

    /// Row `i` of `batch` goes to the slot `slots[i]`.
    pub(super) fn update(
        &mut self,
        calls: &Calls,
        slots: &[u32],
        batch: &RecordBatch,
        time: BatchTime,
    ) -> Result<()> {
        calls.update(&mut self.calls, slots, batch, time)
    }

    /// Row `i` of `states` goes to the slot `slots[i]`.
    pub(super) fn merge(&mut self, slots: &[u32], states: &[ArrayRef]) -> Result<()> {
        self.merge_of(Which::All, slots, states)
    }

    /// Row `i` of `states`, which are those of `which` calls, goes to the slot `slots[i]`.
    pub(super) fn merge_of(&mut self, which: Which, slots: &[u32], states: &[ArrayRef]) -> Result<()> {
        let mut rest = states;
        let calls = self.calls.iter_mut().zip(&self.widths).zip(&self.sizes);
        for ((call, width), _) in calls.filter(|(_, size)| which.has(**size)) {
            let lost = || Error::internal("a partial has fewer columns than its states need");
            let (own, others) = rest.split_at_checked(*width).ok_or_else(lost)?;
            call.merge(slots, own)?;
            rest = others;
        }
        Ok(())
    }

    pub(super) fn states(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.states_of(Which::All, slots)
    }

    pub(super) fn states_of(&self, which: Which, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let calls = self.calls.iter().zip(&self.sizes).filter(|(_, size)| which.has(**size));
        let states = calls.map(|(call, _)| call.state(slots)).collect::<Result<Vec<_>>>()?;
        Ok(states.concat())
    }

    /// Whether there is a call whose states are of this size.
    pub(super) fn have(&self, size: Size) -> bool {
        self.sizes.contains(&size)
    }

    pub(super) fn results(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.calls.iter().map(|call| call.evaluate(slots)).collect()
    }

    pub(super) fn bytes(&self) -> usize {
        self.calls.iter().map(|call| call.bytes()).sum()
    }
}

/// The keys of a stretch of time, and their states.
#[derive(Debug)]
pub(crate) struct Pane {
    pub(super) table: KeyTable,
    pub(super) states: Accumulators,
}

impl Pane {
    pub(super) fn new(step: &AggregateStep) -> Result<Self> {
        Ok(Self { table: KeyTable::default(), states: step.accumulators()? })
    }

    /// The keys in these slots of `table`, without any state yet.
    pub(super) fn of_keys(step: &AggregateStep, table: &KeyTable, slots: &[u32]) -> Result<Self> {
        let mut pane = Self::new(step)?;
        pane.table.absorb_some(table, slots, &mut Vec::new())?;
        pane.states.grow(pane.table.len());
        Ok(pane)
    }

    /// The keys of `table`, whose states these are, one row a slot.
    pub(super) fn restored(step: &AggregateStep, table: KeyTable, states: &[ArrayRef]) -> Result<Self> {
        let mut pane = Self { table, states: step.accumulators()? };
        pane.states.grow(pane.table.len());
        pane.states.merge(&pane.table.all_slots(), states)?;
        Ok(pane)
    }

    /// Merges states, one row a key; `slots` are then those of the keys.
    pub(super) fn merge(&mut self, keys: &Keys, states: &[ArrayRef], slots: &mut Vec<u32>) -> Result<()> {
        self.table.slots(keys, slots)?;
        self.states.grow(self.table.len());
        self.states.merge(slots, states)
    }

    /// Merges what `other` has in the slots `there`, of `which` calls.
    pub(super) fn absorb_some(&mut self, which: Which, other: &Self, there: &[u32]) -> Result<()> {
        self.take_in(which, &other.table, there, &other.states, None)
    }

    /// Merges the keys in the slots `keys` of `table`, whose states are in the slots `rows` of `states`; in the same slots
    /// where no others are given.
    pub(super) fn take_in(
        &mut self,
        which: Which,
        table: &KeyTable,
        keys: &[u32],
        states: &Accumulators,
        rows: Option<&[u32]>,
    ) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut slots = Vec::new();
        self.table.absorb_some(table, keys, &mut slots)?;
        self.states.grow(self.table.len());
        self.states.merge_of(which, &slots, &states.states_of(which, rows.unwrap_or(keys))?)
    }

    /// Merges what `other` has of the keys that are here already, of `which` calls.
    pub(super) fn absorb_known(&mut self, which: Which, other: &Self) -> Result<()> {
        let (here, there) = self.table.common(&other.table);
        if here.is_empty() {
            return Ok(());
        }
        self.states.merge_of(which, &here, &other.states.states_of(which, &there)?)
    }

    /// All states, in the order of slots.
    pub(super) fn all_states(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let all = self.table.all_slots();
        batch_of(schema, self.states.states(&all)?, all.len())
    }

    pub(super) fn bytes(&self) -> usize {
        self.table.bytes() + self.states.bytes()
    }
}

fn size_of_state(aggregate: &Aggregate) -> Size {
    if aggregate.keeps_values() { Size::Values } else { Size::Bounded }
}

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
}

impl Accumulators {
    pub(super) fn new(calls: &Calls) -> Result<Self> {
        let widths = calls.aggregates().map(|aggregate| aggregate.state_fields().len()).collect();
        let calls = calls.aggregates().map(Aggregate::accumulator).collect::<Result<_>>()?;
        Ok(Self { calls, widths })
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
        let mut rest = states;
        for (call, width) in self.calls.iter_mut().zip(&self.widths) {
            let lost = || Error::internal("a partial has fewer columns than its states need");
            let (own, others) = rest.split_at_checked(*width).ok_or_else(lost)?;
            call.merge(slots, own)?;
            rest = others;
        }
        Ok(())
    }

    pub(super) fn states(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let states = self.calls.iter().map(|call| call.state(slots)).collect::<Result<Vec<_>>>()?;
        Ok(states.concat())
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

    /// Merges states, one row a key; `slots` are then those of the keys.
    pub(super) fn merge(&mut self, keys: &Keys, states: &[ArrayRef], slots: &mut Vec<u32>) -> Result<()> {
        self.table.slots(keys, slots)?;
        self.states.grow(self.table.len());
        self.states.merge(slots, states)
    }

    /// Merges all of `other`.
    pub(super) fn absorb(&mut self, other: &Self) -> Result<()> {
        let mut slots = Vec::new();
        self.table.absorb(&other.table, &mut slots)?;
        self.states.grow(self.table.len());
        self.states.merge(&slots, &other.states.states(&other.table.all_slots())?)
    }

    /// Merges what `other` has of the keys that are here already.
    pub(super) fn absorb_known(&mut self, other: &Self) -> Result<()> {
        let (here, there) = self.table.common(&other.table);
        self.states.grow(self.table.len());
        self.states.merge(&here, &other.states.states(&there)?)
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

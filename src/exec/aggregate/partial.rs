//! The rows of one slot of one batch, aggregated as they come: a state for each pane and key.
//!
//! It deliberately sees one slot only, and is merged with those of the other slots behind the exchange, in their order:
//! so the bits of a result do not depend on who aggregated what, or when.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};

use crate::error::Result;
use crate::exec::BatchContext;
use crate::exec::aggregate::AggregateStep;
use crate::exec::aggregate::pane::Accumulators;
use crate::exec::aggregate::place::{Panes, Placed};
use crate::exec::exchange::{Split, sort_by_shard};
use crate::exec::pipeline::batch_of;
use crate::state::table::KeyTable;
use crate::state::window::PaneNumber;

/// Where there are no windows, all rows are in one pane.
pub(super) const WHOLE_BATCH: PaneNumber = 0;

/// The states of one slot, by pane and key.
#[derive(Debug)]
pub(crate) struct Partial {
    table: KeyTable<PaneNumber>,
    states: Accumulators,
    slots: Vec<u32>, // of the rows at hand; kept from chunk to chunk for its memory
}

impl Partial {
    /// No row yet.
    pub(crate) fn new(step: &AggregateStep) -> Result<Self> {
        Ok(Self { table: KeyTable::default(), states: step.accumulators()?, slots: Vec::new() })
    }

    /// The bytes that it occupies.
    pub(crate) fn bytes(&self) -> u64 {
        (self.table.bytes() + self.states.bytes()) as u64
    }

    /// Adds the rows of `batch` that have a place; says how many came too late.
    pub(crate) fn add(
        &mut self,
        step: &AggregateStep,
        batch: RecordBatch,
        context: &BatchContext,
    ) -> Result<u64> {
        let Placed { batch, panes, late } = match &step.window {
            Some(window) => window.placer.place(batch, context)?,
            None => Placed { batch, panes: Panes::One(WHOLE_BATCH), late: 0 },
        };
        let keys = step.encoder.encode(&batch)?;
        match panes {
            Panes::One(pane) => {
                self.table.tagged_slots(&keys, std::iter::repeat(pane), &mut self.slots)?;
            }
            Panes::Each(panes) => self.table.tagged_slots(&keys, panes.into_iter(), &mut self.slots)?,
        }
        self.states.grow(self.table.len());
        self.states.update(&step.calls, &self.slots, &batch, context.time)?;
        Ok(late)
    }

    /// Its states sorted by shard, and within a shard by pane.
    pub(crate) fn finish(self, step: &AggregateStep, shards: usize) -> Result<Split> {
        let mut slots = self.table.all_slots();
        slots.sort_by_key(|slot| self.table.tag(*slot));
        let hashes: Vec<u64> = slots.iter().filter_map(|slot| self.table.hash(*slot)).collect();
        let (order, ends) = sort_by_shard(&hashes, shards);
        let order: Vec<u32> = order.iter().filter_map(|place| slots.get(*place as usize)).copied().collect();
        let panes: Int64Array = order.iter().filter_map(|slot| self.table.tag(*slot)).collect();
        let mut columns = vec![Arc::new(panes) as ArrayRef];
        columns.extend(self.states.states(&order)?);
        let rows = batch_of(&step.schemas.partial, columns, order.len())?;
        Ok(Split::new(rows, self.table.keys_of(&order)?, ends))
    }
}

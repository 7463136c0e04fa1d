//! The results of one window, or of a batch, on their way out: in pieces, so that whoever takes them can let each go, or
//! refuse it, before the next is made.
//!
//! It deliberately does not know which windows are due.

use std::ops::Range;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::error::Result;
use crate::exec::aggregate::AggregateStep;
use crate::exec::aggregate::pane::Pane;
use crate::exec::pipeline::batch_of;

/// A piece has at most so many rows of one window.
pub(super) const LARGEST_PIECE: usize = 65_536;

/// What is left of a window's results.
#[derive(Debug)]
pub(super) struct Emission {
    pane: Pane,
    /// The ticks of the window, where there is one.
    bounds: Option<Range<i64>>,
    /// The slots of `pane` in the order in which they leave.
    order: Vec<u32>,
    given: usize,
}

impl Emission {
    /// The results of all keys of `pane`.
    pub(super) fn new(pane: Pane, bounds: Option<Range<i64>>) -> Self {
        let order = pane.table.sorted();
        Self { pane, bounds, order, given: 0 }
    }

    /// The next piece.
    pub(super) fn next_piece(&mut self, step: &AggregateStep) -> Result<RecordBatch> {
        let until = self.order.len().min(self.given + LARGEST_PIECE);
        let slots = self.order.get(self.given..until).unwrap_or_default();
        self.given = until;
        let mut columns = Vec::new();
        if let (Some(bounds), Some(window)) = (&self.bounds, &step.window) {
            for tick in [bounds.start, bounds.end] {
                columns.push(constant(tick, slots.len(), &window.data_type)?);
            }
        }
        columns.extend(step.decoder.decode(slots.iter().filter_map(|slot| self.pane.table.key(*slot)))?);
        columns.extend(self.pane.states.results(slots)?);
        batch_of(&step.output, columns, slots.len())
    }

    /// Whether all have been given.
    pub(super) fn is_over(&self) -> bool {
        self.given >= self.order.len()
    }
}

fn constant(tick: i64, rows: usize, data_type: &DataType) -> Result<ArrayRef> {
    Ok(cast(&Int64Array::from_value(tick, rows), data_type)?)
}

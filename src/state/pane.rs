//! The snapshot of window panes: many tables of keys as one record batch, and back.
//!
//! It is a snapshot of keyed state with one more column, the pane; rows are sorted by key group, pane and key, so that a
//! new owner takes its key groups as one run. Like [`crate::state::snapshot`] it deliberately does not know
//! what the state columns mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt16Type};

use crate::error::{Error, ErrorKind, Result};
use crate::state::snapshot;
use crate::state::table::KeyTable;
use crate::state::window::PaneNumber;

/// The name of the column that says to which pane a row belongs.
const PANE: &str = "pane";

/// The keys of a pane and their state, one row a slot.
pub type Pane = (KeyTable, RecordBatch);

/// The snapshot of all panes, whose states have the columns of `state`.
pub fn snapshot<'a>(
    panes: impl IntoIterator<Item = (PaneNumber, &'a KeyTable, RecordBatch)>,
    state: &Schema,
) -> Result<RecordBatch> {
    let with_pane = with_pane(state);
    let of_pane = |(number, table, state): (PaneNumber, &KeyTable, RecordBatch)| {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![number; state.num_rows()]));
        let columns = std::iter::once(numbers).chain(state.columns().iter().cloned()).collect();
        snapshot::snapshot(table, &RecordBatch::try_new(Arc::clone(&with_pane), columns)?)
    };
    let parts = panes.into_iter().map(of_pane).collect::<Result<Vec<_>>>()?;
    let none = snapshot::snapshot(&KeyTable::default(), &RecordBatch::new_empty(Arc::clone(&with_pane)))?;
    let all = compute::concat_batches(&none.schema(), parts.iter().chain([&none]))?;
    let groups = all.column(0).as_primitive::<UInt16Type>();
    let mut order: Vec<u32> = (0_u32..).take(all.num_rows()).collect();
    order.sort_by_key(|row| groups.values().get(*row as usize));
    Ok(compute::take_record_batch(&all, &UInt32Array::from(order))?)
}

/// The panes of a snapshot. Whatever does not fit is an error of kind [`ErrorKind::Checkpoint`].
pub fn restore(all: &RecordBatch) -> Result<BTreeMap<PaneNumber, Pane>> {
    let damaged = || {
        Error::new(ErrorKind::Checkpoint, format!("a column \"{PANE}\" of int64 without nulls was expected"))
            .at("snapshot of window panes")
    };
    let numbers = all.column_by_name(PANE).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let numbers = numbers.filter(|numbers| numbers.null_count() == 0).ok_or_else(damaged)?;
    let mut rows: BTreeMap<PaneNumber, Vec<u32>> = BTreeMap::new();
    for (row, number) in (0_u32..).zip(numbers.values()) {
        rows.entry(*number).or_default().push(row);
    }
    let of_pane = |(number, rows)| {
        let part = compute::take_record_batch(all, &UInt32Array::from(rows))?;
        let (table, mut state) = snapshot::restore(&part)?;
        state.remove_column(state.schema().index_of(PANE)?);
        Ok((number, (table, state)))
    };
    rows.into_iter().map(of_pane).collect()
}

fn with_pane(state: &Schema) -> SchemaRef {
    let pane = Arc::new(Field::new(PANE, DataType::Int64, false));
    let fields: Vec<_> = std::iter::once(pane).chain(state.fields().iter().cloned()).collect();
    Arc::new(Schema::new_with_metadata(fields, state.metadata().clone()))
}

//! The snapshot of window panes: many tables of keys as one record batch, and back.
//!
//! It is a snapshot of keyed state with one more column, the pane; rows are sorted by key group, pane and key, so that a
//! new owner takes its key groups as one run. Like [`crate::state::snapshot`] it deliberately does not know
//! what the state columns mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef, UInt16Type};

use crate::error::{Error, ErrorKind, Result};
use crate::state::snapshot;
use crate::state::table::KeyTable;
use crate::state::window::PaneNumber;
use crate::types::type_name;

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

/// An error unless a snapshot's states have the names, types and version of those in `state`.
pub fn expect_states(all: &RecordBatch, state: &Schema) -> Result<()> {
    let schema = all.schema();
    let is_state = |field: &&FieldRef| field.name() != PANE && !snapshot::is_of_keys(field.name());
    let found: Vec<FieldRef> = schema.fields().iter().filter(is_state).cloned().collect();
    let alike = |(a, b): (&FieldRef, &FieldRef)| a.name() == b.name() && a.data_type() == b.data_type();
    let same_columns = found.len() == state.fields().len() && found.iter().zip(state.fields()).all(alike);
    let same_version = state.metadata().iter().all(|(key, value)| schema.metadata().get(key) == Some(value));
    if same_columns && same_version {
        return Ok(());
    }
    let versions = |schema: &Schema| {
        let of = |key| schema.metadata().get(key).map_or("none", String::as_str);
        state.metadata().keys().map(|key| format!("{key} {}", of(key))).collect::<Vec<_>>().join(", ")
    };
    let message = format!(
        "states of {} with {} were expected, found {} with {}",
        listed(state.fields()),
        versions(state),
        listed(&found),
        versions(&schema)
    );
    Err(Error::new(ErrorKind::Checkpoint, message).at("snapshot of window panes").help(
        "give the aggregates that wrote it, in the version of tidemill that did, or start with fresh state",
    ))
}

fn listed(fields: &[FieldRef]) -> String {
    let named = |field: &FieldRef| format!("{} {}", field.name(), type_name(field.data_type()));
    fields.iter().map(named).collect::<Vec<_>>().join(", ")
}

fn with_pane(state: &Schema) -> SchemaRef {
    let pane = Arc::new(Field::new(PANE, DataType::Int64, false));
    let fields: Vec<_> = std::iter::once(pane).chain(state.fields().iter().cloned()).collect();
    Arc::new(Schema::new_with_metadata(fields, state.metadata().clone()))
}

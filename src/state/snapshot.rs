//! Keyed state as one record batch, sorted by key group and key, and back.
//!
//! The same state gives the same bytes whatever the order in which keys came, and a key group is one run of rows:
//! a new owner takes just its own. This file deliberately does not know what the state columns mean, and it
//! believes nothing of a snapshot that it has not checked.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions, UInt16Array, UInt32Array, UInt64Array};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt16Type, UInt64Type};

use crate::error::{Error, ErrorKind, Result};
use crate::state::group::KeyGroup;
use crate::state::key::{ENCODING_VERSION, hash_of};
use crate::state::table::KeyTable;

/// The name under which a snapshot's schema says how its keys are encoded.
pub const ENCODING_KEY: &str = "tidemill.key_encoding";

const KEY_COLUMNS: [(&str, DataType); 3] =
    [("key_group", DataType::UInt16), ("hash", DataType::UInt64), ("key", DataType::Binary)];

/// The snapshot of `state`, whose row `n` belongs to the key in slot `n` of `table`: the columns `key_group`, `hash`
/// and `key`, then those of the state.
pub fn snapshot(table: &KeyTable, state: &RecordBatch) -> Result<RecordBatch> {
    if state.num_rows() != table.len() {
        let (rows, keys) = (state.num_rows(), table.len());
        return Err(Error::internal(format!(
            "one row of state a key was expected, found {rows} for {keys} keys"
        )));
    }
    let order = table.sorted();
    let hashes: UInt64Array = order.iter().filter_map(|slot| table.hash(*slot)).collect();
    let groups: UInt16Array = hashes.values().iter().map(|hash| KeyGroup::of(*hash).0).collect();
    let keys = table.keys(&order)?;
    let state = compute::take_record_batch(state, &UInt32Array::from(order))?;
    let mut columns = vec![Arc::new(groups) as _, Arc::new(hashes) as _, Arc::new(keys) as _];
    columns.extend(state.columns().iter().cloned());
    Ok(RecordBatch::try_new(snapshot_schema(&state.schema()), columns)?)
}

fn snapshot_schema(state: &SchemaRef) -> SchemaRef {
    let keys = KEY_COLUMNS.map(|(name, data_type)| Arc::new(Field::new(name, data_type, false)));
    let fields: Vec<_> = keys.into_iter().chain(state.fields().iter().cloned()).collect();
    let mut metadata = state.metadata().clone();
    metadata.insert(ENCODING_KEY.to_owned(), ENCODING_VERSION.to_string());
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// The keys of a snapshot, and its state columns with one row a slot.
///
/// Whatever does not fit (another encoding, a key in a wrong group, rows out of order) is an error of kind
/// [`ErrorKind::Checkpoint`].
pub fn restore(snapshot: &RecordBatch) -> Result<(KeyTable, RecordBatch)> {
    check_schema(snapshot)?;
    let (groups, hashes) =
        (snapshot.column(0).as_primitive::<UInt16Type>(), snapshot.column(1).as_primitive::<UInt64Type>());
    let keys = snapshot.column(2).as_binary::<i32>();
    let (mut table, mut previous) = (KeyTable::default(), None);
    for (row, ((group, hash), key)) in
        groups.values().iter().zip(hashes.values()).zip(keys.iter()).enumerate()
    {
        let key = key.unwrap_or_default();
        let place = Some((*group, key));
        if hash_of(key) != *hash || KeyGroup::of(*hash).0 != *group || previous >= place {
            return Err(damaged(format!(
                "row {row}: its group, hash and key belong together, in order; found others"
            )));
        }
        table.slot(*hash, key)?;
        previous = place;
    }
    Ok((table, state_columns(snapshot)?))
}

/// Whether a snapshot has a column of this name beside those of the state.
pub(super) fn is_of_keys(name: &str) -> bool {
    KEY_COLUMNS.iter().any(|(own, _)| *own == name)
}

fn check_schema(snapshot: &RecordBatch) -> Result<()> {
    let schema = snapshot.schema();
    for (place, (name, data_type)) in KEY_COLUMNS.iter().enumerate() {
        let fits = schema
            .fields()
            .get(place)
            .is_some_and(|field| field.name() == name && field.data_type() == data_type)
            && snapshot.columns().get(place).is_some_and(|column| column.null_count() == 0);
        if !fits {
            return Err(damaged(format!(
                "column {place} was expected to be \"{name}\" of type {data_type} without nulls"
            )));
        }
    }
    match schema.metadata().get(ENCODING_KEY) {
        Some(found) if *found == ENCODING_VERSION.to_string() => Ok(()),
        found => Err(damaged(format!("key encoding {ENCODING_VERSION} was expected, found {found:?}"))
            .help("restore it with the version of tidemill that wrote it")),
    }
}

fn state_columns(snapshot: &RecordBatch) -> Result<RecordBatch> {
    let schema = snapshot.schema();
    let fields: Vec<_> = schema.fields().iter().skip(KEY_COLUMNS.len()).cloned().collect();
    let mut metadata = schema.metadata().clone();
    metadata.remove(ENCODING_KEY);
    let columns = snapshot.columns().iter().skip(KEY_COLUMNS.len()).cloned().collect();
    let rows = RecordBatchOptions::new().with_row_count(Some(snapshot.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::new(Schema::new_with_metadata(fields, metadata)),
        columns,
        &rows,
    )?)
}

/// The part of a snapshot that belongs to these key groups, without a copy.
pub fn split(snapshot: &RecordBatch, groups: &Range<KeyGroup>) -> Result<RecordBatch> {
    check_schema(snapshot)?;
    let found = groups_of(snapshot);
    let first = found.partition_point(|group| *group < groups.start.0);
    let last = found.partition_point(|group| *group < groups.end.0);
    Ok(snapshot.slice(first, last.saturating_sub(first)))
}

/// One snapshot of several whose key groups lie apart, given in any order.
pub fn merge(parts: &[RecordBatch]) -> Result<RecordBatch> {
    let Some(any) = parts.first() else {
        return Err(Error::internal("at least one snapshot was expected to be merged, found none"));
    };
    parts.iter().try_for_each(check_schema)?;
    let mut sorted: Vec<&RecordBatch> = parts.iter().filter(|part| part.num_rows() > 0).collect();
    sorted.sort_by_key(|part| groups_of(part).first().copied());
    let apart = |pair: &[&RecordBatch]| match pair {
        [a, b] => groups_of(a).last() < groups_of(b).first(),
        _ => true,
    };
    if !sorted.windows(2).all(apart) {
        return Err(Error::internal(
            "snapshots of key groups that lie apart were expected, found some that overlap",
        ));
    }
    Ok(compute::concat_batches(&any.schema(), sorted)?)
}

fn groups_of(snapshot: &RecordBatch) -> &[u16] {
    snapshot.column(0).as_primitive::<UInt16Type>().values()
}

fn damaged(message: String) -> Error {
    Error::new(ErrorKind::Checkpoint, message).at("snapshot of keyed state")
}

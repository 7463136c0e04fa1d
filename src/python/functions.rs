//! The user's Python functions, behind the traits by which the core calls them.
//!
//! A function is called once a batch and partition, never twice at once, and what it returns is cast to the
//! declared columns without loss or refused with the row. It deliberately catches nothing: a user's exception goes
//! back to the caller as it is.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, BooleanArray, new_null_array};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use pyo3::prelude::*;

use crate::error::{Error, Result};
use crate::plan::{BatchFunction, BatchInfo, FunctionSchema};
use crate::python::arrow::import;
use crate::python::batch::Batch;
use crate::python::error::from_user;
use crate::python::gil;
use crate::python::schema::unknown_column;
use crate::types::type_name;

/// A Python callable that the engine's threads share with the objects that Python's garbage collector walks:
/// the slot is emptied when the context that owns it is collected.
#[derive(Clone)]
pub(crate) struct Callable(Arc<Mutex<Option<Py<PyAny>>>>); // held for a clone of the reference, never over a call

impl Callable {
    pub(crate) fn new(callable: Py<PyAny>) -> Self {
        Self(Arc::new(Mutex::new(Some(callable))))
    }

    /// The callable, unless its context has been collected.
    pub(crate) fn get(&self, py: Python<'_>) -> Result<Py<PyAny>> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().map(|callable| callable.clone_ref(py)).ok_or_else(collected)
    }

    /// Shows the reference to Python's garbage collector; a slot in use is skipped, which only keeps it longer.
    pub(crate) fn traverse(
        &self,
        visit: &pyo3::PyVisit<'_>,
    ) -> std::result::Result<(), pyo3::PyTraverseError> {
        match self.0.try_lock() {
            Ok(slot) => visit.call(&*slot),
            Err(_) => Ok(()),
        }
    }

    /// Takes the reference out, to break a circle.
    pub(crate) fn clear(&self) -> Option<Py<PyAny>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Callable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callable")
    }
}

fn collected() -> Error {
    Error::user("the context that this function belongs to has been collected")
        .help("keep a reference to the context")
}

/// A user's function from a batch to rows.
#[derive(Debug)]
pub(crate) struct PythonFunction {
    callable: Callable,
    schema: FunctionSchema,
    /// Two calls of one function never overlap; waited for without the GIL, which the running call needs.
    turn: Mutex<()>,
}

impl PythonFunction {
    pub(crate) fn new(callable: Callable, schema: FunctionSchema) -> Self {
        Self { callable, schema, turn: Mutex::new(()) }
    }

    fn returned(&self, rows: &RecordBatch, info: &BatchInfo) -> Result<RecordBatch> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        gil::attach(|py| {
            let batch = Batch::of_partition(rows.clone(), info);
            let callable = self.callable.get(py)?;
            let result = callable.bind(py).call1((batch,)).and_then(|result| import(&result));
            result.map_err(|exception| from_user(py, exception))
        })
    }
}

impl BatchFunction for PythonFunction {
    fn call(&self, rows: RecordBatch, info: &BatchInfo) -> Result<RecordBatch> {
        let returned = self.returned(&rows, info)?;
        match &self.schema {
            FunctionSchema::Same => all_fitted(&returned, &rows.schema()),
            FunctionSchema::Exactly(schema) => all_fitted(&returned, schema),
            FunctionSchema::Adds(added) => fitted(&returned, added), // the engine puts the input's columns before
        }
    }
}

/// What a pandas frame calls an index that has no name; one comes with every selection of rows, unasked.
const PANDAS_INDEX: &str = "__index_level_";

/// As [`fitted`], where a further column would be lost without a word.
fn all_fitted(returned: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let fitted = fitted(returned, schema)?;
    let returned = returned.schema();
    let names = returned.fields().iter().map(|field| field.name());
    let undeclared =
        |name: &&String| schema.column_with_name(name).is_none() && !name.starts_with(PANDAS_INDEX);
    let undeclared: Vec<String> = names.filter(undeclared).map(|name| format!("{name:?}")).collect();
    if undeclared.is_empty() {
        return Ok(fitted);
    }
    let text = format!("the function's result has undeclared columns: {}", undeclared.join(", "));
    Err(Error::schema(text).help(
        "declare them by adds=, beside the input's columns, or all of the result's by schema=; else leave them out",
    ))
}

/// The wanted columns of what was returned, each cast without loss.
fn fitted(returned: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        let found = returned.column_by_name(field.name());
        let column = found.ok_or_else(|| missing(returned, field.name()))?;
        lossless(column, field.data_type()).map_err(|error| error.at(format!("column {:?}", field.name())))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(returned.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

fn missing(returned: &RecordBatch, name: &str) -> Error {
    let error = unknown_column(&returned.schema(), name);
    Error::schema(format!("the function's result lacks a declared column: {error}"))
}

/// The same values as another type of the same family; an error names the first row that would change.
fn lossless(column: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    let source = column.data_type();
    if source == target {
        return Ok(Arc::clone(column));
    }
    // Nulls are nulls of any type, and no values are values of any: Python's containers then do not tell which.
    if column.logical_null_count() == column.len() {
        return Ok(new_null_array(target, column.len()));
    }
    let (from, to) = (type_name(source), type_name(target));
    if !may_become(source, target) {
        return Err(
            Error::schema(format!("{to} is declared, found {from}")).help("declare or return the other")
        );
    }
    let column = &if family(target) == Family::Day { Arc::clone(column) } else { without_zone(column)? };
    let there = cast_with_options(column, target, &CastOptions::default())
        .map_err(|_| Error::schema(format!("{to} is declared, found {from}, which does not cast to it")))?;
    match first_change(column, &there)? {
        None => Ok(there),
        Some(row) => Err(changed(column, row, target)),
    }
}

/// Whether values may be cast, where that changes none. NumPy and pandas have no dates but midnights without a zone.
fn may_become(source: &DataType, target: &DataType) -> bool {
    match (family(source), family(target)) {
        (Family::Instant, Family::Day) => matches!(source, DataType::Timestamp(_, None)),
        (source, target) => source == target,
    }
}

/// A time without zone is UTC: the instant is kept, never reinterpreted.
fn without_zone(column: &ArrayRef) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::Timestamp(unit, None) => {
            let utc = DataType::Timestamp(*unit, Some(Arc::from("UTC")));
            Ok(cast_with_options(column, &utc, &CastOptions::default())?)
        }
        _ => Ok(Arc::clone(column)),
    }
}

/// The first row that is not the same after the way there and back.
fn first_change(column: &ArrayRef, there: &ArrayRef) -> Result<Option<usize>> {
    let back = cast_with_options(there, column.data_type(), &CastOptions::default())?;
    if column.data_type().is_nested() {
        return Ok(
            (0..column.len()).find(|row| column.slice(*row, 1).as_ref() != back.slice(*row, 1).as_ref())
        );
    }
    let same: BooleanArray = not_distinct(column, &back)?;
    Ok(same.iter().position(|same| same != Some(true)))
}

fn changed(column: &ArrayRef, row: usize, target: &DataType) -> Error {
    let value = arrow::util::display::array_value_to_string(column, row).unwrap_or_default();
    let (from, to) = (type_name(column.data_type()), type_name(target));
    let text = format!("{value} ({from}) in row {row} does not fit {to} without loss");
    Error::schema(text).help("cast it yourself where rounding is meant, or declare the wider type")
}

/// Types between which values may be cast.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    Truth,
    Number,
    Text,
    Bytes,
    Instant,
    Day,
    Span,
    Nested,
}

fn family(data_type: &DataType) -> Family {
    match data_type {
        DataType::Boolean => Family::Truth,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Family::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            Family::Bytes
        }
        DataType::Timestamp(_, _) => Family::Instant,
        DataType::Date32 | DataType::Date64 => Family::Day,
        DataType::Duration(_) | DataType::Time32(_) | DataType::Time64(_) | DataType::Interval(_) => {
            Family::Span
        }
        DataType::Dictionary(_, values) => family(values),
        data_type if data_type.is_numeric() => Family::Number,
        _ => Family::Nested,
    }
}

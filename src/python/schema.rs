//! The columns of a stream or batch, as Python sees them: names and types, with the Arrow capsule interface.
//!
//! It deliberately invents no types of its own: the names are Arrow's, as the formats take them.

#![expect(clippy::doc_link_with_quotes, reason = "the documentation of classes and methods is Python's")]

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyCapsule, PyDate, PyDateTime, PyDict, PyFloat, PyInt, PyList, PyString, PyType,
};
use pyo3_arrow::PySchema;
use pyo3_arrow::ffi::to_schema_pycapsule;

use crate::decode::{CSV_TYPES, JSON_TYPES, csv_mistakes, json_mistakes, with_date_unit};
use crate::error::{Error, nearest};
use crate::python::error::from_user;
use crate::types::{our_name, parse_type, parse_type_among, type_name};

/// Names and types of columns, in order.
///
/// Args:
///     columns: a dict of names and types, or anything with the Arrow schema capsule, such as a `pyarrow.Schema`.
///
/// Raises:
///     `SchemaError`: a type's name is unknown; the message shows the nearest.
///
/// Example:
///     >>> import tidemill as tm
///     >>> schema = tm.Schema({"device": "string", "ts": "timestamp[ms]"})
///     >>> schema.names, schema.types, schema["ts"], "t" in schema, len(schema)
///     (['device', 'ts'], ['string', 'timestamp[ms]'], 'timestamp[ms]', False, 2)
#[pyclass(frozen, eq, module = "tidemill")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Schema(pub(crate) SchemaRef);

#[pymethods]
impl Schema {
    /// From a dict of names and types, or anything with the Arrow schema capsule.
    #[new]
    fn new(columns: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(in_one(schema_from(columns, None))?))
    }

    /// The columns' names.
    #[getter]
    fn names(&self) -> Vec<String> {
        self.0.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// The columns' types, by Arrow's names.
    #[getter]
    fn types(&self) -> Vec<String> {
        self.0.fields().iter().map(|field| type_name(field.data_type())).collect()
    }

    fn __len__(&self) -> usize {
        self.0.fields().len()
    }

    fn __contains__(&self, name: &str) -> bool {
        self.0.column_with_name(name).is_some()
    }

    fn __getitem__(&self, name: &str) -> PyResult<String> {
        let (_, field) =
            self.0.column_with_name(name).ok_or_else(|| PyKeyError::new_err(self.unknown(name)))?;
        Ok(type_name(field.data_type()))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.names().into_pyobject(py)?.try_iter()?.into_any())
    }

    fn __repr__(&self) -> String {
        let column = |field: &Arc<Field>| format!("{:?}: {:?}", field.name(), type_name(field.data_type()));
        format!("Schema({{{}}})", self.0.fields().iter().map(column).collect::<Vec<_>>().join(", "))
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        Ok(to_schema_pycapsule(py, self.0.as_ref())?)
    }
}

impl Schema {
    fn unknown(&self, name: &str) -> String {
        unknown_column(&self.0, name).to_string()
    }
}

/// The error for a column that is not there, with those that are.
pub(crate) fn unknown_column(schema: &ArrowSchema, name: &str) -> Error {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let error = Error::schema(format!("there is no column {name:?}; there are {}", names.join(", ")));
    match nearest(name, names) {
        Some(near) => error.help(format!("did you mean {near:?}?")),
        None => error,
    }
}

/// The columns that JSON records are read as; all that cannot be among them is told at once.
#[pyfunction]
pub(crate) fn json_schema(columns: &Bound<'_, PyAny>) -> PyResult<Schema> {
    payload_schema("Json", columns, JSON_TYPES, json_mistakes)
}

/// The columns that records of CSV are read as; all that cannot be among them is told at once.
#[pyfunction]
pub(crate) fn csv_schema(columns: &Bound<'_, PyAny>) -> PyResult<Schema> {
    payload_schema("Csv", columns, CSV_TYPES, csv_mistakes)
}

fn payload_schema(
    format: &str,
    columns: &Bound<'_, PyAny>,
    types: &str,
    mistakes: fn(&ArrowSchema) -> Vec<Error>,
) -> PyResult<Schema> {
    let schema = in_one(schema_from(columns, Some(types)))?;
    if schema.fields().is_empty() {
        let error = Error::config(format!("{format} needs at least one column to read, found none"));
        return Err(error
            .help("name them, say {\"device\": \"string\"}, or read records as they are with Raw()")
            .into());
    }
    in_one(match mistakes(&schema) {
        mistakes if mistakes.is_empty() => Ok(Schema(schema)),
        mistakes => Err(mistakes),
    })
}

/// The same columns of JSON, with numbers in timestamps that count `date_unit`.
#[pyfunction]
pub(crate) fn json_dates(schema: &Bound<'_, Schema>, date_unit: &str) -> PyResult<Schema> {
    Ok(Schema(Arc::new(with_date_unit(&schema.get().0, date_unit)?)))
}

fn in_one<T>(result: Result<T, Vec<Error>>) -> PyResult<T> {
    let lost = || Error::internal("a schema is wrong and nothing is said of it");
    result.map_err(|mistakes| Error::of_all(mistakes).unwrap_or_else(lost).into())
}

/// A schema from a dict of names and types (a nested dict is a struct) or an Arrow schema of any library; errors show
/// `offered` as the types that there are.
fn schema_from(columns: &Bound<'_, PyAny>, offered: Option<&str>) -> Result<SchemaRef, Vec<Error>> {
    if let Ok(columns) = columns.cast::<PyDict>() {
        return Ok(Arc::new(ArrowSchema::new(fields_from(columns, offered)?)));
    }
    if !columns.hasattr("__arrow_c_schema__").unwrap_or(false) {
        return Err(vec![no_schema(columns)]);
    }
    let extracted = columns.extract::<PySchema>();
    let schema = extracted.map_err(|raised| vec![from_user(columns.py(), raised)])?.into_inner();
    if !is_of_polars(columns) {
        return Ok(schema);
    }
    let fields =
        schema.fields().iter().map(|field| field.as_ref().clone().with_data_type(plain(field.data_type())));
    Ok(Arc::new(ArrowSchema::new(fields.collect::<Vec<_>>())))
}

fn no_schema(found: &Bound<'_, PyAny>) -> Error {
    let found =
        found.get_type().fully_qualified_name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    Error::schema(format!("a schema is expected, found {found}"))
        .help("pass a dict such as {\"device\": \"string\", \"ts\": \"timestamp[ms]\"}, or a pyarrow.Schema")
}

fn fields_from(columns: &Bound<'_, PyDict>, offered: Option<&str>) -> Result<Vec<Field>, Vec<Error>> {
    let (mut fields, mut mistakes) = (Vec::new(), Vec::new());
    for (name, data_type) in columns {
        match field_from(&name, &data_type, offered) {
            Ok(field) => fields.push(field),
            Err(found) => mistakes.extend(found),
        }
    }
    if mistakes.is_empty() { Ok(fields) } else { Err(mistakes) }
}

fn field_from(
    name: &Bound<'_, PyAny>,
    data_type: &Bound<'_, PyAny>,
    offered: Option<&str>,
) -> Result<Field, Vec<Error>> {
    let Ok(name) = name.extract::<String>() else {
        return Err(vec![Error::schema(format!("a column's name is text, found {name:?}"))]);
    };
    let at_column = |errors: Vec<Error>| {
        errors.into_iter().map(|error| error.at(format!("column {name:?}"))).collect::<Vec<_>>()
    };
    let data_type = type_from(data_type, offered).map_err(at_column)?;
    Ok(Field::new(name, data_type, true))
}

/// A type: its name, a class of Python's, a list of one type, a dict for a struct, or a type of pyarrow or Polars.
fn type_from(given: &Bound<'_, PyAny>, offered: Option<&str>) -> Result<DataType, Vec<Error>> {
    if let Ok(children) = given.cast::<PyDict>() {
        return Ok(DataType::Struct(fields_from(children, offered)?.into()));
    }
    if let Ok(text) = given.extract::<String>() {
        let parsed = offered.map_or_else(|| parse_type(&text), |offered| parse_type_among(&text, offered));
        return parsed.map_err(|error| vec![error]);
    }
    if let Some(nested) = generic(given) {
        return composed(&nested.map_err(|raised| vec![from_user(given.py(), raised)])?, given, offered);
    }
    if let Some(class) = given.cast::<PyType>().ok().and_then(of_class) {
        return Ok(class);
    }
    if is_of_polars(given) {
        return of_polars(given).map_err(|raised| vec![from_user(given.py(), raised)]);
    }
    let field = given.extract::<pyo3_arrow::PyField>();
    field.map(|field| field.into_inner().data_type().clone()).map_err(|_| vec![no_type(given)])
}

/// What is nested: the class that holds, and the types that are held.
struct Generic<'py> {
    origin: Bound<'py, PyAny>,
    held: Vec<Bound<'py, PyAny>>,
}

/// `list[T]`, `dict[str, T]` and `[T]`; none for whatever is none of these.
fn generic<'py>(given: &Bound<'py, PyAny>) -> Option<PyResult<Generic<'py>>> {
    let py = given.py();
    if let Ok(items) = given.cast::<PyList>() {
        let origin = py.get_type::<PyList>().into_any();
        return Some(Ok(Generic { origin, held: items.iter().collect() }));
    }
    let origin = given.getattr("__origin__").ok()?;
    let held = || given.getattr("__args__")?.try_iter()?.collect::<PyResult<Vec<_>>>();
    Some(held().map(|held| Generic { origin, held }))
}

fn composed(
    nested: &Generic<'_>,
    given: &Bound<'_, PyAny>,
    offered: Option<&str>,
) -> Result<DataType, Vec<Error>> {
    let py = given.py();
    match nested.held.as_slice() {
        [item] if nested.origin.is(py.get_type::<PyList>()) => {
            Ok(DataType::new_list(type_from(item, offered)?, true))
        }
        [key, value] if nested.origin.is(py.get_type::<PyDict>()) => {
            Ok(map_of(type_from(key, offered)?, type_from(value, offered)?))
        }
        _ => Err(vec![Error::schema(format!("a type is expected, found {given:?}")).help(
            "pass list[str], dict[str, float], a dict of names and types for a struct, or an Arrow name",
        )]),
    }
}

fn map_of(key: DataType, value: DataType) -> DataType {
    let entries = vec![Field::new("key", key, false), Field::new("value", value, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries.into()), false)), false)
}

/// The type of the values of a class of Python's, where there is only one.
fn of_class(class: &Bound<'_, PyType>) -> Option<DataType> {
    let py = class.py();
    let known = [
        (py.get_type::<PyBool>(), DataType::Boolean),
        (py.get_type::<PyInt>(), DataType::Int64),
        (py.get_type::<PyFloat>(), DataType::Float64),
        (py.get_type::<PyString>(), DataType::Utf8),
        (py.get_type::<PyBytes>(), DataType::Binary),
        (py.get_type::<PyDateTime>(), DataType::Timestamp(TimeUnit::Microsecond, None)),
        (py.get_type::<PyDate>(), DataType::Date32),
    ];
    known.into_iter().find(|(known, _)| class.is(known)).map(|(_, data_type)| data_type)
}

fn is_of_polars(given: &Bound<'_, PyAny>) -> bool {
    let class = given.cast::<PyType>().map_or_else(|_| given.get_type(), Clone::clone);
    class.module().is_ok_and(|module| module.to_string().split('.').next() == Some("polars"))
}

/// What a type of Polars is in Arrow.
fn of_polars(given: &Bound<'_, PyAny>) -> PyResult<DataType> {
    let columns = PyDict::new(given.py());
    columns.set_item("a", given)?;
    let schema = given.py().import("polars")?.getattr("Schema")?.call1((columns,))?.extract::<PySchema>()?;
    Ok(schema.into_inner().fields().first().map_or(DataType::Null, |field| plain(field.data_type())))
}

/// The type without the views and the large offsets in which Polars holds its columns.
fn plain(data_type: &DataType) -> DataType {
    let of = |field: &Field| field.clone().with_data_type(plain(field.data_type()));
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::LargeList(item) | DataType::List(item) => DataType::List(Arc::new(of(item))),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| of(field)).collect()),
        other => other.clone(),
    }
}

/// The error for what is no type; a class of Python or NumPy is answered with the name that is meant.
fn no_type(found: &Bound<'_, PyAny>) -> Error {
    let meant = found.getattr("__name__").and_then(|name| name.extract::<String>()).ok();
    let ours = meant.as_deref().and_then(our_name).unwrap_or("float64");
    Error::schema(format!("a type is expected, found {found:?}"))
        .help(format!("pass an Arrow name such as \"{ours}\", or a pyarrow type"))
}

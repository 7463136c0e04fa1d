//! The columns of a stream or batch, as Python sees them: names and types, with the Arrow capsule interface.
//!
//! It deliberately invents no types of its own: the names are Arrow's, as the formats take them.

#![expect(clippy::doc_link_with_quotes, reason = "the documentation of classes and methods is Python's")]

use std::sync::Arc;

use arrow::datatypes::{Field, Schema as ArrowSchema, SchemaRef};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
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
    extracted.map(PySchema::into_inner).map_err(|raised| vec![from_user(columns.py(), raised)])
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
    let at_column = |error: Error| vec![error.at(format!("column {name:?}"))];
    if let Ok(children) = data_type.cast::<PyDict>() {
        return Ok(Field::new_struct(name, fields_from(children, offered)?, true));
    }
    if let Ok(text) = data_type.extract::<String>() {
        let parsed = offered.map_or_else(|| parse_type(&text), |offered| parse_type_among(&text, offered));
        let data_type = parsed.map_err(at_column)?;
        return Ok(Field::new(name, data_type, true));
    }
    match data_type.extract::<pyo3_arrow::PyField>() {
        Ok(field) => Ok(field.into_inner().as_ref().clone().with_name(name).with_nullable(true)),
        Err(_) => Err(at_column(no_type(data_type))),
    }
}

/// The error for what is no type; a class of Python or NumPy is answered with the name that is meant.
fn no_type(found: &Bound<'_, PyAny>) -> Error {
    let meant = found.getattr("__name__").and_then(|name| name.extract::<String>()).ok();
    let ours = meant.as_deref().and_then(our_name).unwrap_or("float64");
    Error::schema(format!("a type is expected, found {found:?}"))
        .help(format!("pass an Arrow name such as \"{ours}\", or a pyarrow type"))
}

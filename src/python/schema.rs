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

use crate::error::{Error, nearest};
use crate::types::{parse_type, type_name};

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
        Ok(Self(schema_from(columns)?))
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

/// A schema from a dict of names and types (a nested dict is a struct) or an Arrow schema of any library.
pub(crate) fn schema_from(columns: &Bound<'_, PyAny>) -> PyResult<SchemaRef> {
    if let Ok(columns) = columns.cast::<PyDict>() {
        return Ok(Arc::new(ArrowSchema::new(fields_from(columns)?)));
    }
    if columns.hasattr("__arrow_c_schema__")? {
        return Ok(columns.extract::<PySchema>()?.into_inner());
    }
    let found = columns.get_type().fully_qualified_name()?;
    Err(Error::schema(format!("a schema is expected, found {found}"))
        .help("pass a dict such as {\"device\": \"string\", \"ts\": \"timestamp[ms]\"}, or a pyarrow.Schema")
        .into())
}

fn fields_from(columns: &Bound<'_, PyDict>) -> PyResult<Vec<Field>> {
    columns.iter().map(|(name, data_type)| field_from(&name.extract::<String>()?, &data_type)).collect()
}

fn field_from(name: &str, data_type: &Bound<'_, PyAny>) -> PyResult<Field> {
    if let Ok(children) = data_type.cast::<PyDict>() {
        return Ok(Field::new_struct(name, fields_from(children)?, true));
    }
    if let Ok(text) = data_type.extract::<String>() {
        let data_type = parse_type(&text).map_err(|error| error.at(format!("column {name:?}")))?;
        return Ok(Field::new(name, data_type, true));
    }
    if !data_type.hasattr("__arrow_c_schema__")? {
        let text = format!("a type is expected, found {}", data_type.repr()?);
        let error = Error::schema(text).help("pass an Arrow name such as \"float64\", or a pyarrow type");
        return Err(error.at(format!("column {name:?}")).into());
    }
    let field: pyo3_arrow::PyField = data_type.extract()?;
    Ok(field.into_inner().as_ref().clone().with_name(name).with_nullable(true))
}

//! Arrow data across the border to Python and back: capsules without a copy, NumPy arrays with one.
//!
//! NumPy arrays are copied, because their owner may write to them again after the call that returned them. It
//! deliberately casts nothing: whether a column fits the declared schema is decided in `functions.rs`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Float64Array, Int64Array, NullArray, PrimitiveArray,
    StringArray, StructArray,
};
use arrow::compute::{concat, concat_batches};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema,
    SchemaRef, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use numpy::{Element, PyArray1, PyArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyCapsule, PyDict, PyFloat, PyInt, PyList, PyString};
use pyo3_arrow::PyRecordBatchReader;
use pyo3_arrow::ffi::{ArrayIterator, to_stream_pycapsule};
use pyo3_arrow::input::{AnyArray, AnyRecordBatch};

use crate::error::{Error, Result};

/// The marker of NumPy's missing time.
const NOT_A_TIME: i64 = i64::MIN;

/// Rows as a stream capsule: every consumer of Arrow reads it without a copy.
pub(crate) fn export<'py>(
    py: Python<'py>,
    schema: &SchemaRef,
    rows: &[RecordBatch],
    requested: Option<Bound<'py, PyCapsule>>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let field =
        Field::new_struct("", schema.fields().clone(), false).with_metadata(schema.metadata().clone());
    let arrays: Vec<ArrayRef> =
        rows.iter().map(|batch| Arc::new(StructArray::from(batch.clone())) as ArrayRef).collect();
    let reader = ArrayIterator::new(arrays.into_iter().map(Ok::<_, ArrowError>), Arc::new(field));
    Ok(to_stream_pycapsule(py, Box::new(reader), requested)?)
}

/// The rows of what a function returned: anything with the Arrow PyCapsule interface, or a dict of columns.
pub(crate) fn import(value: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    if let Ok(columns) = value.cast::<PyDict>() {
        return from_dict(columns);
    }
    if has(value, "__arrow_c_array__")? || has(value, "__arrow_c_stream__")? {
        return from_capsule(value);
    }
    Err(not_rows(value)?)
}

fn from_capsule(value: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    let rows = rows_of(value);
    if rows.is_err()
        && let Some(plain) = without_untyped(value)?
    {
        return rows_of(&plain);
    }
    rows
}

/// A Polars frame with its columns of nothing but nulls typed: it exports these with a buffer that Arrow does not expect.
fn without_untyped<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let module = value.get_type().module()?;
    if !module.to_str()?.starts_with("polars") || !has(value, "columns")? {
        return Ok(None);
    }
    let (polars, types) = (value.py().import("polars")?, PyDict::new(value.py()));
    types.set_item(polars.getattr("Null")?, polars.getattr("Boolean")?)?;
    value.call_method1("cast", (types,)).map(Some)
}

fn rows_of(value: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    let (batches, schema) = match value.extract::<AnyRecordBatch>() {
        Ok(AnyRecordBatch::RecordBatch(batch)) => return Ok(batch.into_inner()),
        Ok(AnyRecordBatch::Stream(stream)) => read(stream)?,
        // A column alone, such as a Series, has the same interface.
        Err(_) if value.extract::<AnyArray>().is_ok() => return Err(not_rows(value)?),
        Err(raised) => return Err(raised),
    };
    concat_batches(&schema, &batches).map_err(|error| Error::from(error).into())
}

fn read(stream: PyRecordBatchReader) -> PyResult<(Vec<RecordBatch>, SchemaRef)> {
    let reader = stream.into_reader()?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<_, ArrowError>>().map_err(Error::from)?;
    Ok((batches, schema))
}

fn not_rows(value: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let found = value.get_type().fully_qualified_name()?;
    let text = format!(
        "a function over batches returns rows: a pyarrow, pandas or Polars table, anything with __arrow_c_stream__, \
         or a dict of NumPy arrays; found {found}{}",
        instead(value)?
    );
    Ok(PyTypeError::new_err(text))
}

/// What to do about a result of this type.
fn instead(value: &Bound<'_, PyAny>) -> PyResult<&'static str> {
    let is_column =
        has(value, "__arrow_c_array__")? || has(value, "__arrow_c_stream__")? || has(value, "dtype")?;
    Ok(match value {
        column if is_column && !has(column, "columns")? => {
            ", which is one column: give it its name, return {\"score\": values}, and declare what is new, adds={\"score\": ...}"
        }
        nothing if nothing.is_none() => {
            ": does the function end without a return? foreach_batch(fn) wants no result"
        }
        list if list.is_instance_of::<PyList>() => ": return {\"name\": values}, or a table made of the rows",
        _ => "",
    })
}

fn has(value: &Bound<'_, PyAny>, name: &str) -> PyResult<bool> {
    value.hasattr(name)
}

fn from_dict(columns: &Bound<'_, PyDict>) -> PyResult<RecordBatch> {
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (name, value) in columns.iter() {
        let name: String = name.extract()?;
        let array = column(&name, &value)?;
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(array);
    }
    same_length(&fields, &arrays)?;
    let options =
        RecordBatchOptions::new().with_row_count(Some(arrays.first().map_or(0, |array| array.len())));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options);
    Ok(batch.map_err(Error::from)?)
}

fn same_length(fields: &[Field], arrays: &[ArrayRef]) -> Result<()> {
    let Some(first) = arrays.first().map(|array| array.len()) else { return Ok(()) };
    match fields.iter().zip(arrays).find(|(_, array)| array.len() != first) {
        None => Ok(()),
        Some((field, array)) => {
            let name = fields.first().map_or("", |field| field.name());
            let text = format!("columns of one length are expected, found {first} rows in {name:?}");
            Err(Error::schema(format!("{text} and {} in {:?}", array.len(), field.name())))
        }
    }
}

/// One column: Arrow as it is, everything else by way of NumPy.
fn column(name: &str, value: &Bound<'_, PyAny>) -> PyResult<ArrayRef> {
    if has(value, "__arrow_c_array__")? || has(value, "__arrow_c_stream__")? {
        let (chunks, field) = value.extract::<AnyArray>()?.into_chunked_array()?.into_inner();
        return Ok(joined(&chunks, field.data_type())?);
    }
    let numpy = value.py().import("numpy")?;
    let array = numpy.call_method1("ascontiguousarray", (numpy.call_method1("asanyarray", (value,))?,))?;
    from_numpy(name, &array)
}

fn joined(chunks: &[ArrayRef], data_type: &DataType) -> Result<ArrayRef> {
    match chunks {
        [] => Ok(arrow::array::new_empty_array(data_type)),
        [one] => Ok(Arc::clone(one)),
        many => Ok(concat(
            &many.iter().map(|chunk| chunk.as_ref() as &dyn arrow::array::Array).collect::<Vec<_>>(),
        )?),
    }
}

fn from_numpy(name: &str, array: &Bound<'_, PyAny>) -> PyResult<ArrayRef> {
    let shape: Vec<usize> = array.getattr("shape")?.extract()?;
    if shape.len() != 1 {
        let text = format!("column {name:?} must have one dimension, found the shape {shape:?}");
        return Err(Error::schema(text).help("return a column as array[:, 0]").into());
    }
    let dtype = array.getattr("dtype")?;
    let (kind, bytes): (String, usize) =
        (dtype.getattr("kind")?.extract()?, dtype.getattr("itemsize")?.extract()?);
    let array = native_order(array, &dtype)?;
    match (kind.as_str(), bytes) {
        ("f", 4) => primitive::<Float32Type>(&array),
        ("f", 8) => primitive::<Float64Type>(&array),
        ("f", 2) => primitive::<Float32Type>(&array.call_method1("astype", ("f4",))?),
        ("i", 1) => primitive::<Int8Type>(&array),
        ("i", 2) => primitive::<Int16Type>(&array),
        ("i", 4) => primitive::<Int32Type>(&array),
        ("i", 8) => primitive::<Int64Type>(&array),
        ("u", 1) => primitive::<UInt8Type>(&array),
        ("u", 2) => primitive::<UInt16Type>(&array),
        ("u", 4) => primitive::<UInt32Type>(&array),
        ("u", 8) => primitive::<UInt64Type>(&array),
        ("b", _) => Ok(Arc::new(BooleanArray::from(values::<bool>(&array)?))),
        ("M" | "m", _) => times(&array, &kind),
        ("O" | "U" | "S" | "T", _) => objects(name, &array),
        _ => Err(unknown(name, &dtype.str()?.to_string()).into()),
    }
}

/// Other byte orders become the machine's own.
fn native_order<'py>(array: &Bound<'py, PyAny>, dtype: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if dtype.getattr("isnative")?.extract()? {
        return Ok(array.clone());
    }
    array.call_method1("astype", (dtype.call_method1("newbyteorder", ("=",))?,))
}

fn unknown(name: &str, found: &str) -> Error {
    Error::schema(format!("column {name:?}: {found} has no Arrow type"))
        .help("numbers, bool, datetime64, timedelta64, str and bytes have one")
}

fn values<T: Element + Copy>(array: &Bound<'_, PyAny>) -> PyResult<Vec<T>> {
    let array = array.cast::<PyArray1<T>>()?.try_readonly()?;
    Ok(array.as_slice()?.to_vec())
}

fn primitive<T: ArrowPrimitiveType<Native: Element + Copy>>(array: &Bound<'_, PyAny>) -> PyResult<ArrayRef> {
    let values: Vec<T::Native> = values(array)?;
    Ok(Arc::new(PrimitiveArray::<T>::from_iter_values(values)))
}

fn times(array: &Bound<'_, PyAny>, kind: &str) -> PyResult<ArrayRef> {
    let numpy = array.py().import("numpy")?;
    let data = numpy.call_method1("datetime_data", (array.getattr("dtype")?,))?;
    let unit: String = data.get_item(0)?.extract()?;
    let array = match unit.as_str() {
        "W" | "M" | "Y" | "D" if kind == "M" => array.call_method1("astype", ("M8[D]",))?,
        "h" | "m" | "D" | "W" => array.call_method1("astype", (format!("{kind}8[s]"),))?,
        _ => array.clone(),
    };
    let values: Vec<i64> = values(&array.call_method1("view", ("i8",))?)?;
    match (kind, unit.as_str()) {
        ("M", "W" | "M" | "Y" | "D") => days(&values),
        ("M", "h" | "m" | "s") => Ok(timed::<TimestampSecondType>(&values)),
        ("M", "ms") => Ok(timed::<TimestampMillisecondType>(&values)),
        ("M", "us") => Ok(timed::<TimestampMicrosecondType>(&values)),
        ("M", "ns") => Ok(timed::<TimestampNanosecondType>(&values)),
        ("m", "D" | "W" | "h" | "m" | "s") => Ok(timed::<DurationSecondType>(&values)),
        ("m", "ms") => Ok(timed::<DurationMillisecondType>(&values)),
        ("m", "us") => Ok(timed::<DurationMicrosecondType>(&values)),
        ("m", "ns") => Ok(timed::<DurationNanosecondType>(&values)),
        _ => Err(Error::schema(format!("a time in units of {unit:?} has no Arrow type")).into()),
    }
}

fn timed<T: ArrowPrimitiveType<Native = i64>>(values: &[i64]) -> ArrayRef {
    let values = values.iter().map(|value| (*value != NOT_A_TIME).then_some(*value));
    Arc::new(values.collect::<PrimitiveArray<T>>())
}

fn days(values: &[i64]) -> PyResult<ArrayRef> {
    let day = |value: &i64| match *value {
        NOT_A_TIME => Ok(None),
        value => i32::try_from(value).map(Some),
    };
    let days = values.iter().map(day).collect::<std::result::Result<Vec<_>, _>>();
    let days = days.map_err(|_| Error::schema("a date lies outside the range of date32"))?;
    Ok(Arc::new(Date32Array::from(days)))
}

/// A column of Python objects, all of one type; `None` and NaN among text are null.
fn objects(name: &str, array: &Bound<'_, PyAny>) -> PyResult<ArrayRef> {
    let items: Vec<Bound<'_, PyAny>> = array.call_method0("tolist")?.extract()?;
    let Some(first) = items.iter().find(|item| !is_missing(item)) else {
        return Ok(Arc::new(NullArray::new(items.len())));
    };
    if first.is_instance_of::<PyString>() {
        return Ok(Arc::new(StringArray::from(optional::<String>(name, &items)?)));
    }
    if first.is_instance_of::<PyBool>() {
        return Ok(Arc::new(BooleanArray::from(optional::<bool>(name, &items)?)));
    }
    if first.is_instance_of::<PyInt>()
        && items.iter().all(|item| item.is_none() || item.is_instance_of::<PyInt>())
    {
        return Ok(Arc::new(Int64Array::from(optional::<i64>(name, &items)?)));
    }
    if first.is_instance_of::<PyFloat>() || first.is_instance_of::<PyInt>() {
        return Ok(Arc::new(Float64Array::from(optional::<f64>(name, &items)?)));
    }
    let bytes: Vec<Option<Vec<u8>>> = optional(name, &items)?;
    Ok(Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryArray>()))
}

fn is_missing(item: &Bound<'_, PyAny>) -> bool {
    item.is_none() || item.extract::<f64>().is_ok_and(f64::is_nan)
}

fn optional<'py, T>(name: &str, items: &[Bound<'py, PyAny>]) -> PyResult<Vec<Option<T>>>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    let one = |(row, item): (usize, &Bound<'py, PyAny>)| {
        if is_missing(item) {
            return Ok(None);
        }
        item.extract::<T>().map(Some).map_err(|_| mixed(name, row, item))
    };
    items.iter().enumerate().map(one).collect()
}

fn mixed(name: &str, row: usize, item: &Bound<'_, PyAny>) -> PyErr {
    let found = item.get_type().to_string();
    let text = format!("column {name:?}: values of one type are expected, found {found} in row {row}");
    Error::schema(text).help("return text, bytes, numbers or booleans").into()
}

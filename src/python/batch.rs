//! The rows of one batch (or of one partition of it) as Python sees them.
//!
//! `to_numpy` fills one matrix in parallel, without the GIL. It deliberately offers no way to change a batch: a
//! batch may be read by several consumers at once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, new_empty_array};
use arrow::buffer::Buffer;
use arrow::compute::{CastOptions, cast, cast_with_options, concat};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    SchemaRef, TimeUnit, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use numpy::{Element, PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyList, PyTuple};
use pyo3_arrow::PyArray;
use pyo3_arrow::buffer::PyArrowBuffer;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::offset::Partition;
use crate::plan::BatchInfo;
use crate::python::arrow::{export, import};
use crate::python::event::offset_ranges;
use crate::python::gil;
use crate::python::schema::{Schema, unknown_column};
use crate::sink::Delivery;
use crate::time::{BatchId, BatchTime};
use crate::types::{in_our_words, type_name};

/// Rows that one task copies into a matrix: enough to outweigh a task's cost, few enough to stay in the cache.
const ROWS_A_TASK: usize = 4_096;

/// The rows of one batch, with what is known about it.
#[pyclass(frozen, module = "tidemill._native")]
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    info: BatchInfo,
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
}

impl Batch {
    /// The rows of one partition, for a function over batches.
    pub(crate) fn of_partition(rows: RecordBatch, info: &BatchInfo) -> Self {
        Self { info: info.clone(), schema: rows.schema(), rows: vec![rows] }
    }

    /// All rows of a batch, for an output.
    pub(crate) fn of_delivery(delivery: &Delivery) -> Self {
        let info = BatchInfo {
            batch: delivery.batch,
            time: delivery.time,
            watermark: delivery.watermark,
            partition: None,
            ranges: Arc::clone(&delivery.ranges),
        };
        Self { info, schema: Arc::clone(&delivery.schema), rows: delivery.rows.clone() }
    }
}

impl Batch {
    /// Rows of many batches, which have no number and no time of their own.
    pub(crate) fn of_table(schema: SchemaRef, rows: Vec<RecordBatch>) -> Self {
        let (batch, time) = (BatchId(0), BatchTime(0));
        let info = BatchInfo { batch, time, watermark: None, partition: None, ranges: Arc::default() };
        Self { info, schema, rows }
    }
}

#[pymethods]
impl Batch {
    /// A batch made by hand, for tests of functions over batches.
    #[new]
    #[pyo3(signature = (rows, id = 0, time_ms = 0, partition = None))]
    fn new(rows: &Bound<'_, PyAny>, id: u64, time_ms: i64, partition: Option<i32>) -> PyResult<Self> {
        let (batch, time) = (BatchId(id), BatchTime(time_ms));
        let partition = partition.map(Partition);
        let info = BatchInfo { batch, time, watermark: None, partition, ranges: Arc::default() };
        Ok(Self::of_partition(import(rows)?, &info))
    }

    /// The batch's number, from 0.
    #[getter]
    fn id(&self) -> u64 {
        self.info.batch.0
    }

    /// The batch's time in milliseconds since the epoch.
    #[getter]
    fn time_ms(&self) -> i64 {
        self.info.time.0
    }

    /// The watermark before this batch in microseconds since the epoch.
    #[getter]
    fn watermark_us(&self) -> Option<i64> {
        self.info.watermark.map(|time| time.0)
    }

    /// The partition, or after an exchange the shard.
    #[getter]
    fn partition(&self) -> Option<i32> {
        self.info.partition.map(|partition| partition.0)
    }

    /// What the batch read, a `tidemill.OffsetRange` for each partition.
    #[getter]
    fn offset_ranges<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        offset_ranges(py, &self.info.ranges)
    }

    /// The columns.
    #[getter]
    fn schema(&self) -> Schema {
        Schema(Arc::clone(&self.schema))
    }

    /// The number of rows.
    #[getter]
    fn num_rows(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        export(py, &self.schema, &self.rows, requested_schema)
    }

    /// One column as a NumPy array of one dimension.
    #[pyo3(signature = (name, dtype=None))]
    fn column<'py>(&self, py: Python<'py>, name: &str, dtype: Option<&str>) -> PyResult<Bound<'py, PyAny>> {
        let chunks = self.chunks(name)?;
        let data_type = self.schema.field(self.index(name)?).data_type().clone();
        match dtype {
            Some(dtype) => self.filled(py, &[name.to_owned()], dtype)?.call_method1("reshape", (-1,)),
            None => column_array(py, &chunks, &data_type),
        }
    }

    /// Several columns as one C-contiguous matrix, a row of it for each row.
    #[expect(clippy::needless_pass_by_value, reason = "pyo3 makes an owned list of Python's")]
    #[pyo3(signature = (names, dtype=None))]
    fn matrix<'py>(
        &self,
        py: Python<'py>,
        names: Vec<String>,
        dtype: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let [name] = names.as_slice()
            && let Some(view) = self.view(py, name, dtype)?
        {
            return view.call_method1("reshape", (-1, 1));
        }
        let dtype = match dtype {
            Some(dtype) => dtype,
            None => self.common(&names)?,
        };
        self.filled(py, &names, dtype)
    }
}

impl Batch {
    fn index(&self, name: &str) -> Result<usize> {
        self.schema
            .column_with_name(name)
            .map(|(index, _)| index)
            .ok_or_else(|| unknown_column(&self.schema, name))
    }

    fn chunks(&self, name: &str) -> Result<Vec<ArrayRef>> {
        let index = self.index(name)?;
        Ok(self.rows.iter().map(|batch| Arc::clone(batch.column(index))).collect())
    }

    /// The column without a copy, where it is one chunk of numbers without nulls and of the wanted type.
    fn view<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        dtype: Option<&str>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let chunks = self.chunks(name)?;
        let [chunk] = chunks.as_slice() else { return Ok(None) };
        let own = dtype_of(chunk.data_type()).filter(|own| !own.contains("M8") && !own.contains("m8"));
        match own {
            Some(own) if dtype.is_none_or(|dtype| dtype == own) => borrowed(py, chunk.as_ref(), own),
            _ => Ok(None),
        }
    }

    /// The type that holds all of these columns: their own where they share one and have no nulls, else float64.
    fn common(&self, names: &[String]) -> Result<&'static str> {
        let types = names.iter().map(|name| Ok(self.schema.field(self.index(name)?).data_type().clone()));
        let types = types.collect::<Result<Vec<_>>>()?;
        let whole =
            names.iter().map(|name| Ok(self.chunks(name)?.iter().all(|chunk| chunk.null_count() == 0)));
        let whole = whole.collect::<Result<Vec<_>>>()?.into_iter().all(|whole| whole);
        let first =
            types.first().filter(|first| first.is_numeric() && types.iter().all(|other| other == *first));
        let shared = first.filter(|first| whole || first.is_floating()).and_then(dtype_of);
        Ok(shared.unwrap_or("float64"))
    }

    fn filled<'py>(&self, py: Python<'py>, names: &[String], dtype: &str) -> PyResult<Bound<'py, PyAny>> {
        let columns = names.iter().map(|name| self.chunks(name)).collect::<Result<Vec<_>>>()?;
        let matrix = Matrix { names, columns: &columns, rows: self.num_rows() };
        match dtype {
            "float32" => matrix.build::<Float32Type>(py, Some(f32::NAN)),
            "float64" => matrix.build::<Float64Type>(py, Some(f64::NAN)),
            "int8" => matrix.build::<Int8Type>(py, None),
            "int16" => matrix.build::<Int16Type>(py, None),
            "int32" => matrix.build::<Int32Type>(py, None),
            "int64" => matrix.build::<Int64Type>(py, None),
            "uint8" => matrix.build::<UInt8Type>(py, None),
            "uint16" => matrix.build::<UInt16Type>(py, None),
            "uint32" => matrix.build::<UInt32Type>(py, None),
            "uint64" => matrix.build::<UInt64Type>(py, None),
            other => Err(Error::config(format!("dtype {other:?} makes no matrix"))
                .help("float32, float64 and the integers from int8 to uint64 do")
                .into()),
        }
    }
}

/// Columns on their way into one matrix, row by row.
struct Matrix<'a> {
    names: &'a [String],
    columns: &'a [Vec<ArrayRef>],
    rows: usize,
}

impl Matrix<'_> {
    /// The matrix as a NumPy array; `missing` stands for null, where the type has a value for that.
    fn build<'py, T>(&self, py: Python<'py>, missing: Option<T::Native>) -> PyResult<Bound<'py, PyAny>>
    where
        T: ArrowPrimitiveType<Native: Element>,
    {
        let values = gil::release(py, || self.values::<T>(missing))?;
        let shape = [self.rows, self.columns.len()];
        Ok(PyArray1::from_vec(py, values).reshape(shape)?.into_any())
    }

    fn values<T: ArrowPrimitiveType>(&self, missing: Option<T::Native>) -> Result<Vec<T::Native>> {
        let width = self.columns.len();
        let mut values = vec![T::Native::default(); self.rows * width];
        let mut tasks = Vec::new();
        let mut rest = values.as_mut_slice();
        for (chunk, first, rows) in self.pieces() {
            let (piece, after) = rest.split_at_mut(rows * width);
            tasks.push((chunk, first, rows, piece));
            rest = after;
        }
        tasks.into_par_iter().try_for_each(|(chunk, first, rows, piece)| {
            self.columns.iter().enumerate().try_for_each(|(column, chunks)| {
                let array = chunks.get(chunk).map(|array| array.slice(first, rows));
                let cells = piece.iter_mut().skip(column).step_by(width);
                array.map_or(Ok(()), |array| self.copy::<T>(column, &array, cells, missing))
            })
        })?;
        Ok(values)
    }

    /// (chunk, first row, rows) of each task.
    fn pieces(&self) -> Vec<(usize, usize, usize)> {
        let Some(column) = self.columns.first() else { return Vec::new() };
        let cut = |(chunk, array): (usize, &ArrayRef)| {
            let len = array.len();
            (0..len).step_by(ROWS_A_TASK).map(move |first| (chunk, first, ROWS_A_TASK.min(len - first)))
        };
        column.iter().enumerate().flat_map(cut).collect()
    }

    fn copy<'v, T: ArrowPrimitiveType<Native: 'v>>(
        &self,
        column: usize,
        array: &ArrayRef,
        cells: impl Iterator<Item = &'v mut T::Native>,
        missing: Option<T::Native>,
    ) -> Result<()> {
        let array = numbers(array, &T::DATA_TYPE).map_err(|error| error.at(self.column_name(column)))?;
        let array: &PrimitiveArray<T> = array.as_primitive();
        match (array.null_count(), missing) {
            (0, _) => cells.zip(array.values()).for_each(|(cell, value)| *cell = *value),
            (_, Some(missing)) => cells.zip(array).for_each(|(cell, value)| *cell = value.unwrap_or(missing)),
            (_, None) => return Err(self.null(column, &T::DATA_TYPE)),
        }
        Ok(())
    }

    fn null(&self, column: usize, data_type: &DataType) -> Error {
        let text =
            format!("{} has nulls, which {} cannot hold", self.column_name(column), type_name(data_type));
        Error::schema(text)
            .help("ask for dtype=\"float64\", where null becomes NaN, or filter them out before")
    }

    fn column_name(&self, column: usize) -> String {
        format!("column {:?}", self.names.get(column).map_or("", String::as_str))
    }
}

/// The column as numbers of `target`; a time counts its unit since the epoch, a boolean is 0 or 1.
fn numbers(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    let source = array.data_type();
    if source.is_temporal() {
        let counted = cast(array, &DataType::Int64)
            .or_else(|_| cast(&cast(array, &DataType::Int32)?, &DataType::Int64))?;
        return fitted(&counted, target);
    }
    if source.is_numeric() || matches!(source, DataType::Boolean | DataType::Null) {
        return fitted(array, target);
    }
    let text = format!("a matrix holds numbers, found {}", type_name(source));
    Err(Error::schema(text).help("leave the column out; batch[name] gives it as an array of its own"))
}

fn fitted(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, target, &strict).map_err(|error| {
        let cause = match &error {
            ArrowError::CastError(cause) => in_our_words(cause),
            other => in_our_words(&other.to_string()),
        };
        let text = format!("a value does not fit {} ({cause})", type_name(target));
        Error::schema(text).help("ask for a wider dtype, such as \"float64\"").caused_by(error)
    })
}

/// One column as a NumPy array of its own type: a view where it is one chunk of numbers without nulls.
fn column_array<'py>(
    py: Python<'py>,
    chunks: &[ArrayRef],
    data_type: &DataType,
) -> PyResult<Bound<'py, PyAny>> {
    let array = whole(py, chunks, data_type)?;
    match data_type {
        DataType::Boolean if array.null_count() == 0 => Ok(booleans(py, array.as_boolean())),
        DataType::Timestamp(_, _) | DataType::Duration(_) | DataType::Date32 | DataType::Date64 => {
            times(py, &array)
        }
        data_type if data_type.is_floating() && array.null_count() > 0 => floats(py, &array, data_type),
        data_type if data_type.is_integer() && array.null_count() > 0 => {
            floats(py, &array, &DataType::Float64)
        }
        data_type => match dtype_of(data_type) {
            Some(dtype) => borrowed(py, array.as_ref(), dtype)?
                .ok_or_else(|| Error::internal("a column without nulls gives no view").into()),
            None => objects(py, &array),
        },
    }
}

fn whole(py: Python<'_>, chunks: &[ArrayRef], data_type: &DataType) -> Result<ArrayRef> {
    match chunks {
        [] => Ok(new_empty_array(data_type)),
        [one] => Ok(Arc::clone(one)),
        many => gil::release(py, || {
            Ok(concat(&many.iter().map(|chunk| chunk.as_ref() as &dyn Array).collect::<Vec<_>>())?)
        }),
    }
}

/// A read-only array over the column's own buffer, which it keeps alive; none where there are nulls.
fn borrowed<'py>(py: Python<'py>, array: &dyn Array, dtype: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let data = array.to_data();
    let (Some(buffer), Some(width)) = (data.buffers().first(), array.data_type().primitive_width()) else {
        return Ok(None);
    };
    if array.null_count() > 0 {
        return Ok(None);
    }
    let buffer = buffer.slice_with_length(data.offset() * width, data.len() * width);
    from_buffer(py, buffer, dtype).map(Some)
}

fn from_buffer<'py>(py: Python<'py>, buffer: Buffer, dtype: &str) -> PyResult<Bound<'py, PyAny>> {
    let numpy = py.import("numpy")?;
    if buffer.is_empty() {
        return numpy.call_method1("empty", (0, dtype)); // frombuffer refuses what is empty
    }
    numpy.call_method1("frombuffer", (PyArrowBuffer::new(buffer), dtype))
}

fn booleans<'py>(py: Python<'py>, array: &BooleanArray) -> Bound<'py, PyAny> {
    PyArray1::from_vec(py, array.values().iter().collect()).into_any()
}

fn floats<'py>(py: Python<'py>, array: &ArrayRef, target: &DataType) -> PyResult<Bound<'py, PyAny>> {
    let array = cast(array, target).map_err(Error::from)?;
    if *target == DataType::Float32 {
        return Ok(filled_nan::<Float32Type>(py, &array, f32::NAN));
    }
    let array = cast(&array, &DataType::Float64).map_err(Error::from)?;
    Ok(filled_nan::<Float64Type>(py, &array, f64::NAN))
}

fn filled_nan<'py, T>(py: Python<'py>, array: &ArrayRef, nan: T::Native) -> Bound<'py, PyAny>
where
    T: ArrowPrimitiveType<Native: Element>,
{
    let values = array.as_primitive::<T>().iter().map(|value| value.unwrap_or(nan)).collect();
    PyArray1::from_vec(py, values).into_any()
}

/// Times as `datetime64` or `timedelta64`, null as `NaT`.
fn times<'py>(py: Python<'py>, array: &ArrayRef) -> PyResult<Bound<'py, PyAny>> {
    let dtype = dtype_of(array.data_type()).unwrap_or("M8[s]");
    let counted = match array.data_type() {
        DataType::Date32 => cast(array, &DataType::Int32).and_then(|days| cast(&days, &DataType::Int64)),
        _ => cast(array, &DataType::Int64),
    };
    let counted = counted.map_err(Error::from)?;
    if counted.null_count() == 0
        && let Some(view) = borrowed(py, counted.as_ref(), "int64")?
    {
        return view.call_method1("view", (dtype,));
    }
    let values: Vec<i64> =
        counted.as_primitive::<Int64Type>().iter().map(|value| value.unwrap_or(i64::MIN)).collect();
    PyArray1::from_vec(py, values).call_method1("view", (dtype,))
}

/// Text, bytes, decimals, times of day and all else as an array of Python objects, null as `None`.
fn objects<'py>(py: Python<'py>, array: &ArrayRef) -> PyResult<Bound<'py, PyAny>> {
    let items = match array.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => bytes_items(py, array)?,
        DataType::Boolean => PyList::new(py, array.as_boolean().iter())?,
        data_type if data_type.is_decimal() => {
            parsed_items(array, &py.import("decimal")?.getattr("Decimal")?)?
        }
        DataType::Time32(_) | DataType::Time64(_) => {
            parsed_items(array, &py.import("datetime")?.getattr("time")?.getattr("fromisoformat")?)?
        }
        _ => text_items(py, array)?,
    };
    // An object array of the right length first: np.array would make a matrix of equally long items.
    let numpy = py.import("numpy")?;
    let empty = numpy.call_method1("empty", (items.len(), "O"))?;
    empty.set_item(pyo3::types::PySlice::full(py), items)?;
    Ok(empty)
}

fn bytes_items<'py>(py: Python<'py>, array: &ArrayRef) -> PyResult<Bound<'py, PyList>> {
    let binary = cast(array, &DataType::Binary).map_err(Error::from)?;
    PyList::new(py, binary.as_binary::<i32>().iter())
}

fn text_items<'py>(py: Python<'py>, array: &ArrayRef) -> PyResult<Bound<'py, PyList>> {
    if array.data_type().is_nested() {
        return nested_items(py, array);
    }
    let text = cast(array, &DataType::Utf8).map_err(Error::from)?;
    PyList::new(py, text.as_string::<i32>().iter())
}

/// What Python makes of the text of each value.
fn parsed_items<'py>(array: &ArrayRef, parse: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    let text = cast(array, &DataType::Utf8).map_err(Error::from)?;
    let parsed = text.as_string::<i32>().iter().map(|text| text.map(|text| parse.call1((text,))).transpose());
    PyList::new(parse.py(), parsed.collect::<PyResult<Vec<_>>>()?)
}

/// Lists and structs have no NumPy type; pyarrow turns them into Python's own.
fn nested_items<'py>(py: Python<'py>, array: &ArrayRef) -> PyResult<Bound<'py, PyList>> {
    let array = Bound::new(py, PyArray::from_array_ref(Arc::clone(array)))?;
    let pyarrow = py.import("pyarrow")?.call_method1("array", (array,))?;
    Ok(pyarrow.call_method0("to_pylist")?.cast_into()?)
}

/// NumPy's name of a type, where it has one with the same bytes.
fn dtype_of(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Int8 => "int8",
        DataType::Int16 => "int16",
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::UInt8 => "uint8",
        DataType::UInt16 => "uint16",
        DataType::UInt32 => "uint32",
        DataType::UInt64 => "uint64",
        DataType::Float16 => "float16",
        DataType::Float32 => "float32",
        DataType::Float64 => "float64",
        DataType::Date32 => "M8[D]",
        DataType::Timestamp(TimeUnit::Second, _) => "M8[s]",
        DataType::Date64 | DataType::Timestamp(TimeUnit::Millisecond, _) => "M8[ms]",
        DataType::Timestamp(TimeUnit::Microsecond, _) => "M8[us]",
        DataType::Timestamp(TimeUnit::Nanosecond, _) => "M8[ns]",
        DataType::Duration(TimeUnit::Second) => "m8[s]",
        DataType::Duration(TimeUnit::Millisecond) => "m8[ms]",
        DataType::Duration(TimeUnit::Microsecond) => "m8[us]",
        DataType::Duration(TimeUnit::Nanosecond) => "m8[ns]",
        _ => return None,
    })
}

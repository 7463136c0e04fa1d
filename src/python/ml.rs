//! Detectors in Python: the settings that `detect` takes, and the same detectors on plain arrays, without a stream.
//!
//! It deliberately computes nothing: an object keeps the operator that a shard of a stream would have, so that a
//! series scores alike in a notebook and in production.

#![expect(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    reason = "the documentation of classes and methods is Python's"
)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use numpy::{PyArray1, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDelta, PyDict, PyString};
use pyo3_arrow::input::AnyArray;
use xxhash_rust::xxh3::xxh3_64;

use crate::detect::calibrate::NormalTail;
use crate::detect::{DetectSpec, Parameter, describe, ewma};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::detect::DetectOperator;
use crate::exec::keyed::KeyedOperator;
use crate::python::gil;
use crate::state::key::{KeyEncoder, Keys};
use crate::types::type_name;

const VALUE: &str = "value";
const KEY: &str = "key";

/// What every detector can do: be given to `detect`, or score arrays by itself.
///
/// A detector in a stream learns each key from scratch; what an object has learnt by itself is its own.
///
/// Example:
///     >>> from tidemill import ml
///     >>> detector = ml.Ewma(alpha=0.1)
///     >>> isinstance(detector, ml.Detector), detector.threshold
///     (True, 0.001)
#[pyclass(subclass, frozen, module = "tidemill.ml", name = "Detector")]
pub(crate) struct Detector {
    settings: Arc<dyn crate::detect::Detector>,
    operator: Mutex<DetectOperator>, // one call at a time learns; others wait for it without the GIL
}

impl Detector {
    fn new(settings: Arc<dyn crate::detect::Detector>) -> Result<Self> {
        let operator = Mutex::new(fresh(&settings)?);
        Ok(Self { settings, operator })
    }

    /// What a plan keeps of it.
    pub(crate) fn settings(&self) -> Arc<dyn crate::detect::Detector> {
        self.settings.clone()
    }

    /// A panic while it was held left whole states behind: they are replaced by value.
    fn lock(&self) -> MutexGuard<'_, DetectOperator> {
        self.operator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Detector {
    /// The accepted probability of a false alarm.
    #[getter]
    fn threshold(&self) -> f64 {
        self.settings.threshold()
    }

    /// The bytes of state that a key needs, beside the key itself.
    #[getter]
    fn bytes_per_key(&self) -> usize {
        self.settings.bytes_per_key(1)
    }

    /// The settings by name.
    ///
    /// Example:
    ///     >>> from tidemill import ml
    ///     >>> ml.Ewma(alpha=0.1).get_params()["alpha"]
    ///     0.1
    #[pyo3(signature = (deep=true))]
    fn get_params<'py>(&self, py: Python<'py>, deep: bool) -> PyResult<Bound<'py, PyDict>> {
        let _ = deep; // as scikit-learn calls it; a detector holds no other
        let params = PyDict::new(py);
        for (name, value) in self.settings.parameters() {
            match value {
                Parameter::Float(value) => params.set_item(name, value)?,
                Parameter::Count(value) => params.set_item(name, value)?,
                Parameter::Flag(value) => params.set_item(name, value)?,
            }
        }
        Ok(params)
    }

    /// Scores each value by what was learnt before it, then learns it.
    ///
    /// Args:
    ///     values: shape (n,): anything that NumPy turns into float64, or a numeric Arrow array. A value that is
    ///         null or not finite gets no score and is not learnt.
    ///     keys: one a value: integers, strings, or an Arrow array of any type that can be a key. Each key has its
    ///         own state. None: all values are of one key.
    ///
    /// Returns:
    ///     Scores: score, p_value and is_anomaly, each of shape (n,).
    ///
    /// Raises:
    ///     SchemaError: values or keys have another shape or type.
    ///
    /// Example:
    ///     >>> from tidemill import ml
    ///     >>> ml.Ewma(warmup=2).score_then_learn([20.0, 21.0, 99.0, 20.5], keys=["a", "a", "a", "b"]).is_anomaly
    ///     array([False, False,  True, False])
    #[pyo3(signature = (values, keys=None))]
    fn score_then_learn(
        &self,
        py: Python<'_>,
        values: &Bound<'_, PyAny>,
        keys: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Scores> {
        let values = values_of(values)?;
        let keys = keys.map(keys_of).transpose()?;
        Ok(gil::release(py, || score(&mut self.lock(), values, keys))?)
    }

    /// Forgets all that was learnt.
    ///
    /// Example:
    ///     >>> from tidemill import ml
    ///     >>> detector = ml.Ewma()
    ///     >>> fresh = detector.save()
    ///     >>> detector.score_then_learn([20.0, 21.0])
    ///     Scores(2 values, 0 anomalies)
    ///     >>> detector.reset()
    ///     >>> detector.save() == fresh
    ///     True
    fn reset(&self) -> PyResult<()> {
        *self.lock() = fresh(&self.settings)?;
        Ok(())
    }

    /// All that was learnt, as an Arrow IPC stream of one row a key (and a checksum after its end). The same state
    /// gives the same bytes.
    ///
    /// Example:
    ///     >>> from tidemill import ml
    ///     >>> detector = ml.Ewma()
    ///     >>> scores = detector.score_then_learn([20.0, 21.0])
    ///     >>> learnt = detector.save()
    ///     >>> type(learnt), learnt == detector.save()
    ///     (<class 'bytes'>, True)
    fn save<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = gil::release(py, || self.lock().snapshot().and_then(|snapshot| to_bytes(&snapshot)))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Replaces all that was learnt by what `save` gave, from the same detector with the same or other settings.
    ///
    /// Raises:
    ///     CheckpointError: the bytes are damaged, or of another detector; what was learnt stays.
    ///
    /// Example:
    ///     >>> from tidemill import ml
    ///     >>> learnt, copy = ml.Ewma(warmup=2), ml.Ewma(warmup=2)
    ///     >>> scores = learnt.score_then_learn([20.0, 21.0])
    ///     >>> copy.load(learnt.save())
    ///     >>> copy.score_then_learn([99.0]).is_anomaly
    ///     array([ True])
    fn load(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        Ok(gil::release(py, || self.lock().restore(&of_bytes(data)?))?)
    }

    fn __repr__(&self) -> String {
        describe(&*self.settings)
    }
}

/// How many standard deviations a value lies from the exponentially weighted mean (Roberts 1959).
///
/// score = |value - mean| / sqrt(variance), by the mean and variance before the value is learnt; p_value is the tail
/// of the normal distribution beyond the score, never 0. It follows slow change and needs few values; it knows no
/// season. A value off what was constant until then has the largest score, 1e12.
///
/// Mean and variance are learnt from about 2 / alpha values, which the normal tail takes for known: at threshold 1e-3
/// plain normal noise gives 1.1 alarms a thousand values with alpha 0.01, 2.2 with 0.05 and 5.9 with 0.2; noise with
/// heavy tails (Laplace) gives 5.9 with 0.05, and with a threshold of 1e-5 still 2.8.
///
/// Args:
///     alpha: the weight of the newest value, between 0 and 1; the memory is about 2 / alpha values.
///     warmup: the number of values learnt before the first score, 2 or more.
///     two_sided: whether low values are anomalous too; otherwise the score is signed.
///     threshold: the accepted probability of a false alarm, between 0 and 1.
///     quiet: an alarm must exceed every score of so many values before it (of 150: the last 144 to 152), so that
///         an event is one alarm; 0 alarms at every improbable value.
///
/// Raises:
///     ConfigError: a parameter is out of its range.
///
/// Example:
///     >>> import numpy as np
///     >>> from tidemill.ml import Ewma
///     >>> values = np.r_[20 + np.arange(60) % 3, 80]
///     >>> Ewma(alpha=0.1).score_then_learn(values).is_anomaly.nonzero()[0]
///     array([60])
#[pyclass(extends = Detector, frozen, module = "tidemill.ml", name = "Ewma")]
pub(crate) struct Ewma;

#[pymethods]
impl Ewma {
    #[new]
    #[pyo3(
        signature = (alpha=None, *, warmup=None, two_sided=true, threshold=None, quiet=None, **unknown),
        text_signature = "(alpha=0.05, *, warmup=30, two_sided=True, threshold=0.001, quiet=150)"
    )]
    fn new(
        py: Python<'_>,
        alpha: Option<&Bound<'_, PyAny>>,
        warmup: Option<&Bound<'_, PyAny>>,
        two_sided: bool,
        threshold: Option<&Bound<'_, PyAny>>,
        quiet: Option<&Bound<'_, PyAny>>,
        unknown: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        no_others(py, "Ewma", unknown, &["alpha", "warmup", "two_sided", "threshold", "quiet"])?;
        let sides = if two_sided { NormalTail::Both } else { NormalTail::Upper };
        let mut settings = ewma::Ewma::default().sides(sides);
        if let Some(alpha) = alpha {
            settings = settings.alpha(number("alpha", alpha)?)?;
        }
        if let Some(warmup) = warmup {
            settings = settings.warmup(count("warmup", warmup)?)?;
        }
        if let Some(threshold) = threshold {
            settings = settings.accepting(number("threshold", threshold)?)?;
        }
        if let Some(quiet) = quiet {
            settings = settings.quiet(count("quiet", quiet)?);
        }
        Ok(PyClassInitializer::from(Detector::new(Arc::new(settings))?).add_subclass(Self))
    }
}

/// What a detector says of each value.
///
/// Example:
///     >>> from tidemill import ml
///     >>> scores = ml.Ewma(warmup=2).score_then_learn([20.0, 21.0, 99.0])
///     >>> scores.score.round(1), scores.p_value < 0.001, scores.is_anomaly, len(scores)
///     (array([  nan,   nan, 362.2]), array([False, False,  True]), array([False, False,  True]), 3)
#[pyclass(frozen, module = "tidemill.ml", name = "Scores")]
pub(crate) struct Scores {
    score: Float64Array,
    p_value: Float64Array,
    is_anomaly: Vec<bool>,
}

#[pymethods]
impl Scores {
    /// How anomalous each value is, float64 of shape (n,): higher is more; NaN where it cannot be told.
    #[getter]
    fn score<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        PyArray1::from_vec(py, with_nan(&self.score))
    }

    /// The probability of a score as high where nothing is anomalous, float64 of shape (n,); NaN where the score is.
    #[getter]
    fn p_value<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        PyArray1::from_vec(py, with_nan(&self.p_value))
    }

    /// Whether each value is worth an alarm, bool of shape (n,).
    #[getter]
    fn is_anomaly<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        PyArray1::from_slice(py, &self.is_anomaly)
    }

    fn __len__(&self) -> usize {
        self.is_anomaly.len()
    }

    fn __repr__(&self) -> String {
        let anomalies = self.is_anomaly.iter().filter(|anomaly| **anomaly).count();
        format!("Scores({} values, {anomalies} anomalies)", self.is_anomaly.len())
    }
}

/// Refuses arguments that a detector does not have, in the words for those of streams and contexts.
fn no_others(
    py: Python<'_>,
    detector: &str,
    unknown: Option<&Bound<'_, PyDict>>,
    known: &[&str],
) -> PyResult<()> {
    let Some(unknown) = unknown else { return Ok(()) };
    let told = py.import("tidemill.hints")?.getattr("no_arguments")?;
    let text: String = told.call1((detector, unknown.keys(), known.to_vec()))?.extract()?;
    Err(PyTypeError::new_err(text))
}

fn number(name: &str, given: &Bound<'_, PyAny>) -> Result<f64> {
    let number = given.extract::<f64>().ok().filter(|_| !given.is_instance_of::<PyBool>());
    number.ok_or_else(|| Error::config(format!("{name} is a number, found {}", shown(given))))
}

fn count(name: &str, given: &Bound<'_, PyAny>) -> Result<u32> {
    if let Some(count) = given.extract::<u32>().ok().filter(|_| !given.is_instance_of::<PyBool>()) {
        return Ok(count);
    }
    let text = format!("{name} is a number of values, from 0 to {}, found {}", u32::MAX, shown(given));
    let error = Error::config(text);
    Err(if given.is_instance_of::<PyString>() || given.is_instance_of::<PyDelta>() {
        error.help("a length of time is not offered yet: pass how many values of a key come in it")
    } else {
        error
    })
}

fn shown(given: &Bound<'_, PyAny>) -> String {
    given.repr().map_or_else(|_| "what cannot be shown".to_owned(), |shown| shown.to_string())
}

fn fresh(settings: &Arc<dyn crate::detect::Detector>) -> Result<DetectOperator> {
    let (columns, prefix) = (vec![VALUE.to_owned()], String::new());
    DetectOperator::new(DetectSpec { columns, detector: settings.clone(), threshold: None, prefix }, &input())
}

fn input() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(VALUE, DataType::Float64, true)]))
}

fn score(operator: &mut DetectOperator, values: Float64Array, keys: Option<ArrayRef>) -> Result<Scores> {
    let keys = encode(keys, values.len())?;
    let scored = operator.apply(&RecordBatch::try_new(input(), vec![Arc::new(values)])?, &keys)?;
    match scored.columns() {
        [_, score, p_value, is_anomaly, ..] => Ok(Scores {
            score: score.as_primitive::<Float64Type>().clone(),
            p_value: p_value.as_primitive::<Float64Type>().clone(),
            is_anomaly: is_anomaly.as_boolean().values().iter().collect(),
        }),
        found => Err(Error::internal(format!("scores were expected, found {} columns", found.len()))),
    }
}

fn encode(keys: Option<ArrayRef>, rows: usize) -> Result<Keys> {
    let keys = keys.unwrap_or_else(|| Arc::new(StringArray::new_null(rows)));
    if keys.len() != rows {
        let message = format!("one key a value was expected, found {} keys for {rows} values", keys.len());
        return Err(Error::schema(message));
    }
    let schema = Arc::new(Schema::new(vec![Field::new(KEY, keys.data_type().clone(), true)]));
    KeyEncoder::new(&schema, &[KEY])?.encode(&RecordBatch::try_new(schema.clone(), vec![keys])?)
}

/// Arrow as it is; all else as NumPy takes it.
fn values_of(values: &Bound<'_, PyAny>) -> PyResult<Float64Array> {
    if let Some(array) = arrow_of(values)? {
        if !array.data_type().is_numeric() {
            let message = format!(
                "values were expected to be numeric, found an Arrow array of {}",
                type_name(array.data_type())
            );
            return Err(Error::schema(message).into());
        }
        let floats = compute::cast(&array, &DataType::Float64).map_err(Error::from)?;
        return Ok(floats.as_primitive::<Float64Type>().clone());
    }
    let py = values.py();
    let floats = py.import("numpy")?.call_method1("asarray", (values, "float64"))?;
    let floats: PyReadonlyArrayDyn<'_, f64> = floats.extract()?;
    match floats.shape() {
        [_] => Ok(floats.as_array().iter().copied().collect::<Vec<_>>().into()),
        found => Err(Error::schema(format!("values were expected with shape (n,), found {found:?}")).into()),
    }
}

fn keys_of(keys: &Bound<'_, PyAny>) -> PyResult<ArrayRef> {
    if let Some(array) = arrow_of(keys)? {
        return Ok(array);
    }
    if let Ok(numbers) = keys.extract::<Vec<i64>>() {
        return Ok(Arc::new(Int64Array::from(numbers)));
    }
    match keys.extract::<Vec<Option<String>>>() {
        Ok(texts) => Ok(Arc::new(StringArray::from(texts))),
        Err(_) => Err(Error::schema(format!(
            "keys were expected as integers, strings or an Arrow array, one a value, found {}",
            keys.get_type().name()?
        ))
        .into()),
    }
}

/// An Arrow array, chunked or not, as one; none where it is no Arrow.
fn arrow_of(any: &Bound<'_, PyAny>) -> PyResult<Option<ArrayRef>> {
    if !any.hasattr("__arrow_c_array__")? && !any.hasattr("__arrow_c_stream__")? {
        return Ok(None);
    }
    let chunked = any.extract::<AnyArray>()?.into_chunked_array()?;
    let chunks: Vec<&dyn Array> = chunked.chunks().iter().map(AsRef::as_ref).collect();
    Ok(Some(match chunks.as_slice() {
        [] => arrow::array::new_empty_array(chunked.field().data_type()),
        chunks => compute::concat(chunks).map_err(Error::from)?,
    }))
}

fn with_nan(scores: &Float64Array) -> Vec<f64> {
    scores.iter().map(|score| score.unwrap_or(f64::NAN)).collect()
}

/// An Arrow IPC stream, and the hash of its bytes: damaged bytes must not reach the IPC reader, which trusts them.
fn to_bytes(snapshot: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), &snapshot.schema())?;
    writer.write(snapshot)?;
    let mut bytes = writer.into_inner()?;
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    Ok(bytes)
}

fn of_bytes(data: &[u8]) -> Result<RecordBatch> {
    let damaged = |reason: &str| {
        Error::new(ErrorKind::Checkpoint, format!("a detector's saved state was expected, {reason}"))
    };
    match data.split_last_chunk() {
        Some((stream, hash)) if xxh3_64(stream) == u64::from_le_bytes(*hash) => {
            let snapshot = StreamReader::try_new(stream, None)?.next();
            snapshot.ok_or_else(|| damaged("found an empty stream"))?.map_err(Error::from)
        }
        _ => Err(damaged("found other bytes, or damaged ones").help("pass what save() returned")),
    }
}

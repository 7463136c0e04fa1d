//! What sinks publish without a stream around them, for tests of what a cluster's failures do to it.
//!
//! It is no part of the package's face: nothing here is promised to users, and a stream never meets it. What users have of
//! it is to read what is published.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, BinaryArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pyo3::prelude::*;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::kafka::Cluster;
use crate::offset::{Offset, TopicPartition};
use crate::python::arrow::import;
use crate::python::gil;
use crate::sink::encode::OutputFormat;
use crate::sink::files::{FileFormat, FileSink, FileSinkSettings, PublishedFiles, read_output};
use crate::sink::kafka::{KafkaSink, KafkaSinkSettings};
use crate::sink::marker::{Epoch, Owner};
use crate::sink::outputs::{Outputs, PreparedBatch};
use crate::sink::transactional::GroupOffsets;
use crate::sink::{Delivery, Sink};
use crate::time::{BatchId, BatchTime};

/// A group, and the (topic, partition, offset) that it has reached.
type Offsets = (String, Vec<(String, i32, i64)>);

/// One driver's Kafka sinks, of which the first leads.
#[pyclass(frozen, module = "tidemill._native")]
pub(crate) struct Publisher {
    state: Mutex<State>,   // one call at a time, as from a stream's delivery thread
    cancel: Mutex<Cancel>, // apart from the other, which a call that is to be cancelled holds
    needs_take_over: Mutex<Option<bool>>, // of the last error
}

struct State {
    sinks: Vec<KafkaSink>,
    outputs: Outputs,
    epoch: Epoch,
    batch: Option<PreparedBatch>,
}

#[pymethods]
impl Publisher {
    #[new]
    #[pyo3(signature = (bootstrap_servers, topics, config = Vec::new()))]
    fn new(
        py: Python<'_>,
        bootstrap_servers: &str,
        topics: Vec<String>,
        config: Vec<(String, String)>,
    ) -> PyResult<Self> {
        let cluster = Cluster { config: config.into_iter().collect(), ..Cluster::at(bootstrap_servers) };
        let state = gil::release(py, || State::new(&cluster, topics))?;
        Ok(Self { state: Mutex::new(state), cancel: Mutex::default(), needs_take_over: Mutex::default() })
    }

    /// Takes the place over and reads the marker.
    fn init(&self, py: Python<'_>, job: &str, epoch: u64) -> PyResult<Option<String>> {
        let owner = Owner { job: job.to_owned(), epoch: Epoch(epoch) };
        self.call(py, |state, cancel| {
            state.epoch = owner.epoch;
            let marker = state.outputs.init(&mut refs(&mut state.sinks), &owner, cancel)?;
            Ok(marker.map(|marker| marker.to_string()))
        })
    }

    /// Encodes a batch of values, a list for each topic, and gives its marker.
    #[expect(clippy::needless_pass_by_value, reason = "pyo3 makes an owned list of Python's")]
    fn prepare(&self, py: Python<'_>, batch: u64, values: Vec<Vec<Vec<u8>>>) -> PyResult<String> {
        self.call(py, |state, cancel| {
            let deliveries = values.iter().map(|values| delivery(BatchId(batch), values, cancel));
            let deliveries: Vec<_> = deliveries.collect::<Result<_>>()?;
            let sinks = &mut refs(&mut state.sinks);
            let prepared = state.outputs.prepare(sinks, &deliveries, state.epoch)?;
            let marker = prepared.marker().to_string();
            state.batch = Some(prepared);
            Ok(marker)
        })
    }

    /// Publishes the batch that was prepared last, with the offsets of groups, and gives the warnings.
    #[pyo3(signature = (offsets = Vec::new()))]
    fn publish(&self, py: Python<'_>, offsets: Vec<Offsets>) -> PyResult<Vec<String>> {
        let offsets: Vec<GroupOffsets> = offsets.into_iter().map(reached).collect();
        self.call(py, |state, cancel| {
            let batch = state.batch.as_ref().ok_or_else(|| Error::internal("no batch is prepared"))?;
            let sinks = &mut refs(&mut state.sinks);
            let published = state.outputs.publish(sinks, batch, &offsets, cancel)?;
            Ok(published.warnings.iter().map(ToString::to_string).collect())
        })
    }

    /// Asks the call that another thread is in to give up.
    fn cancel(&self) {
        self.cancel.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    /// Whether the last error was one that a take-over may heal; None where there was none.
    #[getter]
    fn needs_take_over(&self) -> Option<bool> {
        *self.needs_take_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the connections back.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, |state, _| state.sinks.iter_mut().try_for_each(Sink::close))
    }
}

impl Publisher {
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut State, &Cancel) -> Result<T> + Send,
    ) -> PyResult<T> {
        let done = gil::release(py, || {
            let cancel = Cancel::default();
            self.cancel.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&cancel);
            work(&mut self.state(), &cancel)
        });
        if let Err(error) = &done {
            let needs = error.needs_take_over();
            *self.needs_take_over.lock().unwrap_or_else(PoisonError::into_inner) = Some(needs);
        }
        Ok(done?)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(cluster: &Cluster, topics: Vec<String>) -> Result<Self> {
        let sink = |topic| {
            let value = OutputFormat::Raw { column: None };
            KafkaSink::new(KafkaSinkSettings { value, ..KafkaSinkSettings::new(cluster.clone(), topic) })
        };
        let mut sinks: Vec<_> = topics.into_iter().map(sink).collect();
        let outputs = Outputs::of(&mut refs(&mut sinks))?;
        let schemas = vec![schema(); sinks.len()];
        outputs.open(&mut refs(&mut sinks), &schemas, &Cancel::default())?;
        Ok(Self { sinks, outputs, epoch: Epoch::default(), batch: None })
    }
}

fn refs(sinks: &mut [KafkaSink]) -> Vec<&mut dyn Sink> {
    sinks.iter_mut().map(|sink| sink as &mut dyn Sink).collect()
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("value", DataType::Binary, false)]))
}

fn delivery(batch: BatchId, values: &[Vec<u8>], cancel: &Cancel) -> Result<Delivery> {
    let column: ArrayRef = Arc::new(BinaryArray::from_iter_values(values));
    let rows = RecordBatch::try_new(schema(), vec![column])?;
    Ok(Delivery {
        batch,
        time: BatchTime(1_700_000_000_000),
        watermark: None,
        ranges: Arc::from([]),
        schema: schema(),
        rows: if values.is_empty() { Vec::new() } else { vec![rows] },
        cancel: cancel.clone(),
    })
}

/// Publishes rows as one batch of files, as the driver of that epoch; the batch's number is the epoch's.
#[pyfunction]
#[pyo3(signature = (path, rows, epoch, kind = "parquet", partition_by = Vec::new()))]
pub(crate) fn publish_files(
    path: &str,
    rows: &Bound<'_, PyAny>,
    epoch: u64,
    kind: &str,
    partition_by: Vec<String>,
) -> PyResult<()> {
    let (rows, cancel) = (import(rows)?, Cancel::default());
    let format = FileFormat::named(kind)?;
    let mut sink = FileSink::new(FileSinkSettings { format, partition_by, ..FileSinkSettings::new(path) });
    let sinks: &mut [&mut dyn Sink] = &mut [&mut sink];
    let outputs = Outputs::of(sinks)?;
    outputs.open(sinks, &[rows.schema()], &cancel)?;
    let owner = Owner { job: "test".to_owned(), epoch: Epoch(epoch) };
    outputs.init(sinks, &owner, &cancel)?;
    let schema = rows.schema();
    let delivery = Delivery { schema, rows: vec![rows], ..delivery(BatchId(epoch), &[], &cancel)? };
    let batch = outputs.prepare(sinks, &[delivery], owner.epoch)?;
    outputs.publish(sinks, &batch, &[], &cancel)?;
    Ok(())
}

/// Of files that are published and alike: their format, schema, the columns that are directories, and of each file where
/// it is and its directory.
type Files = (String, Vec<u8>, Vec<String>, Vec<(PathBuf, PathBuf)>);

/// What manifests in a directory name.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "pyo3 makes an owned path of Python's")]
pub(crate) fn published_files(py: Python<'_>, path: PathBuf) -> PyResult<Vec<Files>> {
    let found = gil::release(py, || read_output(&path))?;
    let files = |files: PublishedFiles| {
        let places = files.paths.into_iter().zip(files.directories).collect();
        (files.format.to_string(), files.schema, files.by, places)
    };
    Ok(found.into_iter().map(files).collect())
}

fn reached((group, positions): Offsets) -> GroupOffsets {
    let positions = positions
        .into_iter()
        .map(|(topic, partition, offset)| (TopicPartition::new(&topic, partition), Offset(offset)));
    GroupOffsets { group, positions: positions.collect() }
}

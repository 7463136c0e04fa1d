//! The arguments of sources, from Python's words to the core's.
//!
//! It deliberately connects to nothing: a source is opened when the context starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::cancel::Cancel;
use crate::context::{OpenSource, Reading};
use crate::decode::{EventTimeSpec, Inference, Inferred, Metadata, OnBad};
use crate::error::{Error, Result, nearest};
use crate::event::Positions;
use crate::ingest::kafka::{Isolation, KafkaSettings, KafkaSource, TopicPattern, Topics};
use crate::ingest::{Bound, Head, OnLoss, Source};
use crate::kafka::Cluster;
use crate::kafka::security::Security;
use crate::offset::{Offset, OffsetRange, TopicPartition};
use crate::plan::SourceSpec;
use crate::python::formats::FormatArguments;
use crate::python::gil;
use crate::python::schema::Schema;
use crate::python::units::Span;
use crate::raw::RawColumns;
use crate::time::Clock;

/// The column of the records' own timestamps, which may serve as event time without being asked for by name.
const KAFKA_TIMESTAMP: &str = "kafka_timestamp";

/// Where reading starts or ends.
#[pyclass(frozen, name = "Bound", module = "tidemill._native")]
#[derive(Clone, Debug)]
pub(crate) struct Edge(Bound);

#[pymethods]
impl Edge {
    #[staticmethod]
    fn named(what: &str, name: &str) -> PyResult<Self> {
        match (what, name) {
            (_, "earliest") => Ok(Self(Bound::Earliest)),
            (_, "latest") => Ok(Self(Bound::Latest)),
            _ => Err(Error::config(format!("{what} is \"earliest\" or \"latest\", found {name:?}"))
                .help("a datetime and a dict of offsets are possible too, and \"committed\" for starting")
                .into()),
        }
    }

    /// What the group has committed, and `fallback` where it has not.
    #[staticmethod]
    fn committed(fallback: &pyo3::Bound<'_, Self>) -> Self {
        Self(Bound::Committed { fallback: Box::new(fallback.get().0.clone()) })
    }

    #[staticmethod]
    fn at(millis: i64) -> Self {
        Self(Bound::Timestamp(millis))
    }

    #[staticmethod]
    fn offsets(offsets: Vec<(String, i32, i64)>) -> Self {
        let position = |(topic, partition, offset): (String, i32, i64)| {
            (TopicPartition::new(&topic, partition), Offset(offset))
        };
        Self(Bound::Offsets(offsets.into_iter().map(position).collect::<Positions>()))
    }
}

/// What all sources are told of how to read.
pub(crate) struct ReadingArguments<'py> {
    pub(crate) name: String,
    format: FormatArguments<'py>,
    metadata: Vec<String>,
    on_bad: String,
    event_time: Option<String>,
    watermark: Span,
    idle_timeout: Option<Span>,
    max_future: Span,
    starting: Option<pyo3::Bound<'py, Edge>>,
    ending: Option<pyo3::Bound<'py, Edge>>,
    max_rate_per_partition: Option<f64>,
}

impl<'py> ReadingArguments<'py> {
    pub(crate) fn from_keywords(keywords: Option<&pyo3::Bound<'py, PyDict>>) -> PyResult<Self> {
        let keywords = keywords.ok_or_else(|| Error::internal("a source has no arguments"))?;
        Ok(Self {
            name: argument(keywords, "name")?,
            format: argument(keywords, "format")?,
            metadata: argument(keywords, "metadata")?,
            on_bad: argument(keywords, "on_bad")?,
            event_time: argument(keywords, "event_time")?,
            watermark: argument(keywords, "watermark")?,
            idle_timeout: argument(keywords, "idle_timeout")?,
            max_future: argument(keywords, "max_future")?,
            starting: argument(keywords, "starting")?,
            ending: argument(keywords, "ending")?,
            max_rate_per_partition: argument(keywords, "max_rate_per_partition")?,
        })
    }

    /// What the plan must know of the source.
    pub(crate) fn spec(&self) -> Result<SourceSpec> {
        let mut metadata = self.metadata.iter().map(|name| metadata_of(name)).collect::<Result<Vec<_>>>()?;
        if self.event_time.as_deref() == Some(KAFKA_TIMESTAMP) && !metadata.contains(&Metadata::Timestamp) {
            metadata.push(Metadata::Timestamp);
        }
        let max_future = self.max_future.0;
        let event_time = self.event_time.clone().map(|column| EventTimeSpec { column, max_future });
        Ok(SourceSpec {
            name: self.name.clone(),
            format: self.format.reading()?,
            metadata,
            on_bad: on_bad_of(&self.on_bad)?,
            event_time,
        })
    }

    /// Where no columns are given, tells them from the last records that are there now, and shows what it has found.
    pub(crate) fn infer(&mut self, py: Python<'py>, open: &OpenSource) -> PyResult<()> {
        if !self.format.is_to_infer() {
            return Ok(());
        }
        let cancel = Cancel::default();
        let (open, given_up) = (Arc::clone(open), cancel.clone());
        let sample =
            gil::on_thread(py, move || sample(open()?.as_ref(), &cancel), move || given_up.cancel())?;
        let found =
            sample.columns(self.event_time.as_deref()).map_err(|error| error.at(self.name.clone()))?;
        show(py, &self.name, &found)?;
        self.format.with_schema(pyo3::Bound::new(py, Schema(found.schema))?);
        Ok(())
    }

    /// How the driver is to read it.
    pub(crate) fn reading(&self, open: OpenSource) -> Result<Reading> {
        Ok(Reading {
            open,
            starting: self.starting.as_ref().map(|bound| bound.get().0.clone()),
            ending: self.ending.as_ref().map(|bound| bound.get().0.clone()),
            watermark: self.watermark.0,
            idle_timeout: self.idle_timeout.map(|span| span.0),
            max_rate_per_partition: self.max_rate_per_partition.map(rate).transpose()?,
        })
    }
}

/// So many of a partition's last records are looked at where no columns are given.
const SAMPLE: i64 = 1_000;

/// So many bytes of them may wait to be looked at.
const SAMPLE_BYTES: usize = 16 << 20;

/// Looks at the last records of each partition.
fn sample(source: &dyn Source, cancel: &Cancel) -> Result<Inference> {
    let last = |head: Head| {
        let from = head.earliest.0.max(head.stable.0.saturating_sub(SAMPLE));
        OffsetRange::new(head.at, Offset(from), head.stable)
    };
    let ranges: Vec<OffsetRange> = source.heads()?.into_iter().map(last).collect();
    let mut found = Inference::default();
    let mut fetcher = source.fetcher(RawColumns::default(), SAMPLE_BYTES)?;
    fetcher.fetch(&ranges, cancel, &mut |chunk| {
        chunk.payloads.iter().flatten().for_each(|payload| found.add(payload));
        Ok(())
    })?;
    Ok(found)
}

/// Prints the columns as they are to be pasted: without them, each start might find others.
fn show(py: Python<'_>, name: &str, found: &Inferred) -> PyResult<()> {
    let mut lines = vec![
        format!(
            "tidemill: the columns of {name:?}, told from {} records; paste them to keep them:",
            found.records
        ),
        format!("    format={}", found.format()),
    ];
    lines.extend(found.left_out.iter().map(|(name, why)| format!("    # left out: {name:?}: {why}")));
    let lines = lines.join("\n") + "\n";
    let stderr = py.import("sys")?.getattr("stderr")?;
    if !stderr.is_none() {
        stderr.call_method1("write", (lines,))?;
    }
    Ok(())
}

/// One argument by its name, which the error begins with: several of them take the same kind of value.
fn argument<'py, T: FromPyObjectOwned<'py>>(keywords: &pyo3::Bound<'py, PyDict>, name: &str) -> PyResult<T> {
    let missing = || Error::internal(format!("a source has no argument {name}"));
    let value = keywords.get_item(name)?.ok_or_else(missing)?;
    let found: PyResult<T> = value.extract().map_err(Into::into);
    found.map_err(|refused| Error::config(format!("{name}: {}", refused.value(keywords.py()))).into())
}

fn rate(rate: f64) -> Result<f64> {
    if rate > 0.0 && rate.is_finite() {
        return Ok(rate);
    }
    Err(Error::config(format!(
        "max_rate_per_partition must be a positive number of records a second, found {rate}"
    )))
}

fn metadata_of(name: &str) -> Result<Metadata> {
    Ok(match name {
        "key" => Metadata::Key,
        "topic" => Metadata::Topic,
        "partition" => Metadata::Partition,
        "offset" => Metadata::Offset,
        "timestamp" => Metadata::Timestamp,
        "headers" => Metadata::Headers,
        other => {
            return Err(unknown(
                "metadata",
                other,
                &["key", "topic", "partition", "offset", "timestamp", "headers"],
            ));
        }
    })
}

fn on_bad_of(name: &str) -> Result<OnBad> {
    match name {
        "fail" => Ok(OnBad::Fail),
        "drop" => Ok(OnBad::Drop),
        "dead_letter" => Ok(OnBad::DeadLetter),
        other => Err(unknown("on_bad", other, &["fail", "drop", "dead_letter"])),
    }
}

pub(crate) fn on_loss_of(name: &str) -> Result<OnLoss> {
    match name {
        "fail" => Ok(OnLoss::Fail),
        "skip" => Ok(OnLoss::Skip),
        other => Err(unknown("on_data_loss", other, &["fail", "skip"])),
    }
}

fn unknown(what: &str, found: &str, known: &[&str]) -> Error {
    let error = Error::config(format!("{what} is one of {}; found {found:?}", known.join(", ")));
    match nearest(found, known.iter().copied()) {
        Some(near) => error.help(format!("did you mean {near:?}?")),
        None => error,
    }
}

/// What a Kafka source is told beside that.
pub(crate) struct KafkaArguments {
    pub(crate) topics: Vec<String>,
    pub(crate) pattern: Option<String>,
    pub(crate) partitions: Vec<(String, i32)>,
    pub(crate) bootstrap_servers: String,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) group_id: Option<String>,
    pub(crate) security: Option<Security>,
    pub(crate) on_loss: OnLoss,
}

impl KafkaArguments {
    pub(crate) fn cluster(&self) -> Cluster {
        let Self { bootstrap_servers, config, security, .. } = self;
        Cluster {
            bootstrap_servers: bootstrap_servers.clone(),
            config: config.clone(),
            security: security.clone(),
        }
    }
}

impl KafkaArguments {
    /// Connects when the context starts, and again at each start; a wrong setting is told now.
    pub(crate) fn open(&self, name: &str, clock: &Arc<dyn Clock>) -> Result<OpenSource> {
        let settings = KafkaSettings {
            name: name.to_owned(),
            cluster: self.cluster(),
            topics: self.topics()?,
            group_id: self.group_id.clone(),
            isolation: Isolation::default(),
            on_loss: self.on_loss,
        };
        Error::of_all(settings.check()).map_or(Ok(()), Err)?;
        let clock = Arc::clone(clock);
        Ok(Arc::new(move || Ok(Arc::new(KafkaSource::connect(settings.clone(), Arc::clone(&clock))?))))
    }

    /// What is read, in the one of the three ways that is used.
    pub(crate) fn topics(&self) -> Result<Topics> {
        if let Some(pattern) = &self.pattern {
            return Ok(Topics::Pattern(TopicPattern::new(pattern)?));
        }
        if self.partitions.is_empty() {
            return Ok(Topics::Names(self.topics.clone()));
        }
        let at = |(topic, partition): &(String, i32)| TopicPartition::new(topic, *partition);
        Ok(Topics::Partitions(self.partitions.iter().map(at).collect()))
    }
}

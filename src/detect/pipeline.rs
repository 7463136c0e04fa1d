//! The four stages in a row: `scale → score → calibrate → loud`.
//!
//! It carries columns from stage to stage and states to Arrow and back. It deliberately computes nothing itself.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Field, Schema};

use crate::detect::calibrate::Calibrate;
use crate::detect::loud::Loud;
use crate::detect::scale::believable;
use crate::detect::{CopiedStates, Scores, States};
use crate::error::{Error, ErrorKind, Result};
use crate::types::type_name;

const DETECTOR: &str = "tidemill.detector";
/// The name under which the schema of states says in which version they are.
pub const STATE_VERSION: &str = "tidemill.state_version";
const QUIET: &str = "tidemill.quiet";

/// Raw scores of rows, as a detector's own stage gives them.
#[derive(Clone, Debug, Default)]
pub struct RawScores {
    /// One score a row, NaN for none.
    pub score: Vec<f64>,
    /// The feature that contributed most, one a row; empty from detectors of one feature.
    pub top_feature: Vec<u32>,
}

/// Stage two: what a detector is. Its states are numbered by slot.
pub trait Score: Send {
    /// The detector's name, and the version of its state's columns.
    fn detector(&self) -> (&'static str, u32);

    /// The number of keys.
    fn keys(&self) -> usize;

    /// Makes the states of new slots, so that there are `keys`.
    fn grow(&mut self, keys: usize);

    /// Appends one score a row, then has the row learnt, row by row. Features are columns; NaN is no value.
    fn score_then_learn(&mut self, slots: &[u32], features: &[Vec<f64>], out: &mut RawScores);

    /// The state as columns, one row a slot.
    fn columns(&self) -> Result<Vec<(Field, ArrayRef)>>;

    /// The bytes that the states occupy, unused capacity included.
    fn bytes(&self) -> usize;

    /// The states in these slots, numbered by their places here. A plain copy: batches wait for it.
    #[must_use]
    fn copied(&self, slots: &[u32]) -> Self
    where
        Self: Sized;
}

/// A detector's states, and the stages through which its rows go.
#[derive(Debug)]
pub struct Pipeline<S, C> {
    score: S,
    calibrate: C,
    loud: Loud,
    threshold: f64,
    scaled: Vec<Vec<f64>>, // kept from batch to batch: its memory is that of the largest
}

impl<S: Score, C: Calibrate> Pipeline<S, C> {
    fn of_slots(&self, slots: &[u32]) -> Self {
        let (score, calibrate) = (self.score.copied(slots), self.calibrate.copied(slots));
        Self::new(score, calibrate, self.loud.copied(slots), self.threshold)
    }

    fn columns(&self) -> Result<RecordBatch> {
        let mut columns = self.score.columns()?;
        columns.extend(self.calibrate.columns()?);
        columns.extend(self.loud.columns()?);
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
        let (detector, version) = self.score.detector();
        let quiet = self.loud.quiet();
        let metadata = [
            (DETECTOR, detector.to_owned()),
            (STATE_VERSION, version.to_string()),
            (QUIET, quiet.to_string()),
        ];
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        let rows = RecordBatchOptions::new().with_row_count(Some(self.score.keys()));
        Ok(RecordBatch::try_new_with_options(schema, arrays, &rows)?)
    }

    /// The stages of a detector, with what they have learnt.
    pub fn new(score: S, calibrate: C, loud: Loud, threshold: f64) -> Self {
        Self { score, calibrate, loud, threshold, scaled: Vec::new() }
    }

    fn grow(&mut self, slots: &[u32]) {
        let keys = slots.iter().max().map_or(0, |slot| *slot as usize + 1);
        self.score.grow(keys);
        self.calibrate.grow(keys);
        self.loud.grow(keys);
    }

    fn scale(&mut self, features: &[Float64Array]) {
        self.scaled.resize_with(features.len(), Vec::new);
        self.scaled.iter_mut().zip(features).for_each(|(scaled, values)| believable(values, scaled));
    }
}

impl<S: Score + 'static, C: Calibrate + 'static> States for Pipeline<S, C> {
    fn len(&self) -> usize {
        self.score.keys()
    }

    fn update(&mut self, slots: &[u32], features: &[Float64Array]) -> Result<Scores> {
        check_rows(slots, features)?;
        self.grow(slots);
        self.scale(features);
        let mut raw = RawScores::default();
        self.score.score_then_learn(slots, &self.scaled, &mut raw);
        let mut p_values = Vec::with_capacity(raw.score.len());
        self.calibrate.p_values(slots, &raw.score, &mut p_values);
        let alarms = self.loud.alarms(slots, &raw.score, &p_values, self.threshold);
        Ok(to_scores(raw, p_values, alarms))
    }

    fn to_arrow(&self) -> Result<RecordBatch> {
        self.columns()
    }

    fn bytes(&self) -> usize {
        self.score.bytes() + self.calibrate.bytes() + self.loud.bytes()
    }

    fn copied(&self, slots: &[u32]) -> Result<Box<dyn CopiedStates>> {
        Ok(Box::new(self.of_slots(slots)))
    }
}

/// Rows are gathered as they lie in memory, one key after the other, before they are taken apart into columns.
impl<S: Score, C: Calibrate> CopiedStates for Pipeline<S, C> {
    fn rows(&self, places: &[u32]) -> Result<RecordBatch> {
        self.of_slots(places).columns()
    }
}

fn check_rows(slots: &[u32], features: &[Float64Array]) -> Result<()> {
    match features.iter().find(|values| values.len() != slots.len()) {
        None if !features.is_empty() => Ok(()),
        None => Err(Error::internal("a detector was given rows without any feature")),
        Some(values) => {
            let (rows, values) = (slots.len(), values.len());
            Err(Error::internal(format!("one value a row was expected, found {values} for {rows} rows")))
        }
    }
}

fn to_scores(raw: RawScores, p_values: Vec<f64>, alarms: BooleanBuffer) -> Scores {
    let scored = BooleanBuffer::collect_bool(raw.score.len(), scored_at(&raw.score));
    let nulls = Some(NullBuffer::new(scored)).filter(|nulls| nulls.null_count() > 0);
    let top = (!raw.top_feature.is_empty()).then(|| UInt32Array::new(raw.top_feature.into(), nulls.clone()));
    Scores {
        score: Float64Array::new(raw.score.into(), nulls.clone()),
        p_value: Float64Array::new(p_values.into(), nulls),
        is_anomaly: BooleanArray::new(alarms, None),
        top_feature: top,
    }
}

fn scored_at(scores: &[f64]) -> impl FnMut(usize) -> bool {
    let mut rows = scores.iter();
    move |_| rows.next().is_some_and(|score| !score.is_nan())
}

/// The `quiet` of states that this detector wrote in this version, else an error.
pub(super) fn check_metadata(states: &RecordBatch, detector: &str, version: u32) -> Result<u32> {
    let schema = states.schema();
    let found = |key: &str| schema.metadata().get(key).cloned().unwrap_or_default();
    if found(DETECTOR) != detector || found(STATE_VERSION) != version.to_string() {
        let (name, number) = (found(DETECTOR), found(STATE_VERSION));
        let message =
            format!("state of {detector}, version {version}, was expected, found \"{name}\", \"{number}\"");
        return Err(damaged(message).help("give the detector that wrote it, or start with fresh state"));
    }
    found(QUIET)
        .parse()
        .map_err(|_| damaged(format!("a number was expected for quiet, found \"{}\"", found(QUIET))))
}

/// A column of a state, without nulls and of this type.
pub(super) fn column<'a>(states: &'a RecordBatch, name: &str, data_type: &DataType) -> Result<&'a ArrayRef> {
    match states.column_by_name(name) {
        Some(column) if column.data_type() == data_type && column.null_count() == 0 => Ok(column),
        found => {
            let found = found.map_or("none".to_owned(), |column| {
                format!("{} with {} nulls", type_name(column.data_type()), column.null_count())
            });
            Err(damaged(format!(
                "a column \"{name}\" of type {} without nulls was expected, found {found}",
                type_name(data_type)
            )))
        }
    }
}

/// State that cannot be what the detector wrote.
pub(super) fn damaged(message: String) -> Error {
    Error::new(ErrorKind::Checkpoint, message).at("state of a detector")
}

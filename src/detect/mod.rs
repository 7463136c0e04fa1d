//! Online detectors: columns and state in, scores and state out.
//!
//! A detector deliberately knows neither streams nor brokers nor keys: it is given the number of the state that a
//! row belongs to. Every detector is a [`Pipeline`](pipeline::Pipeline) of the same four stages, so that
//! `threshold` means the same everywhere, and passes the suite in [`contract`]:
//!
//! | stage | file | what it does |
//! |---|---|---|
//! | scale | [`scale`] | what a detector may see of a value |
//! | score | one file a detector: [`ewma`] | the raw score of a value before it is learnt |
//! | calibrate | [`calibrate`] | the probability of a score as high under what is normal |
//! | loud | [`loud`] | one alarm an event, not one a point |
//!
//! Between the stages a column is a slice of `f64` in which NaN stands for "none": a score is never NaN by itself,
//! and one test settles value and validity.

use std::fmt;
use std::sync::Arc;

use arrow::array::{BooleanArray, Float64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema};

use crate::error::{Error, Result, nearest};
use crate::types::type_name;

pub mod calibrate;
pub mod contract;
pub mod ewma;
pub mod loud;
pub mod pipeline;
pub mod scale;

/// The settings of a detector: what makes the states of many keys.
///
/// It is shared by all shards and never changes; what is learnt is in [`States`].
pub trait Detector: Send + Sync + fmt::Debug {
    /// The name that the user calls it by.
    fn name(&self) -> &'static str;

    /// The settings by name, in the order of the user's call.
    fn parameters(&self) -> Vec<(&'static str, Parameter)>;

    /// How many columns it looks at together.
    fn features(&self) -> Features;

    /// The accepted probability of a false alarm where [`DetectSpec::threshold`] names no other.
    fn threshold(&self) -> f64;

    /// The bytes of state a key, beside the key itself.
    fn bytes_per_key(&self, features: usize) -> usize;

    /// States of no key yet, for so many feature columns.
    fn start(&self, features: usize, threshold: f64) -> Result<Box<dyn States>>;

    /// States as [`States::to_arrow`] gave them. Other settings than at that time are accepted: what was learnt
    /// stays.
    fn restore(&self, features: usize, threshold: f64, states: &RecordBatch) -> Result<Box<dyn States>>;
}

/// The states of many keys, by slot number.
pub trait States: Send {
    /// The number of keys.
    fn len(&self) -> usize;

    /// Whether there are no keys.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Scores each row with the state in its slot, then has that state learn the row: in order, so that a row's
    /// score depends on earlier rows alone. There is one slot a row, and as many features as it was started for,
    /// of one value a row. States of new slots are made.
    fn update(&mut self, slots: &[u32], features: &[Float64Array]) -> Result<Scores>;

    /// One row a slot; the schema's metadata names detector and version.
    fn to_arrow(&self) -> Result<RecordBatch>;

    /// The bytes that the states occupy, unused capacity included.
    fn bytes(&self) -> usize;

    /// The states in these slots as they are now, in this order: to be written down while these here learn on. It is
    /// called between two batches, and should copy and no more.
    fn copied(&self, slots: &[u32]) -> Result<Box<dyn CopiedStates>> {
        Ok(Box::new(self.to_arrow()?.rows(slots)?))
    }
}

/// States that were copied.
pub trait CopiedStates: Send {
    /// Those at these places, in this order, as [`States::to_arrow`] gives states.
    fn rows(&self, places: &[u32]) -> Result<RecordBatch>;
}

impl CopiedStates for RecordBatch {
    fn rows(&self, places: &[u32]) -> Result<RecordBatch> {
        // Without columns there is nothing to take, and no row either.
        if self.num_columns() == 0 {
            return Ok(self.clone());
        }
        Ok(take_record_batch(self, &UInt32Array::from(places.to_vec()))?)
    }
}

/// What a detector says of each row.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// How anomalous the row is: higher is more; null where it cannot be told.
    pub score: Float64Array,
    /// The probability of a score as high where nothing is anomalous; null where the score is.
    pub p_value: Float64Array,
    /// Whether the row is worth an alarm.
    pub is_anomaly: BooleanArray,
    /// The number of the feature that contributed most, from detectors of several; null where the score is.
    pub top_feature: Option<UInt32Array>,
}

/// How many columns a detector looks at together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Features {
    /// Exactly one.
    One,
    /// One or more.
    Many,
}

/// A detector's setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Parameter {
    /// A number.
    Float(f64),
    /// A count.
    Count(u64),
    /// Yes or no.
    Flag(bool),
}

impl fmt::Display for Parameter {
    /// As Python writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Count(value) => write!(f, "{value}"),
            Self::Flag(true) => f.write_str("True"),
            Self::Flag(false) => f.write_str("False"),
        }
    }
}

/// The call that makes this detector, for `explain()` and errors.
///
/// ```
/// use tidemill::detect::{describe, ewma::Ewma};
/// let text = "Ewma(alpha=0.05, warmup=30, two_sided=True, threshold=0.001, quiet=150)";
/// assert_eq!(describe(&Ewma::default()), text);
/// ```
pub fn describe(detector: &dyn Detector) -> String {
    let settings = detector.parameters().into_iter().map(|(name, value)| format!("{name}={value}"));
    format!("{}({})", detector.name(), settings.collect::<Vec<_>>().join(", "))
}

/// What `detect` was asked to do.
#[derive(Clone, Debug)]
pub struct DetectSpec {
    /// The feature columns.
    pub columns: Vec<String>,
    /// What scores them.
    pub detector: Arc<dyn Detector>,
    /// The accepted probability of a false alarm; none takes the detector's own.
    pub threshold: Option<f64>,
    /// Put before the names of the columns that it adds.
    pub prefix: String,
}

impl DetectSpec {
    /// The columns that it adds, in order.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tidemill::detect::{DetectSpec, ewma::Ewma};
    /// let columns = vec!["temperature".to_owned()];
    /// let spec = DetectSpec { columns, detector: Arc::new(Ewma::default()), threshold: None, prefix: "t_".into() };
    /// let names: Vec<_> = spec.output_fields().iter().map(|field| field.name().clone()).collect();
    /// assert_eq!(names, ["t_score", "t_p_value", "t_is_anomaly"]);
    /// ```
    pub fn output_fields(&self) -> Vec<Field> {
        let name = |name: &str| format!("{}{name}", self.prefix);
        let mut fields = vec![
            Field::new(name("score"), DataType::Float64, true),
            Field::new(name("p_value"), DataType::Float64, true),
            Field::new(name("is_anomaly"), DataType::Boolean, false),
        ];
        if self.columns.len() > 1 {
            fields.push(Field::new(name("top_feature"), DataType::Utf8, true));
        }
        fields
    }

    /// The accepted probability of a false alarm.
    pub fn accepted(&self) -> f64 {
        self.threshold.unwrap_or_else(|| self.detector.threshold())
    }

    /// All that is wrong with it over rows of this schema; whether the added names are free is the plan's to check.
    pub fn check(&self, schema: &Schema) -> Vec<Error> {
        let columns = self.columns.iter().filter_map(|name| check_column(schema, name).err());
        let threshold = self.threshold.and_then(|threshold| check_threshold(threshold).err());
        self.check_count().err().into_iter().chain(columns).chain(threshold).collect()
    }

    fn check_count(&self) -> Result<()> {
        let name = self.detector.name();
        match (self.detector.features(), self.columns.len()) {
            (Features::One, 1) => Ok(()),
            (Features::Many, count) if count > 0 => Ok(()),
            (Features::One, count) => {
                Err(Error::config(format!("{name} scores exactly one column, found {count}"))
                    .help("call detect once a column, with a prefix for each"))
            }
            (Features::Many, _) => {
                Err(Error::config(format!("{name} scores one column or more, found none")))
            }
        }
    }
}

fn check_column(schema: &Schema, name: &str) -> Result<()> {
    match schema.column_with_name(name) {
        Some((_, field)) if field.data_type().is_numeric() => Ok(()),
        Some((_, field)) => {
            let message = format!(
                "column \"{name}\" was expected to be numeric, found {}",
                type_name(field.data_type())
            );
            Err(Error::schema(message).help("cast it, or name another column"))
        }
        None => {
            let names = || schema.fields().iter().map(|field| field.name().as_str());
            let found = names().collect::<Vec<_>>().join(", ");
            let error = Error::schema(format!("a column named \"{name}\" was expected, found {found}"));
            Err(match nearest(name, names()) {
                Some(near) => error.help(format!("did you mean \"{near}\"?")),
                None => error,
            })
        }
    }
}

/// Refuses what is no probability of a false alarm that a user could accept.
pub fn check_threshold(threshold: f64) -> Result<()> {
    if threshold > 0.0 && threshold < 1.0 {
        return Ok(());
    }
    let message =
        format!("threshold is the accepted probability of a false alarm, between 0 and 1, found {threshold}");
    Err(Error::config(message).help("pass, say, 1e-3"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::ewma::Ewma;

    fn spec(columns: &[&str], threshold: Option<f64>) -> DetectSpec {
        let columns = columns.iter().map(ToString::to_string).collect();
        DetectSpec { columns, detector: Arc::new(Ewma::default()), threshold, prefix: String::new() }
    }

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("device", DataType::Utf8, true),
            Field::new("temperature", DataType::Float32, true),
        ])
    }

    #[test]
    fn a_numeric_column_and_a_probability_are_accepted() {
        assert!(spec(&["temperature"], Some(1e-4)).check(&schema()).is_empty());
    }

    #[test]
    fn every_mistake_is_named() {
        let errors = spec(&["temprature", "device"], Some(1.0)).check(&schema());
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "Ewma scores exactly one column, found 2; call detect once a column, with a prefix for each",
                "a column named \"temprature\" was expected, found device, temperature; did you mean \"temperature\"?",
                "column \"device\" was expected to be numeric, found string; cast it, or name another column",
                "threshold is the accepted probability of a false alarm, between 0 and 1, found 1; pass, say, 1e-3",
            ]
        );
        assert!(errors.iter().all(Error::is_config));
    }

    #[test]
    fn not_a_number_is_no_threshold() {
        assert!(check_threshold(f64::NAN).is_err());
        assert!(check_threshold(0.0).is_err());
    }
}

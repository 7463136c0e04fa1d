//! `Ewma`: how many standard deviations a value lies from the exponentially weighted mean (Roberts 1959).
//!
//! Mean and variance forget with the factor `1 - alpha`, so the detector follows slow change and reports fast. It
//! deliberately knows no season and no shape: a value is compared with the recent level only.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Float64Type, UInt64Type};

use crate::detect::calibrate::NormalTail;
use crate::detect::loud::Loud;
use crate::detect::pipeline::{Pipeline, RawScores, Score, check_metadata, column, damaged};
use crate::detect::{Detector, Features, Parameter, States, check_threshold};
use crate::error::{Error, Result};

/// Scores are brought to this bound: a value off a constant has a finite score, and a mean of scores stays finite.
pub const LARGEST_SCORE: f64 = 1e12;

/// A standard deviation is at least this part of the mean: what differs by less is the rounding of floats, and a
/// constant with such noise is no anomaly.
const ROUNDING: f64 = 1e-13;

/// Smaller variances are 0: the numbers below 1e-308 are slow on every machine and never decay to 0 by themselves.
const SMALLEST_VARIANCE: f64 = 1e-290;

const VERSION: u32 = 1;

/// The settings of the detector.
///
/// The score of a value `x`, before it is learnt, is `|x - mean| / sqrt(variance)` (signed and not absolute where
/// only high values matter). Learning it, with `d = x - mean`, is `mean += alpha * d` and
/// `variance = (1 - alpha) * (variance + alpha * d * d)`: the weighted variance round the weighted mean, in a form
/// that loses no digits where the mean is large. The first value is the mean, with variance 0.
///
/// The normal tail takes mean and variance for known, though they are learnt from about `2 / alpha` points, and noise
/// for normal. Measured false alarms a thousand points, of 200,000 or more, with `quiet` 150:
///
/// | noise | alpha | at 1e-3 | at 1e-4 | at 1e-5 |
/// |---|---|---|---|---|
/// | normal | 0.01 | 1.1 | 0.14 | 0.01 |
/// | normal | 0.05 | 2.2 | 0.43 | 0.08 |
/// | normal | 0.2 | 5.9 | 2.2 | 1.8 |
/// | Laplace | 0.05 | 5.9 | 4.4 | 2.8 |
/// | uniform | 0.05 | 0 | 0 | 0 |
///
/// ```
/// use arrow::array::Float64Array;
/// use tidemill::detect::{Detector, ewma::Ewma};
///
/// let ewma = Ewma::default();
/// let mut states = ewma.start(1, ewma.threshold())?;
/// let mut values: Vec<f64> = (0..40).map(|i| 20.0 + f64::from(i % 3)).collect();
/// values.push(80.0);
/// let scores = states.update(&[0; 41], &[Float64Array::from(values)])?;
/// assert!(scores.is_anomaly.value(40) && scores.score.value(40) > 50.0);
/// # Ok::<(), tidemill::error::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ewma {
    alpha: f64,
    warmup: u32,
    sides: NormalTail,
    threshold: f64,
    quiet: u32,
}

impl Default for Ewma {
    fn default() -> Self {
        Self { alpha: 0.05, warmup: 30, sides: NormalTail::Both, threshold: 1e-3, quiet: 150 }
    }
}

impl Ewma {
    /// The default settings with another weight of the newest value, between 0 and 1: the detector's memory is
    /// about `2 / alpha` points.
    pub fn alpha(self, alpha: f64) -> Result<Self> {
        if alpha > 0.0 && alpha < 1.0 {
            return Ok(Self { alpha, ..self });
        }
        let message = format!("alpha is the weight of the newest value, between 0 and 1, found {alpha}");
        Err(Error::config(message).help("pass, say, 0.05"))
    }

    /// With another number of values to learn before the first score: 2 at least, as a variance needs.
    pub fn warmup(self, warmup: u32) -> Result<Self> {
        if warmup >= 2 {
            return Ok(Self { warmup, ..self });
        }
        let message = format!(
            "warmup is the number of values learnt before the first score, 2 or more, found {warmup}"
        );
        Err(Error::config(message).help("pass, say, 30"))
    }

    /// With the sides of the mean on which a value is anomalous.
    #[must_use]
    pub fn sides(self, sides: NormalTail) -> Self {
        Self { sides, ..self }
    }

    /// With another accepted probability of a false alarm, between 0 and 1.
    pub fn accepting(self, threshold: f64) -> Result<Self> {
        check_threshold(threshold).map(|()| Self { threshold, ..self })
    }

    /// With another number of points that an alarm must exceed; with 0 every improbable point is an alarm.
    #[must_use]
    pub fn quiet(self, quiet: u32) -> Self {
        Self { quiet, ..self }
    }

    fn pipeline(self, threshold: f64, keys: Vec<Moments>, loud: Loud) -> Box<dyn States> {
        let scorer = EwmaScore { settings: self, keys };
        Box::new(Pipeline::new(scorer, self.sides, loud, threshold))
    }
}

impl Detector for Ewma {
    fn name(&self) -> &'static str {
        "Ewma"
    }

    fn parameters(&self) -> Vec<(&'static str, Parameter)> {
        vec![
            ("alpha", Parameter::Float(self.alpha)),
            ("warmup", Parameter::Count(self.warmup.into())),
            ("two_sided", Parameter::Flag(self.sides == NormalTail::Both)),
            ("threshold", Parameter::Float(self.threshold)),
            ("quiet", Parameter::Count(self.quiet.into())),
        ]
    }

    fn features(&self) -> Features {
        Features::One
    }

    fn threshold(&self) -> f64 {
        self.threshold
    }

    fn bytes_per_key(&self, _: usize) -> usize {
        size_of::<Moments>() + Loud::BYTES_PER_KEY
    }

    fn start(&self, _: usize, threshold: f64) -> Result<Box<dyn States>> {
        Ok(self.pipeline(threshold, Vec::new(), Loud::new(self.quiet)))
    }

    fn restore(&self, _: usize, threshold: f64, states: &RecordBatch) -> Result<Box<dyn States>> {
        let before = check_metadata(states, self.name(), VERSION)?;
        Ok(self.pipeline(threshold, moments(states)?, Loud::restore(self.quiet, before, states)?))
    }
}

/// What is learnt of one key.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    mean: f64,
    variance: f64,
    seen: u64,
}

impl Moments {
    /// The score of a value, then the value is learnt; NaN until so many were.
    #[inline]
    fn score_then_learn(&mut self, value: f64, settings: &Ewma) -> f64 {
        if self.seen == 0 {
            *self = Self { mean: value, variance: 0.0, seen: 1 };
            return f64::NAN;
        }
        let off = value - self.mean;
        let score = if self.seen < u64::from(settings.warmup) { f64::NAN } else { self.deviations(off) };
        let step = settings.alpha * off;
        let variance = (1.0 - settings.alpha) * (self.variance + step * off);
        self.variance = if variance < SMALLEST_VARIANCE { 0.0 } else { variance };
        self.mean += step;
        self.seen += 1;
        score
    }

    #[inline]
    fn deviations(&self, off: f64) -> f64 {
        let deviation = self.variance.sqrt().max(ROUNDING * self.mean.abs());
        // Nothing off by nothing is 0, and something off by nothing is at the bound: never NaN.
        if off == 0.0 { 0.0 } else { (off / deviation).clamp(-LARGEST_SCORE, LARGEST_SCORE) }
    }
}

/// Stage two of the pipeline.
#[derive(Debug)]
struct EwmaScore {
    settings: Ewma,
    keys: Vec<Moments>,
}

impl Score for EwmaScore {
    fn detector(&self) -> (&'static str, u32) {
        (self.settings.name(), VERSION)
    }

    fn keys(&self) -> usize {
        self.keys.len()
    }

    fn grow(&mut self, keys: usize) {
        if keys > self.keys.len() {
            self.keys.resize(keys, Moments::default());
        }
    }

    fn score_then_learn(&mut self, slots: &[u32], features: &[Vec<f64>], out: &mut RawScores) {
        let Some(values) = features.first() else { return };
        let settings = self.settings;
        let one_sided = settings.sides == NormalTail::Upper;
        out.score.extend(slots.iter().zip(values).map(
            |(slot, value)| match self.keys.get_mut(*slot as usize) {
                Some(moments) if !value.is_nan() => {
                    let score = moments.score_then_learn(*value, &settings);
                    if one_sided { score } else { score.abs() }
                }
                _ => f64::NAN,
            },
        ));
    }

    fn columns(&self) -> Result<Vec<(Field, ArrayRef)>> {
        let float =
            |read: fn(&Moments) -> f64| Arc::new(self.keys.iter().map(read).collect::<Float64Array>()) as _;
        let seen: UInt64Array = self.keys.iter().map(|moments| moments.seen).collect();
        Ok(vec![
            (Field::new("mean", DataType::Float64, false), float(|moments| moments.mean)),
            (Field::new("variance", DataType::Float64, false), float(|moments| moments.variance)),
            (Field::new("seen", DataType::UInt64, false), Arc::new(seen)),
        ])
    }

    fn bytes(&self) -> usize {
        self.keys.capacity() * size_of::<Moments>()
    }

    fn copied(&self, slots: &[u32]) -> Self {
        let moments = |slot: &u32| self.keys.get(*slot as usize).copied().unwrap_or_default();
        Self { settings: self.settings, keys: slots.iter().map(moments).collect() }
    }
}

fn moments(states: &RecordBatch) -> Result<Vec<Moments>> {
    let mean = column(states, "mean", &DataType::Float64)?.as_primitive::<Float64Type>();
    let variance = column(states, "variance", &DataType::Float64)?.as_primitive::<Float64Type>();
    let seen = column(states, "seen", &DataType::UInt64)?.as_primitive::<UInt64Type>();
    let rows = mean.values().iter().zip(variance.values()).zip(seen.values());
    let keys: Vec<_> = rows
        .map(|((mean, variance), seen)| Moments { mean: *mean, variance: *variance, seen: *seen })
        .collect();
    match keys.iter().find(|key| !key.mean.is_finite() || !key.variance.is_finite() || key.variance < 0.0) {
        None => Ok(keys),
        Some(found) => Err(damaged(format!("a finite mean and variance were expected, found {found:?}"))),
    }
}

/// The raw scores of one key's values by a detector that starts afresh: what the benchmark times, with no stage
/// before or after it. NaN where there is none.
pub fn raw_scores(settings: Ewma, values: &[f64], out: &mut Vec<f64>) {
    let mut moments = Moments::default();
    out.clear();
    out.extend(values.iter().map(|value| moments.score_then_learn(*value, &settings)));
}

//! What every detector must do, as checks that any detector can be put through.
//!
//! [`failures`] names each check that does not hold, with what was seen. The suite deliberately judges no detector's
//! quality: a useless detector that is causal, isolated and deterministic passes all but the sign of its scores.

use std::fmt;

use arrow::array::{Array, Float64Array, RecordBatch};

use crate::detect::{Detector, Features, Scores, States};
use crate::error::Result;

/// A check that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The name of the check.
    pub check: &'static str,
    /// What was expected and what was seen.
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.reason)
    }
}

/// Whether a check holds; if not, what was seen.
type Verdict = Result<(), String>;
type Check = (&'static str, fn(&dyn Detector) -> Verdict);

/// The checks, by name.
const CHECKS: [Check; 12] = [
    ("causal", causal),
    ("batch-size invariant", batch_size_invariant),
    ("key-isolated", key_isolated),
    ("restored state continues identically", restored_state_continues),
    ("state needs no more bytes than stated", state_is_as_small_as_stated),
    ("what is not finite gets no score and is not learnt", not_finite_is_ignored),
    ("constant input", constant_input),
    ("one value, or none", one_value_or_none),
    ("huge values", huge_values),
    ("deterministic", deterministic),
    ("score sign", score_sign),
    ("scores and probabilities agree", scores_and_probabilities_agree),
];

/// The checks that `detector` does not pass; empty for a good one.
///
/// ```
/// use tidemill::detect::{contract::failures, ewma::Ewma};
/// assert_eq!(failures(&Ewma::default()), []);
/// ```
pub fn failures(detector: &dyn Detector) -> Vec<Failure> {
    let verdicts = CHECKS.iter().map(|(check, holds)| (*check, holds(detector)));
    verdicts.filter_map(|(check, verdict)| Some(Failure { check, reason: verdict.err()? })).collect()
}

/// Rows as a detector gets them.
#[derive(Clone)]
struct Rows {
    slots: Vec<u32>,
    features: Vec<Vec<f64>>,
}

impl Rows {
    /// Plain noise of one key, the same in every run.
    fn noise(detector: &dyn Detector, rows: usize) -> Self {
        let count = width(detector);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let features = (0..count).map(|_| (0..rows).map(|_| 20.0 + random.normal()).collect()).collect();
        Self { slots: vec![0; rows], features }
    }

    /// One value again and again in every feature.
    fn repeated(detector: &dyn Detector, value: f64, rows: usize) -> Self {
        Self { slots: vec![0; rows], features: vec![vec![value; rows]; width(detector)] }
    }

    fn len(&self) -> usize {
        self.slots.len()
    }

    /// The rows for which `keep` holds, by number.
    fn filter(&self, keep: impl Fn(usize) -> bool) -> Self {
        fn kept<T: Copy>(all: &[T], keep: impl Fn(usize) -> bool) -> Vec<T> {
            all.iter().enumerate().filter(|(row, _)| keep(*row)).map(|(_, value)| *value).collect()
        }
        Self {
            slots: kept(&self.slots, &keep),
            features: self.features.iter().map(|all| kept(all, &keep)).collect(),
        }
    }

    fn range(&self, from: usize, until: usize) -> Self {
        self.filter(|row| (from..until).contains(&row))
    }

    /// The rows with `value` in every feature of those rows for which `at` holds.
    fn with(mut self, value: f64, at: impl Fn(usize) -> bool) -> Self {
        for feature in &mut self.features {
            feature.iter_mut().enumerate().filter(|(row, _)| at(*row)).for_each(|(_, old)| *old = value);
        }
        self
    }

    fn in_slot(mut self, slot: u32) -> Self {
        self.slots.fill(slot);
        self
    }
}

fn width(detector: &dyn Detector) -> usize {
    match detector.features() {
        Features::One => 1,
        Features::Many => 3,
    }
}

/// Numbers that look random and are the same everywhere (xorshift).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Of mean 0 and variance 1: twelve uniform numbers come near enough.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

/// What was said of one row, in bits: equal means equal to the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    score: Option<u64>,
    p_value: Option<u64>,
    is_anomaly: bool,
    top_feature: Option<u32>,
}

impl Row {
    fn score(&self) -> Option<f64> {
        self.score.map(f64::from_bits)
    }

    fn p_value(&self) -> Option<f64> {
        self.p_value.map(f64::from_bits)
    }
}

fn rows_of(scores: &Scores) -> Vec<Row> {
    let top = |row: usize| {
        let top = scores.top_feature.as_ref()?;
        top.is_valid(row).then(|| top.value(row))
    };
    let numbers = scores.score.iter().zip(scores.p_value.iter()).zip(scores.is_anomaly.iter()).enumerate();
    let rows = numbers.map(|(row, ((score, p_value), is_anomaly))| Row {
        score: score.map(f64::to_bits),
        p_value: p_value.map(f64::to_bits),
        is_anomaly: is_anomaly.unwrap_or_default(),
        top_feature: top(row),
    });
    rows.collect()
}

/// One life of a detector: its states, with errors as text.
struct Life(Box<dyn States>);

impl Life {
    fn new(detector: &dyn Detector) -> Result<Self, String> {
        detector.start(width(detector), detector.threshold()).map(Self).map_err(|error| error.to_string())
    }

    fn restored(detector: &dyn Detector, states: &RecordBatch) -> Result<Self, String> {
        let life = detector.restore(width(detector), detector.threshold(), states);
        life.map(Self).map_err(|error| error.to_string())
    }

    fn live(&mut self, rows: &Rows) -> Result<Vec<Row>, String> {
        let features: Vec<Float64Array> = rows.features.iter().cloned().map(Float64Array::from).collect();
        let scores = self.0.update(&rows.slots, &features).map_err(|error| error.to_string())?;
        let (expected, found) = (rows.len(), scores.score.len().min(scores.is_anomaly.len()));
        expect(found == expected, || {
            format!("one score a row was expected, found {found} for {expected} rows")
        })?;
        Ok(rows_of(&scores))
    }

    fn state(&self) -> Result<RecordBatch, String> {
        self.0.to_arrow().map_err(|error| error.to_string())
    }
}

fn score(detector: &dyn Detector, rows: &Rows) -> Result<Vec<Row>, String> {
    Life::new(detector)?.live(rows)
}

fn expect(holds: bool, reason: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(reason()) }
}

fn same(expected: &[Row], found: &[Row]) -> Verdict {
    expect(expected.len() == found.len(), || {
        format!("{} scores were expected, found {}", expected.len(), found.len())
    })?;
    match expected.iter().zip(found).position(|(expected, found)| expected != found) {
        None => Ok(()),
        Some(row) => {
            let show = |rows: &[Row]| rows.get(row).map(|row| (row.score(), row.p_value(), row.is_anomaly));
            Err(format!("row {row}: {:?} was expected, found {:?}", show(expected), show(found)))
        }
    }
}

fn causal(detector: &dyn Detector) -> Verdict {
    let rows = Rows::noise(detector, 1_000).with(90.0, |row| row == 700);
    let whole = score(detector, &rows)?;
    for length in [1, 100, 500, 701] {
        let prefix = score(detector, &rows.range(0, length))?;
        same(whole.get(..length).unwrap_or_default(), &prefix)?;
    }
    Ok(())
}

fn batch_size_invariant(detector: &dyn Detector) -> Verdict {
    let mut rows =
        Rows::noise(detector, 1_000).with(90.0, |row| row == 700).with(f64::NAN, |row| row % 97 == 0);
    rows.slots = (0..1_000).map(|row| row % 7 / 3).collect();
    let whole = score(detector, &rows)?;
    for size in [1, 7, 300] {
        let (mut life, mut parts) = (Life::new(detector)?, Vec::new());
        for from in (0..rows.len()).step_by(size) {
            parts.extend(life.live(&rows.range(from, from + size))?);
        }
        same(&whole, &parts).map_err(|reason| format!("in batches of {size}, {reason}"))?;
    }
    Ok(())
}

fn key_isolated(detector: &dyn Detector) -> Verdict {
    let mut rows = Rows::noise(detector, 1_200).with(1e6, |row| row % 3 == 1 && row > 600);
    rows.slots = (0..1_200).map(|row| row % 3).collect();
    let together = score(detector, &rows)?;
    for slot in 0..3 {
        let of_slot = |row: usize| rows.slots.get(row) == Some(&slot);
        let alone = score(detector, &rows.filter(of_slot).in_slot(0))?;
        let among: Vec<Row> = together
            .iter()
            .enumerate()
            .filter(|(row, _)| of_slot(*row))
            .map(|(_, row)| row.clone())
            .collect();
        same(&alone, &among).map_err(|reason| format!("key {slot}, {reason}"))?;
    }
    Ok(())
}

fn restored_state_continues(detector: &dyn Detector) -> Verdict {
    let mut rows = Rows::noise(detector, 1_500).with(90.0, |row| row == 740 || row == 800);
    rows.slots = (0..1_500).map(|row| row % 2).collect();
    for cut in [0, 1, 25, 750] {
        let mut first = Life::new(detector)?;
        first.live(&rows.range(0, cut))?;
        let mut second = Life::restored(detector, &first.state()?)?;
        let rest = rows.range(cut, rows.len());
        let (expected, found) = (first.live(&rest)?, second.live(&rest)?);
        same(&expected, &found).map_err(|reason| format!("restored after {cut} rows, {reason}"))?;
        expect(first.state()? == second.state()?, || {
            format!("after {cut} rows and all the rest the states differ")
        })?;
    }
    Ok(())
}

fn state_is_as_small_as_stated(detector: &dyn Detector) -> Verdict {
    const KEYS: u32 = 1_000;
    let mut rows = Rows::noise(detector, KEYS as usize);
    rows.slots = (0..KEYS).collect();
    let mut life = Life::new(detector)?;
    life.live(&rows)?;
    let (found, stated) = (life.0.bytes() / KEYS as usize, detector.bytes_per_key(width(detector)));
    expect(life.0.len() == KEYS as usize, || {
        format!("states of {KEYS} keys were expected, found {}", life.0.len())
    })?;
    expect(found <= stated, || format!("{stated} B a key were stated, found {found} B"))
}

fn not_finite_is_ignored(detector: &dyn Detector) -> Verdict {
    let strange = |row: usize| row % 5 == 2;
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let rows = Rows::noise(detector, 1_000).with(90.0, |row| row == 700);
        let found = score(detector, &rows.clone().with(value, strange))?;
        let without = score(detector, &rows.filter(|row| !strange(row)))?;
        let of = |wanted: bool| found.iter().enumerate().filter(move |(row, _)| strange(*row) == wanted);
        let silent = |row: &Row| row.score.is_none() && row.p_value.is_none() && !row.is_anomaly;
        expect(of(true).all(|(_, row)| silent(row)), || format!("{value} was expected to get no score"))?;
        let others: Vec<Row> = of(false).map(|(_, row)| row.clone()).collect();
        same(&without, &others).map_err(|reason| format!("with {value} between, {reason}"))?;
    }
    Ok(())
}

fn constant_input(detector: &dyn Detector) -> Verdict {
    for value in [0.0, 21.3, -1e9] {
        let found =
            score(detector, &Rows::repeated(detector, value, 2_000).with(value + 1.0, |row| row == 1_900))?;
        all_finite(&found).map_err(|reason| format!("constant {value}: {reason}"))?;
        let early = found.iter().take(1_900).position(|row| row.is_anomaly);
        expect(early.is_none(), || {
            format!("constant {value}: no alarm was expected, found one at row {early:?}")
        })?;
    }
    Ok(())
}

fn one_value_or_none(detector: &dyn Detector) -> Verdict {
    let none = score(detector, &Rows::noise(detector, 0))?;
    expect(none.is_empty(), || format!("no score was expected of no row, found {}", none.len()))?;
    let one = score(detector, &Rows::noise(detector, 1))?;
    expect(one.iter().all(|row| !row.is_anomaly), || "no alarm was expected of the first value".to_owned())
}

fn huge_values(detector: &dyn Detector) -> Verdict {
    let rows = Rows::noise(detector, 1_000)
        .with(f64::MAX, |row| row % 50 == 10)
        .with(f64::MIN, |row| row % 50 == 11);
    all_finite(&score(detector, &rows.with(f64::MIN_POSITIVE, |row| row % 50 == 12))?)
}

/// A score is finite where there is one, and there is one in the end.
fn all_finite(found: &[Row]) -> Verdict {
    let strange = found.iter().position(|row| row.score().is_some_and(|score| !score.is_finite()));
    expect(strange.is_none(), || format!("a finite score was expected, found none such at row {strange:?}"))?;
    let last = found.last().and_then(Row::score);
    expect(last.is_some(), || format!("a score was expected after {} values, found null", found.len()))
}

fn deterministic(detector: &dyn Detector) -> Verdict {
    let rows = Rows::noise(detector, 1_000).with(90.0, |row| row == 700);
    same(&score(detector, &rows)?, &score(detector, &rows)?)
}

fn score_sign(detector: &dyn Detector) -> Verdict {
    const SPIKE: usize = 900;
    let found = score(detector, &Rows::noise(detector, 1_000).with(120.0, |row| row == SPIKE))?;
    let spike = found.get(SPIKE).and_then(Row::score);
    let before = found.iter().take(SPIKE).filter_map(Row::score).fold(f64::NEG_INFINITY, f64::max);
    expect(spike > Some(before), || {
        format!("a value 100 deviations above noise was expected to score above {before}, found {spike:?}")
    })?;
    let alarm = found.get(SPIKE).is_some_and(|row| row.is_anomaly);
    expect(alarm, || "a value 100 deviations above noise was expected to be an anomaly".to_owned())
}

fn scores_and_probabilities_agree(detector: &dyn Detector) -> Verdict {
    let found = score(detector, &Rows::noise(detector, 3_000).with(90.0, |row| row % 700 == 699))?;
    for (number, row) in found.iter().enumerate() {
        let p_value = row.p_value();
        expect(p_value.is_none_or(|p| (0.0..=1.0).contains(&p)), || {
            format!("row {number}: a probability was expected, found {p_value:?}")
        })?;
        expect(!row.is_anomaly || p_value.is_some_and(|p| p < detector.threshold()), || {
            format!(
                "row {number}: an alarm was expected below {} only, found p {p_value:?}",
                detector.threshold()
            )
        })?;
        expect(row.score.is_some() || p_value.is_none(), || {
            format!("row {number}: a probability, but no score")
        })?;
    }
    monotonic(&found)
}

/// A higher score is never more probable.
fn monotonic(found: &[Row]) -> Verdict {
    let mut pairs: Vec<(f64, f64)> =
        found.iter().filter_map(|row| Some((row.score()?, row.p_value()?))).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let falling = |pair: &[(f64, f64)]| matches!(pair, [(s, p), (t, q)] if q <= p || t <= s);
    expect(pairs.windows(2).all(falling), || "a higher score was expected to be less probable".to_owned())
}

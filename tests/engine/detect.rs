//! Detectors do what every detector must, and `detect` gives each key its own.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail as its assertions do"
)]
#![expect(clippy::float_cmp, reason = "scores are compared to the last bit")]

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use tidemill::detect::calibrate::NormalTail;
use tidemill::detect::contract::failures;
use tidemill::detect::ewma::{Ewma, LARGEST_SCORE};
use tidemill::detect::{DetectSpec, Detector, Features, Parameter, Scores, States};
use tidemill::error::{ErrorKind, Result};
use tidemill::exec::detect::DetectOperator;
use tidemill::exec::keyed::KeyedOperator;
use tidemill::state::key::{KeyEncoder, Keys};

fn scores(ewma: Ewma, values: impl Into<Float64Array>) -> Scores {
    let values = values.into();
    ewma.start(1, ewma.threshold()).unwrap().update(&vec![0; values.len()], &[values]).unwrap()
}

#[test]
fn ewma_keeps_the_contract_with_any_settings() {
    let settings = [
        Ewma::default(),
        Ewma::default().sides(NormalTail::Upper),
        Ewma::default().alpha(0.5).unwrap().warmup(2).unwrap(),
        Ewma::default().alpha(1e-3).unwrap().quiet(0),
        Ewma::default().quiet(7).accepting(1e-6).unwrap(),
    ];
    for ewma in settings {
        assert_eq!(failures(&ewma), [], "{ewma:?}");
    }
}

/// Of river 0.26: `z = abs(x - mean.get()) / sqrt(var.get())` before `mean.update(x)` and `var.update(x)`, with
/// `mean = stats.EWMean(0.05)` and `var = stats.EWVar(0.05)`.
const RIVER: [(f64, f64); 40] = [
    (19.232, 0.0),
    (21.534, 0.0),
    (19.322, 0.050_028_974_110),
    (19.055, 0.594_730_898_338),
    (17.21, 4.411_568_368_104),
    (19.36, 0.204_702_459_045),
    (23.336, 6.389_222_313_176),
    (21.272, 1.680_561_991_701),
    (23.111, 3.151_014_707_329),
    (20.747, 0.766_529_817_110),
    (21.184, 1.062_410_275_999),
    (20.556, 0.539_789_889_277),
    (15.002, 3.690_688_312_511),
    (22.566, 1.765_858_187_594),
    (21.519, 1.001_135_225_348),
    (21.496, 0.939_027_645_981),
    (14.926, 2.887_530_406_699),
    (14.768, 2.442_815_075_838),
    (17.331, 0.944_153_375_059),
    (18.595, 0.333_344_791_114),
    (20.916, 0.741_334_469_968),
    (19.862, 0.223_163_694_577),
    (21.563, 1.027_023_211_673),
    (18.073, 0.685_747_334_031),
    (20.926, 0.716_656_045_657),
    (21.182, 0.814_910_356_001),
    (18.017, 0.780_959_815_366),
    (25.153, 2.810_408_243_543),
    (21.67, 0.809_766_414_791),
    (23.591, 1.617_156_146_664),
    (58.139, 16.066_983_299_372),
    (17.781, 0.488_003_356_320),
    (18.968, 0.332_232_472_335),
    (19.681, 0.236_514_991_377),
    (21.896, 0.044_842_110_341),
    (20.745, 0.102_926_039_903),
    (18.658, 0.372_999_355_292),
    (17.129, 0.566_570_616_128),
    (18.438, 0.369_843_517_772),
    (23.663, 0.367_238_470_941),
];

#[test]
fn ewma_scores_as_the_published_formula_does() {
    let ewma = Ewma::default().warmup(2).unwrap();
    let found = scores(ewma, RIVER.map(|(value, _)| value).to_vec());
    for (row, (_, expected)) in RIVER.iter().enumerate().skip(2) {
        let off = (found.score.value(row) - expected).abs() / expected.max(1.0);
        assert!(off < 1e-9, "row {row}: {expected} was expected, found {}", found.score.value(row));
        assert_eq!(found.p_value.value(row), NormalTail::Both.p_value(found.score.value(row)));
    }
}

/// Weighted mean and variance from all values so far, nothing recursive: the newest has the weight `alpha`, each
/// before it `1 - alpha` of its successor's, and the first what is left.
fn by_definition(alpha: f64, seen: &[f64], value: f64) -> f64 {
    let age = |row: usize| (1.0 - alpha).powf((seen.len() - 1 - row) as f64);
    let weight = |row: usize| if row == 0 { age(row) } else { alpha * age(row) };
    let weighted =
        |of: &dyn Fn(f64) -> f64| seen.iter().enumerate().map(|(row, x)| weight(row) * of(*x)).sum::<f64>();
    let mean = weighted(&|x| x);
    (value - mean).abs() / weighted(&|x| (x - mean).powi(2)).sqrt()
}

#[test]
fn mean_and_variance_are_weighted_by_alpha() {
    let values: Vec<f64> = (0..200).map(|row| 1e6 + f64::from(row * 7919 % 101)).collect();
    for alpha in [0.01, 0.3, 0.9] {
        let found = scores(Ewma::default().alpha(alpha).unwrap(), values.clone());
        for row in 30..200 {
            let expected = by_definition(alpha, &values[..row], values[row]);
            assert!((found.score.value(row) / expected - 1.0).abs() < 1e-6, "alpha {alpha}, row {row}");
        }
    }
}

#[test]
fn nothing_is_scored_until_warm() {
    let found = scores(Ewma::default(), (0..40).map(f64::from).collect::<Vec<_>>());
    let scored: Vec<bool> = found.score.iter().map(|score| score.is_some()).collect();
    assert_eq!(scored, (0..40).map(|row| row >= 30).collect::<Vec<_>>());
    assert_eq!(found.p_value.nulls(), found.score.nulls());
    assert_eq!(found.is_anomaly.null_count(), 0);
}

#[test]
fn a_value_off_a_constant_has_the_largest_score() {
    let mut values = vec![0.0; 100];
    values.push(1e-9);
    let found = scores(Ewma::default(), values);
    assert_eq!((found.score.value(99), found.score.value(100)), (0.0, LARGEST_SCORE));
    assert!(found.is_anomaly.value(100) && found.p_value.value(100) > 0.0);
}

#[test]
fn the_rounding_of_floats_is_no_anomaly() {
    let values: Vec<f64> =
        (0..500).map(|row| if row % 50 == 49 { 20.1_f64.next_up() } else { 20.1 }).collect();
    let found = scores(Ewma::default(), values);
    assert_eq!(found.is_anomaly.true_count(), 0);
}

#[test]
fn only_high_values_are_anomalous_on_one_side() {
    let noise = || (0..200).map(|row| 20.0 + f64::from(row % 7));
    let (low, high) = (noise().chain([-50.0]), noise().chain([90.0]));
    let one_sided = Ewma::default().sides(NormalTail::Upper);
    assert!(!scores(one_sided, low.clone().collect::<Vec<_>>()).is_anomaly.value(200));
    assert!(scores(one_sided, high.collect::<Vec<_>>()).is_anomaly.value(200));
    assert!(scores(Ewma::default(), low.collect::<Vec<_>>()).is_anomaly.value(200));
}

#[test]
fn an_event_of_many_points_is_one_alarm() {
    let values = (0..400).map(|row| if (200..210).contains(&row) { 90.0 } else { 20.0 + f64::from(row % 7) });
    let values: Vec<f64> = values.collect();
    assert_eq!(scores(Ewma::default(), values.clone()).is_anomaly.true_count(), 1);
    assert!(scores(Ewma::default().quiet(0), values).is_anomaly.true_count() > 1);
}

#[test]
fn wrong_settings_are_named() {
    let texts = [
        Ewma::default().alpha(1.0).unwrap_err(),
        Ewma::default().alpha(f64::NAN).unwrap_err(),
        Ewma::default().warmup(1).unwrap_err(),
        Ewma::default().accepting(0.0).unwrap_err(),
    ]
    .map(|error| {
        assert!(error.is_config());
        error.to_string()
    });
    assert!(texts[0].starts_with("alpha is the weight of the newest value, between 0 and 1, found 1"));
    assert!(
        texts[1].contains("found NaN")
            && texts[2].starts_with("warmup is")
            && texts[3].starts_with("threshold is")
    );
}

#[test]
fn what_was_learnt_outlives_a_change_of_settings() {
    let values: Vec<f64> = (0..100).map(|row| 20.0 + f64::from(row % 7)).collect();
    let before = Ewma::default();
    let mut states = before.start(1, 1e-3).unwrap();
    states.update(&[0; 100], &[Float64Array::from(values)]).unwrap();
    states.update(&[0], &[Float64Array::from(vec![90.0])]).unwrap();
    let after = before.quiet(40).alpha(0.1).unwrap();
    let mut states = after.restore(1, 1e-3, &states.to_arrow().unwrap()).unwrap();
    let again = states.update(&[0, 0], &[Float64Array::from(vec![40.0, 120.0])]).unwrap();
    assert!(again.score.is_valid(0) && !again.is_anomaly.value(0), "an alarm that was heard still quiets");
}

#[test]
fn the_state_of_another_detector_or_a_damaged_one_is_refused() {
    let ewma = Ewma::default();
    let mut states = ewma.start(1, 1e-3).unwrap();
    states.update(&[0, 1], &[Float64Array::from(vec![1.0, 2.0])]).unwrap();
    let good = states.to_arrow().unwrap();
    let with = |name: &str, column: ArrayRef| {
        let mut columns = good.columns().to_vec();
        columns[good.schema().index_of(name).unwrap()] = column;
        RecordBatch::try_new(good.schema(), columns).unwrap()
    };
    let bare =
        RecordBatch::try_new(Arc::new(Schema::new(good.schema().fields().clone())), good.columns().to_vec());
    let damaged = [
        with("variance", Arc::new(Float64Array::from(vec![-1.0, 0.0]))),
        with("mean", Arc::new(Float64Array::from(vec![f64::NAN, 0.0]))),
        with("loud_oldest", Arc::new(UInt32Array::from(vec![16, 0]))),
        with("loud_filled", Arc::new(UInt32Array::from(vec![0, 9]))),
        good.project(&[0, 1, 2]).unwrap(),
        bare.unwrap(),
    ];
    for states in damaged {
        let error = ewma.restore(1, 1e-3, &states).err().expect("it is damaged");
        assert_eq!(error.kind(), ErrorKind::Checkpoint, "{error}");
    }
    assert!(ewma.restore(1, 1e-3, &good).is_ok());
}

#[test]
fn no_input_makes_a_score_that_is_not_finite() {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..500 {
        let values: Vec<f64> = (0..random.usize(..300)).map(|_| f64::from_bits(random.u64(..))).collect();
        let found = scores(Ewma::default().warmup(2).unwrap(), values.clone());
        assert!(found.score.iter().flatten().all(|score| (0.0..=LARGEST_SCORE).contains(&score)));
        assert!(found.p_value.iter().flatten().all(|p| p > 0.0 && p <= 1.0));
        let silent = |row: usize| values[row].is_finite() || found.score.is_null(row);
        assert!((0..values.len()).all(silent));
    }
}

/// Ewma with a fault, to see that the contract finds it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Scores by the batch's own last value.
    LooksAhead,
    /// All keys share one state.
    MixesKeys,
    /// Starts each batch afresh.
    ForgetsBetweenBatches,
    /// A restored state is a fresh one.
    ForgetsWhenRestored,
    /// Takes an infinite value for a huge one.
    LearnsInfinity,
    /// High scores are normal.
    UpsideDown,
    /// Fewer bytes are stated than needed.
    Understates,
    /// Alarms where it should not.
    AlarmsAlways,
}

#[derive(Debug)]
struct Faulty(Fault);

struct FaultyStates {
    fault: Fault,
    inner: Box<dyn States>,
}

impl Detector for Faulty {
    fn name(&self) -> &'static str {
        "Faulty"
    }
    fn parameters(&self) -> Vec<(&'static str, Parameter)> {
        Vec::new()
    }
    fn features(&self) -> Features {
        Features::One
    }
    fn threshold(&self) -> f64 {
        1e-3
    }
    fn bytes_per_key(&self, features: usize) -> usize {
        if self.0 == Fault::Understates { 48 } else { Ewma::default().bytes_per_key(features) }
    }
    fn start(&self, features: usize, threshold: f64) -> Result<Box<dyn States>> {
        Ok(Box::new(FaultyStates { fault: self.0, inner: Ewma::default().start(features, threshold)? }))
    }
    fn restore(&self, features: usize, threshold: f64, states: &RecordBatch) -> Result<Box<dyn States>> {
        if self.0 == Fault::ForgetsWhenRestored {
            return self.start(features, threshold);
        }
        let inner = Ewma::default().restore(features, threshold, states)?;
        Ok(Box::new(FaultyStates { fault: self.0, inner }))
    }
}

impl States for FaultyStates {
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn update(&mut self, slots: &[u32], features: &[Float64Array]) -> Result<Scores> {
        let values = &features[0];
        let zeros = vec![0; slots.len()];
        let last = values.iter().last().flatten().unwrap_or_default();
        match self.fault {
            Fault::LooksAhead => self.inner.update(slots, &[values.unary(|value| value - last * 1e-6)]),
            Fault::MixesKeys => self.inner.update(&zeros, features),
            Fault::ForgetsBetweenBatches => {
                self.inner = Ewma::default().start(1, 1e-3)?;
                self.inner.update(slots, features)
            }
            Fault::LearnsInfinity => {
                self.inner.update(slots, &[values.unary(|value| value.clamp(-1e9, 1e9))])
            }
            Fault::UpsideDown => {
                let found = self.inner.update(slots, features)?;
                Ok(Scores { score: found.score.unary(|score| -score), ..found })
            }
            Fault::AlarmsAlways => {
                let found = self.inner.update(slots, features)?;
                Ok(Scores { is_anomaly: BooleanArray::from(vec![true; slots.len()]), ..found })
            }
            Fault::ForgetsWhenRestored | Fault::Understates => self.inner.update(slots, features),
        }
    }
    fn to_arrow(&self) -> Result<RecordBatch> {
        self.inner.to_arrow()
    }
    fn bytes(&self) -> usize {
        self.inner.bytes()
    }
}

#[test]
fn the_contract_names_each_fault() {
    let expected = [
        (Fault::LooksAhead, "causal"),
        (Fault::MixesKeys, "key-isolated"),
        (Fault::ForgetsBetweenBatches, "batch-size invariant"),
        (Fault::ForgetsWhenRestored, "restored state continues identically"),
        (Fault::LearnsInfinity, "what is not finite gets no score and is not learnt"),
        (Fault::UpsideDown, "score sign"),
        (Fault::Understates, "state needs no more bytes than stated"),
        (Fault::AlarmsAlways, "constant input"),
    ];
    for (fault, check) in expected {
        let found = failures(&Faulty(fault));
        assert!(found.iter().any(|failure| failure.check == check), "{fault:?}: {found:?}");
    }
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("device", DataType::Utf8, true),
        Field::new("temperature", DataType::Int32, true),
    ]))
}

fn spec() -> DetectSpec {
    let columns = vec!["temperature".to_owned()];
    DetectSpec { columns, detector: Arc::new(Ewma::default()), threshold: None, prefix: String::new() }
}

fn operator() -> DetectOperator {
    DetectOperator::new(spec(), &schema()).unwrap()
}

/// Readings of seven devices and of none, with a spike.
fn readings(count: i32) -> RecordBatch {
    let devices: StringArray =
        (0..count).map(|row| (row % 8 > 0).then(|| format!("device-{}", row % 8))).collect();
    let temperature = |row: i32| if row == count - 3 { 900 } else { 20 + row * 31 % 11 };
    let temperatures: Int32Array = (0..count).map(|row| (row % 13 > 0).then(|| temperature(row))).collect();
    RecordBatch::try_new(schema(), vec![Arc::new(devices), Arc::new(temperatures)]).unwrap()
}

fn keys(rows: &RecordBatch) -> Keys {
    KeyEncoder::new(&schema(), &["device"]).unwrap().encode(rows).unwrap()
}

fn apply(operator: &mut DetectOperator, rows: &RecordBatch, size: usize) -> RecordBatch {
    let parts =
        (0..rows.num_rows()).step_by(size).map(|from| rows.slice(from, size.min(rows.num_rows() - from)));
    let parts: Vec<_> = parts.map(|part| operator.apply(&part, &keys(&part)).unwrap()).collect();
    arrow::compute::concat_batches(operator.schema(), &parts).unwrap()
}

#[test]
fn detect_adds_its_columns_and_leaves_the_others() {
    let rows = readings(2_000);
    let found = operator().apply(&rows, &keys(&rows)).unwrap();
    let names: Vec<_> = found.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["device", "temperature", "score", "p_value", "is_anomaly"]);
    assert!(Arc::ptr_eq(found.column(0), rows.column(0)), "columns are not copied");
    let alarms = found.column_by_name("is_anomaly").unwrap().as_boolean();
    assert_eq!((0..2_000).filter(|row| alarms.value(*row)).collect::<Vec<_>>(), [1_997]);
}

#[test]
fn one_batch_of_a_thousand_is_a_thousand_of_one() {
    let rows = readings(1_000);
    let (mut whole, mut single) = (operator(), operator());
    assert_eq!(apply(&mut whole, &rows, 1_000), apply(&mut single, &rows, 1));
    assert_eq!(whole.snapshot().unwrap(), single.snapshot().unwrap());
}

#[test]
fn a_restored_operator_continues() {
    let rows = readings(1_000);
    let (first, rest) = (rows.slice(0, 600), rows.slice(600, 400));
    let mut before = operator();
    apply(&mut before, &first, 100);
    let mut after = operator();
    after.restore(&before.snapshot().unwrap()).unwrap();
    assert_eq!(apply(&mut before, &rest, 50), apply(&mut after, &rest, 400));
    assert_eq!((before.size().entries, before.snapshot().unwrap()), (8, after.snapshot().unwrap()));
}

#[test]
fn an_operator_keeps_its_state_when_a_snapshot_is_refused() {
    let rows = readings(500);
    let mut operator = operator();
    apply(&mut operator, &rows, 500);
    let saved = operator.snapshot().unwrap();
    assert!(operator.restore(&saved.project(&[0, 1, 2, 3]).unwrap()).is_err());
    assert_eq!(operator.snapshot().unwrap(), saved);
}

#[test]
fn each_key_is_scored_as_if_it_were_alone() {
    let rows = readings(1_600);
    let together = operator().apply(&rows, &keys(&rows)).unwrap();
    let of_device: BooleanArray = (0..1_600).map(|row| Some(row % 8 == 5)).collect();
    let alone = arrow::compute::filter_record_batch(&rows, &of_device).unwrap();
    let alone = operator().apply(&alone, &keys(&alone)).unwrap();
    assert_eq!(arrow::compute::filter_record_batch(&together, &of_device).unwrap(), alone);
    assert!(alone.column(2).as_primitive::<Float64Type>().null_count() < 60);
}

#[test]
fn a_mistaken_detect_says_where() {
    let mistaken = DetectSpec { columns: vec!["device".to_owned()], ..spec() };
    let error = DetectOperator::new(mistaken, &schema()).err().unwrap();
    let text = "column \"device\" was expected to be numeric, found string; cast it, or name another column (detect)";
    assert_eq!(error.to_string(), text);
}

#[test]
fn the_threshold_of_a_stream_goes_before_the_detectors_own() {
    let rows = readings(2_000);
    let bold = DetectSpec { threshold: Some(0.4), ..spec() };
    let found = DetectOperator::new(bold, &schema()).unwrap().apply(&rows, &keys(&rows)).unwrap();
    assert!(found.column_by_name("is_anomaly").unwrap().as_boolean().true_count() > 10);
}

/// Of several columns, the sum: what adds most to it is named.
#[derive(Debug)]
struct Sum;

impl Detector for Sum {
    fn name(&self) -> &'static str {
        "Sum"
    }
    fn parameters(&self) -> Vec<(&'static str, Parameter)> {
        Vec::new()
    }
    fn features(&self) -> Features {
        Features::Many
    }
    fn threshold(&self) -> f64 {
        0.5
    }
    fn bytes_per_key(&self, _: usize) -> usize {
        0
    }
    fn start(&self, _: usize, _: f64) -> Result<Box<dyn States>> {
        Ok(Box::new(NoState))
    }
    fn restore(&self, features: usize, threshold: f64, _: &RecordBatch) -> Result<Box<dyn States>> {
        self.start(features, threshold)
    }
}

struct NoState;

impl States for NoState {
    fn len(&self) -> usize {
        0
    }
    fn update(&mut self, slots: &[u32], features: &[Float64Array]) -> Result<Scores> {
        let rows = 0..slots.len();
        let value = |feature: &Float64Array, row: usize| feature.is_valid(row).then(|| feature.value(row));
        let sum = |row: usize| features.iter().map(|feature| value(feature, row)).sum::<Option<f64>>();
        let top = |row: usize| sum(row).map(|_| u32::from(features[1].value(row) > features[0].value(row)));
        Ok(Scores {
            score: rows.clone().map(sum).collect(),
            p_value: rows.clone().map(|row| sum(row).map(|_| 1.0)).collect(),
            is_anomaly: vec![false; slots.len()].into(),
            top_feature: Some(rows.map(top).collect()),
        })
    }
    fn to_arrow(&self) -> Result<RecordBatch> {
        Ok(RecordBatch::new_empty(Arc::new(Schema::empty())))
    }
    fn bytes(&self) -> usize {
        0
    }
}

#[test]
fn of_several_columns_the_one_that_contributed_most_is_named() {
    let columns = [
        ("device", Arc::new(StringArray::from(vec!["a"; 3])) as ArrayRef),
        ("heat", Arc::new(Float32Array::from(vec![Some(1.0), Some(5.0), None]))),
        ("noise", Arc::new(Int64Array::from(vec![3, 2, 1]))),
    ];
    let rows =
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    let columns = vec!["heat".to_owned(), "noise".to_owned()];
    let spec = DetectSpec { columns, detector: Arc::new(Sum), threshold: None, prefix: "x_".to_owned() };
    let keys = KeyEncoder::new(&rows.schema(), &["device"]).unwrap().encode(&rows).unwrap();
    let found = DetectOperator::new(spec, &rows.schema()).unwrap().apply(&rows, &keys).unwrap();
    let top: Vec<_> = found.column_by_name("x_top_feature").unwrap().as_string::<i32>().iter().collect();
    assert_eq!(top, [Some("noise"), Some("heat"), None]);
    assert_eq!(found.column_by_name("x_score").unwrap().as_primitive::<Float64Type>().value(1), 7.0);
}

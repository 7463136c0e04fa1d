//! How many points a second a detector scores, alone and as the whole operator; prints one JSON line a figure.
//!
//! It deliberately compares with nothing: what it is to reach are rates, and other libraries' are of Python.
#![expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "constants of this file")]

mod figure;

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use serde_json::{Value, json};
use tidemill::detect::calibrate::{Calibrate, NormalTail};
use tidemill::detect::ewma::{Ewma, raw_scores};
use tidemill::detect::loud::Loud;
use tidemill::detect::{DetectSpec, Detector};
use tidemill::error::Result;
use tidemill::exec::detect::DetectOperator;
use tidemill::exec::keyed::KeyedOperator;
use tidemill::state::key::KeyEncoder;
use tidemill::state::table::KeyTable;
use tidemill::time::SystemClock;

use crate::figure::{Figure, Rounds};

const POINTS: usize = 16_384;
const CHUNKS: usize = 10;
const KEYS: usize = 1_000;
const ROUNDS: usize = 15;

fn main() -> Result<()> {
    let bench = Bench { clock: SystemClock::new(), chunks: chunks(KEYS)?, values: noise(POINTS * CHUNKS) };
    bench.stages()?;
    bench.keys()?;
    bench.operator("detect with Ewma, 1,000 keys", "≥ 10 M", &bench.chunks)?;
    bench.operator("detect with Ewma, 100,000 keys", "", &chunks(100 * KEYS)?)
}

struct Bench {
    clock: SystemClock,
    chunks: Vec<RecordBatch>,
    values: Vec<f64>,
}

impl Bench {
    /// The stages of the detector, one by one and together.
    fn stages(&self) -> Result<()> {
        let (mut scores, mut p_values) = (Vec::new(), Vec::new());
        self.report("Ewma, raw scores of one key", "≥ 50 M", || {
            raw_scores(Ewma::default(), black_box(&self.values), &mut scores);
            Ok(())
        })?;
        self.report("p-values of the normal tail", "", || {
            NormalTail::Both.p_values(&[], black_box(&scores), &mut p_values);
            Ok(())
        })?;
        let slots: Vec<u32> = (0..POINTS * CHUNKS).map(|row| device(row, KEYS) as u32).collect();
        let mut loud = Loud::new(150);
        loud.grow(KEYS);
        self.report("loud", "", || {
            black_box(loud.alarms(&slots, &scores, &p_values, 1e-3));
            Ok(())
        })?;
        let (ewma, column) = (Ewma::default(), [Float64Array::from(self.values.clone())]);
        let mut states = ewma.start(1, ewma.threshold())?;
        self.report("Ewma, states of 1,000 keys", "", || states.update(&slots, &column).map(drop))
    }

    /// From the key column to the slots of its rows.
    fn keys(&self) -> Result<()> {
        let encoder = self.encoder()?;
        self.report("encoding of keys", "", || {
            self.chunks.iter().try_for_each(|rows| encoder.encode(rows).map(|keys| drop(black_box(keys))))
        })?;
        let keys = self.chunks.iter().map(|rows| encoder.encode(rows)).collect::<Result<Vec<_>>>()?;
        let (mut table, mut slots) = (KeyTable::default(), Vec::new());
        self.report("slots of 1,000 keys", "", || {
            keys.iter().try_for_each(|keys| table.slots(keys, &mut slots))
        })
    }

    /// From a chunk to the chunk with scores, keys included; soon warm, so that rare keys are scored too.
    fn operator(&self, name: &str, reach: &str, chunks: &[RecordBatch]) -> Result<()> {
        let encoder = self.encoder()?;
        let (columns, detector) = (vec!["temperature".to_owned()], Arc::new(Ewma::default().warmup(2)?));
        let spec = DetectSpec { columns, detector, threshold: None, prefix: String::new() };
        let mut operator = DetectOperator::new(spec, &chunks[0].schema())?;
        let rounds = rounds(&self.clock, || {
            chunks.iter().try_for_each(|rows| {
                let scored = operator.apply(rows, &encoder.encode(rows)?)?;
                drop(black_box(scored));
                Ok(())
            })
        })?;
        let (keys, bytes) = (operator.size().entries, operator.size().bytes);
        print(name, reach, &rounds, json!({"keys": keys, "bytes a key": bytes / keys.max(1)}));
        Ok(())
    }

    fn encoder(&self) -> Result<KeyEncoder> {
        KeyEncoder::new(&self.chunks[0].schema(), &["device"])
    }

    fn report(&self, name: &str, reach: &str, round: impl FnMut() -> Result<()>) -> Result<()> {
        print(name, reach, &rounds(&self.clock, round)?, json!({}));
        Ok(())
    }
}

/// Some rounds, each over all points, after one to warm up.
fn rounds(clock: &SystemClock, mut round: impl FnMut() -> Result<()>) -> Result<Rounds> {
    round()?;
    let mut rounds = Rounds::default();
    for _ in 0..ROUNDS {
        rounds.measure(clock, &mut round)?;
    }
    Ok(rounds)
}

fn print(name: &str, reach: &str, ours: &Rounds, details: Value) {
    let value: &dyn Fn(f64) -> f64 = &|seconds| (POINTS * CHUNKS) as f64 / seconds;
    Figure { name, unit: "points/s", value, ours, theirs: None, reach, details }.print();
}

/// Ten chunks of readings, of so many devices in no order.
fn chunks(keys: usize) -> Result<Vec<RecordBatch>> {
    let temperatures = noise(POINTS * CHUNKS);
    (0..CHUNKS)
        .map(|chunk| {
            let rows = chunk * POINTS..(chunk + 1) * POINTS;
            let devices: StringArray =
                rows.clone().map(|row| Some(format!("device-{:06}", device(row, keys)))).collect();
            let values = Float64Array::from(temperatures[rows].to_vec());
            let columns =
                [("device", Arc::new(devices) as ArrayRef), ("temperature", Arc::new(values) as ArrayRef)];
            Ok(RecordBatch::try_from_iter(columns)?)
        })
        .collect()
}

fn device(row: usize, keys: usize) -> usize {
    (row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_right(40) as usize % keys
}

/// Readings round 20, the same in every run.
fn noise(count: usize) -> Vec<f64> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..count).map(|_| 20.0 + (0..12).map(|_| uniform()).sum::<f64>() - 6.0).collect()
}

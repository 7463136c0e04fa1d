//! How many points a second a detector scores, alone and as the whole operator; prints one JSON line a figure.
//!
//! It deliberately compares with nothing: the table of benchmarks puts other libraries' figures beside these.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "constants of this file")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use tidemill::detect::calibrate::{Calibrate, NormalTail};
use tidemill::detect::ewma::{Ewma, raw_scores};
use tidemill::detect::loud::Loud;
use tidemill::detect::{DetectSpec, Detector};
use tidemill::error::Result;
use tidemill::exec::detect::DetectOperator;
use tidemill::exec::keyed::KeyedOperator;
use tidemill::state::key::KeyEncoder;
use tidemill::state::table::KeyTable;
use tidemill::time::{Clock, SystemClock};

const POINTS: usize = 16_384;
const CHUNKS: usize = 10;
const KEYS: usize = 1_000;
const ROUNDS: usize = 15;

fn main() -> Result<()> {
    let bench = Bench { clock: SystemClock::new(), chunks: chunks(KEYS)?, values: noise(POINTS * CHUNKS) };
    bench.stages()?;
    bench.keys()?;
    bench.operator("detect_operator_1000_keys", &bench.chunks)?;
    bench.operator("detect_operator_100000_keys", &chunks(100 * KEYS)?)
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
        self.report("ewma_raw_score_one_key", || {
            raw_scores(Ewma::default(), black_box(&self.values), &mut scores);
            Ok(())
        })?;
        self.report("normal_tail", || {
            NormalTail::Both.p_values(&[], black_box(&scores), &mut p_values);
            Ok(())
        })?;
        let slots: Vec<u32> = (0..POINTS * CHUNKS).map(|row| device(row, KEYS) as u32).collect();
        let mut loud = Loud::new(150);
        loud.grow(KEYS);
        self.report("loud", || {
            black_box(loud.alarms(&slots, &scores, &p_values, 1e-3));
            Ok(())
        })?;
        let (ewma, column) = (Ewma::default(), [Float64Array::from(self.values.clone())]);
        let mut states = ewma.start(1, ewma.threshold())?;
        self.report("ewma_states_1000_keys", || states.update(&slots, &column).map(drop))
    }

    /// From the key column to the slots of its rows.
    fn keys(&self) -> Result<()> {
        let encoder = self.encoder()?;
        self.report("encode_keys", || {
            self.chunks.iter().try_for_each(|rows| encoder.encode(rows).map(|keys| drop(black_box(keys))))
        })?;
        let keys = self.chunks.iter().map(|rows| encoder.encode(rows)).collect::<Result<Vec<_>>>()?;
        let (mut table, mut slots) = (KeyTable::default(), Vec::new());
        self.report("key_table_1000_keys", || keys.iter().try_for_each(|keys| table.slots(keys, &mut slots)))
    }

    /// From a chunk to the chunk with scores, keys included; soon warm, so that rare keys are scored too.
    fn operator(&self, name: &str, chunks: &[RecordBatch]) -> Result<()> {
        let encoder = self.encoder()?;
        let (columns, detector) = (vec!["temperature".to_owned()], Arc::new(Ewma::default().warmup(2)?));
        let spec = DetectSpec { columns, detector, threshold: None, prefix: String::new() };
        let mut operator = DetectOperator::new(spec, &chunks[0].schema())?;
        self.report(name, || {
            chunks.iter().try_for_each(|rows| {
                let scored = operator.apply(rows, &encoder.encode(rows)?)?;
                drop(black_box(scored));
                Ok(())
            })
        })?;
        let (size, each) = (operator.size(), operator.size().bytes / operator.size().keys.max(1));
        println!("{{\"figure\": \"{name}_state\", \"keys\": {}, \"bytes_per_key\": {each}}}", size.keys);
        Ok(())
    }

    fn encoder(&self) -> Result<KeyEncoder> {
        KeyEncoder::new(&self.chunks[0].schema(), &["device"])
    }

    /// Prints the median of some rounds, each over all points, after one to warm up; and the best, which a machine
    /// shared with others disturbs least.
    fn report(&self, name: &str, mut round: impl FnMut() -> Result<()>) -> Result<()> {
        round()?;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let start = self.clock.elapsed();
            round()?;
            times.push(self.clock.elapsed().saturating_sub(start));
        }
        times.sort();
        let nanos = |time: &Duration| time.as_secs_f64() * 1e9 / (POINTS * CHUNKS) as f64;
        let (median, best) = (nanos(&times[ROUNDS / 2]), nanos(&times[0]));
        let rate = 1e9 / median;
        println!(
            "{{\"figure\": \"{name}\", \"points_per_second\": {rate:.0}, \"ns_per_point\": {median:.2}, \
             \"best_ns_per_point\": {best:.2}}}"
        );
        Ok(())
    }
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

//! How many points a second a detector scores, alone and as the whole operator; prints one JSON line a figure.
//!
//! It deliberately compares with nothing: the table of benchmarks puts other libraries' figures beside these.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

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
    let clock = SystemClock::new();
    let chunks = chunks()?;
    let encoder = KeyEncoder::new(&chunks[0].schema(), &["device"])?;
    let keys = chunks.iter().map(|rows| encoder.encode(rows)).collect::<Result<Vec<_>>>()?;

    let (values, mut out) = (noise(POINTS * CHUNKS), Vec::new());
    report("ewma_raw_score_one_key", &clock, || raw_scores(Ewma::default(), black_box(&values), &mut out));

    let mut p_values = Vec::new();
    report("normal_tail", &clock, || NormalTail::Both.p_values(&[], black_box(&out), &mut p_values));

    let slots: Vec<u32> = (0..POINTS * CHUNKS).map(|row| device(row) as u32).collect();
    let mut loud = Loud::new(150);
    loud.grow(KEYS);
    report("loud", &clock, || drop(black_box(loud.alarms(&slots, &out, &p_values, 1e-3))));

    let ewma = Ewma::default();
    let mut states = ewma.start(1, ewma.threshold())?;
    let column = [Float64Array::from(values.clone())];
    report("ewma_states_update_1000_keys", &clock, || drop(black_box(states.update(&slots, &column))));

    report("encode_keys", &clock, || chunks.iter().for_each(|rows| drop(black_box(encoder.encode(rows)))));

    let (mut table, mut slots) = (KeyTable::default(), Vec::new());
    report("key_table_1000_keys", &clock, || {
        keys.iter().for_each(|keys| drop(black_box(table.slots(keys, &mut slots))))
    });

    let spec = DetectSpec {
        columns: vec!["temperature".to_owned()],
        detector: Arc::new(Ewma::default()),
        threshold: None,
        prefix: String::new(),
    };
    let mut operator = DetectOperator::new(spec, &chunks[0].schema())?;
    report("detect_operator_1000_keys", &clock, || {
        chunks.iter().for_each(|rows| {
            let keys = encoder.encode(rows);
            drop(black_box(keys.and_then(|keys| operator.apply(rows, &keys))));
        });
    });
    Ok(())
}

/// Ten chunks of readings, of a thousand devices in no order.
fn chunks() -> Result<Vec<RecordBatch>> {
    let temperatures = noise(POINTS * CHUNKS);
    (0..CHUNKS)
        .map(|chunk| {
            let rows = chunk * POINTS..(chunk + 1) * POINTS;
            let devices: StringArray =
                rows.clone().map(|row| Some(format!("device-{:04}", device(row)))).collect();
            let values = Float64Array::from(temperatures[rows].to_vec());
            let columns =
                [("device", Arc::new(devices) as ArrayRef), ("temperature", Arc::new(values) as ArrayRef)];
            Ok(RecordBatch::try_from_iter(columns)?)
        })
        .collect()
}

fn device(row: usize) -> usize {
    (row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_right(40) as usize % KEYS
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

/// The median of some rounds, each over all points.
fn report(name: &str, clock: &dyn Clock, mut round: impl FnMut()) {
    round();
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = clock.elapsed();
            round();
            clock.elapsed() - start
        })
        .collect();
    times.sort();
    let points = (POINTS * CHUNKS) as f64;
    let seconds = times[ROUNDS / 2].as_secs_f64();
    println!(
        "{{\"figure\": \"{name}\", \"points_per_second\": {:.0}, \"ns_per_point\": {:.2}}}",
        points / seconds,
        seconds * 1e9 / points
    );
}

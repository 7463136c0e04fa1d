//! JSON → 3 of 8 columns on one core: our decoder against arrow-json's, on the same bytes, in turn, in one run.
//!
//! Prints one JSON line a figure. It deliberately reads no topic and starts no thread: what is compared is the work
//! per byte alone. `cargo bench --bench decode [-- records]`.
#![expect(clippy::unwrap_used, reason = "a benchmark ends at a mistake")]

mod figure;
mod readings;

use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use arrow_json::ReaderBuilder;
use serde_json::json;
use tidemill::decode::{DecodeSpec, Decoder, EventTimeSpec, Format, OnBad};
use tidemill::raw::{CHUNK_ROWS, RawChunk};
use tidemill::time::{BatchTime, SystemClock};

use crate::figure::{Figure, Rounds};
use crate::readings::{Style, chunk, full, reading};

const ROUNDS: usize = 7;
const READ: [&str; 3] = ["device", "ts", "temp"];

const STYLES: [Style; 2] =
    [Style { name: "compact", colon: ":", comma: "," }, Style { name: "spaced", colon: ": ", comma: ", " }];

fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    for style in STYLES {
        compare(&Readings::new(asked.unwrap_or(500_000), style), style);
    }
}

/// The same records as chunks, and as lines.
struct Readings {
    chunks: Vec<RawChunk>,
    lines: Vec<Vec<u8>>,
    records: usize,
    bytes: usize,
}

impl Readings {
    fn new(records: usize, style: Style) -> Self {
        let (mut chunks, mut lines, mut bytes) = (Vec::new(), Vec::new(), 0);
        for start in (0..records).step_by(CHUNK_ROWS) {
            let texts: Vec<String> =
                (start..records.min(start + CHUNK_ROWS)).map(|i| reading(i, style)).collect();
            bytes += texts.iter().map(String::len).sum::<usize>();
            lines.push(texts.iter().flat_map(|text| format!("{text}\n").into_bytes()).collect());
            chunks.push(chunk(0, start, &texts));
        }
        Self { chunks, lines, records, bytes }
    }
}

/// Hands over each batch as it comes, as the engine does: a batch is gone before the next is decoded.
type Take<'a> = &'a mut dyn FnMut(RecordBatch);

fn ours(readings: &Readings, take: Take<'_>) {
    let event_time = EventTimeSpec { column: "ts".to_owned(), max_future: Duration::from_hours(1) };
    let mut decoder = Decoder::new(DecodeSpec {
        format: Format::Json(full()),
        metadata: Vec::new(),
        on_bad: OnBad::Fail,
        event_time: Some(event_time),
        columns: Some(READ.map(str::to_owned).to_vec()),
    })
    .unwrap();
    let now = BatchTime(1_800_000_000_000);
    readings.chunks.iter().for_each(|chunk| take(decoder.decode(chunk, now).unwrap().batch));
}

fn theirs(readings: &Readings, take: Take<'_>) {
    let read = READ.map(|name| full().index_of(name).unwrap());
    let schema = Arc::new(full().project(&read).unwrap());
    let mut decoder = ReaderBuilder::new(schema).with_batch_size(CHUNK_ROWS).build_decoder().unwrap();
    for lines in &readings.lines {
        assert_eq!(decoder.decode(lines).unwrap(), lines.len());
        take(decoder.flush().unwrap().unwrap());
    }
}

type Decode = fn(&Readings, Take<'_>);

fn collect(decode: Decode, readings: &Readings) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    decode(readings, &mut |batch| batches.push(batch));
    batches
}

fn compare(readings: &Readings, style: Style) {
    assert!(collect(ours, readings) == collect(theirs, readings), "the two decoders disagree");
    let clock = SystemClock::new();
    let sides: [Decode; 2] = [ours, theirs];
    let mut rounds = [Rounds::default(), Rounds::default()];
    for _ in 0..ROUNDS {
        for (side, rounds) in sides.iter().zip(&mut rounds) {
            rounds.measure(&clock, || side(readings, &mut |batch| drop(std::hint::black_box(batch))));
        }
    }
    let bytes = readings.bytes as f64 / readings.records as f64;
    Figure {
        name: &format!("JSON decode, 3 of 8 columns, {}", style.name),
        unit: "records/s",
        value: &|seconds| readings.records as f64 / seconds,
        ours: &rounds[0],
        theirs: Some((&rounds[1], "arrow-json's decoder")),
        reach: "≥ 4",
        details: json!({"records": readings.records, "bytes a record": bytes.round()}),
    }
    .print();
}
